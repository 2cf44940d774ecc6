"""Where a figure comes from: what was counted for it, how complete that is, and the rows behind it.

Every figure names the counters that its formula is made of, and the raw rows that they count: of
any cell of a report, cut as the report is. Rows name no worker and no occupation, and are shown of
one station and of at most 31 days, from the first of them to the last (law 15).
Of a report that hides small cells nothing more is told than its formula, for its counters are them;
nor of a ranking, whose figures are those of other reports.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import cursors
from app.db.cursors import PageOf, PageRequest
from app.db.types import Instant
from app.doors.rules import CommandState, Outcome, state_now
from app.doors.tables import Command, Door, OfflineEntry, Scan
from app.places.rules import Kind
from app.places.tables import Facility, FacilityKind, Station
from app.reports.cells import Cell
from app.reports.queries import REPORTS, controllers, rows_of
from app.reports.rules import By
from app.reports.rules.counters import (
    COMMAND,
    COMMANDS,
    DOOR,
    DWELL,
    FACILITY,
    FACILITY_KINDS,
    PER_KIND,
    PICKUP,
    PULSE,
    REASON,
    REASONS,
    SPREAD,
    C,
    F,
    command,
)
from app.reports.sums import Ask, read, used
from app.visits.rules import LONGEST_STAY
from app.visits.tables import EndSource, FacilityUse, Visit

MOST_DAYS = 31
"""Of so many days rows are shown."""

VISITS = (C.VISITS_FREE, C.VISITS_SCAN, C.VISITS_OFFLINE)
OUT_OF_HOURS = (C.VISITS_SCAN, C.VISITS_OFFLINE)
SCANS = (C.GRANTED, C.WALK_INS, C.REFUSED)
HISTOGRAMS: Mapping[int, str] = {
    DWELL: "dwell_histogram",
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

    @property
    def ask(self) -> Ask:
        """Say what must be read."""
        ranges = [(number, number + 1) for number in self.counters]
        if self.histogram is not None:
            ranges.append((self.histogram, self.histogram + SPREAD))
        if self.kinds:
            ranges.append((FACILITY, FACILITY + PER_KIND * len(FACILITY_KINDS)))
        return Ask(ranges or [(0, 0)], people=self.has_sets)


def _offline() -> sa.ColumnElement[bool]:
    return sa.exists().where(OfflineEntry.visit_id == Visit.id)


FIRST = Visit.re_entry.is_(False)
IS_FREE = sa.and_(FIRST, Visit.mode == Kind.FREE)
IS_OUT = sa.and_(FIRST, Visit.mode != Kind.FREE)
ANONYMOUS = sa.and_(FIRST, Visit.worker_id.is_(None), Visit.erased_number.is_(None))
SEEN = sa.and_(Visit.ended_at.is_not(None), Visit.end_source != EndSource.IMPUTED)
PAST = Visit.stay_until <= sa.bindparam("at", type_=Instant())
"""Over by time alone, whether or not anybody has written that yet."""
OVER = sa.or_(Visit.ended_at.is_not(None), PAST)
IMPUTED = sa.or_(Visit.end_source == EndSource.IMPUTED, sa.and_(Visit.ended_at.is_(None), PAST))
BY_SCAN = Command.scan_id.is_not(None)
EXECUTED = sa.and_(BY_SCAN, Command.state == CommandState.EXECUTED)
WITH_CONTACT = sa.and_(
    EXECUTED, Command.door_id.in_(sa.select(Door.id).where(Door.has_contact.is_(True)))
)


def _visits(counters: Sequence[int], where: sa.ColumnElement[bool], **more: Any) -> Made:
    return Made(counters, rows=Rows.VISITS, where=where, **more)


def _inside(*counters: int) -> Made:
    return _visits(counters, sa.true(), is_inside=True)


def _scans(counters: Sequence[int], where: sa.ColumnElement[bool] | None = None) -> Made:
    return Made(counters, rows=Rows.SCANS, where=where)


def _commands(
    counters: Sequence[int], where: sa.ColumnElement[bool] | None, histogram: int | None = None
) -> Made:
    return Made(counters, histogram, rows=Rows.COMMANDS, where=where)


def _uses(kind: F, where: sa.ColumnElement[bool]) -> Made:
    return Made(kinds=[kind], rows=Rows.USES, where=where)


LIVE = Command.expires_at > sa.bindparam("at", type_=Instant())


def _reads_as(state: CommandState) -> sa.ColumnElement[bool]:
    """Select the commands that read as this state now, though nobody may have written that yet."""
    before = [each for each in CommandState if state_now(each, live=False) is state]
    return sa.and_(Command.state.in_(before), sa.or_(Command.state == state, sa.not_(LIVE)))


USED = FacilityUse.ended_at.is_not(None)
GRANTED = Scan.outcome == Outcome.GRANTED
REFUSED = Scan.outcome == Outcome.REFUSED
TAKEN = Command.claimed_at.is_not(None)
PULSED = Command.state == CommandState.EXECUTED
OPENED = Command.opened_at.is_not(None)

_SPREADS = {
    "pickup": _commands([], TAKEN, PICKUP),
    "pulse": _commands([], PULSED, PULSE),
    "door": _commands([], sa.and_(PULSED, OPENED), DOOR),
}
_PERCENTILES = {
    f"{name}_{percent}_ms": made
    for name, made in _SPREADS.items()
    for percent in ("p50", "p95", "p99")
}

MADE: Mapping[str, Mapping[str, Made]] = {
    "visits": {
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
        "staffed_hours": Made([C.STAFFED_MS]),
        "unstaffed_hours": Made([C.PROMISED_MS, C.STAFFED_MS]),
        "covered_hours": Made([C.COVERED_MS]),
        "free_mode_coverage": Made([C.COVERED_MS, C.STAFFED_MS]),
        "night_uplift": _visits([*VISITS, C.PROMISED_MS, C.STAFFED_MS, C.COVERED_MS], FIRST),
        "walk_in_heads": Made([C.HEADS]),
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
        "decided": _scans(SCANS),
        "granted": _scans([C.GRANTED], GRANTED),
        "walk_in": _scans([C.WALK_INS], Scan.outcome == Outcome.WALK_IN),
        "refused": _scans([C.REFUSED], REFUSED),
        "by_reason": _scans([REASON + number for number in range(len(REASONS))], REFUSED),
        "grant_rate": _scans(SCANS),
        "unmet_demand": _scans([C.UNMET], REFUSED),
        "claimed": _commands([C.CLAIMED], sa.and_(BY_SCAN, TAKEN)),
        "executed": _commands([C.EXECUTED], EXECUTED),
        "open_success_rate": _commands([C.EXECUTED, C.GRANTED], BY_SCAN),
        "with_contact": _commands([C.WITH_CONTACT], WITH_CONTACT),
        "opened": _commands([C.OPENED], sa.and_(BY_SCAN, OPENED)),
        "proven_open_rate": _commands([C.OPENED, C.WITH_CONTACT], WITH_CONTACT),
        **_PERCENTILES,
        "alone_opened": Made([C.ALONE_OPENED]),
        "alone_refused": Made([C.ALONE_REFUSED]),
        "alone_flagged": Made([C.ALONE_FLAGGED]),
    },
    "occupancy": {
        "capacity": Made(),
        "measured_hours": Made(),
        "station_hours": Made(),
        "seat_hours": Made(),
        "person_hours": _inside(C.PERSON_MS),
        "used_hours": _inside(C.USED_MS),
        "avg_occupancy": _inside(C.PERSON_MS),
        "avg_when_used": _inside(C.PERSON_MS, C.USED_MS),
        "peak_occupancy": _inside(),
        "peak_at": _inside(),
        "max_observed": _inside(),
        "seat_utilization": _inside(C.PERSON_MS),
        "time_utilization": _inside(C.USED_MS),
        "crowded_minutes": _inside(C.CROWDED_MS),
    },
    "facilities": {
        "units": Made(),
        "uses": _uses(F.USES, USED),
        "open_uses": _uses(F.OPEN_USES, FacilityUse.ended_at.is_(None)),
        "quantity": _uses(F.QUANTITY, FacilityUse.quantity.is_not(None)),
        "in_use_hours": _uses(F.IN_USE_MS, USED),
        "visits": _visits(VISITS, FIRST),
        "uses_per_visit": Made(VISITS, kinds=[F.USES], rows=Rows.USES, where=USED),
        "standing_hours": Made(kinds=[F.STANDING_MS]),
        "out_of_order_hours": Made(kinds=[F.OUT_MS]),
        "degraded_hours": Made(kinds=[F.DEGRADED_MS]),
        "unknown_hours": Made(kinds=[F.UNKNOWN_MS]),
        "availability": Made(kinds=[F.STANDING_MS, F.OUT_MS]),
        "unknown_share": Made(kinds=[F.UNKNOWN_MS, F.STANDING_MS]),
        "repairs": Made(kinds=[F.REPAIRS]),
        "repair_hours": Made(kinds=[F.REPAIR_MS]),
        "repair_mean_min": Made(kinds=[F.REPAIR_MS, F.REPAIRS]),
    },
    "promise": {
        "promised_hours": Made([C.PROMISED_MS]),
        "usable_hours": Made([C.USABLE_MS]),
        "unknown_hours": Made([C.UNKNOWN_MS]),
        "promise_rate": Made([C.USABLE_MS, C.PROMISED_MS, C.UNKNOWN_MS]),
        "unknown_share": Made([C.UNKNOWN_MS, C.PROMISED_MS]),
        "staffed_hours": Made([C.STAFFED_MS]),
        "commissioned_hours": Made([C.COMMISSIONED_MS]),
        "online_hours": Made([C.ONLINE_MS]),
        "controller_uptime": Made([C.ONLINE_MS, C.COMMISSIONED_MS]),
        "outages": Made([C.OUTAGES]),
        "outage_hours": Made([C.OUTAGE_MS]),
        "mttr_min": Made([C.OUTAGE_MS, C.OUTAGES]),
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
        "commands": _commands([command(state) for state in COMMANDS], None),
        "live": _commands(
            [command(CommandState.PENDING), command(CommandState.CLAIMED)],
            sa.and_(Command.state.in_([CommandState.PENDING, CommandState.CLAIMED]), LIVE),
        ),
        **{
            state.value: _commands([command(state)], _reads_as(state))
            for state in COMMANDS
            if state not in (CommandState.PENDING, CommandState.CLAIMED)
        },
        "pickup_p50_ms": _SPREADS["pickup"],
        "pickup_p95_ms": _SPREADS["pickup"],
    },
}
"""By report and figure."""


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


async def source(tx: AsyncSession, cell: Cell, report: str, figure: str) -> Source:
    """Say where a figure of a row of a report comes from."""
    made, part = MADE[report][figure], cell.part
    sums = await read(tx, part, made.ask)
    counters = [Counter(_name(number), int(sums[number][cell.row])) for number in made.counters]
    if made.histogram is not None:
        _, counts = sums.between(made.histogram, made.histogram + SPREAD)
        values = counts[cell.row] if counts.size else counts
        counters.append(Counter(HISTOGRAMS[made.histogram], int(values.sum())))
    for place, kind in enumerate(FACILITY_KINDS if made.kinds else ()):
        for counter in made.kinds:
            number = FACILITY + PER_KIND * place + counter
            found = int(sums[number][cell.row])
            if found and (cell.kind is None or cell.kind.value == kind):
                counters.append(Counter(f"{kind}.{counter.name.lower()}", found))
    if made.has_sets and sums.uniques[cell.row] is not None:
        counters.append(Counter("distinct_workers", sums.uniques[cell.row] or 0))
    rollups, first, last = await used(tx, part, made.ask)
    value = await _value(tx, cell, report, figure)
    known = float(part.known.shares[cell.row])
    return Source(value, known, counters, rollups, first, last)


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


_TABLES: Mapping[Rows, tuple[Any, Any]] = {
    Rows.VISITS: (Visit, Visit.started_at),
    Rows.SCANS: (Scan, Scan.scanned_at),
    Rows.COMMANDS: (Command, Command.created_at),
    Rows.USES: (FacilityUse, FacilityUse.begun_at),
}


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
    table, begun = _TABLES[made.rows]
    query = sa.select(table).where(table.station_id == station.id)
    if made.is_inside:
        query = query.where(_lasted(cell, station.timezone))
    elif made.rows is Rows.COMMANDS:
        times = cell.times(station.timezone)
        query = query.where(sa.or_(*(sa.and_(begun >= t0, begun < t1) for t0, t1 in times)))
    else:
        day, ranges = table.local_day, cell.slot.ranges
        query = query.where(sa.or_(*(sa.and_(day >= d0, day < d1) for d0, d1 in ranges)))
        if cell.hour is not None:
            query = query.where(table.local_hour == cell.hour)
    if made.rows is Rows.VISITS:
        query = query.where(Visit.voided_at.is_(None))
    if made.rows is Rows.USES and cell.kind is not None:
        query = query.where(FacilityUse.facility_id.in_(_of_kind(cell.kind)))
    if made.where is not None:
        query = query.where(made.where).params(at=cell.scope.at)
    return await cursors.page(tx, query, by=[begun, table.id], request=request)


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


def _of_kind(kind: FacilityKind) -> sa.Select[Any]:
    return sa.select(Facility.id).where(Facility.kind == kind)
