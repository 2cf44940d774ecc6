"""A month with a holiday beside one without: the days that both have are compared."""

import csv
import io
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import openpyxl
import pytest
import sqlalchemy as sa

from app.places.rules import DayClass, Kind
from app.places.tables import CalendarDay
from app.reports.catalogue import described
from app.reports.comparing import BESIDE, FIGURES
from app.reports.drawing import left_out, of_comparable, plain
from app.reports.sheet import Comparable, Terms, gather, month_of
from app.runtime import Runtime
from app.visits.tables import EndSource, Visit
from tests.api.test_admin_reports import City, asks, came
from tests.api.test_admin_reports import city as city
from tests.support.counting import rolled

pytestmark = pytest.mark.anyio

JANUARY = {"from": "2026-01-01", "to": "2026-02-01", "compare": "before"}
"""It has 21 workdays, nine days at weekends and New Year's Day; December has 23 workdays, eight
days at weekends and no holiday."""


@pytest.fixture
async def winter(runtime: Runtime, city: City) -> City:
    """At noon came 23 on workdays of December; in January 24 on workdays, and 5 on New Year's Day.

    In December none of them came while staff were there, in January 12 on workdays and all on the
    holiday. On workdays of December they stayed for ten minutes, of January for 15, on the holiday
    for 30.
    """
    station = city.stations[0]
    new_year, december, january = date(2026, 1, 1), date(2025, 12, 15), date(2026, 1, 5)
    async with runtime.database.write() as tx:
        for day in (new_year, date(2025, 10, 1)):
            tx.add(CalendarDay(day=day, day_class=DayClass.PUBLIC_HOLIDAY, name="", source=""))
        for day, times, free, minutes in (
            (december, 23, 0, 10),
            (new_year, 5, 5, 30),
            (january, 24, 12, 15),
        ):
            for number in range(times):
                at = datetime(day.year, day.month, day.day, 4, number, tzinfo=UTC)
                await came(tx, runtime, station, at)
                how = {
                    "mode": Kind.FREE if number < free else Kind.SCAN,
                    "ended_at": at + timedelta(minutes=minutes),
                    "end_source": EndSource.WORKER,
                    "changed_at": runtime.now(),
                }
                await tx.execute(sa.update(Visit).where(Visit.started_at == at).values(how))
    runtime.calendar.forget()
    await rolled(runtime)
    return city


def beside(row: dict[str, Any], name: str) -> tuple[float | None, ...]:
    return tuple(row[f"{name}{ending}"] for ending in ("", "_over", "_before", "_change"))


async def test_a_month_with_a_holiday_is_compared_with_one_without_over_the_other_days(
    client: httpx.AsyncClient, winter: City
) -> None:
    answer = await asks(client, winter.auditor, **JANUARY)
    row, empty = answer.json()["rows"]
    assert (row["compared_days"], row["days_over"]) == (30, 31)
    assert row["left_out_classes"] == empty["left_out_classes"] == ["public_holiday"]
    # Twenty-one of December's workdays had 21 visits; the five of New Year's Day are beside no day.
    assert beside(row, "visits") == (29, 24, 21.0, 0.1429)
    assert beside(empty, "visits") == (0, 0, 0.0, None)
    # A share and a mean are of the same days.
    assert beside(row, "offhours_share") == (0.4138, 0.5, 1.0, -0.5)
    assert beside(row, "dwell_mean_s") == (1055.17, 900.0, 600.0, 0.5)
    # Of hours of the day too; nobody came at one.
    hours = (await asks(client, winter.auditor, **JANUARY, bucket="hour_of_day")).json()["rows"]
    noon, one = hours[12], hours[13]
    assert beside(noon, "visits") == (29, 24, 21.0, 0.1429)
    assert beside(one, "visits") == (0, 0, 0.0, None)
    assert {row["compared_days"] for row in hours} == {30}
    (noon,) = [
        row
        for row in (await asks(client, winter.auditor, **JANUARY, by="hour")).json()["rows"]
        if row["hour"] == 12
    ]
    assert (noon["visits_change"], noon["left_out_classes"]) == (0.1429, ["public_holiday"])


async def test_a_day_of_a_class_that_the_period_before_has_none_of_is_compared_with_nothing(
    client: httpx.AsyncClient, winter: City
) -> None:
    query = {"from": "2026-01-01", "to": "2026-01-02", "compare": "before"}
    row, _ = (await asks(client, winter.auditor, **query)).json()["rows"]
    assert (row["compared_days"], row["days_over"]) == (0, 1)
    assert row["left_out_classes"] == ["public_holiday"]
    assert beside(row, "visits") == (5, None, None, None)
    assert beside(row, "offhours_share") == (0.0, None, None, None)


@pytest.mark.parametrize("report", list(FIGURES))
async def test_every_report_that_is_compared_says_of_which_days(
    client: httpx.AsyncClient, winter: City, report: str
) -> None:
    rows = (await asks(client, winter.auditor, report, **JANUARY, by="all")).json()["rows"]
    assert len(rows) == (report != "facilities")
    for row in rows:
        assert (row["compared_days"], row["left_out_classes"]) == (30, ["public_holiday"])
    (says,) = [each for each in described() if each.report == report]
    assert list(says.beside) == list(says.beside_zh) == list(BESIDE)


async def test_files_say_of_which_days_too(client: httpx.AsyncClient, winter: City) -> None:
    titles = (
        "人次（可比的日子） (visits_over)",
        "人次变化率 (visits_change)",
        "已比较天数 (compared_days)",
        "已结束天数 (days_over)",
        "未比较的日期类别 (left_out_classes)",
    )
    answer = await asks(client, winter.auditor, **JANUARY, format="csv")
    line, _ = csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff"), newline=""))
    assert [line[title] for title in titles] == ["24", "0.1429", "30", "31", "public_holiday"]
    answer = await asks(client, winter.auditor, **JANUARY, format="xlsx")
    head, one, _ = openpyxl.load_workbook(io.BytesIO(answer.content))["报表"].iter_rows(
        values_only=True
    )
    row = dict(zip(head, one, strict=True))
    assert [row[title] for title in titles] == [24, 0.1429, 30, 31, "public_holiday"]


async def test_the_sheet_of_january_is_compared_and_says_what_is_left_out(
    runtime: Runtime, winter: City
) -> None:
    days = (await runtime.calendar.fresh(runtime.database)).current
    async with runtime.database.read() as tx:
        terms = Terms(runtime.now(), days, timedelta(days=180))
        january = await gather(tx, winter.stations[0], month_of("2026-01"), terms)
        december = await gather(tx, winter.stations[0], month_of("2025-12"), terms)
    assert january.comparable == Comparable(30, 31, {"public_holiday": [1]})
    visits, share = (
        next(figure for figure in january.figures if figure.name == name)
        for name in ("visits", "offhours_share")
    )
    assert (visits.now, visits.over, visits.before, visits.change) == (29, 24, 21.0, 0.1429)
    said = plain(january)
    assert [of_comparable(each) for each in said["figures"][:2]] == ["可比日 24", ""]
    assert (share.over, share.before) == (0.5, 1.0)
    (line,) = left_out(said["comparable"])
    assert "已结束的 31 天中的 30 天" in line
    assert line.endswith("：法定节假日 1 日。")
    # December is compared with November whole: neither has a holiday.
    assert december.comparable == Comparable(31, 31, {})
    assert left_out(plain(december)["comparable"]) == []
