"""Reports as files: any of the catalogue, and the monthly sheets of stations."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import sqlalchemy as sa
import typer
from rich.progress import Progress

from app.cli.options import BranchName, FromDay, OutFile, StationCode, ToDay
from app.cli.output import CALENDAR_UNKNOWN, beside, need_folder, sink, whole
from app.cli.places import ANYWHERE, station_of, unit_id_of, unit_of
from app.cli.progress import shown
from app.cli.shell import err, out, plain_refusals, run
from app.clock import monotonic
from app.places import units
from app.places.rules import CITY_ZONE
from app.places.tables import Station, Unit
from app.reports.answers import Answer, answer, as_csv, as_json, as_workbook, local
from app.reports.asked import Asked, Compare, Format, Report, checked, period_of, scope_of
from app.reports.drawing import draw, plain
from app.reports.ranking import Ranked
from app.reports.rules import Bucket, By
from app.reports.sheet import Terms, gather, month_of
from app.runtime import Runtime

SHEETS_AT_ONCE = 20
"""Sheets that share a typeface; so many are drawn between two moves of the bar."""


def write_report(
    report: Annotated[Report, typer.Option(help="Which one.")],
    from_day: FromDay,
    to_day: ToDay,
    by: Annotated[By, typer.Option(help="One row per what.")] = By.STATION,
    bucket: Annotated[Bucket | None, typer.Option(help="Cut each row into pieces of time.")] = None,
    unit: BranchName = None,
    station: StationCode = None,
    compare: Annotated[
        Compare | None, typer.Option(help="Beside each figure: the period before.")
    ] = None,
    figure: Annotated[Ranked | None, typer.Option(help="Of `ranking`: by what.")] = None,
    form: Annotated[Format, typer.Option("--format", help="How it is written.")] = Format.CSV,
    file: OutFile = None,
) -> None:
    """Write a report of the catalogue to a file, however long, and say how complete it is."""
    if form is Format.XLSX and file is None:
        err.print("refused: a workbook needs a file; say --out FILE")
        raise typer.Exit(2)
    need_folder(file)

    async def ask(held: Runtime) -> Answer:
        days = (await held.calendar.fresh(held.database)).current
        period = period_of(from_day.date(), to_day.date())
        async with held.database.read() as tx:
            branch = await unit_id_of(tx, unit)
            one = None if station is None else (await station_of(tx, station)).id
            asked = checked(Asked(report, period, by, bucket, compare, figure, branch, one))
            retention = timedelta(days=held.settings.retention_days)
            return await answer(
                tx,
                asked,
                await scope_of(tx, ANYWHERE, asked, days, retention=retention, at=held.now()),
                silence=timedelta(seconds=held.settings.controller_silence_s),
                streams=True,
                is_whole_city=branch is None and one is None,
            )

    def act(into: Path | None) -> Callable[[Runtime], Awaitable[tuple[int, Answer]]]:
        async def write(held: Runtime) -> tuple[int, Answer]:
            found = await ask(held)
            where, parts = beside(file), found.portions
            with shown(report.value, parts, console=where, monotonic=monotonic) as step:
                return await _write(held, found, form, into, step), found

        return write

    with plain_refusals(), whole(file) as into:
        rows, found = run(act(into), writes=False)
    said = out if file else err
    said.print(f"wrote {rows:,} rows" + (f" to {file}" if file else ""))
    for line in _facts(found):
        said.print(line)


def _facts(found: Answer) -> Iterator[str]:
    """Say of the rows what a table cannot, under the names that the JSON has."""
    known = found.known
    over = f"{known.days_over} of {known.days_asked} days are over"
    yield f"completeness: {over}, {known.days_counted} of them counted"
    yield f"rolled_up_to: {local(found.counted.rolled_up_to)}"
    if found.counted.recounting:
        yield "recounting: some days are being counted anew, figures may still change"
    if found.calendar_known is False:
        yield CALENDAR_UNKNOWN
    for reason, count in (found.nowhere or {}).items():
        yield f"refused_without_station.{reason}: {count:,}"


async def _write(
    held: Runtime, found: Answer, form: Format, into: Path | None, step: Callable[[], None]
) -> int:
    """Write it, and step on with every portion; gives how many rows it has."""
    written = 0

    def note(rows: int) -> None:
        nonlocal written
        written += rows
        step()

    read = held.database.read
    if form is Format.XLSX and into is not None:
        await as_workbook(read, found, into, note)
        return written
    make = as_json if form is Format.JSON else as_csv
    with sink(into) as file:
        async for piece in make(read, found, note):
            file.write(piece)
    return written


def export_sheets(
    month: Annotated[str, typer.Option(help="Such as 2026-10.")],
    folder: Annotated[Path, typer.Argument(file_okay=False, help="Where to write the PDFs.")],
    unit: BranchName = None,
    station: StationCode = None,
) -> None:
    """Write the sheets of a month, one PDF page each: of all stations then in use, or of one."""

    async def act(held: Runtime) -> int:
        period = month_of(month)
        folder.mkdir(parents=True, exist_ok=True)
        retention = timedelta(days=held.settings.retention_days)
        days = await held.calendar.fresh(held.database)
        async with held.database.read() as tx:
            begins, ends = period.instants(CITY_ZONE)
            was_there = sa.and_(
                Station.created_at < ends,
                sa.or_(Station.retired_at.is_(None), Station.retired_at > begins),
            )
            query = sa.select(Station).where(was_there).order_by(Station.code)
            if unit is not None:
                branch = await unit_of(tx, unit)
                below = sa.select(Unit.id).where(units.under(branch.path))
                query = query.where(Station.unit_id.in_(below))
            if station is not None:
                query = query.where(Station.id == (await station_of(tx, station)).id)
            found = (await tx.scalars(query)).all()
        with Progress(console=err) as progress:
            bar = progress.add_task("sheets", total=len(found))
            for start in range(0, len(found), SHEETS_AT_ONCE):
                sheets = []
                for each in found[start : start + SHEETS_AT_ONCE]:
                    local = held.now().astimezone(ZoneInfo(each.timezone))
                    async with held.database.read() as tx:
                        terms = Terms(local, days.current, retention)
                        sheets.append(await gather(tx, each, period, terms))
                pages = await asyncio.to_thread(draw, [plain(sheet) for sheet in sheets])
                for sheet, pdf in zip(sheets, pages, strict=True):
                    (folder / f"{sheet.code}-{month}.pdf").write_bytes(pdf)
                progress.advance(bar, len(sheets))
        return len(found)

    number = run(act, writes=False)
    out.print(f"wrote {number} sheets to {folder}")
