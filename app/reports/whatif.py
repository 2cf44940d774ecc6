"""What-if over many stations: read the scans of a period, and replay them beside the loop.

Stations come in small groups, each read in a transaction of its own and streamed, so that memory
does not grow with the period, and the replay itself runs in a thread, so that doors are not held
up.
"""

import asyncio
import uuid
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.engine import Database
from app.db.types import table_of
from app.doors.outages import heard
from app.doors.rules import CommandState, Outcome
from app.doors.tables import Command, OfflineEntry, Scan
from app.places import held
from app.places.rules import Calendar, Change
from app.places.standing import station_rules
from app.places.tables import ModeChange, Station
from app.reports.answers import Note, unheard
from app.reports.behind import MOST_DAYS
from app.reports.columns import share
from app.reports.frame import Frame, Part, base_of, frame
from app.reports.rules import By, Class, Slots, is_by_class, nearest_rank
from app.reports.rules.comparison import is_known
from app.reports.rules.replay import Replay, Site, Sojourn
from app.reports.rules.suppositions import Ignored, Supposition
from app.reports.rules.tallies import Answer, Ledger, MovedScan, Tally
from app.reports.rules.timetables import Timetables
from app.reports.scope import Scope
from app.visits.rules import LONGEST_STAY
from app.visits.tables import OBSERVED, EndSource, Visit

STATIONS = 100
"""How many stations are read in one transaction."""

ROWS = 500
"""How many scans are fetched at once: what the loop does for them in one go."""

LISTED = 500
"""How many of the scans that moved are listed at most."""

MARGIN = timedelta(days=1)
"""Local days of any zone lie within the same days in UTC and so much around them."""

_EVER = datetime.max.replace(tzinfo=UTC)


class Assumption(StrEnum):
    """What a replay takes for granted, because no record says it."""

    MODES_AS_RECORDED = "modes_as_recorded"
    HOURS_OF_TODAY = "hours_of_today"
    CHANGES_AS_WRITTEN = "changes_as_written"
    PLACES_AS_RECORDED = "places_as_recorded"
    REASONS_STAND = "reasons_stand"
    LATER_CHECKS_PASS = "later_checks_pass"
    CONTROLLERS_HEARD = "controllers_heard"
    STAYS_STAND = "stays_stand"
    STAYS_CUT = "stays_cut"
    USUAL_STAY = "usual_stay"
    NOBODY_ACTS_OTHERWISE = "nobody_acts_otherwise"


@dataclass(frozen=True, slots=True)
class Moved:
    """So many scans came to one answer and would have come to another."""

    before: str
    after: str
    scans: int


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How many scans opened, found the door open, or were refused."""

    granted: int
    walk_in: int
    refused: int


@dataclass(frozen=True, slots=True)
class Figures:
    """The same scans as they were decided, and as they would have been."""

    recorded: Outcomes
    replayed: Outcomes
    newly_let_in: int
    newly_let_in_again: int
    """Of these, scans of somebody who would have been inside already: taps of one person."""
    newly_turned_away: int
    moved: Sequence[Moved]
    """Every answer that would have been another, the most frequent first."""
    unmet_demand_before: int | None
    """Distinct worker, station and half hour with a refusal and no grant (law 8)."""
    unmet_demand_after: int | None


@dataclass(frozen=True, slots=True)
class Row:
    """One place and time, named as in every report; no figures where nothing can be known of it."""

    station: str | None
    unit: str | None
    name: str
    operating_model: str | None
    day: date | None
    hour: int | None
    weekday: int | None
    day_class: Class | None
    known_share: float
    figures: Figures | None


@dataclass(frozen=True, slots=True)
class Stays:
    """How the stays of the newly let in were assumed: of how many stations, by what."""

    by_median: int
    by_longest: int
    """Stations without any stay whose end was observed."""


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What a replay found."""

    rows: Sequence[Row]
    totals: Figures
    by_hour: Sequence[Figures]
    """One for each hour of the local day."""
    scans: int
    """Replayed."""
    scans_moved: int
    """How many of them would have come to another answer."""
    moved_scans: Sequence[MovedScan] | None
    """The first of these by time, of one station and at most 31 days; None of more."""
    without_mode: int
    without_station: int | None
    """None: nobody but the whole city's administrators may know."""
    amended_since: int | None
    """Scans at which today's hours give another mode than was recorded; None: not looked at."""
    stays: Stays
    assumes: Sequence[Assumption]
    calendar_known: bool | None
    """Whether it is known of all days if they are holidays or days at work to make up for one; None
    where neither rows are cut by such days nor modes are computed."""
    known_share: float
    """Of the time of all rows, what `known_share` of a row is of its own."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked."""

    scope: Scope
    supposed: Supposition
    silence: timedelta
    """A controller that was not heard for so long was offline."""
    whole_city: str | None = None
    """The zone by which scans without a station are counted; None: they are not."""


async def portions(tx: AsyncSession, scope: Scope) -> int:
    """Say in how many portions the stations will be replayed."""
    count = sa.select(sa.func.count()).select_from(scope.stations.subquery())
    return -(-(await tx.scalar(count) or 0) // STATIONS)


async def what_if(
    database: Database, calendar: Calendar, wanted: Wanted, note: Note = unheard
) -> WhatIf:
    """Replay, and note after each portion how many stations it had.

    Raises PeriodInvalid when there would be too many rows.

    1. Lay out the rows, so that a place where nothing happened has zeros.
    2. Group by group, read the stations, their visits and their scans.
    3. Decide the scans again in a thread, while the loop serves doors.
    """
    # Which days a row has is for the frame to say, as in every report.
    scope = replace(wanted.scope, calendar=calendar)
    async with database.read() as tx:
        made = await frame(tx, scope, is_raw=True)
        ids = list(await tx.scalars(scope.stations.order_by(Station.id)))
        without_station = None
        if wanted.whole_city is not None:
            without_station = await _nowhere(tx, scope, wanted.whole_city)
    ledger, timetables = Ledger(_key_of(made.slots)), Timetables(calendar)
    may_list = len(ids) == 1 and len(scope.period.days) <= MOST_DAYS
    if may_list:
        ledger.listed = LISTED
    counted = scope.period.from_day >= scope.retained_since
    medians = 0
    for first in range(0, len(ids), STATIONS):
        some = ids[first : first + STATIONS]
        async with database.read() as tx:
            sites = await _sites(tx, made, some, silence=wanted.silence)
            medians += sum(site.usual_stay is not None for site in sites.values())
            replay = Replay(sites, wanted.supposed, timetables, ledger)
            streamed = await tx.stream(_scans(scope, some))
            async for scans in streamed.partitions(ROWS):
                await asyncio.to_thread(replay.feed, scans)
            replay.finish()
        note(len(some))
    # Thousands of rows, each of many counts: beside the loop as well.
    parts = made.parts()
    rows = await asyncio.to_thread(_rows, parts, ledger, counted=counted)
    totals = Tally()
    for tally in ledger.hours:
        totals.add(tally)
    return WhatIf(
        rows=rows,
        totals=_figures(totals, counted=counted),
        by_hour=[_figures(tally, counted=counted) for tally in ledger.hours],
        scans=totals.scans,
        scans_moved=totals.moved,
        moved_scans=sorted(ledger.moved_scans, key=_when) if may_list else None,
        without_mode=ledger.without_mode,
        without_station=without_station,
        amended_since=ledger.amended_since if wanted.supposed.moves_modes else None,
        stays=Stays(medians, len(ids) - medians),
        assumes=assumptions(wanted.supposed),
        calendar_known=_calendar_known(calendar, wanted),
        known_share=_known_share(parts),
    )


def _calendar_known(calendar: Calendar, wanted: Wanted) -> bool | None:
    scope = wanted.scope
    if not wanted.supposed.moves_modes and not is_by_class(scope.by, scope.bucket):
        return None
    return is_known(calendar, scope.period)


def _known_share(parts: Sequence[Part]) -> float:
    known, whole = (
        np.array([sum(int(getattr(part.known, name).sum()) for part in parts)])
        for name in ("known_ms", "whole_ms")
    )
    return float(share(known, whole)[0])


def assumptions(supposed: Supposition) -> Sequence[Assumption]:
    """Say what a replay under this supposition takes for granted."""
    found = [Assumption.MODES_AS_RECORDED]
    if supposed.moves_modes:
        found = [Assumption.HOURS_OF_TODAY, Assumption.CHANGES_AS_WRITTEN]
    if supposed.capacity is None:
        found.append(Assumption.PLACES_AS_RECORDED)
    found += [Assumption.REASONS_STAND, Assumption.LATER_CHECKS_PASS]
    if Ignored.CONTROLLER_OFFLINE not in supposed.ignored:
        found.append(Assumption.CONTROLLERS_HEARD)
    cut = supposed.max_stay is not None
    found.append(Assumption.STAYS_CUT if cut else Assumption.STAYS_STAND)
    return [*found, Assumption.USUAL_STAY, Assumption.NOBODY_ACTS_OTHERWISE]


def _key_of(slots: Slots) -> Callable[[Hashable, date, int], Hashable]:
    """Name a row by its place and the number of its slot, as a frame numbers them."""
    base_of = {day: number for number, base in enumerate(slots.bases) for day in base.days}
    if slots.by_hour:
        return lambda place, day, hour: (place, base_of[day] * 24 + hour)
    return lambda place, day, _hour: (place, base_of[day])


async def _nowhere(tx: AsyncSession, scope: Scope, timezone: str) -> int:
    begins, ends = scope.period.instants(timezone)
    query = sa.select(sa.func.count()).where(
        Scan.station_id.is_(None), Scan.scanned_at >= begins, Scan.scanned_at < ends
    )
    return await tx.scalar(query) or 0


async def _sites(
    tx: AsyncSession, made: Frame, ids: Sequence[uuid.UUID], *, silence: timedelta
) -> Mapping[Hashable, Site]:
    """Read some stations, and what is known of the period beside their scans."""
    scope = made.scope
    begins, ends = scope.period.instants("UTC")
    begins, ends = begins - MARGIN, ends + MARGIN
    changes = await _changes(tx, ids, begins, ends)
    silences = await _silences(tx, ids, begins, ends, silence=silence)
    sojourns, usual = await _visits(tx, scope, ids, begins, ends)
    met_alone = await _met_alone(tx, scope, ids)
    period = scope.period
    seats = await held.seats(tx, ids, from_day=period.from_day, to_day=period.to_day)
    rows = await tx.execute(
        sa.select(
            Station.id,
            Station.unit_id,
            Station.operating_model,
            Station.timezone,
            Station.staffed_hours,
            Station.access_hours,
            Station.capacity,
            Station.max_stay_min,
        ).where(Station.id.in_(ids))
    )
    return {
        row.id: Site(
            place=_place_of(made, row),
            rules=replace(station_rules(row, ()), changes=tuple(changes.get(row.id, ()))),
            capacity=row.capacity,
            seats=seats.get(row.id, ()),
            max_stay=timedelta(minutes=row.max_stay_min),
            usual_stay=usual.get(row.id),
            silences=silences.get(row.id, ()),
            sojourns=sojourns.get(row.id, ()),
            met_alone=met_alone.get(row.id, ()),
        )
        for row in rows
    }


def _place_of(made: Frame, station: Any) -> Hashable:
    """Say to which of the rows' places a station belongs; None: to all of them, or to none."""
    if made.scope.by.is_unit:
        branch = made.branches.get(station.unit_id)
        return None if branch is None else branch.unit
    places: Mapping[By, Hashable] = {
        By.STATION: station.id,
        By.OPERATING_MODEL: station.operating_model,
    }
    return places.get(made.scope.by)


async def _changes(
    tx: AsyncSession, ids: Sequence[uuid.UUID], begins: datetime, ends: datetime
) -> Mapping[uuid.UUID, Sequence[Change]]:
    """Read the exceptions and overrides that held in the period, each for as long as it did."""
    found: dict[uuid.UUID, list[Change]] = {}
    rows = await tx.scalars(
        sa.select(ModeChange).where(
            ModeChange.station_id.in_(ids),
            ModeChange.until_at > begins,
            ModeChange.from_at < ends,
        )
    )
    for row in rows:
        # Nobody knew of it before it was made, nor kept to it after it was withdrawn.
        since = max(row.from_at, row.created_at)
        until = min(row.until_at, row.retired_at or row.until_at)
        if since < until:
            change = Change(row.kind, row.tier, since, until, row.created_at)
            found.setdefault(row.station_id, []).append(change)
    return found


async def _silences(
    tx: AsyncSession,
    ids: Sequence[uuid.UUID],
    begins: datetime,
    ends: datetime,
    *,
    silence: timedelta,
) -> Mapping[uuid.UUID, Sequence[tuple[datetime, datetime]]]:
    """Read when the stations' controllers counted as offline: heard too long ago."""
    found: dict[uuid.UUID, list[tuple[datetime, datetime]]] = {}
    for station_id, devices in (await heard(tx, ids, from_at=begins, until_at=ends)).items():
        mine = found.setdefault(station_id, [])
        for device in devices:
            mine += [(since + silence, until) for since, until in device.outages]
            # The last one: until now, or until another took its place, which no return ended.
            since = (device.seen_at or device.enrolled_at) + silence
            until = device.retired_at or _EVER
            if since < until:
                mine.append((since, until))
        mine.sort()
    return found


async def _visits(
    tx: AsyncSession,
    scope: Scope,
    ids: Sequence[uuid.UUID],
    begins: datetime,
    ends: datetime,
) -> tuple[Mapping[uuid.UUID, Sequence[Sojourn]], Mapping[uuid.UUID, timedelta]]:
    """Read the visits that no scan of the period opened, and each station's median stay."""
    sojourns: dict[uuid.UUID, list[Sojourn]] = {}
    seconds: dict[uuid.UUID, list[float]] = {}
    streamed = await tx.stream(_sojourns(scope, ids, begins, ends))
    async for rows in streamed.partitions(ROWS):
        for row in rows:
            station_id, day, by_scan, seen_until, *fields = row
            came = Sojourn(*fields)
            if not by_scan:
                sojourns.setdefault(station_id, []).append(came)
            if seen_until is not None and scope.period.from_day <= day < scope.period.to_day:
                stayed = (seen_until - came.started_at).total_seconds()
                seconds.setdefault(station_id, []).append(stayed)
    usual = {
        station_id: timedelta(seconds=nearest_rank(sorted(stays), 50))
        for station_id, stays in seconds.items()
    }
    return sojourns, usual


async def _met_alone(
    tx: AsyncSession, scope: Scope, ids: Sequence[uuid.UUID]
) -> Mapping[uuid.UUID, Collection[Hashable]]:
    """Read which demands the stations' controllers met while they worked alone (law 8)."""
    found: dict[uuid.UUID, set[Hashable]] = {}
    rows = await tx.execute(
        sa.select(OfflineEntry.station_id, OfflineEntry.demand_key).where(
            OfflineEntry.station_id.in_(ids),
            OfflineEntry.local_day >= scope.period.from_day,
            OfflineEntry.local_day < scope.period.to_day,
            OfflineEntry.opened,
            OfflineEntry.demand_key.is_not(None),
        )
    )
    for station_id, demand_key in rows:
        found.setdefault(station_id, set()).add(demand_key)
    return found


def _gone_at() -> sa.ColumnElement[datetime | None]:
    """Say by when it was known that he was gone; an imputed end is nobody's word (law 10)."""
    visit = table_of(Visit).c
    return sa.case((visit.end_source != EndSource.IMPUTED, visit.ended_at), else_=None)


def _sojourns(
    scope: Scope, ids: Sequence[uuid.UUID], begins: datetime, ends: datetime
) -> sa.Select[Any]:
    visit, scan = table_of(Visit).c, table_of(Scan).c
    seen_until = sa.case((visit.end_source.in_(OBSERVED), visit.ended_at), else_=None)
    by_scan = sa.exists().where(
        scan.visit_id == visit.id,
        scan.station_id == visit.station_id,
        scan.local_day >= scope.period.from_day,
        scan.scanned_at <= visit.started_at,
    )
    return (
        sa.select(
            visit.station_id,
            visit.local_day,
            by_scan.label("by_scan"),
            seen_until.label("seen_until"),
            visit.id,
            visit.worker_id,
            visit.started_at,
            visit.stay_until,
            visit.ended_at,
            _gone_at().label("left_at"),
            visit.party_size,
        )
        .where(
            visit.station_id.in_(ids),
            visit.voided_at.is_(None),
            visit.started_at > begins - LONGEST_STAY,
            visit.started_at < ends,
            sa.func.coalesce(visit.ended_at, visit.stay_until) > begins,
        )
        .order_by(visit.station_id, visit.started_at)
        .execution_options(yield_per=ROWS)
    )


def _scans(scope: Scope, ids: Sequence[uuid.UUID]) -> sa.Select[Any]:
    """Select the scans in the order and with the columns of `Recorded`."""
    scan, visit, command = table_of(Scan), table_of(Visit), table_of(Command)
    over = sa.and_(
        command.c.scan_id == scan.c.id,
        scan.c.visit_id.is_(None),
        scan.c.outcome == Outcome.GRANTED,
    )
    # Where the relay pulsed and no opening was told, the place was kept for its whole time (law 9).
    settled_at = sa.case((command.c.state != CommandState.EXECUTED, command.c.settled_at))
    return (
        sa.select(
            scan.c.station_id,
            scan.c.id.label("scan_id"),
            scan.c.scanned_at,
            scan.c.local_day,
            scan.c.local_hour,
            scan.c.outcome,
            scan.c.reason,
            scan.c.mode,
            scan.c.because,
            scan.c.party_size,
            scan.c.worker_id,
            scan.c.demand_key,
            scan.c.expires_at,
            settled_at.label("settled_at"),
            scan.c.visit_id,
            visit.c.started_at,
            visit.c.stay_until,
            visit.c.ended_at,
            _gone_at().label("left_at"),
            visit.c.party_size.label("visitors"),
        )
        .select_from(scan)
        .outerjoin(visit, visit.c.id == scan.c.visit_id)
        .outerjoin(command, over)
        .where(
            scan.c.station_id.in_(ids),
            scan.c.local_day >= scope.period.from_day,
            scan.c.local_day < scope.period.to_day,
        )
        # By day first: so the index gives them, and only days need to be put in order.
        .order_by(scan.c.station_id, scan.c.local_day, scan.c.scanned_at, scan.c.id)
        .execution_options(yield_per=ROWS)
    )


def _rows(parts: Sequence[Part], ledger: Ledger, *, counted: bool) -> Sequence[Row]:
    found = list[Row]()
    for part in parts:
        slots, known = part.frame.slots, part.known
        of_each = zip(known.shares.tolist(), known.is_told.tolist(), strict=True)
        for number, (known_share, is_told) in enumerate(of_each):
            place_number, slot = divmod(number, slots.count)
            place, base = part.places[place_number], base_of(part, number)
            tally = ledger.rows.get((place.id or place.operating_model, slot))
            # Reports know of what came after a station was retired once it is rolled up; the totals
            # have it at once.
            if tally is None and is_told:
                tally = Tally()
            found.append(
                Row(
                    station=place.station,
                    unit=place.unit,
                    name=place.name,
                    operating_model=place.operating_model,
                    day=base.day,
                    hour=slot % 24 if slots.by_hour else None,
                    weekday=base.weekday,
                    day_class=base.day_class,
                    known_share=known_share,
                    figures=None if tally is None else _figures(tally, counted=counted),
                )
            )
    return found


def _when(scan: MovedScan) -> datetime:
    return scan.scanned_at


def _figures(tally: Tally, *, counted: bool) -> Figures:
    moved = [
        Moved(before.value, after.value, scans)
        for (before, after), scans in tally.answers.items()
        if before is not after
    ]
    return Figures(
        recorded=_outcomes(tally.before, tally.scans),
        replayed=_outcomes(tally.after, tally.scans),
        newly_let_in=tally.newly_let_in,
        newly_let_in_again=tally.again,
        newly_turned_away=tally.newly_turned_away,
        moved=sorted(moved, key=lambda one: (-one.scans, one.before, one.after)),
        unmet_demand_before=tally.unmet_before if counted else None,
        unmet_demand_after=tally.unmet_after if counted else None,
    )


def _outcomes(count: Callable[[Answer], int], scans: int) -> Outcomes:
    granted, walk_in = count(Outcome.GRANTED), count(Outcome.WALK_IN)
    return Outcomes(granted, walk_in, scans - granted - walk_in)
