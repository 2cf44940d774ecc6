"""Where figures come from: each names the counters that move it, and as many rows as it counts."""

import operator
import random
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from datetime import date, datetime, timedelta
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import sqlalchemy as sa

from app.db.cursors import PageRequest
from app.people.admins import Roots
from app.places.tables import FacilityKind, Station
from app.reports import queries
from app.reports.behind import behind, may_list
from app.reports.catalogue import FORMULAS, SAYS, field_of
from app.reports.cells import Cell, Names, RowUnknown, find
from app.reports.frame import Part, frame
from app.reports.made import MADE, Made, Rows
from app.reports.queries import NOT_EXECUTED, REPORTS, There
from app.reports.rules import Bucket, By, Period, class_of
from app.reports.rules.counters import (
    DECIDE,
    DOOR,
    DWELL,
    HOURS,
    PICKUP,
    PULSE,
    REASON,
    REASONS,
    REPAIR,
    C,
    F,
    facility,
)
from app.reports.scope import Scope
from app.reports.source import Source, source
from app.reports.sums import Sums
from app.reports.vectors import Table
from app.runtime import Runtime
from tests.reports.test_queries import ALL_CUTS, SEEDS, SHORT, SILENCE, THIRDS, Told, told

pytestmark = pytest.mark.anyio

NAMES = {"text", "id", "date", "hour", "truth", "instant"}
"""What is measured in these is a name or a state of a row, and no figure."""
HISTOGRAMS = {DWELL: 5, PICKUP: 7, PULSE: 9, DOOR: 11, DECIDE: 13, REPAIR: 15}
UNITS = {"share": 1, "ratio": 1, "persons": 1, "minutes": 60, "seconds": 3_600}
"""How many of a rate's unit are one of what it was divided of, which are counts or hours."""
HOUR_MS = 3_600_000
NOT_COUNTED = {"peak_occupancy", "peak_at", "max_observed", "unique_workers"}
"""Kept beside the counters."""
COUNTED = {
    "visits": (
        "visits visits_free visits_scan visits_offline returns anonymous_visits "
        "out_of_hours_visits head_counts refused stays ended imputed_exits"
    ),
    "access": "decided granted walk_in refused claimed executed refused_after_grant failed expired "
    "unknown live with_contact opened alone_opened alone_refused alone_flagged",
    "facilities": "uses open_uses open_faults_over_72h",
    "controllers": "commands live executed refused failed expired unknown",
}
"""Figures that are numbers of rows."""

EITHER: dict[str, set[C]] = {
    "crowded_minutes": {C.REPORTING_MS, C.PERSON_MS},
    "walk_in_heads": {C.HEADS, C.HEAD_COUNTS},
    "head_counts": {C.HEADS, C.HEAD_COUNTS},
}
"""Counters of which each alone says that there is something to tell, or that some is missing."""

HOURLY = {
    "covered_hours": "covered_ms",
    "heads_only_hours": "heads_only_ms",
    "reporting_hours": "reporting_ms",
    "seat_hours": "seats_ms",
    "commissioned_hours": "commissioned_ms",
    "online_hours": "online_ms",
    "unheard_hours": "deaf_ms",
}
"""Figures whose rows are hours, and what of these adds up to them."""

ALWAYS = {
    "visits": ["unmet_demand"],
    "access": ["open_success_rate"],
    "occupancy": ["covered_hours"],
    "promise": ["usable_hours"],
}
"""Figures that are asked of every cell: their rows add up, though they are no number of rows."""


def test_every_figure_says_where_it_comes_from() -> None:
    for report, (row, _) in SAYS.items():
        figures = {
            name
            for name in row._fields  # type: ignore[attr-defined]
            if (FORMULAS[name][1] not in NAMES and name != "weekday") or name == "peak_at"
        }
        assert set(MADE[report]) | {"known_share"} == figures, report
        if report == "occupations":
            made = MADE[report].values()
            assert not any(names(one) or one.rows or one.has_sets for one in made), report


def keys_of(report: str) -> Iterator[int]:
    """Every counter that the report reads; of facilities those of one kind."""
    if report == "facilities":
        yield from (facility("water", counter) for counter in F)
    if report == "access":
        yield from (REASON + number for number in range(len(REASONS)))
    yield from (key for key in C if key < C.QUARTER or key >= C.OPEN_MS)


def is_time(key: int) -> bool:
    kinds = {facility("water", counter) for counter in F if counter.name.endswith("_MS")}
    return key in kinds or (key in set(C) and C(key).name.endswith("_MS"))


def names(made: Made) -> set[int]:
    found = set(made.counters) | {facility("water", counter) for counter in made.kinds}
    return found | ({made.histogram} if made.histogram is not None else set())


async def test_a_figure_names_just_the_counters_that_move_it(runtime: Runtime) -> None:
    async with told(runtime, 1, rounds=0) as one:
        (part,) = (await frame(one.tx, one.scope(By.ALL))).parts()
    for report, made in REPORTS.items():
        values = {key: 1_000 + 97 * place for place, key in enumerate(keys_of(report))}
        values |= {key: value * 10_000_000 for key, value in values.items() if is_time(key)}
        ends = (C.EXECUTED, *NOT_EXECUTED)
        values |= {C.GRANTED: sum(values[end] for end in ends if end in values)}
        values |= {C.OPEN_MS: 300 * HOUR_MS}
        values |= {C.PROMISED_MS: 400 * HOUR_MS, C.UNKNOWN_MS: 90 * HOUR_MS}
        values |= {C.COMMISSIONED_MS: 500 * HOUR_MS, C.DEAF_MS: 80 * HOUR_MS}
        values |= {C.STAFFED_MS: 100 * HOUR_MS, C.COVERED_MS: 60 * HOUR_MS}
        values |= {C.HEADS_ONLY_MS: 5 * HOUR_MS}
        values |= {histogram + place: 50 for histogram, place in HISTOGRAMS.items()}
        values |= {facility("water", F.REPAIRS): 50}
        base = figures_of(part, report, values)
        moved: defaultdict[str, set[int]] = defaultdict(set)
        for key, value in values.items():
            for other in (value * 3, value // 3, 0):
                for figure, found in figures_of(part, report, values | {key: other}).items():
                    if found != base[figure]:
                        histogram = next((h for h, p in HISTOGRAMS.items() if h + p == key), key)
                        moved[figure].add(histogram)
        for figure in MADE[report]:
            if figure not in NOT_COUNTED:
                either = EITHER.get(figure, set())
                assert moved[figure] | either == names(MADE[report][figure]), (report, figure)
        for figure in MADE[report]:
            says = field_of(report, figure)
            if says.numerator and says.denominator:
                divided = worth(says.numerator, base) / worth(says.denominator, base)
                assert base[figure] == pytest.approx(divided * UNITS[says.unit], rel=0.01), figure
        assert made.row is SAYS[report][0]


def worth(terms: str, figures: dict[str, Any]) -> float:
    """The worth of a sum, a difference or a quotient of figures."""
    first, *rest = terms.split()
    found = float(figures[first])
    for sign, name in zip(rest[::2], rest[1::2], strict=True):
        other = float(figures[name])
        found = {"+": operator.add, "-": operator.sub, "/": operator.truediv}[sign](found, other)
    return found


def figures_of(part: Part, report: str, values: dict[int, int]) -> dict[str, Any]:
    keys = sorted(values)
    table = Table(1, np.array(keys), np.array([[values[key]] for key in keys], np.int64))
    sums = Sums(1, False, table, uniques=[3], peaks=[(1.0, None)], most_inside=[2])
    standing = {kind: There(*np.zeros((2, 1), np.int64)) for kind in FacilityKind}
    rows = list(REPORTS[report].rows(part, sums, standing))
    row = next((one for one in rows if getattr(one, "kind", None) == "water"), rows[0])
    return {figure: getattr(row, figure) for figure in MADE[report]}


CELLS = 2
"""So many cells of each report of each cut are asked about, of each of two scopes."""


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_counters_of_any_cell_give_its_figure_and_as_many_rows_stand_behind_it(
    runtime: Runtime, seed: int
) -> None:
    """The cuts are dealt out to the histories: together they try all of them."""
    chance, listed = random.Random(seed), Counter[str]()
    async with told(runtime, seed, rounds=1) as one:
        for period, by, bucket in ((SHORT, By.STATION, None), *ALL_CUTS[seed % THIRDS :: THIRDS]):
            station = chance.choice(one.story.stations)
            city = one.scope(by, bucket, period)
            alone = replace(
                city,
                stations=sa.select(Station.id).where(Station.id == station.id),
                roots=Roots(stations=[station.id]),
            )
            scopes = [city, alone]
            if by is By.BRANCH:
                near, _, street = one.story.units
                beneath = sa.select(Station.id).where(Station.unit_id.in_([near.id, street.id]))
                scopes.append(replace(city, stations=beneath, roots=Roots(units=[near.id])))
            for scope, report in product(scopes, (*REPORTS, "controllers")):
                if report == "controllers" and (by, bucket) != (By.STATION, None):
                    continue
                rows = [row for row in await rows_of(one, scope, report) if row.known_share]
                for row in chance.sample(rows, min(CELLS, len(rows))):
                    cell = await find(one.tx, scope, names_of(row))
                    figures = COUNTED.get(report, " ".join(MADE[report])).split()
                    always = ALWAYS.get(report, ())
                    some = chance.choice(sorted(MADE[report])), chance.choice(figures), *always
                    for figure in some:
                        found = await source(one.tx, cell, report, figure)
                        where = (report, figure, by, bucket, period, row)
                        assert found.value == getattr(row, figure), where
                        assert found.known_share == row.known_share, where
                        check_counters(cell, report, figure, found)
                        if (scope is alone or cell.station_id) and may_list(cell):
                            its = await one.tx.get_one(Station, cell.station_id or station.id)
                            await check_rows(one, cell, its, report, figure, row)
                            listed[report] += 1
    assert all(listed[report] > 5 for report in (*COUNTED, "occupancy")), listed


async def rows_of(one: Told, scope: Scope, report: str) -> Sequence[Any]:
    if report == "controllers":
        return await queries.controllers(one.tx, scope, silent_since=scope.at)
    rows: Sequence[Any] = await getattr(queries, report)(one.tx, scope)
    return rows


def names_of(row: Any) -> Names:
    said = {field.name: getattr(row, field.name, None) for field in fields(Names)}
    if said["unit"] is not None:
        said["unit"] = uuid.UUID(said["unit"])
    return Names(**said)


NUMBERS = {
    **{key.name.lower(): int(key) for key in C},
    **{f"refused.{reason.value}": REASON + place for place, reason in enumerate(REASONS)},
    **{
        f"{kind.value}.{counter.name.lower()}": facility(kind.value, counter)
        for kind in FacilityKind
        for counter in F
    },
}


def check_counters(cell: Cell, report: str, figure: str, found: Source) -> None:
    """Put the counters into the formula, in every hour the same, and read the figure off it."""
    if figure in NOT_COUNTED or MADE[report][figure].histogram is not None or found.value is None:
        return
    if (report, figure) == ("controllers", "reported_share"):
        online, commissioned = (counter.sum for counter in found.counters)
        assert found.value == pytest.approx(online / commissioned, abs=0.0001)
        return
    if report == "controllers":
        assert sum(counter.sum for counter in found.counters) == found.value
        return
    values = {
        NUMBERS[counter.name]: counter.sum
        for counter in found.counters
        if counter.name not in MADE[report][figure].times
    }
    keys, count = sorted(values), cell.part.rows
    by_hour = cell.hour is not None
    lines = HOURS if by_hour else 1
    sums = np.array([[values[key]] * lines for key in keys], np.int64).reshape(len(keys), lines)
    table = Table(lines, np.array(keys), sums)
    whole = Sums(count, by_hour, table, [0] * count, [(0.0, None)] * count, [0] * count)
    standing = {kind: There(*np.full((2, 1), kind is cell.kind, int)) for kind in FacilityKind}
    rows = [
        row
        for row in REPORTS[report].rows(cell.part, whole, standing)
        if row.hour == cell.hour and getattr(row, "kind", None) == cell.kind
    ]
    if figure not in ("units", "open_faults_over_72h"):
        assert [getattr(row, figure) for row in rows] == [found.value], (report, figure)


async def check_rows(
    one: Told, cell: Cell, station: Station, report: str, figure: str, row: Any
) -> None:
    made, rows = MADE[report][figure], list[Any]()
    cursor: str | None = None
    while True:
        request = PageRequest(200 if made.rows is Rows.HOURS else 3, cursor)
        page = await behind(one.tx, cell, station, made, request, silence=SILENCE)
        rows += page.rows
        cursor = page.next
        if cursor is None:
            break
    if figure == "unmet_demand" and row.unmet_demand is not None:
        assert len({each.demand for each in rows if not each.met}) == row.unmet_demand, row
    if made.rows is Rows.PROMISED and row.promised_hours is not None:
        for name, counts in (("usable_hours", "usable"), ("unknown_hours", "unknown")):
            kept = sum(
                (each.until_at - each.from_at) / timedelta(hours=1)
                for each in rows
                if each.counts == counts
            )
            assert kept == pytest.approx(getattr(row, name), abs=0.001), (name, row)
    if made.rows is Rows.HOURS and figure in HOURLY and getattr(row, figure) is not None:
        hours = sum(getattr(each, HOURLY[figure]) for each in rows) / HOUR_MS
        assert hours == pytest.approx(getattr(row, figure), abs=0.001), (figure, row)
    if figure == "open_success_rate" and row.open_success_rate is not None:
        opened = [
            each.opened_at is not None if each.with_contact else each.state == "executed"
            for each in rows
        ]
        assert sum(opened) / len(rows) == pytest.approx(row.open_success_rate, abs=0.0001), row
    if figure == "open_faults_over_72h":
        assert all(one.at - each.from_at > timedelta(hours=72) for each in rows), row
    named = {tuple(getattr(each, name, None) for name in IDS) for each in rows}
    assert len(named) == len(rows)
    if figure == "walk_in_heads" and row.walk_in_heads is not None:
        assert sum(each.count for each in rows) == row.walk_in_heads
    if figure in COUNTED.get(report, "").split() and getattr(row, figure) is not None:
        assert len(rows) == getattr(row, figure), (report, figure, row)
    if made.is_inside:
        minutes = sum(
            is_of(row, cell.scope, minute.astimezone(ZoneInfo(station.timezone))) * each.party_size
            for each in rows
            for minute in minutes_of(each, one.at)
        )
        assert rows or not minutes
        assert round(minutes / 60, 2) == pytest.approx(row.person_hours, abs=0.01), row


IDS = ("id", "entry_id", "controller_id", "facility_id", "from_at")


def minutes_of(visit: Any, at: datetime) -> Iterator[datetime]:
    minute, until = visit.started_at, visit.ended_at or min(visit.stay_until, at)
    while minute < until:
        yield minute
        minute += timedelta(minutes=1)


def is_of(row: Any, scope: Scope, local: datetime) -> bool:
    """Whether a minute belongs to a row, by the names of the row."""
    day, grain = local.date(), scope.bucket if scope.by.is_place else scope.by
    first = {
        "week": day - timedelta(days=day.weekday()),
        "month": day.replace(day=1),
    }.get(str(grain), day)
    return (
        scope.period.from_day <= day < scope.period.to_day
        and row.day in (None, first)
        and row.hour in (None, local.hour)
        and row.weekday in (None, day.isoweekday())
        and row.day_class in (None, class_of(scope.calendar, day).value)
    )


async def test_what_names_no_row_or_several_is_refused(runtime: Runtime) -> None:
    async with told(runtime, 1, rounds=0) as one:
        foreign, mine = one.story.foreign[0], one.story.stations[0]
        wrong: list[tuple[By, Bucket | None, Names]] = [
            (By.STATION, None, Names()),
            (By.STATION, None, Names(station=foreign.code)),
            (By.UNIT, None, Names(unit=foreign.unit_id)),
            (By.BRANCH, None, Names()),
            (By.BRANCH, None, Names(unit=foreign.unit_id)),
            (By.BRANCH, None, Names(unit=one.story.units[2].id)),
            (By.ALL, None, Names(station=mine.code)),
            (By.ALL, None, Names(hour=3)),
            (By.ALL, Bucket.DAY, Names()),
            (By.HOUR, None, Names(day=SHORT.from_day)),
            (By.DAY, Bucket.HOUR, Names(day=SHORT.from_day)),
            (By.DAY, None, Names(day=SHORT.to_day)),
            (By.WEEKDAY, None, Names(weekday=3)),
        ]
        for by, bucket, names in wrong:
            with pytest.raises(RowUnknown):
                await find(one.tx, one.scope(by, bucket), names)


async def test_rows_are_shown_of_days_that_lie_near_together(runtime: Runtime) -> None:
    year = Period(date(2026, 1, 1), date(2027, 1, 1))
    shown = [
        (By.DAY, Names(day=date(2026, 3, 1)), True),
        (By.MONTH, Names(day=date(2026, 3, 1)), True),
        (By.WEEKDAY, Names(weekday=1), False),
        (By.ALL, Names(), False),
    ]
    async with told(runtime, 1, rounds=0) as one:
        for by, names, may in shown:
            assert may_list(await find(one.tx, one.scope(by, None, year), names)) is may
