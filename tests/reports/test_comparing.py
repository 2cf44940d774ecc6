"""Rows beside those of the period before: whole histories, told by the reports themselves."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.places.rules import CITY_ZONE, local_day
from app.places.tables import Station
from app.reports import comparing, queries, sums
from app.reports.comparing import ADDED, FIGURES, _Cut, both
from app.reports.queries import REPORTS
from app.reports.rules import Bucket, By, Period
from app.reports.rules.comparison import change, period_before
from app.reports.rules.rates import rate_of
from app.reports.vectors import Table
from app.runtime import Runtime
from tests.reports import mixes
from tests.reports.test_queries import CALENDAR, LONG, SEEDS, SHORT, START, THIRDS, told

pytestmark = pytest.mark.anyio

WEEKS = Period(START - timedelta(weeks=2), START)
"""Two weeks that are over, without a holiday, as the two before them; no clock was moved then."""
OCTOBER = Period(date(2026, 10, 1), date(2026, 11, 1))
RECOUNTED = [
    *((SHORT, by, None) for by in By if by.is_place),
    (SHORT, By.HOUR, None),
    (SHORT, By.STATION, Bucket.HOUR_OF_DAY),
    *((period, by, None) for period in (OCTOBER, LONG[2]) for by in By if by.is_place),
    (OCTOBER, By.HOUR, None),
    (LONG[2], By.UNIT, Bucket.HOUR_OF_DAY),
]
"""Days of which one is a holiday and two are to come; a month; whole months and some days."""


@pytest.mark.parametrize("seed", SEEDS)
async def test_every_comparison_equals_a_plain_recount(runtime: Runtime, seed: int) -> None:
    """The cuts are dealt out to the histories, as those of the reports are."""
    seen = Counter[str]()
    async with told(runtime, seed) as one:
        until = local_day(one.at, CITY_ZONE)
        for period, by, bucket in RECOUNTED[seed % THIRDS :: THIRDS]:
            scope = one.scope(by, bucket, period)
            previous = mixes.period_before((period.from_day, period.to_day))
            before = one.rows(one.scope(by, bucket, Period(*previous)))
            sides = mixes.sides(one.raw, one.rows(scope), before, until, CALENDAR)
            days = sum(1 for day in period.days if day < until)
            for report, figures in FIGURES.items():
                rows: Any = await queries.rows(one.tx, scope, REPORTS[report])
                compared = await comparing.compared(one.tx, scope, report, rows)
                for row, values in zip(rows, compared.rows, strict=True):
                    found = dict(zip(compared.columns, values, strict=True))
                    *key, kind = comparing.row_key(row)
                    now, then = sides(tuple(key), report, kind)
                    for name in figures:
                        told_now, told_then = mixes.told(report, name, now, then)
                        over, old = found[f"{name}_over"], found[f"{name}_before"]
                        where = report, name, by, bucket, period, key, kind
                        assert mixes.is_near(over, *told_now), (where, over, told_now)
                        assert mixes.is_near(old, *told_then), (where, old, told_then)
                        is_changed = over is not None and bool(old)
                        wanted = round(over / old - 1, 4) if is_changed else None
                        assert found[f"{name}_change"] == wanted, where
                        seen[report] += is_changed
                    mine = [each for each in mixes.CLASSES if now.days.get(each)]
                    both_known = {each for each in mine if now.known(each) and then.known(each)}
                    assert found["compared_days"] == sum(len(now.days[each]) for each in both_known)
                    assert found["left_out_classes"] == [e for e in mine if e not in both_known]
                    assert found["days_over"] == days
                    assert found["before_known_share"] == pytest.approx(
                        then.known_share(), abs=2e-4
                    )
                    assert found["before_reported_share"] == then.heard(), (report, by, key)
    assert min(seen[report] for report in FIGURES) > 20, seen


async def test_of_as_many_days_of_each_class_the_period_before_is_what_its_report_says(
    runtime: Runtime,
) -> None:
    seen = 0
    async with told(runtime, 1, rounds=0) as one:
        for report in FIGURES:
            cuts = [(by, None) for by in (By.STATION, By.UNIT, By.BRANCH, By.ALL, By.HOUR)]
            for by, bucket in (*cuts, (By.STATION, Bucket.HOUR_OF_DAY)):
                scope = one.scope(by, bucket, WEEKS)
                before = one.scope(by, bucket, period_before(WEEKS))
                rows: Any = await queries.rows(one.tx, scope, REPORTS[report])
                then: Any = await queries.rows(one.tx, before, REPORTS[report])
                of_before = {comparing.row_key(row): row for row in then}
                beside = await comparing.compared(one.tx, scope, report, rows)
                for row, values in zip(rows, beside.rows, strict=True):
                    found = dict(zip(beside.columns, values, strict=True))
                    was = of_before.get(comparing.row_key(row))
                    for name in FIGURES[report]:
                        over, old = found[f"{name}_over"], found[f"{name}_before"]
                        assert found[f"{name}_change"] == change(over, old)
                        if name == "walk_in_heads":
                            # Of days of a class with a count in both periods alone.
                            assert (over is None) is (old is None)
                            continue
                        wanted = getattr(row, name)
                        # Of a station that was not there all the time, this history has more.
                        is_whole = found["compared_days"] == found["days_over"] == 14
                        assert is_whole is not bool(found["left_out_classes"])
                        if over is None and rate_of(report, name) is None:
                            assert old is None
                        elif wanted is not None and row.known_share == 1 and is_whole:
                            assert over == pytest.approx(wanted, abs=1e-9), (report, name)
                        rate = rate_of(report, name)
                        parts = (name,) if rate is None else rate.names
                        is_known = None not in [getattr(row, part) for part in parts]
                        if was is None or not is_known or min(row.known_share, was.known_share) < 1:
                            continue
                        wanted = getattr(was, name)
                        if wanted is not None and old is not None:
                            near = 0.006 if rate is None else 1e-9
                            assert old == pytest.approx(wanted, abs=near), (report, name)
                            seen += rate is not None and old > 0
    assert seen > 50


async def test_a_long_comparison_comes_part_by_part_and_says_the_same(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a station was retired in between: the period before has more places then."""
    monkeypatch.setattr("app.reports.comparing.AT_ONCE", 1)
    async with told(runtime, 1, rounds=0) as one:

        @asynccontextmanager
        async def read() -> AsyncIterator[AsyncSession]:
            yield one.tx

        retired = sorted(at for at in await one.tx.scalars(sa.select(Station.retired_at)) if at)
        first = local_day(retired[0], CITY_ZONE) + timedelta(days=1)
        period = Period(first, first + timedelta(weeks=1))
        for report in ("visits", "facilities"):
            for by in (By.STATION, By.UNIT, By.BRANCH, By.OPERATING_MODEL, By.HOUR):
                bucket = Bucket.HOUR_OF_DAY if by is By.STATION else None
                scope = one.scope(by, bucket, period)
                rows: Any = await queries.rows(one.tx, scope, REPORTS[report])
                beside = await comparing.compared(one.tx, scope, report, rows)
                pair = await comparing.pair(one.tx, scope, report, is_at_once=False)
                assert len(pair.parts()) == len(pair.made.places)
                found: list[Any] = []
                async for columns in comparing.streamed(read, pair):
                    found += zip(*columns, strict=True)
                assert found == [
                    (*row, *more) for row, more in zip(rows, beside.rows, strict=True)
                ], (report, by)


async def test_workdays_of_a_month_are_what_its_sum_leaves_of_weekends_and_holidays(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is fewer rows than its workdays, and says the same."""
    apart = Counter[bool]()
    plainly, table_apart = sums.read, Table.apart

    def counted(self: Table, others: Table, count: int, place: int, *, size: int) -> Table:
        apart[size > 1] += 1
        return table_apart(self, others, count, place, size=size)

    monkeypatch.setattr(Table, "apart", counted)
    async with told(runtime, 1, rounds=0) as one:
        for report in FIGURES:
            for by in (By.STATION, By.UNIT, By.ALL, By.HOUR):
                scope = one.scope(by, None, OCTOBER)
                rows: Any = await queries.rows(one.tx, scope, REPORTS[report])
                found = await comparing.compared(one.tx, scope, report, rows)
                with monkeypatch.context() as patch:
                    patch.setattr("app.reports.queries.read_apart", plainly)
                    wanted = await comparing.compared(one.tx, scope, report, rows)
                assert found.rows == wanted.rows, (report, by)
    assert apart[False] > 10
    assert apart[True] > 3


def test_hours_of_recorded_days_are_of_so_many_days_and_visits_of_all() -> None:
    """Of October one workday in eighteen is recorded; November's twenty-one are all."""

    def cut(known: int, recorded: int, **came: int) -> _Cut:
        each = np.array([[1.0], [0.0], [0.0]])  # Workdays alone.
        values = {
            name: ((came.get(name, 0) * each).astype(int), each > 0) for name in ADDED["visits"]
        }
        return _Cut(known * each, recorded * each, [], values)

    ten = 10 * 3_600_000
    now = cut(21, 21, visits=42, staffed_hours=21 * ten, covered_hours=21 * ten // 2)
    then = cut(18, 1, visits=36, staffed_hours=ten, covered_hours=ten // 4)
    assert both("visits", "visits", now, then) == ([42], [42])
    assert both("visits", "staffed_hours", now, then) == ([210], [210])
    assert both("visits", "free_mode_coverage", now, then) == ([0.5], [0.25])
