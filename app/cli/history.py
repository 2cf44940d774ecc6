"""Months of a believable city's history, made by seed."""

from datetime import date, datetime
from typing import Annotated

import typer
from rich.progress import Progress

from app.cli.shell import err, out, run
from app.generate import plan as generation
from app.generate.history import generate as generate_history
from app.places.rules import CITY_ZONE, local_day
from app.runtime import Runtime


def generate(
    stations: Annotated[int, typer.Option(min=1, max=30_000, help="How many stations.")] = 5523,
    days: Annotated[int, typer.Option(min=1, max=3660, help="How many days of history.")] = 365,
    visits_per_station_day: Annotated[
        float, typer.Option(min=0.01, max=1000, help="On average.")
    ] = 12.4,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same history.")] = 1,
    until: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="First day without history; today if not said."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many people; else as the visits suggest.")
    ] = None,
    keep_names: Annotated[
        bool, typer.Option("--keep-names", help="Let old visits name workers, past retention.")
    ] = False,
) -> None:
    """Fill an empty database with months of a believable city's history."""

    async def act(held: Runtime) -> generation.Made:
        try:
            plan = generation.Plan(
                stations=stations,
                days=days,
                until=until.date() if until else _today(held),
                visits_per_station_day=visits_per_station_day,
                seed=seed,
                workers=workers,
                retention_days=None if keep_names else held.settings.retention_days,
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        with Progress(console=err) as progress:
            bars = {phase: progress.add_task(phase.value, total=None) for phase in generation.Phase}

            def show_progress(phase: generation.Phase, done: int, total: int) -> None:
                progress.update(bars[phase], completed=done, total=total)

            return await generate_history(held.database, plan, show_progress)

    made = run(act)
    out.print(
        f"made {made.visits:,} visits and {made.scans:,} scans ({made.refused:,} refused), "
        f"{made.commands:,} commands, {made.uses:,} uses, {made.head_counts:,} head counts "
        f"and {made.alone:,} passes by which boxes opened alone "
        f"at {made.stations:,} stations by {made.workers:,} workers",
        soft_wrap=True,
    )
    parts = ", ".join(f"{phase.value} {seconds:.1f}" for phase, seconds in made.seconds.items())
    out.print(
        f"in {made.total_seconds:.1f} s ({parts}): {made.visits_per_second:,.0f} visits a second",
        soft_wrap=True,
    )
    out.print(
        "next: yizhan admin create --username NAME --role city_admin, then yizhan serve, which "
        "counts the history (or count it now: yizhan job run roll-up)",
        soft_wrap=True,
    )


def _today(held: Runtime) -> date:
    return local_day(held.now(), CITY_ZONE)
