"""Where a figure comes from: what was counted for it, and how complete that is.

Every figure names the counters that its formula is made of, and the raw rows that they count: of
any cell of a report, cut as the report is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.reports.cells import Cell
from app.reports.made import HISTOGRAMS, KNOWN, Made, made_of
from app.reports.queries import REPORTS, controllers, rows_of
from app.reports.ranking import Ranked, ranking
from app.reports.rows import RankingRow
from app.reports.rules import By
from app.reports.rules.counters import (
    COMMAND,
    COMMANDS,
    FACILITY,
    FACILITY_KINDS,
    PER_KIND,
    REASON,
    REASONS,
    REPAIR,
    REPAIR_SPREAD,
    SPREAD,
    C,
    repairs,
)
from app.reports.rules.day import QUARTER_MS
from app.reports.sums import Sums, read, used


@dataclass(frozen=True, slots=True)
class Counter:
    """One counter of a cell."""

    name: str
    sum: int
    """Durations are milliseconds, quantities thousandths."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a figure comes from."""

    value: Any
    """The figure of the cell; of all kinds of facilities, by kind; None where it is not summed
    from counters."""
    known_share: float
    counters: Sequence[Counter]
    rollups: int
    """How many sums of spans of time were added up."""
    rolled_from: datetime | None
    """When the oldest of them was counted."""
    rolled_to: datetime | None


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted for a figure, and by how many sums."""

    counters: Sequence[Counter]
    rollups: int
    rolled_from: datetime | None
    rolled_to: datetime | None


async def counted(tx: AsyncSession, cell: Cell, made: Made) -> Counted:
    """Give the counters of a figure of a cell."""
    sums = await read(tx, cell.part, made.ask)
    return Counted(list(_counters(sums, cell, made)), *await used(tx, cell.part, made.ask))


async def source(
    tx: AsyncSession, cell: Cell, report: str, figure: str, ranked: Ranked = Ranked.VISITS
) -> Source:
    """Say where a figure of a row of a report comes from; `ranked` is by what stations are."""
    found = await counted(tx, cell, made_of(report, figure, ranked) or Made())
    known = float(cell.part.known.shares[cell.row])
    value = known if figure == KNOWN else await _value(tx, cell, report, figure, ranked)
    return Source(value, known, found.counters, found.rollups, found.rolled_from, found.rolled_to)


def _counters(sums: Sums, cell: Cell, made: Made) -> Iterator[Counter]:
    """Give all that was summed up for a figure of a cell."""
    row = cell.row
    for number in made.counters:
        yield Counter(_name(number), int(sums[number][row]))
    if made.histogram is not None and made.histogram != REPAIR:
        name, ends = HISTOGRAMS[made.histogram], made.histogram + SPREAD
        yield Counter(name, _entries(sums, cell, made.histogram, ends))
    for place, kind in enumerate(FACILITY_KINDS if made.kinds else ()):
        if cell.kind is not None and cell.kind.value != kind:
            continue
        for counter in made.kinds:
            number = FACILITY + PER_KIND * place + counter
            if found := int(sums[number][row]):
                yield Counter(f"{kind}.{counter.name.lower()}", found)
        if made.histogram == REPAIR:
            begins = repairs(kind)
            if found := _entries(sums, cell, begins, begins + REPAIR_SPREAD):
                yield Counter(f"{kind}.repair_histogram", found)
    if made.has_sets and (workers := sums.uniques[row]) is not None:
        yield Counter("distinct_workers", workers)
    for name in made.times:
        yield Counter(name, int(getattr(cell.part.known, name)[row]))
    if made.has_peaks:
        yield from _greatest(sums, row, is_mean=bool(made.times))


def _greatest(sums: Sums, row: int, *, is_mean: bool) -> Iterator[Counter]:
    """Give the person-time of the greatest quarter hour, or the most who were inside at once."""
    peak, most = sums.peaks[row], sums.most_inside[row]
    if is_mean and peak is not None:
        yield Counter("quarter_person_ms", round(peak[0] * QUARTER_MS))
    elif not is_mean and most is not None:
        yield Counter("most", most)


def _entries(sums: Sums, cell: Cell, begins: int, ends: int) -> int:
    """Count what a histogram of a cell is of."""
    return int(sums.between(begins, ends)[1][:, cell.row].sum())


async def _value(tx: AsyncSession, cell: Cell, report: str, figure: str, ranked: Ranked) -> Any:
    if report == "ranking" and cell.scope.by is By.STATION:
        columns = await ranking(tx, cell.scope, ranked)
        return columns[RankingRow._fields.index(figure)][0]
    if report == "controllers" and cell.scope.by is By.STATION:
        # Since when a controller is silent is asked of no figure.
        boxes = await controllers(tx, cell.scope, silent_since=cell.scope.at)
        return getattr(boxes[cell.row], figure)
    if report not in REPORTS:
        return None
    rows = await rows_of(tx, cell.part, REPORTS[report])
    if report != "facilities":
        return getattr(rows[cell.row], figure)
    found = {row.kind.value: getattr(row, figure) for row in rows if row.hour == cell.hour}
    return found if cell.kind is None else found.get(cell.kind.value)


def _name(number: int) -> str:
    if REASON <= number < REASON + len(REASONS):
        return f"refused.{REASONS[number - REASON].value}"
    if COMMAND <= number < COMMAND + len(COMMANDS):
        return f"commands.{COMMANDS[number - COMMAND].value}"
    return C(number).name.lower()
