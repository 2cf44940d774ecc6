"""What-if by command: a month or a year of the city under other rules, and how far it is."""

import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from app.api.admin.whatif import ChangeIn, WhatIfIn, about, as_json, known_of, wanted_of
from app.api.words import ASSUMPTIONS, Language
from app.cli.options import BranchName, FromDay, OutFile, StationCode, ToDay
from app.cli.output import CALENDAR_UNKNOWN, beside, need_folder, sink, whole
from app.cli.places import ANYWHERE, station_of, unit_id_of
from app.cli.progress import shown
from app.cli.shell import err, out, plain_refusals, run
from app.clock import monotonic
from app.errors import RequestInvalid
from app.reports.asked import Format
from app.reports.rules import Bucket, By
from app.reports.whatif import WhatIf, portions, what_if
from app.reports.whatif_table import as_csv, as_workbook
from app.runtime import Runtime


def replay_scans(
    from_day: FromDay,
    to_day: ToDay,
    change: Annotated[
        Path,
        typer.Option(
            help="JSON file of what is supposed, as the API's `change`; - is standard input.",
        ),
    ],
    by: Annotated[By, typer.Option(help="One row per what.")] = By.STATION,
    bucket: Annotated[Bucket | None, typer.Option(help="Cut each row into pieces of time.")] = None,
    unit: BranchName = None,
    station: StationCode = None,
    form: Annotated[Format, typer.Option("--format", help="How it is written.")] = Format.CSV,
    file: OutFile = None,
) -> None:
    """Decide recorded scans again under other rules: who would have come in, where and when.

    The file of --change says what is supposed to have been otherwise, such as
    {"access_hours": null, "capacity": 12, "max_stay_min": 90, "ignore": ["override"]}
    with hours as in a station's description; see docs/what-if.md.
    """
    if form is Format.XLSX and file is None:
        err.print("refused: a workbook needs a file; say --out FILE")
        raise typer.Exit(2)
    need_folder(file)

    async def act(held: Runtime) -> tuple[WhatIfIn, WhatIf, datetime]:
        at = held.now()
        days = (await held.calendar.fresh(held.database)).current
        async with held.database.read() as tx:
            asked = WhatIfIn.model_validate(
                {
                    "from": from_day.date(),
                    "to": to_day.date(),
                    "unit": await unit_id_of(tx, unit),
                    "station": None if station is None else (await station_of(tx, station)).id,
                    "change": supposed,
                    "by": by,
                    "bucket": bucket,
                }
            )
            wanted = await wanted_of(tx, ANYWHERE, asked, held.settings, at=at)
            parts = await portions(tx, wanted.scope)
        where = beside(file)
        with shown("what-if", parts, console=where, monotonic=monotonic) as step:
            found = await what_if(held.database, days, wanted, lambda _stations: step())
        return asked, found, at

    with plain_refusals(), whole(file) as into:
        supposed = _read(change)
        asked, found, at = run(act, writes=False)
        if form is Format.XLSX and into is not None:
            as_workbook(found, into, about(asked, found, at=at))
        else:
            text = (
                as_csv(found) if form is Format.CSV else as_json(asked, found, Language.EN, at=at)
            )
            with sink(into) as written:
                written.write(text)
    said = out if file else err
    said.print(f"wrote {len(found.rows):,} rows" + (f" to {file}" if file else ""))
    for line in _facts(asked, found, at=at):
        said.print(line, soft_wrap=True)


def _read(change: Path) -> ChangeIn:
    """Read what is supposed; raises RequestInvalid."""
    content = sys.stdin.buffer.read() if change == Path("-") else change.read_bytes()
    try:
        return ChangeIn.model_validate_json(content)
    except ValidationError as error:
        errors = [
            {"loc": ["body", "change", *each["loc"]], "message": each["msg"]}
            for each in error.errors()
        ]
        raise RequestInvalid(f"{change} is not what can be supposed", errors=errors) from error


def _facts(asked: WhatIfIn, found: WhatIf, *, at: datetime) -> Iterator[str]:
    """Say of the rows what a table cannot, under the names that the JSON has."""
    known, totals = known_of(asked, at=at), found.totals
    yield f"completeness: {known.days_over} of {known.days_asked} days are over"
    if found.calendar_known is False:
        yield CALENDAR_UNKNOWN
    yield f"scans: {found.scans:,}, {found.without_mode:,} more without a mode"
    if found.without_station is not None:
        yield f"without_station: {found.without_station:,}"
    yield f"newly_let_in: {totals.newly_let_in:,}"
    yield f"newly_let_in_again: {totals.newly_let_in_again:,}"
    yield f"newly_turned_away: {totals.newly_turned_away:,}"
    if found.amended_since is not None:
        yield f"amended_since: {found.amended_since:,}"
    yield f"stays: by_median {found.stays.by_median:,}, by_longest {found.stays.by_longest:,}"
    for each in found.assumes:
        yield f"{each.value}: {ASSUMPTIONS[each][Language.EN]}"
