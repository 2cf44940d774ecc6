"""Where a figure beside the period before comes from: what was counted on the days of each class.

What came on the days that are over, what the period before comes to with as many days of each
class, and the change are made of the same counters as the figure itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from app.reports.cells import Cell
from app.reports.comparing import FIGURES, compared, pair
from app.reports.frame import Frame, Part
from app.reports.made import KNOWN, Made, made_of
from app.reports.queries import REPORTS, rows_of
from app.reports.rules import Class, Slot
from app.reports.rules.slots import ranges_of
from app.reports.source import Counter, counted

OVER, BEFORE, CHANGE = "_over", "_before", "_change"
OF_BEFORE = {"before_known_share": KNOWN, "before_reported_share": "reported_share"}
"""What says how complete the period before is."""
_OF = {OVER: (False,), BEFORE: (True,), CHANGE: (True, False)}
"""Of which periods a column is, by its ending: whether of the one before."""


class Beside(NamedTuple):
    """A column that is set beside a figure."""

    column: str
    figure: str
    ending: str


def beside_of(report: str, column: str) -> Beside | None:
    """Read the name of a column of a report that is compared; None where it is no such."""
    figures = FIGURES.get(report, ())
    if figures and column in OF_BEFORE:
        return Beside(column, OF_BEFORE[column], BEFORE)
    for ending in (OVER, BEFORE, CHANGE):
        figure = column.removesuffix(ending)
        if column.endswith(ending) and figure in figures:
            return Beside(column, figure, ending)
    return None


@dataclass(frozen=True, slots=True)
class OnDays:
    """What was counted on the days of one class, in the period or in the one before."""

    is_before: bool
    day_class: Class
    days: int
    """How many of them are over and compared."""
    counters: Sequence[Counter]
    """The figure's; `measured_ms` is how much of these days is known."""


@dataclass(frozen=True, slots=True)
class Told:
    """Where a figure beside the period before comes from."""

    value: Any
    """Of all kinds of facilities, by kind."""
    known_share: float
    counters: Sequence[Counter]
    """Summed up; of a change those of the period itself."""
    on_days: Sequence[OnDays]
    """Of both periods where one is weighed to the days of the other."""
    rollups: int
    rolled_from: datetime | None
    rolled_to: datetime | None
    days: Sequence[date]
    """All that were asked about; of both periods, where the figure is of both."""
    cell: Cell | None
    """Whose rows were counted; None: no day is over."""


async def source_beside(tx: AsyncSession, cell: Cell, report: str, asked: Beside) -> Told:
    """Say where a column beside a figure of a row comes from; raises PeriodInvalid."""
    made = made_of(report, asked.figure) or Made()
    # Before there may have been stations of which nothing is told since.
    scope = replace(cell.scope, stations=cell.stations)
    found = await pair(tx, scope, report, is_at_once=True)
    rows = [
        row
        for row in await rows_of(tx, cell.part, REPORTS[report])
        if row.hour == cell.hour and cell.kind in (None, getattr(row, "kind", None))
    ]
    beside = await compared(tx, scope, report, rows)
    columns = [dict(zip(beside.columns, some, strict=True)) for some in beside.rows]
    values = [one[asked.column] for one in columns]
    value: Any = values[0] if values else None
    if report == "facilities" and cell.kind is None:
        value = {row.kind.value: one for row, one in zip(rows, values, strict=True)}
    known = float(cell.part.known.shares[cell.row])
    if asked.ending == BEFORE:
        known = next((one["before_known_share"] for one in columns), None) or 0.0
    classes = {base.day_class for base in found.now.slots.bases}
    classes &= {base.day_class for base in found.then.slots.bases}
    classes -= {name for one in columns for name in one["left_out_classes"]}
    sides = {True: found.then, False: found.now}
    of = _OF[asked.ending]
    is_weighed = True in of and asked.column not in OF_BEFORE
    on_days, used, days = list[OnDays](), list[Any](), list[date]()
    for is_before in (True, False) if is_weighed else of:
        side = sides[is_before]
        for base in side.slots.bases:
            if base.day_class is None or base.day_class not in classes:
                continue
            mine = list(base.days)
            each = await counted(
                tx,
                _cell(side, base, cell),
                replace(made, times=list(dict.fromkeys([*made.times, "measured_ms"]))),
            )
            on_days.append(OnDays(is_before, base.day_class, len(mine), each.counters))
            if is_before in of:
                used.append(each)
                days += mine
    ranges = ranges_of(sorted(days))
    return Told(
        value,
        known,
        _summed(one for one in on_days if one.is_before is (asked.ending == BEFORE)),
        on_days,
        sum(one.rollups for one in used),
        min((one.rolled_from for one in used if one.rolled_from), default=None),
        max((one.rolled_to for one in used if one.rolled_to), default=None),
        [day for is_before in of for day in sides[is_before].scope.period.days],
        _cell(sides[of[-1]], Slot(ranges), cell) if days else None,
    )


def _cell(side: Frame, slot: Slot, cell: Cell) -> Cell:
    """Give the same row, of other days."""
    made = replace(side, slots=replace(side.slots, bases=[slot]))
    return replace(cell, part=Part(made, 0, 1))


def _summed(some: Any) -> Sequence[Counter]:
    sums: dict[str, int] = {}
    for one in some:
        for counter in one.counters:
            sums[counter.name] = sums.get(counter.name, 0) + counter.sum
    return [Counter(name, value) for name, value in sums.items()]
