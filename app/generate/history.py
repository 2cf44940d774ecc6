"""Make a history: the city, then day by day, in one transaction that leaves all or nothing."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from app.clock import Monotonic, monotonic
from app.db.bulk import bulk_load, require_empty, tidy
from app.db.engine import Database
from app.db.types import table_of
from app.doors.tables import Command, JournalEntry, OfflineEntry, Scan
from app.generate.crowd import Rhythm
from app.generate.day import draw_day
from app.generate.events import Whereabouts
from app.generate.founding import draw_city
from app.generate.plan import Made, Phase, Plan, Progress
from app.generate.rows import Drawn
from app.people.tables import Consent, Worker
from app.places.tables import Station, StationModes, Unit
from app.visits.tables import FacilityUse, Visit, WalkInCount

LOADED = tuple(
    table_of(kind)
    for kind in (
        Worker,
        Consent,
        Visit,
        Scan,
        Command,
        FacilityUse,
        WalkInCount,
        StationModes,
        JournalEntry,
        OfflineEntry,
    )
)
"""The great tables, whose indexes and keys are made when the rows are there."""

PLACES = tuple(table_of(kind) for kind in (Unit, Station))
"""What is written row by row, and must not be there either."""


@dataclass
class _Stopwatch:
    """Adds the time since it was last read to a phase."""

    clock: Monotonic
    made: Made
    since: float = field(init=False)

    def __post_init__(self) -> None:
        self.since = self.clock()

    def note(self, phase: Phase) -> None:
        now = self.clock()
        self.made.seconds[phase] = self.made.seconds.get(phase, 0.0) + now - self.since
        self.since = now


async def generate(
    database: Database,
    plan: Plan,
    progress: Progress = lambda phase, done, total: None,
    *,
    clock: Monotonic = monotonic,
) -> Made:
    """Fill an empty, migrated database with the history of a plan; raises NotEmpty.

    Everything is written in one transaction: after a crash the database is as empty as before,
    and a server sees the finished history or none.
    """
    made = Made(stations=plan.stations, workers=plan.people)
    watch = _Stopwatch(clock, made)

    def note(name: str, done: int, total: int) -> None:
        watch.note(Phase(name))
        progress(Phase(name), done, total)

    async with bulk_load(database, LOADED, note) as load:
        await require_empty(load.tx, [table.name for table in PLACES])
        blueprint = await asyncio.to_thread(draw_city, plan)
        await blueprint.write(load)
        city = blueprint.city
        rhythm = await asyncio.to_thread(Rhythm, city)
        note(Phase.PLACES, 1, 1)

        def drawn(index: int, before: Whereabouts) -> Callable[[], Drawn]:
            return lambda: draw_day(city, rhythm, index, before)

        # While one day is written, the next is drawn.
        coming = asyncio.create_task(asyncio.to_thread(drawn(0, Whereabouts.nowhere(city))))
        try:
            for index in range(plan.days):
                day = await coming
                if index + 1 < plan.days:
                    coming = asyncio.create_task(asyncio.to_thread(drawn(index + 1, day.after)))
                for table, rows in day.rows:
                    await load.add(table, rows)
                _count(made, day)
                note(Phase.HISTORY, index + 1, plan.days)
        finally:
            coming.cancel()
    watch.note(Phase.KEYS)
    await tidy(database, LOADED)
    note(Phase.TIDYING, 1, 1)
    return made


def _count(made: Made, day: Drawn) -> None:
    for name in ("visits", "scans", "refused", "commands", "uses", "head_counts", "alone"):
        setattr(made, name, getattr(made, name) + getattr(day, name))
