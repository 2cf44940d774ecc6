"""make bench: measures group by group, prints tables, writes docs/benchmarks.md."""

import argparse
import asyncio
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import fleet, journal, nearby, polls, record, reports, scans
from benchmarks.ground import Ground, Group, console
from tests.support.postgres import running_postgres

GROUPS = {
    "scans": scans.GROUP,
    "polls": polls.GROUP,
    "fleet": fleet.GROUP,
    "journal": journal.GROUP,
    "nearby": nearby.GROUP,
    "reports": reports.GROUP,
}
"""In the order of the document."""


def measured(group: Group, scale: float) -> str:
    """Measure one group on a PostgreSQL of its own; gives its section."""
    began = time.monotonic()
    with (
        running_postgres(settings=group.postgres) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        lines = asyncio.run(_lines(group, Ground(server, Path(folder), scale)))
    record.show(group.title, lines, console)
    console.print(f"{group.title}: {time.monotonic() - began:.0f} s")
    return record.section(group.about, lines, on=datetime.now(UTC).date(), where=record.machine())


async def _lines(group: Group, ground: Ground) -> list[record.Line]:
    return list(await group.measure(ground))


def main() -> None:
    """Measure the groups that are named, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="sizes are multiplied by this; below 1 it is a trial, and nothing is written",
    )
    wanted = parser.parse_args()
    if unknown := set(wanted.groups) - GROUPS.keys():
        parser.error(f"no such group: {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    titles = [group.title for group in GROUPS.values()]
    for name in wanted.groups or GROUPS:
        group = GROUPS[name]
        console.rule(group.title)
        written = measured(group, wanted.scale)
        if wanted.scale >= 1:
            # At once: what a later group breaks takes nothing away.
            record.keep(titles, {group.title: written})
            console.print(f"wrote docs/{record.DOCUMENT.name}")


if __name__ == "__main__":
    main()
