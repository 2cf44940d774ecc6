"""Where a figure comes from: what was counted for it, how complete that is, and the rows behind it.

Every figure names the counters that its formula is made of, and the raw rows that they count: of
any cell of a report, cut as the report is. Rows name no worker and no occupation, and are shown of
one station and of at most 31 days, from the first of them to the last (law 15).
Of time, the rows are the modes that held (a page of them is one of days), the silences of
controllers that are over, and the spells of facilities.
Of a report that hides small cells nothing more is told than its formula, for its counters are them;
nor of a ranking, whose figures are those of other reports.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.db import cursors
from app.db.cursors import PageOf, PageRequest
from app.db.types import Instant, table_of
from app.doors.rules import CommandState, Outcome, state_now
from app.doors.tables import Command, ControllerOutage, Door, OfflineEntry, Scan
from app.places.held import promised_of
from app.places.rules import Because, Kind
from app.places.spells import FINE
from app.places.tables import (
    Facility,
    FacilityKind,
    FacilitySpell,
    FacilityStatus,
    Station,
    StationModes,
)
from app.reports.cells import Cell
from app.reports.queries import LONG_OUT, NOT_EXECUTED, REPORTS, controllers, rows_of
from app.reports.rules import By
from app.reports.rules.counters import (
    COMMAND,
    COMMANDS,
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
    REPAIR,
    REPAIR_SPREAD,
    SPREAD,
    C,
    F,
    command,
    repairs,
)
from app.reports.spreads import REPAIRS
from app.reports.sums import Ask, Sums, read, used
from app.visits.rules import LONGEST_STAY
from app.visits.tables import OBSERVED, EndSource, FacilityUse, Visit, WalkInCount

MOST_DAYS = 31
"""Of so many days rows are shown."""

VISITS = (C.VISITS_FREE, C.VISITS_SCAN, C.VISITS_OFFLINE)
OUT_OF_HOURS = (C.VISITS_SCAN, C.VISITS_OFFLINE)
TOLD = (C.TOLD_MS, C.RECORDED_MS)
"""Where the first is less than the second, a part of the time was counted before a figure was."""
SCANS = (C.GRANTED, C.WALK_INS, C.REFUSED)
HISTOGRAMS: Mapping[int, str] = {
    DWELL: "dwell_histogram",
    DECIDE: "decide_histogram",
    PICKUP: "pickup_histogram",
    PULSE: "pulse_histogram",
    DOOR: "door_histogram",
}


class Rows(StrEnum):
    """Kinds of raw rows."""

    VISITS = "visits"
    SCANS = "scans"
    COMMANDS = "commands"
    USES = "uses"
    HEADS = "heads"
    ALONE = "alone"
    MODES = "modes"
    OUTAGES = "outages"
    SPELLS = "spells"


class Window(NamedTuple):
    """A mode that held at a station."""

    id: uuid.UUID
    """The station's."""
    from_at: datetime
    until_at: datetime
    mode: Kind
    because: Because
    promised_ms: int
    """Of that time, how long it was promised to be open, whatever held."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a figure is made of."""

    counters: Sequence[int] = ()
    histogram: int | None = None
    kinds: Sequence[F] = ()
    """Counters that every kind of facility has."""
    rows: Rows | None = None
    where: sa.ColumnElement[bool] | None = None
    """Which of these rows."""
    has_sets: bool = False
    """Whether it is the number of distinct workers, from their sets."""
    is_inside: bool = False
    """Whether a visit counts in all time that it lasts, and not just where it began."""
    is_ended: bool = False
    """Whether a spell counts where it ended, and not in all time that it lasts."""
    is_now: bool = False
    """Whether what lasts now counts, whatever the time that is asked about."""

    @property
    def ask(self) -> Ask:
        """Say what must be read."""
        ranges = [(number, number + 1) for number in self.counters]
        if self.kinds:
            ranges.append((FACILITY, FACILITY + PER_KIND * len(FACILITY_KINDS)))
        spreads = () if self.histogram is None else (self.histogram,)
        return Ask(
            ranges or [(0, 0)],
            people=self.has_sets,
            spreads=REPAIRS if self.histogram == REPAIR else spreads,
            has_lengths=True,
        )


def _offline() -> sa.ColumnElement[bool]:
    """Select the visits that began with an opening by a controller that worked alone."""
    opened = sa.func.coalesce(OfflineEntry.opened_at, OfflineEntry.happened_at)
    return sa.exists().where(OfflineEntry.visit_id == Visit.id, opened <= Visit.started_at)


FIRST = Visit.re_entry.is_(False)
IS_FREE = sa.and_(FIRST, Visit.mode == Kind.FREE)
IS_OUT = sa.and_(FIRST, Visit.mode != Kind.FREE)
ANONYMOUS = sa.and_(FIRST, Visit.worker_id.is_(None), Visit.erased_number.is_(None))
SEEN = sa.and_(Visit.ended_at.is_not(None), Visit.end_source.in_(OBSERVED))
PAST = Visit.stay_until <= sa.bindparam("at", type_=Instant())
"""Over by time alone, whether or not anybody has written that yet."""
OVER = sa.or_(Visit.ended_at.is_not(None), PAST)
IMPUTED = sa.or_(Visit.end_source == EndSource.IMPUTED, sa.and_(Visit.ended_at.is_(None), PAST))
BY_SCAN = Command.scan_id.is_not(None)
EXECUTED = sa.and_(BY_SCAN, Command.state == CommandState.EXECUTED)
_HAS_IT_NOW = Command.door_id.in_(sa.select(Door.id).where(Door.has_contact.is_(True)))
WITH_CONTACT = sa.and_(
    EXECUTED,
    sa.or_(
        Command.has_contact.is_(True),
        Command.opened_at.is_not(None),
        sa.and_(Command.has_contact.is_(None), _HAS_IT_NOW),
    ),
)


def _visits(counters: Sequence[int], where: sa.ColumnElement[bool], **more: Any) -> Made:
    return Made(counters, rows=Rows.VISITS, where=where, **more)


def _inside(*counters: int) -> Made:
    return _visits(counters, sa.true(), is_inside=True)


def _scans(
    counters: Sequence[int],
    where: sa.ColumnElement[bool] | None = None,
    histogram: int | None = None,
) -> Made:
    return Made(counters, histogram, rows=Rows.SCANS, where=where)


def _commands(
    counters: Sequence[int], where: sa.ColumnElement[bool] | None, histogram: int | None = None
) -> Made:
    return Made(counters, histogram, rows=Rows.COMMANDS, where=where)


def _uses(kind: F, where: sa.ColumnElement[bool]) -> Made:
    return Made(kinds=[kind], rows=Rows.USES, where=where)


def _modes(*counters: int) -> Made:
    return Made(counters, rows=Rows.MODES)


def _silences(*counters: int, is_ended: bool = False) -> Made:
    return Made(counters, rows=Rows.OUTAGES, is_ended=is_ended)


def _alone(counter: int, where: sa.ColumnElement[bool]) -> Made:
    return Made([counter], rows=Rows.ALONE, where=where)


def _spells(*kinds: F, status: FacilityStatus | None = None, **more: Any) -> Made:
    where = None if status is None else FacilitySpell.status == status
    return Made(kinds=kinds, rows=Rows.SPELLS, where=where, **more)


BROKEN = FacilityStatus.OUT_OF_ORDER
LIVE = Command.expires_at > sa.bindparam("at", type_=Instant())


def _reads_as(state: CommandState) -> sa.ColumnElement[bool]:
    """Select the commands that read as this state now, though nobody may have written that yet."""
    before = [each for each in CommandState if state_now(each, live=False) is state]
    return sa.and_(Command.state.in_(before), sa.or_(Command.state == state, sa.not_(LIVE)))


IS_LIVE = sa.and_(Command.state.in_([CommandState.PENDING, CommandState.CLAIMED]), LIVE)


def _end(counter: C, where: sa.ColumnElement[bool]) -> Made:
    """Of the granted scans, some that were not executed; with all that says if none is missing."""
    counters = dict.fromkeys((counter, C.GRANTED, C.EXECUTED, *NOT_EXECUTED))
    return _commands(list(counters), sa.and_(BY_SCAN, where))


USED = FacilityUse.ended_at.is_not(None)
FLAGGED = sa.and_(OfflineEntry.opened.is_(True), OfflineEntry.would_have_been_refused.is_not(None))
GRANTED = Scan.outcome == Outcome.GRANTED
REFUSED = Scan.outcome == Outcome.REFUSED
TAKEN = Command.claimed_at.is_not(None)
PULSED = Command.state == CommandState.EXECUTED
OPENED = Command.opened_at.is_not(None)

_SPREADS = {
    "decide": _scans([], Scan.decide_ms.is_not(None), DECIDE),
    "pickup": _commands([], TAKEN, PICKUP),
    "pulse": _commands([], PULSED, PULSE),
    "door": _commands([], sa.and_(PULSED, OPENED), DOOR),
}
_PERCENTILES = {
    f"{name}_{percent}_ms": made
    for name, made in _SPREADS.items()
    for percent in ("p50", "p95", "p99")
}
_TIMED = {
    "decide_timed": _scans([C.TIMED_DECIDE], Scan.decide_ms.is_not(None)),
    "pickup_timed": _commands([C.TIMED_PICKUP], TAKEN),
    "pulse_timed": _commands([C.TIMED_PULSE], PULSED),
    "door_timed": _commands([C.TIMED_DOOR], sa.and_(PULSED, OPENED)),
}

MADE: Mapping[str, Mapping[str, Made]] = {
    "visits": {
        "reported_share": _silences(C.ONLINE_MS, C.COMMISSIONED_MS),
        "visits": _visits(VISITS, FIRST),
        "visits_free": _visits([C.VISITS_FREE], IS_FREE),
        "visits_scan": _visits([C.VISITS_SCAN], sa.and_(IS_OUT, ~_offline())),
        "visits_offline": _visits([C.VISITS_OFFLINE], sa.and_(IS_OUT, _offline())),
        "persons": _visits([C.PERSONS], FIRST),
        "returns": _visits([C.RETURNS], Visit.re_entry.is_(True)),
        "unique_workers": _visits([], sa.and_(FIRST, ~ANONYMOUS), has_sets=True),
        "anonymous_visits": _visits([C.ANONYMOUS], ANONYMOUS),
        "out_of_hours_visits": _visits(OUT_OF_HOURS, IS_OUT),
        "offhours_share": _visits(VISITS, FIRST),
        "staffed_hours": _modes(C.STAFFED_MS, C.RECORDED_MS),
        "unstaffed_hours": _modes(C.OPEN_MS, C.STAFFED_MS, C.RECORDED_MS),
        "covered_hours": _modes(C.COVERED_MS, C.RECORDED_MS),
        "free_mode_coverage": _modes(C.COVERED_MS, C.STAFFED_MS),
        "night_uplift": _visits([*VISITS, C.OPEN_MS, C.STAFFED_MS, C.COVERED_MS], FIRST),
        "walk_in_heads": Made([C.HEADS], rows=Rows.HEADS),
        "refused": _scans([C.REFUSED], REFUSED),
        "unmet_demand": _scans([C.UNMET], REFUSED),
        "stays": _visits([C.DWELLS], SEEN),
        "stay_hours": _visits([C.DWELL_MS], SEEN),
        "dwell_mean_s": _visits([C.DWELL_MS, C.DWELLS], SEEN),
        "dwell_median_s": _visits([], SEEN, histogram=DWELL),
        "dwell_p90_s": _visits([], SEEN, histogram=DWELL),
        "ended": _visits([C.OVER], OVER),
        "imputed_exits": _visits([C.IMPUTED], IMPUTED),
        "imputed_exit_share": _visits([C.IMPUTED, C.OVER], OVER),
    },
    "access": {
        "reported_share": _silences(C.ONLINE_MS, C.COMMISSIONED_MS),
        "decided": _scans(SCANS),
        "granted": _scans([C.GRANTED], GRANTED),
        "walk_in": _scans([C.WALK_INS], Scan.outcome == Outcome.WALK_IN),
        "refused": _scans([C.REFUSED], REFUSED),
        "by_reason": _scans([REASON + number for number in range(len(REASONS))], REFUSED),
        "grant_rate": _scans(SCANS),
        "unmet_demand": _scans([C.UNMET], REFUSED),
        "claimed": _commands([C.CLAIMED], sa.and_(BY_SCAN, TAKEN)),
        "executed": _commands([C.EXECUTED], EXECUTED),
        "open_success_rate": _commands([C.EXECUTED, C.OPENED, C.WITH_CONTACT, C.GRANTED], BY_SCAN),
        "refused_after_grant": _end(C.UNLOCK_REFUSED, _reads_as(CommandState.REFUSED)),
        "failed": _end(C.UNLOCK_FAILED, _reads_as(CommandState.FAILED)),
        "expired": _end(C.UNLOCK_EXPIRED, _reads_as(CommandState.EXPIRED)),
        "unknown": _end(C.UNLOCK_UNKNOWN, _reads_as(CommandState.UNKNOWN)),
        "live": _end(C.UNLOCK_LIVE, IS_LIVE),
        "with_contact": _commands([C.WITH_CONTACT], WITH_CONTACT),
        "opened": _commands([C.OPENED], sa.and_(BY_SCAN, OPENED)),
        "proven_open_rate": _commands([C.OPENED, C.WITH_CONTACT], WITH_CONTACT),
        **_PERCENTILES,
        **_TIMED,
        "alone_opened": _alone(C.ALONE_OPENED, OfflineEntry.opened.is_(True)),
        "alone_refused": _alone(C.ALONE_REFUSED, OfflineEntry.opened.is_(False)),
        "alone_flagged": _alone(C.ALONE_FLAGGED, FLAGGED),
    },
    "occupancy": {
        "reported_share": _silences(C.ONLINE_MS, C.COMMISSIONED_MS),
        "capacity": Made(),
        "measured_hours": Made(),
        "station_hours": Made(),
        "person_hours": _inside(C.PERSON_MS),
        "used_hours": _inside(C.USED_MS),
        "reporting_hours": _modes(C.REPORTING_MS, *TOLD),
        "seat_hours": _modes(C.SEATS_MS, *TOLD),
        "reporting_person_hours": _inside(C.REPORTING_PERSON_MS, *TOLD),
        "reporting_used_hours": _inside(C.REPORTING_USED_MS, *TOLD),
        "avg_occupancy": _inside(C.REPORTING_PERSON_MS, C.REPORTING_MS, *TOLD),
        "avg_when_used": _inside(C.REPORTING_PERSON_MS, C.REPORTING_USED_MS, *TOLD),
        "peak_occupancy": _inside(),
        "peak_at": _inside(),
        "max_observed": _inside(),
        "seat_utilization": _inside(C.REPORTING_PERSON_MS, C.SEATS_MS, *TOLD),
        "time_utilization": _inside(C.REPORTING_USED_MS, C.REPORTING_MS, *TOLD),
        "crowded_minutes": _inside(C.CROWDED_MS),
    },
    "facilities": {
        "reported_share": _silences(C.ONLINE_MS, C.COMMISSIONED_MS),
        "units": Made(),
        "uses": _uses(F.USES, USED),
        "open_uses": _uses(F.OPEN_USES, FacilityUse.ended_at.is_(None)),
        "quantity": _uses(F.QUANTITY, FacilityUse.quantity.is_not(None)),
        "in_use_hours": _uses(F.IN_USE_MS, USED),
        "visits": _visits(VISITS, FIRST),
        "uses_per_visit": Made(VISITS, kinds=[F.USES], rows=Rows.USES, where=USED),
        "standing_hours": _spells(F.STANDING_MS),
        "out_of_order_hours": _spells(F.OUT_MS, status=BROKEN),
        "degraded_hours": _spells(F.DEGRADED_MS, status=FacilityStatus.DEGRADED),
        "unknown_hours": _spells(F.UNKNOWN_MS, status=FacilityStatus.UNKNOWN),
        "availability": _spells(F.STANDING_MS, F.OUT_MS),
        "unknown_share": _spells(F.UNKNOWN_MS, F.STANDING_MS),
        "repairs": _spells(F.REPAIRS, status=BROKEN, is_ended=True),
        "repair_hours": _spells(F.REPAIR_MS, status=BROKEN, is_ended=True),
        "repair_mean_min": _spells(F.REPAIR_MS, F.REPAIRS, status=BROKEN, is_ended=True),
        "repair_median_min": _spells(F.REPAIRS, status=BROKEN, is_ended=True, histogram=REPAIR),
        "open_faults_over_72h": _spells(status=BROKEN, is_now=True),
    },
    "promise": {
        "reported_share": _silences(C.ONLINE_MS, C.COMMISSIONED_MS),
        "promised_hours": _modes(C.PROMISED_MS, *TOLD),
        "usable_hours": _silences(C.USABLE_MS, *TOLD),
        "unknown_hours": _silences(C.UNKNOWN_MS, *TOLD),
        "promise_rate": _silences(C.USABLE_MS, C.PROMISED_MS, C.UNKNOWN_MS, *TOLD),
        "unknown_share": _silences(C.UNKNOWN_MS, C.PROMISED_MS, *TOLD),
        "staffed_hours": _modes(C.STAFFED_MS, C.RECORDED_MS),
        "commissioned_hours": _silences(C.COMMISSIONED_MS),
        "online_hours": _silences(C.ONLINE_MS),
        "unheard_hours": _silences(C.DEAF_MS),
        "controller_uptime": _silences(C.ONLINE_MS, C.COMMISSIONED_MS, C.DEAF_MS),
        "outages": _silences(C.OUTAGES, is_ended=True),
        "outage_hours": _silences(C.OUTAGE_MS, is_ended=True),
        "mttr_min": _silences(C.OUTAGE_MS, C.OUTAGES, is_ended=True),
    },
    "occupations": {
        name: Made()
        for name in (
            "visits",
            "persons",
            "unique_workers",
            "all_visits",
            "visits_share",
            "told_visits",
            "occupation_share",
            "k",
        )
    },
    "ranking": {
        name: Made()
        for name in (
            "reported_share",
            "capacity",
            "value",
            "numerator",
            "denominator",
            "peers",
            "percentile",
            "rank",
        )
    },
    "controllers": {
        "reported_share": _silences(C.ONLINE_MS, C.COMMISSIONED_MS),
        "commands": _commands([command(state) for state in COMMANDS], None),
        "live": _commands(
            [command(CommandState.PENDING), command(CommandState.CLAIMED)],
            IS_LIVE,
        ),
        **{
            state.value: _commands([command(state)], _reads_as(state))
            for state in COMMANDS
            if state not in (CommandState.PENDING, CommandState.CLAIMED)
        },
        "pickup_p50_ms": _SPREADS["pickup"],
        "pickup_p95_ms": _SPREADS["pickup"],
        "pickup_timed": _TIMED["pickup_timed"],
    },
}
"""By report and figure."""


KNOWN = "known_share"
"""Of no counter: of the time that is known, by the stations' lives and how far was counted."""


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


def made_of(report: str, figure: str) -> Made | None:
    """Say what a figure of a report is made of; None where it has no such."""
    return Made() if figure == KNOWN else MADE[report].get(figure)


async def source(tx: AsyncSession, cell: Cell, report: str, figure: str) -> Source:
    """Say where a figure of a row of a report comes from."""
    made, part = made_of(report, figure) or Made(), cell.part
    sums = await read(tx, part, made.ask)
    counters = [Counter(_name(number), int(sums[number][cell.row])) for number in made.counters]
    if made.histogram is not None and made.histogram != REPAIR:
        name, ends = HISTOGRAMS[made.histogram], made.histogram + SPREAD
        counters.append(Counter(name, _entries(sums, cell, made.histogram, ends)))
    for place, kind in enumerate(FACILITY_KINDS if made.kinds else ()):
        if cell.kind is not None and cell.kind.value != kind:
            continue
        for counter in made.kinds:
            number = FACILITY + PER_KIND * place + counter
            if found := int(sums[number][cell.row]):
                counters.append(Counter(f"{kind}.{counter.name.lower()}", found))
        if made.histogram == REPAIR:
            begins = repairs(kind)
            if found := _entries(sums, cell, begins, begins + REPAIR_SPREAD):
                counters.append(Counter(f"{kind}.repair_histogram", found))
    if made.has_sets and sums.uniques[cell.row] is not None:
        counters.append(Counter("distinct_workers", sums.uniques[cell.row] or 0))
    rollups, first, last = await used(tx, part, made.ask)
    known = float(part.known.shares[cell.row])
    if figure == KNOWN:
        times = ("known_ms", part.known.known_ms), ("whole_ms", part.known.whole_ms)
        counters = [Counter(name, int(values[cell.row])) for name, values in times]
        return Source(known, known, counters, rollups, first, last)
    value = await _value(tx, cell, report, figure)
    return Source(value, known, counters, rollups, first, last)


def _entries(sums: Sums, cell: Cell, begins: int, ends: int) -> int:
    """Count what a histogram of a cell is of."""
    return int(sums.between(begins, ends)[1][:, cell.row].sum())


async def _value(tx: AsyncSession, cell: Cell, report: str, figure: str) -> Any:
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


_TABLES: Mapping[Rows, tuple[Any, Any, Any]] = {
    Rows.VISITS: (Visit, Visit.started_at, Visit.id),
    Rows.SCANS: (Scan, Scan.scanned_at, Scan.id),
    Rows.COMMANDS: (Command, Command.created_at, Command.id),
    Rows.USES: (FacilityUse, FacilityUse.begun_at, FacilityUse.id),
    Rows.HEADS: (WalkInCount, WalkInCount.from_at, WalkInCount.id),
    Rows.ALONE: (OfflineEntry, OfflineEntry.happened_at, OfflineEntry.entry_id),
    Rows.MODES: (StationModes, StationModes.midnight_at, StationModes.station_id),
    Rows.OUTAGES: (ControllerOutage, ControllerOutage.from_at, ControllerOutage.controller_id),
    Rows.SPELLS: (FacilitySpell, FacilitySpell.from_at, FacilitySpell.facility_id),
}
"""Where they stand, when each began, and what tells those of one instant apart."""
_OF_DAYS = frozenset({Rows.HEADS, Rows.MODES})
"""Rows that belong to a day, and to no hour of it."""


def may_list(cell: Cell) -> bool:
    """Say whether a cell's days are near enough together for its rows to be shown."""
    ranges = cell.slot.ranges
    return ranges[-1][1] - ranges[0][0] <= timedelta(days=MOST_DAYS)


async def behind(
    tx: AsyncSession, cell: Cell, station: Station, made: Made, request: PageRequest
) -> PageOf[Any]:
    """Give a page of the raw rows that a figure counts at a station; raises CursorInvalid."""
    if made.rows is None:
        return PageOf([], None)
    table, begun, id = _TABLES[made.rows]
    query = sa.select(table).where(table.station_id == station.id)
    times = cell.times(station.timezone)
    if made.is_inside:
        query = query.where(_lasted(cell, station.timezone))
    elif made.is_now:
        query = query.where(
            FacilitySpell.until_at.is_(None), FacilitySpell.facility_id.in_(_long_out(cell))
        )
    elif made.rows in (Rows.OUTAGES, Rows.SPELLS):
        ended = None if not made.is_ended else _ENDED[made.rows]
        query = query.where(_touching(table, times, ended))
        if made.rows is Rows.OUTAGES:
            # Empty ones only say that a day was counted anew.
            query = query.where(ControllerOutage.from_at < ControllerOutage.until_at)
    elif made.rows is Rows.COMMANDS:
        query = query.where(sa.or_(*(sa.and_(begun >= t0, begun < t1) for t0, t1 in times)))
    else:
        day, ranges = table.local_day, cell.slot.ranges
        query = query.where(sa.or_(*(sa.and_(day >= d0, day < d1) for d0, d1 in ranges)))
        if cell.hour is not None and made.rows not in _OF_DAYS:
            query = query.where(table.local_hour == cell.hour)
    if made.rows is Rows.VISITS:
        query = query.where(Visit.voided_at.is_(None))
    if made.rows is Rows.HEADS:
        query = query.where(WalkInCount.withdrawn_at.is_(None))
    if made.rows is Rows.USES and cell.kind is not None:
        query = query.where(FacilityUse.facility_id.in_(_of_kind(cell.kind)))
    if made.rows is Rows.SPELLS and cell.kind is not None:
        query = query.where(FacilitySpell.kind == cell.kind)
    if made.where is not None:
        query = query.where(made.where).params(at=cell.scope.at)
    found = await cursors.page(tx, query, by=[begun, id], request=request)
    if made.rows is Rows.MODES:
        return PageOf([one for day in found.rows for one in _windows(day, times)], found.next)
    return found


def _fine_again() -> sa.ColumnElement[datetime]:
    """Say when somebody first said after a spell that the facility works."""
    later = aliased(FacilitySpell)
    return (
        sa.select(sa.func.min(later.from_at))
        .where(
            later.facility_id == FacilitySpell.facility_id,
            later.from_at > FacilitySpell.from_at,
            later.status.in_(FINE),
        )
        .correlate(FacilitySpell)
        .scalar_subquery()
    )


_ENDED = {Rows.OUTAGES: ControllerOutage.until_at, Rows.SPELLS: _fine_again()}
"""When such a row was over: a fault, when it was told that the thing works."""


def _touching(
    table: Any, times: Sequence[tuple[datetime, datetime]], ended: Any | None
) -> sa.ColumnElement[bool]:
    """Select the spells that reach into some times, or that ended in them."""
    if ended is not None:
        return sa.or_(*(sa.and_(ended >= t0, ended < t1) for t0, t1 in times))
    until = table.until_at
    lasts = until.is_(None)
    return sa.or_(*(sa.and_(table.from_at < t1, lasts | (until > t0)) for t0, t1 in times))


def _windows(day: StationModes, times: Sequence[tuple[datetime, datetime]]) -> Iterator[Window]:
    """Give the modes of a day that held in some of the times."""
    promised = promised_of(day)
    for since, until, kind, because in day.windows:
        from_at, until_at = (day.midnight_at + timedelta(milliseconds=ms) for ms in (since, until))
        if any(from_at < t1 and until_at > t0 for t0, t1 in times):
            within = (min(until, end) - max(since, begin) for begin, end in promised)
            kept = sum(max(0, length) for length in within)
            yield Window(day.station_id, from_at, until_at, Kind(kind), Because(because), kept)


def _lasted(cell: Cell, timezone: str) -> sa.ColumnElement[bool]:
    """Select the visits that lasted into the time of a cell, as far as it is over."""
    until = sa.func.coalesce(Visit.ended_at, Visit.stay_until, type_=Instant())
    times = [each for each in cell.times(timezone) if each[0] < cell.scope.at]
    pieces = [
        sa.and_(
            Visit.started_at >= begins - LONGEST_STAY - timedelta(days=1),
            Visit.started_at < min(ends, cell.scope.at),
            until > begins,
        )
        for begins, ends in times
    ]
    return sa.and_(until > Visit.started_at, sa.or_(sa.false(), *pieces))


def _long_out(cell: Cell) -> sa.Select[Any]:
    c, station = table_of(Facility).c, table_of(Station).c
    is_in_use = sa.select(station.id).where(station.retired_at.is_(None))
    is_out = c.retired_at.is_(None), c.status_at < cell.scope.at - LONG_OUT
    return sa.select(c.id).where(*is_out, c.station_id.in_(is_in_use))


def _of_kind(kind: FacilityKind) -> sa.Select[Any]:
    return sa.select(Facility.id).where(Facility.kind == kind)
