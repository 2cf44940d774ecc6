"""The command line: parse, open a transaction, call the operation.

Exit codes: 0 done; 1 refused, with the reason in one line; 2 unusable arguments; 75 another process
writes to the data folder; 78 unusable settings (sysexits.h: EX_TEMPFAIL, EX_CONFIG).
"""

from collections.abc import Callable, Mapping

import typer

from app.cli import accounts, field, files, history, keys, reports, serving, whatif, work

app = typer.Typer(
    name="yizhan",
    help="工会驿站 Smart rest stations: scan to open, visits, occupancy, reports.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
COMMANDS: Mapping[str, Callable[..., None]] = {
    "serve": serving.serve,
    "migrate": serving.migrate,
    "demo": serving.demo,
    "generate": history.generate,
    "conformance": field.conformance,
    "agent": field.agent,
    "fleet": field.fleet,
    "report": reports.write_report,
    "what-if": whatif.replay_scans,
}
for word, command in COMMANDS.items():
    app.command(word)(command)

GROUPS: Mapping[str, tuple[str, Mapping[str, Callable[..., None]]]] = {
    "admin": ("Administrators' accounts.", {"create": accounts.create_admin}),
    "key": (
        "Signing keys.",
        {"list": keys.list_keys, "rotate": keys.rotate_key, "retire": keys.retire_key},
    ),
    "import": (
        "Bring files in.",
        {
            "units": files.import_units,
            "stations": files.import_stations,
            "calendar": files.import_calendar,
            "districts": files.import_districts,
        },
    ),
    "export": (
        "Write files out.",
        {"stations": files.export_stations, "sheets": reports.export_sheets},
    ),
    "job": ("Periodic work.", {"run": work.run_job}),
}
for name, (about, commands) in GROUPS.items():
    group = typer.Typer(help=about, no_args_is_help=True)
    for word, command in commands.items():
        group.command(word)(command)
    app.add_typer(group, name=name)
