"""Files of places: bring them in, write them out."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from app.audit import COMMAND_LINE
from app.cli.shell import out, run
from app.doors import registry
from app.places import calendar as calendar_days
from app.places import districts, transfer, unit_files
from app.places.unit_files import ImportedUnits
from app.runtime import Runtime


def import_stations(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV file.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, change nothing.")] = False,
) -> None:
    """Import stations from a CSV file; any bad row imports nothing."""

    async def act(held: Runtime) -> Any:
        async with held.database.write() as tx:
            done = await transfer.import_stations(
                tx,
                held.wakeups,
                file.read_bytes(),
                within=None,
                dry_run=dry_run,
                actor=COMMAND_LINE,
                at=held.now(),
            )
            await registry.furnish(tx, done.new, at=held.now())
            return done

    out.print(run(act).summary())


def import_units(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV file.")],
) -> None:
    """Import units, by names from the root; any bad row imports nothing."""

    async def act(held: Runtime) -> ImportedUnits:
        async with held.database.write() as tx:
            content = file.read_bytes()
            return await unit_files.import_units(tx, content, actor=COMMAND_LINE, at=held.now())

    done = run(act)
    out.print(
        f"units: {done.created} created, {done.amended} amended, {done.unchanged} unchanged",
        soft_wrap=True,
    )


def import_calendar(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV file.")],
) -> None:
    """Import holidays and make-up working days; the years in the file are replaced."""

    async def act(held: Runtime) -> Any:
        async with held.database.write() as tx:
            return await calendar_days.import_days(
                tx, held.wakeups, file.read_bytes(), actor=COMMAND_LINE, at=held.now()
            )

    out.print(f"imported {run(act)} days")


def import_districts(
    file: Annotated[
        Path | None,
        typer.Argument(exists=True, dir_okay=False, help="CSV file; without one, Chongqing's."),
    ] = None,
) -> None:
    """Import districts, with their validity and successors; those that stand are updated."""
    content = file.read_bytes() if file else districts.shipped()

    async def act(held: Runtime) -> int:
        async with held.database.write() as tx:
            return await districts.load(tx, content)

    out.print(f"imported {run(act)} districts")


def export_stations(
    file: Annotated[Path, typer.Argument(dir_okay=False, help="Where to write the CSV.")],
) -> None:
    """Write every station to a CSV file that can be imported again."""

    async def act(held: Runtime) -> None:
        async with held.database.read() as tx:
            content = await transfer.export_stations(tx, await registry.describe_doors(tx))
        await asyncio.to_thread(file.write_bytes, content)

    run(act, writes=False)
    out.print(f"wrote {file}")
