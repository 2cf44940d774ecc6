"""The reports: visits, access, occupancy, facilities, promise, controllers; all of them from sums.

Every function takes the stations it may speak of, so no report can forget the scope. A row without
any event has zeros; what cannot be known (a day to come, a station that was not yet registered,
workers beyond retention) is None, and so is a rate with nothing to divide by. Every rate has what
it was divided of and by among the fields of its row. Rows are computed column by column, a part of
a report at a time, beside the loop that doors wait on.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.types import table_of
from app.doors.rules import CommandState, Reason
from app.doors.tables import Controller, Scan
from app.places.spells import is_out_since
from app.places.tables import Facility, FacilityKind, FacilityStatus, Station
from app.reports.columns import (
    Bools,
    Column,
    Ints,
    Withheld,
    exact,
    hours,
    means,
    rates,
    rounded,
    shown,
)
from app.reports.frame import Frame, Part, base_of, frame
from app.reports.grouped import key_of
from app.reports.rows import (
    AccessRow,
    ControllersRow,
    FacilitiesRow,
    OccupancyRow,
    PromiseRow,
    VisitsRow,
)
from app.reports.rules import By, Period
from app.reports.rules.counters import (
    COMMAND,
    DECIDE,
    DOOR,
    DWELL,
    FACILITY,
    FACILITY_KINDS,
    PER_KIND,
    PICKUP,
    PULSE,
    REASON,
    REASONS,
    TIMED,
    C,
    F,
    command,
    facility,
    repairs,
)
from app.reports.rules.rates import COVERAGE, MINUTES, SECONDS
from app.reports.scope import Scope
from app.reports.spreads import NONE, REPAIRS, percentiles
from app.reports.sums import Ask, Sums, read, read_apart

LONG_OUT = timedelta(hours=72)
"""A fault that is open for longer is told apart (metrics 36)."""

VISITS = (C.VISITS_FREE, C.VISITS_SCAN, C.VISITS_OFFLINE)
NOT_EXECUTED = (
    C.UNLOCK_REFUSED,
    C.UNLOCK_FAILED,
    C.UNLOCK_EXPIRED,
    C.UNLOCK_UNKNOWN,
    C.UNLOCK_LIVE,
)
"""What else becomes of a granted scan, in the order of the report's fields."""


async def visits(tx: AsyncSession, scope: Scope) -> Sequence[VisitsRow]:
    """Count visits, persons, workers, refusals and stays."""
    return await rows(tx, scope, REPORTS["visits"])


async def access(tx: AsyncSession, scope: Scope) -> Sequence[AccessRow]:
    """Count decisions, refusals by reason, and how fast doors were opened."""
    return await rows(tx, scope, REPORTS["access"])


async def occupancy(tx: AsyncSession, scope: Scope) -> Sequence[OccupancyRow]:
    """Say who was inside over the places' own local days.

    A stay counts in every piece of time that it touches, unlike a visit, which belongs to where it
    began.
    """
    return await rows(tx, scope, REPORTS["occupancy"])


async def facilities(tx: AsyncSession, scope: Scope) -> Sequence[FacilitiesRow]:
    """Count the uses of facilities by kind: kinds that stand there, and kinds that were used."""
    return await rows(tx, scope, REPORTS["facilities"])


async def promise(tx: AsyncSession, scope: Scope) -> Sequence[PromiseRow]:
    """Say for how long stations could be used while they were promised to be open."""
    return await rows(tx, scope, REPORTS["promise"])


async def controllers(
    tx: AsyncSession, scope: Scope, *, silent_since: datetime
) -> Sequence[ControllersRow]:
    """Give every station's controller and what became of its commands; by station only."""
    enrolled = {
        row.station_id: row
        for row in await tx.execute(
            sa.select(
                Controller.station_id, Controller.serial, Controller.firmware, Controller.seen_at
            ).where(Controller.station_id.in_(scope.stations), Controller.retired_at.is_(None))
        )
    }
    rows: list[ControllersRow] = []
    for part in (await frame(tx, scope)).parts():
        sums = await read(tx, part, Ask(_OF_CONTROLLERS, spreads=[PICKUP]))
        rows += _controllers(part, sums, enrolled, silent_since)
    return rows


class There(NamedTuple):
    """What of one kind is at each place now."""

    units: Ints
    long_out: Ints
    """Of the facilities, those that are out of order with a fault longer than LONG_OUT."""


Standing = Mapping[FacilityKind, There]
Columns = Sequence[Column]
"""Rows turned on their side: one column for each field."""


@dataclass(frozen=True, slots=True)
class Report:
    """A report whose rows are computed from sums alone."""

    row: type[Any]
    """A named tuple."""
    ask: Ask
    columns: Callable[[Part, Sums, Standing], Columns]
    has_things: bool = False
    """Whether it speaks of what stands at the places."""

    @property
    def brief(self) -> "Report":
        """The same of counters of one number each: what takes more is not to be read in it.

        That is distinct workers, peaks, and whatever comes of reasons, facilities and histograms.
        """
        return replace(self, ask=Ask([one for one in self.ask.ranges if one[1] <= REASON]))

    def rows(self, part: Part, sums: Sums, standing: Standing) -> Sequence[Any]:
        """Compute the rows of a part, each by itself."""
        return list(map(self.row._make, zip(*self.columns(part, sums, standing), strict=True)))


async def rows(tx: AsyncSession, scope: Scope, report: Report) -> list[Any]:
    """Compute a report, row by row."""
    found: list[Any] = []
    for part in (await frame(tx, scope)).parts():
        found += await rows_of(tx, part, report)
    return found


async def columns(tx: AsyncSession, scope: Scope, report: Report) -> Columns:
    """Compute a report by columns: of thousands of rows none is made by itself."""
    return await columns_of(tx, await frame(tx, scope), report)


async def columns_of(tx: AsyncSession, made: Frame, report: Report) -> Columns:
    """Compute the same of rows that are already known."""
    found: list[list[Any]] = [[] for _ in report.row._fields]
    for part in made.parts():
        for column, values in zip(found, await part_columns(tx, part, report), strict=True):
            column += values
    return found


async def part_columns(tx: AsyncSession, part: Part, report: Report) -> Columns:
    """Compute a part of a report by columns."""
    standing, sums = await _known_of(tx, part, report)
    return await asyncio.to_thread(report.columns, part, sums, standing)


async def rows_of(tx: AsyncSession, part: Part, report: Report) -> Sequence[Any]:
    """Compute the rows of a part of a report."""
    standing, sums = await _known_of(tx, part, report)
    return await asyncio.to_thread(report.rows, part, sums, standing)


async def exact_of(
    tx: AsyncSession, part: Part, report: Report, things: Mapping[FacilityKind, Ints]
) -> tuple[Mapping[str, Column], Sums]:
    """Compute what adds up of a part, by name, and give the sums that it is made of.

    Its slots are classes of days.
    Durations are milliseconds as they were counted: what is made of them is rounded once. A kind of
    thing has rows at the places at which it is not nought among `things`: also of days on which
    nobody used it, which is nought times.
    """
    ask = replace(report.ask, people=False, peaks=False, spreads=())
    sums = await read_apart(tx, part, ask)
    standing = {kind: There(units, np.zeros_like(units)) for kind, units in things.items()}
    made = await asyncio.to_thread(report.columns, part, sums, standing)
    return dict(zip(report.row._fields, map(exact, made), strict=True)), sums


async def fewest(tx: AsyncSession, made: Frame, report: Report) -> int:
    """Say how many rows a report has at least, before any is computed: of things, what stands."""
    if not report.has_things:
        return made.rows
    standing = await _standing(tx, Part(made, 0, len(made.places)))
    return sum(int(np.count_nonzero(one.units)) for one in standing.values()) * made.slots.count


async def _known_of(tx: AsyncSession, part: Part, report: Report) -> tuple[Standing, Sums]:
    standing = await _standing(tx, part) if report.has_things else {}
    return standing, await read(tx, part, report.ask)


async def streamed(
    read_tx: Callable[[], AbstractAsyncContextManager[AsyncSession]], made: Frame, report: Report
) -> AsyncIterator[Columns]:
    """Compute a long report a part at a time, each in a short read: a slow reader holds nothing."""
    left = list(reversed(made.parts()))
    while left:
        part = left.pop()  # It remembers what is known of its rows, and is done with.
        async with read_tx() as tx:
            standing, sums = await _known_of(tx, part, report)
        # Nothing is held while it is computed.
        yield await asyncio.to_thread(report.columns, part, sums, standing)


def _named(part: Part, sums: Sums) -> list[Column]:
    """Give the columns that every row begins with."""
    slots = part.frame.slots
    count, places = slots.count, part.places
    bases = [base_of(part, slot) for slot in range(count)]
    hour = [slot % 24 if slots.by_hour else None for slot in range(count)]
    labels = (
        [base.day for base in bases],
        hour,
        [base.weekday for base in bases],
        [None if base.day_class is None else base.day_class.value for base in bases],
    )
    _, stations, units, names, are_own, models, *_ = zip(*places, strict=True)
    return [
        *(_repeated(column, count) for column in (stations, units, names, are_own, models)),
        *(label * len(places) for label in labels),
        part.known.shares.tolist(),
        _reported(part, sums),
    ]


def _repeated(column: Column, count: int) -> Column:
    return column if count == 1 else [value for value in column for _ in range(count)]


def _reported(part: Part, sums: Sums) -> Column:
    """Say in how much of the time in which there was a controller it was heard (metrics 29)."""
    return rates(sums[C.ONLINE_MS], sums[C.COMMISSIONED_MS], _known(part))


def _known(part: Part) -> Bools:
    return part.known.is_told


def _recorded(part: Part, sums: Sums) -> Bools:
    """Say of which rows it is recorded what held, at least of a part: else nothing is no nought."""
    return _known(part) & (sums[C.RECORDED_MS] > 0)


def _told(part: Part, sums: Sums) -> Bools:
    """Say of which rows all that is recorded was counted by the numbers that came last."""
    return _recorded(part, sums) & (sums[C.TOLD_MS] >= sums[C.RECORDED_MS])


def _visits(part: Part, sums: Sums, _: Standing) -> Columns:
    known, recorded = _known(part), _recorded(part, sums)
    free, scan, offline = (sums[key] for key in VISITS)
    came, out = free + scan + offline, scan + offline
    staffed, covered = sums[C.STAFFED_MS], sums[C.COVERED_MS]
    unstaffed = np.maximum(sums[C.OPEN_MS] - staffed, 0)
    enough = known & (staffed > 0) & _counted(covered, staffed)
    by_day = not part.frame.slots.by_hour
    lost = np.array([by_day and number is None for number in sums.uniques], bool)
    named = known & ~lost & ~_partly_retained(part)
    median, p90 = percentiles(sums.buckets(DWELL), known, times=60)
    return [
        *_named(part, sums),
        shown(came, known),
        shown(free, known),
        shown(scan, known),
        shown(offline, known),
        shown(sums[C.PERSONS], known),
        shown(sums[C.RETURNS], known),
        _where(sums.uniques, known),
        shown(sums[C.ANONYMOUS], named),
        lost.tolist(),
        shown(out, known),
        rates(out, came, known),
        hours(staffed, recorded),
        hours(unstaffed, recorded),
        hours(covered, recorded),
        rates(covered, staffed, known),
        _uplift(out, unstaffed, free, staffed, enough),
        *_heads(sums, known & by_day),
        shown(sums[C.REFUSED], known),
        shown(sums[C.UNMET], known),
        shown(sums[C.DWELLS], known),
        hours(sums[C.DWELL_MS], known),
        means(sums[C.DWELL_MS], sums[C.DWELLS], SECONDS, known),
        median,
        p90,
        shown(sums[C.OVER], known),
        shown(sums[C.IMPUTED], known),
        rates(sums[C.IMPUTED], sums[C.OVER], known),
    ]


def _heads(sums: Sums, known: Bools) -> Columns:
    """Give the heads that staff counted, and how many times they did; none are not nobody (law 16).

    Older versions did not count how many times: beside heads nought is not known.
    """
    heads, counts = sums[C.HEADS], sums[C.HEAD_COUNTS]
    some = known & ((counts > 0) | (heads > 0))
    return [shown(heads, some), shown(counts, known & ((counts > 0) | (heads == 0)))]


def _counted(covered: Ints, staffed: Ints) -> Bools:
    """Say of which rows enough of the free time was counted; without any, nothing is missing."""
    is_enough: Bools = (staffed == 0) | (rounded(covered, staffed) >= COVERAGE)
    return is_enough


def _where(values: Column, known: Bools) -> Column:
    each = zip(values, known.tolist(), strict=True)
    return [value if is_known else None for value, is_known in each]


def _partly_retained(part: Part) -> Bools:
    """Say which rows begin before the first day whose visits still have all their workers.

    Counted anew, a visit that lost its worker looks anonymous.
    """
    slots, since = part.frame.slots, part.frame.scope.retained_since
    early = [base_of(part, slot).ranges[0][0] < since for slot in range(slots.count)]
    return np.tile(np.array(early, bool), len(part.places))


def _uplift(out: Ints, unstaffed: Ints, free: Ints, staffed: Ints, is_known: Bools) -> Column:
    """Compare visits by the hour, without staff and with them (metrics 13)."""
    whole = unstaffed.astype(float) * free
    found = np.round(out * staffed.astype(float) / np.where(whole == 0, 1, whole), 4)
    return shown(found, is_known & (whole > 0))


def _access(part: Part, sums: Sums, _: Standing) -> Columns:
    known = _known(part)
    granted, walked, refused = sums[C.GRANTED], sums[C.WALK_INS], sums[C.REFUSED]
    decided = granted + walked + refused
    latencies = [_latency(sums, begins, known) for begins in LATENCIES]
    # Older versions did not count what became of the others: then some of the granted are missing.
    ends = np.sum([sums[key] for key in (C.EXECUTED, *NOT_EXECUTED)], axis=0)
    settled = known & (ends >= granted)
    # At a door without a contact its pulse is the last that anybody knows.
    opened, with_contact = sums[C.OPENED], sums[C.WITH_CONTACT]
    proven_or_pulsed = np.maximum(sums[C.EXECUTED] - with_contact + opened, 0)
    return [
        *_named(part, sums),
        shown(decided, known),
        shown(granted, known),
        shown(walked, known),
        shown(refused, known),
        _by_reason(sums, known),
        rates(granted + walked, decided, known),
        shown(sums[C.UNMET], known),
        shown(sums[C.CLAIMED], known),
        shown(sums[C.EXECUTED], known),
        rates(proven_or_pulsed, granted, known),
        *(shown(sums[key], settled) for key in NOT_EXECUTED),
        shown(with_contact, known),
        shown(opened, known),
        rates(opened, with_contact, known),
        *(column for latency in latencies for column in latency),
        shown(sums[C.ALONE_OPENED], known),
        shown(sums[C.ALONE_REFUSED], known),
        shown(sums[C.ALONE_FLAGGED], known),
    ]


def _latency(sums: Sums, histogram: int, known: Bools) -> Columns:
    """Give the percentiles of times, and of how many they are."""
    lines, count = sums.buckets(histogram), sums[TIMED[histogram]]
    # Older versions did not count them: nought beside a percentile is not known.
    return [*percentiles(lines, known), shown(count, known & ((count > 0) | (lines[0] == NONE)))]


def _by_reason(sums: Sums, known: Bools) -> Column:
    keys, counts = sums.between(REASON, REASON + len(REASONS))
    names = [REASONS[key - REASON].value for key in keys]
    found: list[dict[str, int]] = [{} for _ in range(len(known))]
    for reason, column in sorted(zip(names, counts, strict=True), key=itemgetter(0)):
        rows = np.flatnonzero(column)
        for row, count in zip(rows.tolist(), column[rows].tolist(), strict=True):
            found[row][reason] = count
    return _where(found, known)


def _occupancy(part: Part, sums: Sums, _: Standing) -> Columns:
    known, time = _known(part), part.known
    told, reporting, seats = _told(part, sums), sums[C.REPORTING_MS], sums[C.SEATS_MS]
    persons, used = sums[C.PERSON_MS], sums[C.USED_MS]
    persons_then, used_then = sums[C.REPORTING_PERSON_MS], sums[C.REPORTING_USED_MS]
    staffed, covered, headed = sums[C.STAFFED_MS], sums[C.COVERED_MS], sums[C.HEADS_ONLY_MS]
    recorded, counted = _recorded(part, sums), _counted(covered - headed, staffed)
    # Where nothing tells of anybody, and nobody was seen, nobody is no nought (law 16).
    some = known & ((reporting > 0) | (persons > 0))
    seen, told_of = some & counted, told & counted
    capacity = _repeated([place.capacity for place in part.places], part.frame.slots.count)
    peaks = [
        (None, None) if peak is None or not is_seen else peak
        for peak, is_seen in zip(sums.peaks, seen, strict=True)
    ]
    return [
        *_named(part, sums),
        capacity,
        hours(time.measured_ms, known),
        hours(time.known_ms, known),
        hours(persons, known),
        hours(used, known),
        hours(reporting, told),
        hours(seats, told),
        hours(persons_then, told),
        hours(used_then, told),
        hours(staffed, recorded),
        hours(covered, recorded),
        hours(headed, recorded),
        rates(covered, staffed, known),
        rates(persons_then, reporting, told_of),
        rates(persons_then, used_then, told_of),
        [value for value, _ in peaks],
        [at for _, at in peaks],
        _where(sums.most_inside, seen),
        rates(persons_then, seats, told_of),
        rates(used_then, reporting, told_of),
        Withheld((sums[C.CROWDED_MS] + 30_000) // 60_000, some, seen),
    ]


def _facilities(part: Part, sums: Sums, standing: Standing) -> Columns:
    count, all_known = part.frame.slots.count, _known(part)
    counters = {kind: [sums[facility(kind.value, each)] for each in F] for kind in standing}
    where: list[Ints] = []
    of_kind: list[Ints] = []
    values: list[npt.NDArray[np.int64]] = []
    medians: list[int | None] = []
    kinds = sorted(standing)
    for number, kind in enumerate(kinds):
        units, long_out = (np.repeat(each, count) for each in standing[kind])
        one = counters[kind]
        (median,) = percentiles(sums.buckets(repairs(kind.value)), all_known)
        there = np.flatnonzero(units + one[F.USES] + one[F.OPEN_USES] + one[F.STANDING_MS])
        where.append(there)
        of_kind.append(np.full(len(there), number))
        values.append(np.stack([units[there], long_out[there], *(each[there] for each in one)]))
        medians += [median[row] for row in there.tolist()]
    rows, kind_of = np.concatenate(where), np.concatenate(of_kind)
    order = np.lexsort((kind_of, rows))
    rows, kind_of = rows[order], kind_of[order]
    each = rows.tolist()
    here, long_out, *some = np.concatenate(values, axis=1)[:, order]
    is_known, came = all_known[rows], np.sum([sums[key] for key in VISITS], axis=0)[rows]
    # What is so now is no figure of a day or an hour.
    is_whole = np.full(len(rows), part.frame.scope.is_whole)
    return [
        *(list(map(column.__getitem__, each)) for column in _named(part, sums)),
        [kinds[number] for number in kind_of.tolist()],
        shown(here, is_whole),
        shown(some[F.USES], is_known),
        shown(some[F.OPEN_USES], is_known),
        shown(some[F.QUANTITY] / 1_000, is_known),
        hours(some[F.IN_USE_MS], is_known),
        shown(came, is_known),
        rates(some[F.USES], came, is_known),
        hours(some[F.STANDING_MS], is_known),
        hours(some[F.OUT_MS], is_known),
        hours(some[F.DEGRADED_MS], is_known),
        hours(some[F.UNKNOWN_MS], is_known),
        rates(some[F.STANDING_MS] - some[F.OUT_MS], some[F.STANDING_MS], is_known),
        rates(some[F.UNKNOWN_MS], some[F.STANDING_MS], is_known),
        shown(some[F.REPAIRS], is_known),
        hours(some[F.REPAIR_MS], is_known),
        means(some[F.REPAIR_MS], some[F.REPAIRS], MINUTES, is_known),
        [medians[number] for number in order.tolist()],
        shown(long_out, is_whole),
    ]


def long_out(at: datetime, *which: sa.ColumnElement[bool]) -> sa.Subquery:
    """Give as a table the facilities that are out of order, with a fault older than LONG_OUT.

    A fault begins as of a repair. `which` of the facilities in use are looked at.
    """
    c, since = table_of(Facility).c, at - LONG_OUT
    # Few are out of order. By the offset these are found first, and a plan knows that it need not
    # look at the words of all.
    here = (
        sa.select(c.id, c.station_id, c.kind, c.quantity, c.status, c.status_at)
        .where(c.status == FacilityStatus.OUT_OF_ORDER, c.retired_at.is_(None), *which)
        .offset(0)
        .subquery("here")
    )
    # Of most nobody said anything else meanwhile.
    is_long = sa.or_(here.c.status_at < since, is_out_since(here.c.id, since))
    return sa.select(here).where(is_long).subquery("long_out")


def _what_stands(part: Part) -> tuple[sa.Select[Any], sa.Select[Any]]:
    """Select what is there now, and what of it is out of order for long: kind, number, of what row.

    Of stations, the codes of all that have as many: these have few things that differ.
    """
    scope, c, s = part.frame.scope, table_of(Facility).c, table_of(Station).c
    out = long_out(scope.at).c
    # A kind is turned into a word of ours once, not for each row.
    kind, broken = (sa.type_coerce(each.kind, sa.String()) for each in (c, out))
    key: Any = key_of(scope.by)
    units: sa.Select[Any] = sa.select(kind, sa.func.sum(c.quantity), key).group_by(kind, key)
    if scope.by is By.STATION:
        key = s.code
        units = sa.select(kind, c.quantity, sa.func.aggregate_strings(key, "\n"))
        units = units.group_by(kind, c.quantity)

    def there(query: sa.Select[Any], of: Any) -> sa.Select[Any]:
        query = query.join_from(of.station_id.table, s.id.table, s.id == of.station_id)
        query = query.where(of.station_id.in_(scope.stations), s.retired_at.is_(None))
        if scope.by is By.STATION and len(part.places) < len(part.frame.places):
            query = query.where(s.id.in_([place.id for place in part.places]))
        return query

    faults = sa.select(broken, sa.literal(1), key)
    return there(units.where(c.retired_at.is_(None)), c), there(faults, out)


async def _standing(tx: AsyncSession, part: Part) -> Standing:
    """Count what is there now: of each kind, by place."""
    scope = part.frame.scope
    number = {
        place.station or place.id or place.operating_model: number
        for number, place in enumerate(part.places)
    }
    numbers = {kind.value: number for number, kind in enumerate(FacilityKind)}
    found = np.zeros((2, len(FacilityKind), len(part.places)), np.int64)
    for each, query in zip(found, _what_stands(part), strict=True):
        at: list[int] = []
        of_kind: list[int] = []
        counts: list[int] = []
        for name, count, key in await tx.execute(query):
            branch = part.frame.branches.get(key)
            group = key if branch is None else branch.unit
            names = key.split("\n") if scope.by is By.STATION else [group]
            mine = [place for place in map(number.get, names) if place is not None]
            at += mine
            of_kind += [numbers[name]] * len(mine)
            counts += [count] * len(mine)
        np.add.at(each, tuple(np.array([of_kind, at], np.int64)), counts)
    return {kind: There(*found[:, number]) for number, kind in enumerate(FacilityKind)}


def _promise(part: Part, sums: Sums, _: Standing) -> Columns:
    known, told = _known(part), _told(part, sums)
    promised, unknown = sums[C.PROMISED_MS], sums[C.UNKNOWN_MS]
    heard, deaf = np.maximum(promised - unknown, 0), sums[C.DEAF_MS]
    return [
        *_named(part, sums),
        hours(promised, told),
        hours(sums[C.USABLE_MS], told),
        hours(unknown, told),
        rates(sums[C.USABLE_MS], heard, told),
        rates(unknown, promised, told),
        hours(sums[C.STAFFED_MS], _recorded(part, sums)),
        hours(sums[C.COMMISSIONED_MS], known),
        hours(sums[C.ONLINE_MS], known),
        hours(deaf, known),
        rates(sums[C.ONLINE_MS], np.maximum(sums[C.COMMISSIONED_MS] - deaf, 0), known),
        shown(sums[C.OUTAGES], known),
        hours(sums[C.OUTAGE_MS], known),
        means(sums[C.OUTAGE_MS], sums[C.OUTAGES], MINUTES, known),
    ]


def _controllers(
    part: Part, sums: Sums, enrolled: Mapping[Any, Any], silent_since: datetime
) -> Sequence[ControllersRow]:
    known = _known(part)
    state = {state: sums[command(state)] for state in CommandState}
    live = state[CommandState.PENDING] + state[CommandState.CLAIMED]
    p50, p95, _, timed = _latency(sums, PICKUP, known)
    boxes = [enrolled.get(place.id) for place in part.places]
    columns: list[Column] = [
        [place.station for place in part.places],
        [place.name for place in part.places],
        part.known.shares.tolist(),
        _reported(part, sums),
        [box.serial if box else None for box in boxes],
        [box.firmware if box else None for box in boxes],
        [box.seen_at if box else None for box in boxes],
        [_online(box, silent_since) for box in boxes],
        shown(sum(state.values(), np.zeros(part.rows, np.int64)), known),
        shown(live, known),
        shown(state[CommandState.EXECUTED], known),
        shown(state[CommandState.REFUSED], known),
        shown(state[CommandState.FAILED], known),
        shown(state[CommandState.EXPIRED], known),
        shown(state[CommandState.UNKNOWN], known),
        p50,
        p95,
        timed,
    ]
    return list(map(ControllersRow._make, zip(*columns, strict=True)))


def _online(controller: Any, silent_since: datetime) -> bool | None:
    if controller is None:
        return None
    return controller.seen_at is not None and controller.seen_at > silent_since


LATENCIES = (DECIDE, PICKUP, PULSE, DOOR)
"""As the report of access tells them."""
_COUNTS = (0, 100)
"""The counters of one number each."""
_HEARD = (C.COMMISSIONED_MS, C.ONLINE_MS + 1)
_OF_CONTROLLERS = (_HEARD, (COMMAND, COMMAND + 20), (C.TIMED_PICKUP, C.TIMED_PICKUP + 1))

REPORTS: Mapping[str, Report] = {
    "visits": Report(VisitsRow, Ask([_COUNTS], people=True, spreads=[DWELL]), _visits),
    "access": Report(
        AccessRow,
        Ask([_COUNTS, (REASON, COMMAND)], spreads=LATENCIES),
        _access,
    ),
    "occupancy": Report(
        OccupancyRow,
        Ask(
            [
                (C.PERSON_MS, C.CROWDED_MS + 1),
                (C.STAFFED_MS, C.ONLINE_MS + 1),
                (C.RECORDED_MS, C.HEADS_ONLY_MS + 1),
            ],
            peaks=True,
        ),
        _occupancy,
    ),
    "facilities": Report(
        FacilitiesRow,
        Ask(
            [
                (C.VISITS_FREE, C.VISITS_OFFLINE + 1),
                _HEARD,
                (C.RECORDED_MS, C.RECORDED_MS + 1),
                (FACILITY, FACILITY + PER_KIND * len(FACILITY_KINDS)),
            ],
            spreads=REPAIRS,
        ),
        _facilities,
        has_things=True,
    ),
    "promise": Report(PromiseRow, Ask([(C.OPEN_MS, C.UNKNOWN_MS + 1)]), _promise),
}
"""Every report that is cut by places and times, by its name."""


async def refused_nowhere(tx: AsyncSession, period: Period, timezone: str) -> dict[str, int]:
    """Count the refusals that name no station, such as of forged codes, by reason (law 8)."""
    begins, ends = period.instants(timezone)
    rows = await tx.execute(
        sa.select(Scan.reason, sa.func.count().label("n"))
        .where(Scan.station_id.is_(None), Scan.scanned_at >= begins, Scan.scanned_at < ends)
        .group_by(Scan.reason)
    )
    return {Reason(row.reason).value: row.n for row in sorted(rows, key=lambda row: row.reason)}
