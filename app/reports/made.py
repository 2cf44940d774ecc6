"""What every figure of the reports is made of: its counters, and which raw rows they count.

Of time, the rows are the modes that held (a page of them is one of days), the pieces of promised
time, the silences of controllers, the spells of facilities, and hours as they were counted, where
whole hours count or where several of these meet.
Of a report that hides small cells nothing more is told than its formula, for its counters are them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from app.db.types import Instant
from app.doors.rules import CommandState, Outcome, state_now
from app.doors.tables import Command, Door, OfflineEntry, Scan
from app.places.rules import Kind
from app.places.tables import FacilitySpell, FacilityStatus
from app.reports.queries import NOT_EXECUTED, VISITS
from app.reports.ranking import FIGURES as RANKED
from app.reports.ranking import Ranked
from app.reports.rules.counters import (
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
    C,
    F,
    command,
)
from app.reports.spreads import REPAIRS
from app.reports.sums import Ask
from app.visits.tables import OBSERVED, EndSource, FacilityUse, Visit

OUT_OF_HOURS = (C.VISITS_SCAN, C.VISITS_OFFLINE)
TOLD = (C.TOLD_MS, C.RECORDED_MS)
"""Where the first is less than the second, a part of the time was counted before a figure was."""
SCANNED = (C.STAFFED_MS, C.COVERED_MS, C.HEADS_ONLY_MS)
"""Whether enough of those who came in free time were scanned, to say who was inside."""
INSIDE = (C.REPORTING_MS, C.PERSON_MS, *SCANNED)
"""The same, and whether there was anything to tell of them, or anybody."""
QUARTERED = ["measured_ms"]
"""What is known of a row's time, in quarter hours, among which the peak is looked for."""
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
    PROMISED = "promised"
    """What became of the time that was promised, piece by piece."""
    DEMANDS = "demands"
    """Refused scans, each with the demand that it is a part of."""
    OUTAGES = "outages"
    SPELLS = "spells"
    HOURS = "hours"
    """Hours of the station, each with what was counted in it."""


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
    """Whether faults that last now count, whatever the time that is asked about."""
    times: Sequence[str] = ()
    """Of what is known of a row's time, by the names of `Known`."""
    has_peaks: bool = False
    """Whether it is found among the means of quarter hours, and the greatest numbers inside."""

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
            peaks=self.has_peaks,
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


def _inside(*counters: int, **more: Any) -> Made:
    return _visits(counters, sa.true(), is_inside=True, **more)


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


def _hours(*counters: int) -> Made:
    return Made(counters, rows=Rows.HOURS)


def _promised(*counters: int) -> Made:
    return Made(counters, rows=Rows.PROMISED)


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

UNMET_DEMAND = Made(
    [C.UNMET], rows=Rows.DEMANDS, where=sa.and_(REFUSED, Scan.demand_key.is_not(None))
)

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

OF_THE_RANKED = ("value", "numerator", "denominator", "peers", "percentile", "rank")
"""What the ranking tells of the figure by which stations are ranked."""

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
        "covered_hours": _hours(C.COVERED_MS, C.RECORDED_MS),
        "free_mode_coverage": _hours(C.COVERED_MS, C.STAFFED_MS),
        "night_uplift": _visits([*VISITS, C.OPEN_MS, C.STAFFED_MS, C.COVERED_MS], FIRST),
        "walk_in_heads": Made([C.HEADS, C.HEAD_COUNTS], rows=Rows.HEADS),
        "head_counts": Made([C.HEAD_COUNTS, C.HEADS], rows=Rows.HEADS),
        "refused": _scans([C.REFUSED], REFUSED),
        "unmet_demand": UNMET_DEMAND,
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
        "unmet_demand": UNMET_DEMAND,
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
        "measured_hours": Made(times=["measured_ms"]),
        "station_hours": Made(times=["known_ms"]),
        "person_hours": _inside(C.PERSON_MS),
        "used_hours": _inside(C.USED_MS),
        "reporting_hours": _hours(C.REPORTING_MS, *TOLD),
        "seat_hours": _hours(C.SEATS_MS, *TOLD),
        "reporting_person_hours": _inside(C.REPORTING_PERSON_MS, *TOLD),
        "reporting_used_hours": _inside(C.REPORTING_USED_MS, *TOLD),
        "staffed_hours": _modes(C.STAFFED_MS, C.RECORDED_MS),
        "covered_hours": _hours(C.COVERED_MS, C.RECORDED_MS),
        "heads_only_hours": _hours(C.HEADS_ONLY_MS, C.RECORDED_MS),
        "free_mode_coverage": _hours(C.COVERED_MS, C.STAFFED_MS),
        "avg_occupancy": _inside(C.REPORTING_PERSON_MS, C.REPORTING_MS, *SCANNED, *TOLD),
        "avg_when_used": _inside(C.REPORTING_PERSON_MS, C.REPORTING_USED_MS, *SCANNED, *TOLD),
        "peak_occupancy": _inside(*INSIDE, times=QUARTERED, has_peaks=True),
        "peak_at": _inside(*INSIDE, times=QUARTERED, has_peaks=True),
        "max_observed": _inside(*INSIDE, has_peaks=True),
        "seat_utilization": _inside(C.REPORTING_PERSON_MS, C.SEATS_MS, *SCANNED, *TOLD),
        "time_utilization": _inside(C.REPORTING_USED_MS, C.REPORTING_MS, *SCANNED, *TOLD),
        "crowded_minutes": _inside(C.CROWDED_MS, *INSIDE),
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
        "open_faults_over_72h": _spells(is_now=True),
    },
    "promise": {
        "reported_share": _silences(C.ONLINE_MS, C.COMMISSIONED_MS),
        "promised_hours": _modes(C.PROMISED_MS, *TOLD),
        "usable_hours": _promised(C.USABLE_MS, *TOLD),
        "unknown_hours": _promised(C.UNKNOWN_MS, *TOLD),
        "promise_rate": _promised(C.USABLE_MS, C.PROMISED_MS, C.UNKNOWN_MS, *TOLD),
        "unknown_share": _promised(C.UNKNOWN_MS, C.PROMISED_MS, *TOLD),
        "staffed_hours": _modes(C.STAFFED_MS, C.RECORDED_MS),
        "commissioned_hours": _hours(C.COMMISSIONED_MS),
        "online_hours": _hours(C.ONLINE_MS),
        "unheard_hours": _hours(C.DEAF_MS),
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
        "reported_share": _silences(C.ONLINE_MS, C.COMMISSIONED_MS),
        "capacity": Made(),
        **{name: Made() for name in OF_THE_RANKED},
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
OF_KNOWN = Made(times=["known_ms", "whole_ms"])


def made_of(report: str, figure: str, ranked: Ranked = Ranked.VISITS) -> Made | None:
    """Say what a figure of a report is made of; None where it has no such.

    What is said of a station's place is made of the figure by which it is `ranked`.
    """
    if figure == KNOWN:
        return OF_KNOWN
    if report == "ranking" and figure in OF_THE_RANKED:
        home = RANKED[ranked].report
        return MADE[home]["visits" if ranked is Ranked.VISITS_PER_SEAT else ranked.value]
    return MADE[report].get(figure)
