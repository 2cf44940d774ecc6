"""The monthly sheet: the reports' own figures, on one page, in vectors and with its own letters."""

import io
import re
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta, timezone
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fontTools.ttLib import TTFont
from pypdf import PdfReader

from app.doors.rules import Reason
from app.doors.typeface import subset
from app.people.rules import Role
from app.places.rules import DayClass, Kind
from app.places.tables import CalendarDay, FacilityKind
from app.reports import drawing
from app.reports.catalogue import field_of, is_share
from app.reports.drawing import FACILITIES, REASONS, SheetFailed, draw, plain, printed, said
from app.reports.rules import Completeness
from app.reports.scope import PeriodInvalid
from app.reports.sheet import (
    BESIDE,
    SHOWN,
    Comparable,
    DayBar,
    Figure,
    Parts,
    Sheet,
    Terms,
    gather,
    month_of,
)
from app.runtime import Runtime
from app.visits.tables import Visit
from tests.api.test_admin_reports import City, audited, came
from tests.api.test_admin_reports import city as city
from tests.reports.test_source import worth
from tests.support.counting import rolled
from tests.support.worlds import an_admin

pytestmark = pytest.mark.anyio

SHEET = Sheet(
    code="CQ-1",
    name="解放碑直门骨驿站",
    unit="渝中区总工会",
    address="民族路 101 号",
    capacity=24,
    year=2026,
    month=10,
    figures=[
        Figure(name, 0.324 if is_share(name) else 1234.0, None, Parts(124, 383), is_share(name))
        for name in SHOWN
    ],
    days=[DayBar(day, day, 2 * day) for day in range(1, 26)]
    + [DayBar(day, None, None) for day in range(26, 32)],
    hours=[float(hour) for hour in range(24)],
    hours_parts=Parts(383, 24.5),
    inside=[None] * 24,
    inside_parts=Parts(None, None),
    scanned=Figure("scanned", 0.2, None, Parts(60, 300), is_share=True),
    reasons=[("station_full", 7)],
    uses=[],
    comparable=Comparable(22, 25, {"public_holiday": [1, 2, 7]}),
    heard=Figure("reported_share", 0.9821, None, Parts(589.3, 600), is_share=True),
    completeness=Completeness(31, 25, 25, 1, 5, 0.8065),
    rolled_up_to=datetime(2026, 10, 26, 9, 29, tzinfo=timezone(timedelta(hours=8))),
    recounting=True,
    calendar_known=True,
    generated_at=datetime(2026, 10, 26, 9, 30, tzinfo=timezone(timedelta(hours=8))),
)


def page_of(pdf: bytes) -> Any:
    (only,) = PdfReader(io.BytesIO(pdf)).pages
    return only


def fonts_of(page: Any) -> list[str]:
    found = page["/Resources"].get("/Font") or {}
    return [str(font.get_object()["/BaseFont"]) for font in found.values()]


async def test_it_is_one_page_of_text_and_vectors_with_its_own_typeface() -> None:
    page = page_of(await printed(SHEET))
    assert [float(side) for side in page.mediabox] == [0, 0, 595, 842]
    assert list(page.images) == []
    text = page.extract_text()
    for wanted in (SHEET.name, "2026 年 10 月", "渝中区总工会", "每日人次", "已满员", "本月没有"):
        assert wanted in text
    assert "31 天中 25 天已结束并统计；本月未完" in text
    assert "统计到 10-26 09:29 为止的变化。部分日子正在重新统计，数字还会变。" in text
    assert "完整度：已过去、已统计、且驿站已登记的时间 32.4%（124 / 383 小时）" in text
    assert "装有控制器的时间里有信号的 98.2%（589.3 / 600 小时）" in text
    assert "节假日未导入" not in text
    assert "可比日：已结束的 25 天中的 22 天" in text
    assert "法定节假日 1-2、7 日" in text
    assert fonts_of(page)
    assert all("Sheet-" in name for name in fonts_of(page))


async def test_it_says_when_days_were_taken_as_their_weekdays() -> None:
    text = page_of(await printed(replace(SHEET, calendar_known=False))).extract_text()
    assert "节假日未导入，按星期算。" in text


async def test_what_is_not_known_is_a_dash_and_no_zero() -> None:
    assert said(None, "visits", is_share=False) == "—"
    assert said(0, "visits", is_share=False) == "0"
    assert said(0.5, "grant_rate", is_share=True) == "50.0%"
    assert said(1830, "dwell_median_s", is_share=False) == "30 分钟"
    assert said(1234.5, "visits", is_share=False) == "1,234.5"
    # Nearly all is not all, and a little is not nothing.
    assert said(0.9996, "promise_rate", is_share=True) == ">99.9%"
    assert said(0.0004, "unknown_share", is_share=True) == "<0.1%"
    assert said(1, "promise_rate", is_share=True) == "100.0%"
    assert said(0.0, "unknown_share", is_share=True) == "0.0%"
    values = drawing.hourly([None, 0.0], "人数", "#000", 10, 10)["data"]["values"]
    assert [value["value"] for value in values] == [None, 0.0]


async def test_the_month_before_is_told_by_this_months_days_or_else_whole() -> None:
    def before(*values: Any, **more: Any) -> str:
        return drawing.before(asdict(Figure(*values, Parts(1, 2), **more)))

    assert before("visits", 9, 11.5, is_mixed=True, change=-0.2174) == "上月折算 12（-21.7%）"
    assert before("visits", 9, 9.0, is_mixed=True, change=0.0) == "上月折算 9（持平）"
    running = ("visits", 160, 140.0)
    more = {"is_mixed": True, "change": 0.0714, "over": 150}
    assert before(*running, **more) == "上月折算 140（+7.1%）"
    told = drawing.of_comparable(asdict(Figure(*running, Parts(1, 2), **more)))
    assert told == "可比日 150"
    assert before("visits", 9, 9.0, is_mixed=True, change=0.0, over=9) == "上月折算 9（持平）"
    assert before("visits", 9, 0.0, is_mixed=True) == "上月折算 0"
    assert before("visits", 9, None, is_mixed=True) == "上月折算 —"
    assert before("grant_rate", 0.9, 0.85, is_share=True, is_mixed=True) == "上月折算 85.0%"
    assert before("peak_occupancy", 7.25, 7.5) == "上月全月 7.5"


async def test_the_month_before_is_compared_as_the_reports_do(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    """Of October's 18 workdays eleven had a visit; of its six days at weekends one had two."""
    holidays = dict.fromkeys(range(1, 8), DayClass.PUBLIC_HOLIDAY)
    station, retention = city.stations[0], timedelta(days=180)
    async with runtime.database.write() as tx:
        for number, day_class in (holidays | {10: DayClass.MAKEUP_WORKDAY}).items():
            day = date(2026, 10, number)
            tx.add(CalendarDay(day=day, day_class=day_class, name="国庆节", source=""))
        days = [(10, day) for day in (12, 13, 14, 15, 16, 17, 17, 19, 20, 21, 22, 23, 26)]
        for month, day in [*days, (11, 18), (11, 19), (11, 22)]:
            at = datetime(2026, month, day, 4, tzinfo=UTC)
            await came(tx, runtime, station, at)
    runtime.calendar.forget()
    await rolled(runtime)
    days_known = (await runtime.calendar.fresh(runtime.database)).current
    terms = Terms(runtime.now(), days_known, retention)
    async with runtime.database.read() as tx:
        sheet = await gather(tx, station, month_of("2026-11"), terms)
    figures = {figure.name: figure for figure in sheet.figures}
    # November's 15 workdays and 7 days at weekends are over; one came today, the 23rd.
    visits = figures["visits"]
    assert (visits.now, visits.before, visits.change) == (4, 11.5, round(3 / 11.5 - 1, 4))
    assert (figures["offhours_share"].before, figures["offhours_share"].change) == (1.0, None)
    assert figures["unique_workers"].before == 13
    assert [each.name for each in sheet.figures if not each.is_mixed] == [
        "unique_workers",
        "peak_occupancy",
        "dwell_median_s",
        "known_share",
    ]

    async def asked(report: str, **cut: str) -> list[dict[str, Any]]:
        answer = await client.get(
            f"/v1/admin/reports/{report}",
            params={"from": "2026-11-01", "to": "2026-12-01", "station": str(station.id)} | cut,
            headers=city.auditor.headers,
        )
        found: list[dict[str, Any]] = answer.json()["rows"]
        return found

    inside, came_at = await asked("occupancy", by="hour"), await asked("visits", by="hour")
    assert list(sheet.inside) == [row["avg_occupancy"] for row in inside]
    assert came_at[12]["visits"] == 3
    assert sheet.hours[12] == round(3 / inside[12]["station_hours"], 4)
    for report in ("visits", "access", "promise"):
        (row,) = await asked(report, compare="before")
        for name in set(figures) & set(row):
            assert figures[name].now == row[name]
            if f"{name}_before" in row:
                assert figures[name].before == row[f"{name}_before"]
            # A share that changes by a part of itself would be read as points.
            if f"{name}_before" in row and not is_share(name):
                assert figures[name].change == row[f"{name}_change"]


async def test_every_figure_says_what_it_is_of(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    """A numerator and a denominator, as the catalogue names them; else what is known of it."""
    station = city.stations[0]
    async with runtime.database.write() as tx:
        for day in (18, 19, 22):
            await came(tx, runtime, station, datetime(2026, 11, day, 4, tzinfo=UTC))
        one = sa.update(Visit).where(Visit.started_at == datetime(2026, 11, 19, 4, tzinfo=UTC))
        await tx.execute(one.values(mode=Kind.FREE))
    await rolled(runtime)
    days = (await runtime.calendar.fresh(runtime.database)).current
    async with runtime.database.read() as tx:
        terms = Terms(runtime.now(), days, timedelta(days=180))
        sheet = await gather(tx, station, month_of("2026-11"), terms)
    query = {"from": "2026-11-01", "to": "2026-12-01", "station": str(station.id)}
    rows: dict[str, dict[str, Any]] = {}
    for report in ("visits", "access", "occupancy", "promise"):
        path = f"/v1/admin/reports/{report}"
        answer = await client.get(path, params=query, headers=city.auditor.headers)
        (rows[report],) = answer.json()["rows"]
    assert [figure.name for figure in sheet.figures] == list(SHOWN)
    for figure in sheet.figures:
        row, says = rows[SHOWN[figure.name]], field_of(SHOWN[figure.name], figure.name)
        assert figure.now == row[figure.name]
        assert (says.numerator is None) is (figure.name in BESIDE)
        if says.numerator and says.denominator:
            for said, side in ((says.numerator, "of"), (says.denominator, "by")):
                is_known = None not in [row[name] for name in re.findall("[a-z_]+", said)]
                wanted = worth(said, row) if is_known else None
                assert getattr(figure.parts, side) == wanted
    parts = {figure.name: (figure.parts.of, figure.parts.by) for figure in sheet.figures}
    visits = rows["visits"]["visits"]
    assert parts["visits"] == (3 * visits, None)
    assert parts["offhours_share"] == (visits - 1, visits)
    hours, whole = parts["known_share"]
    assert whole == 30 * 24
    assert hours == pytest.approx(rows["visits"]["known_share"] * whole, abs=0.05)
    assert sheet.hours_parts == Parts(visits, (hours or 0) / 24)
    inside = rows["occupancy"]
    wanted = Parts(inside["reporting_person_hours"], inside["reporting_hours"])
    assert sheet.inside_parts == wanted
    assert (sheet.heard.now, sheet.heard.parts) == (
        rows["promise"]["reported_share"],
        Parts(rows["promise"]["online_hours"], rows["promise"]["commissioned_hours"]),
    )


async def test_what_a_figure_is_of_is_said_below_it() -> None:
    text = page_of(await printed(SHEET)).extract_text()
    for name in SHOWN:
        wanted = drawing.PARTS[name].format(of="124", by="383")
        assert wanted in text, name
    for wanted in ("383 人次 / 24.5 天", "— 人时 / — 小时"):
        assert wanted in text
    assert drawing.made_of(asdict(Parts(1234.56, None)), "promise_rate") == "1,234.6 / — 小时"
    assert drawing.made_of(asdict(Parts(0.0, 10.0)), "offhours_share") == "0 / 10 人次"
    assert set(drawing.PARTS) == {*SHOWN, *BESIDE, "hours", "inside", "scanned"}
    # A numerator is not left out, nor a denominator where there is one.
    for name in SHOWN:
        has_two = name not in BESIDE or BESIDE[name][1] is not None
        assert ("{by}" in drawing.PARTS[name]) is has_two


async def test_where_too_few_scan_it_says_why_it_does_not_know_who_was_inside() -> None:
    text = page_of(await printed(SHEET)).extract_text()
    assert "在站人数：值守时间里有人扫码的 20.0%（60 / 300 小时）；不到一半" in text
    peak = Figure("peak_occupancy", None, 7.5, Parts(None, 12))
    plain = asdict(SHEET)
    assert drawing.beneath(plain, asdict(peak)) == "值守时间里扫码的太少"
    for share in (0.5, None):
        plain["scanned"]["now"] = share
        assert drawing.beneath(plain, asdict(peak)) == "没有控制器信号，也没看到人"
    assert drawing.beneath(plain, asdict(replace(peak, now=0.0))) == "最多同时 — 人 / 12 座"


NO_DAY_ALIKE = {
    "workday": [8, 9, 10, 12, 13, 14, 15, 16, 19, 20, 21, 22, 23, 26, 27, 28, 29, 30],
    "weekend": [11, 17, 18, 24, 25, 31],
    "public_holiday": [1, 2, 3, 4, 5, 6, 7],
}
"""October of 2026."""
COMPARABLE = {
    "of a station's first month": Comparable(0, 31, NO_DAY_ALIKE),
    "of weekends alone": Comparable(
        6, 31, {name: NO_DAY_ALIKE[name] for name in ("workday", "public_holiday")}
    ),
    "of a calendar that nobody has": Comparable(
        1, 31, {"workday": [*range(2, 31, 2)], "public_holiday": [*range(3, 32, 2)]}
    ),
}
TEXT = re.compile(r'<text x="([\d.]+)" y="([\d.]+)" font-size="([\d.]+)" fill="\S+"(.*?)>(.*?)</')


@pytest.mark.parametrize("comparable", COMPARABLE.values(), ids=COMPARABLE)
async def test_no_line_leaves_the_margins(comparable: Comparable) -> None:
    """Measured by the letters that are printed."""
    whole = Figure("scanned", 1.0, None, Parts(744.9, 744.9), is_share=True)
    long = replace(SHEET, comparable=comparable, calendar_known=False, scanned=whole, heard=whole)
    page = drawing.page(plain(long), "Sheet", lambda _: "<svg />")
    font = TTFont(io.BytesIO(subset(page)))
    glyphs, advances, em = font.getBestCmap(), font["hmtx"], font["head"].unitsPerEm
    lines = TEXT.findall(page)
    assert len(lines) > 60
    assert max(float(y) for _, y, *_ in lines) <= drawing.HEIGHT - 28, "a centimetre"
    for x, _, size, anchor, text in lines:
        units = sum(advances[glyphs[ord(letter)]][0] for letter in unescape(text))
        width = units / em * float(size)
        begins = float(x) - (width if anchor else 0)
        # Sizes are written with six digits.
        assert begins >= drawing.MARGIN - 0.01, text
        assert begins + width <= drawing.WIDTH - drawing.MARGIN + 0.01, text


async def test_which_days_are_not_compared_is_said_and_no_list_of_all_of_them() -> None:
    def told(name: str) -> str:
        (line,) = drawing.left_out(asdict(COMPARABLE[name]))
        return line

    first = told("of a station's first month")
    assert first == "上月没有可比的日子（没有同类日期，或没有数据）：已结束的 31 天都未比较。"
    assert told("of weekends alone").endswith(
        "工作日 8-10、12-16、19-23、26-30 日；法定节假日 1-7 日。"
    )
    assert drawing.left_out(asdict(Comparable(31, 31, {}))) == []


async def test_of_a_month_of_which_nothing_is_known_nobody_says_that_nothing_happened() -> None:
    days = [DayBar(day, None, None) for day in range(1, 32)]
    text = page_of(await printed(replace(SHEET, days=days, reasons=[]))).extract_text()
    assert "没有数据。" in text
    assert "本月没有" not in text


async def test_sheets_of_one_lot_share_letters_and_nothing_else() -> None:
    other = replace(SHEET, name="弹子石老街驿站", month=9)
    texts = [page_of(pdf).extract_text() for pdf in draw([plain(SHEET), plain(other)])]
    assert SHEET.name in texts[0]
    assert other.name in texts[1]
    assert SHEET.name not in texts[1]


@pytest.mark.parametrize("name", ["<b>&\"'驿站", "=1+1", "站" * 60])
async def test_any_name_is_only_text(name: str) -> None:
    text = page_of(draw([plain(replace(SHEET, name=name))])[0]).extract_text()
    assert name in text.replace("\n", "")


async def test_every_reason_and_every_facility_has_its_words() -> None:
    assert set(REASONS) == {reason.value for reason in Reason if reason is not Reason.OK}
    assert set(FACILITIES) == {kind.value for kind in FacilityKind}


async def test_many_reasons_are_cut_to_the_most_and_the_rest() -> None:
    spec = drawing.ranked([(str(number), 20 - number) for number in range(12)], 100, "#000")
    assert spec is not None
    values = spec["data"]["values"]
    assert len(values) == 8
    assert sum(value["count"] for value in values) == sum(20 - number for number in range(12))
    assert values[-1]["name"] == "其他"


@pytest.mark.parametrize("text", ["2026-13", "2026", "", "x", "2026-10-01"])
async def test_a_month_is_a_month(text: str) -> None:
    with pytest.raises(PeriodInvalid):
        month_of(text)
    december = month_of("2026-12")
    assert (december.from_day.isoformat(), december.to_day.isoformat()) == (
        "2026-12-01",
        "2027-01-01",
    )


@pytest.mark.parametrize("text", ["0001-01", "1999-12", "2100-01", "9999-12"])
async def test_a_month_lies_where_days_may_lie(text: str) -> None:
    with pytest.raises(PeriodInvalid, match="between 2000 and 2100"):
        month_of(text)
    for first, last in (("2000-01", "2000-02-01"), ("2099-12", "2100-01-01")):
        assert month_of(first).to_day.isoformat() == last


async def test_a_process_that_cannot_draw_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = replace(SHEET, figures=[Figure("no_such_figure", 1, 1, Parts(1))])
    with pytest.raises(SheetFailed, match="no_such_figure"):
        await printed(broken)


async def test_an_administrator_prints_a_month_of_his_station(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    path = f"/v1/admin/stations/{city.stations[0].id}/sheet.pdf"
    answer = await client.get(path, params={"month": "2026-11"}, headers=city.auditor.headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/pdf"
    assert city.stations[0].code in answer.headers["Content-Disposition"]
    text = page_of(answer.content).extract_text()
    assert city.stations[0].name in text
    assert "30 天中 22 天已结束并统计" in text
    (entry,) = await audited(runtime)
    assert entry.after == {"month": "2026-11"}
    report = await client.get(
        "/v1/admin/reports/visits",
        params={"from": "2026-11-01", "to": "2026-12-01", "station": str(city.stations[0].id)},
        headers=city.auditor.headers,
    )
    (row,) = report.json()["rows"]
    assert row["visits"] > 0
    assert f"{row['visits']}" in text


async def test_nobody_prints_what_he_may_not_see(
    client: httpx.AsyncClient, runtime: Runtime, city: City
) -> None:
    path = f"/v1/admin/stations/{city.stations[1].id}/sheet.pdf"
    async with runtime.database.write() as tx:
        keeper = await an_admin(
            tx, at=runtime.now(), role=Role.STATION_KEEPER, station=city.stations[0]
        )
    nobody: dict[str, str] = {}
    for headers, status in ((keeper.headers, 404), (nobody, 401)):
        answer = await client.get(path, params={"month": "2026-11"}, headers=headers)
        assert answer.status_code == status
    for month in ("2026-13", "november", ""):
        answer = await client.get(path, params={"month": month}, headers=city.auditor.headers)
        assert answer.status_code == 422
    for month in ("0000-01", "0001-01", "9999-12"):
        answer = await client.get(path, params={"month": month}, headers=city.auditor.headers)
        assert (answer.status_code, answer.json()["code"]) == (422, "period_invalid")
    assert await audited(runtime) == []


def test_nothing_of_the_engine_is_loaded_by_the_service() -> None:
    """It is a hundred megabytes that no waiting controller needs."""
    source = Path(drawing.__file__).read_text("utf-8")
    assert source.index("import vl_convert") > source.index("def draw(")
