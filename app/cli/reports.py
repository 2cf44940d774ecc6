"""Reports as files: a sheet of every station."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import sqlalchemy as sa
import typer
from rich.progress import Progress

from app.cli.places import unit_of
from app.cli.shell import err, out, run
from app.places import units
from app.places.tables import Station, Unit
from app.reports.drawing import draw, plain
from app.reports.sheet import Terms, gather, month_of
from app.runtime import Runtime

SHEETS_AT_ONCE = 20
"""Sheets that share a typeface; so many are drawn between two moves of the bar."""


def export_sheets(
    month: Annotated[str, typer.Option(help="Such as 2026-10.")],
    folder: Annotated[Path, typer.Argument(file_okay=False, help="Where to write the PDFs.")],
    unit: Annotated[str | None, typer.Option(help="Name or path of a branch; else all.")] = None,
) -> None:
    """Write the monthly sheet of every station in use, one PDF page each."""
    folder.mkdir(parents=True, exist_ok=True)

    async def act(held: Runtime) -> int:
        period = month_of(month)
        retention = timedelta(days=held.settings.retention_days)
        days = await held.calendar.fresh(held.database)
        async with held.database.read() as tx:
            query = sa.select(Station).where(Station.retired_at.is_(None)).order_by(Station.code)
            if unit is not None:
                branch = await unit_of(tx, unit)
                below = sa.select(Unit.id).where(units.under(branch.path))
                query = query.where(Station.unit_id.in_(below))
            found = (await tx.scalars(query)).all()
        with Progress(console=err) as progress:
            bar = progress.add_task("sheets", total=len(found))
            for start in range(0, len(found), SHEETS_AT_ONCE):
                sheets = []
                for station in found[start : start + SHEETS_AT_ONCE]:
                    local = held.now().astimezone(ZoneInfo(station.timezone))
                    async with held.database.read() as tx:
                        terms = Terms(local, days.current, retention)
                        sheets.append(await gather(tx, station, period, terms))
                pages = await asyncio.to_thread(draw, [plain(sheet) for sheet in sheets])
                for sheet, pdf in zip(sheets, pages, strict=True):
                    (folder / f"{sheet.code}-{month}.pdf").write_bytes(pdf)
                progress.advance(bar, len(sheets))
        return len(found)

    number = run(act, writes=False)
    out.print(f"wrote {number} sheets to {folder}")
