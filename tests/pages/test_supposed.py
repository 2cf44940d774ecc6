"""The page of reports asks what if: in a real browser, against the real server."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from app.db.types import new_id
from app.doors.rules import Outcome, Reason
from app.doors.tables import Scan
from app.people.rules import Role
from app.places.rules import CITY_ZONE, Because, Kind, local_day, local_hour
from app.places.tables import Station
from app.reports.rules.suppositions import Ignored
from app.runtime import Runtime
from tests.conftest import make_settings
from tests.pages.test_reports_page import DESK, SNAKE, an_account, sign_in
from tests.support.browser import a_browser, chromium, picture
from tests.support.counting import rolled
from tests.support.server import free_port, prepared, serving
from tests.support.worlds import a_station, a_unit

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="no Chromium here: apt-get install chromium"),
]

CAME = 3
"""Who found the first station closed, an hour apart."""
WHAT_IF = "**/v1/admin/reports/what-if*"


@dataclass(frozen=True)
class Night:
    """A served city of two stations, and the day on which people found one closed at night."""

    address: str
    day: str
    after: str

    def page(self, **choices: str) -> str:
        query = {"report": "access", "from": self.day, "to": self.after, "by": "station"} | choices
        asked = "&".join(f"{name}={value}" for name, value in query.items())
        return f"{self.address}/admin/reports?{asked}"


def closed(station: Station, at: Any, key: bytes) -> Scan:
    return Scan(
        id=new_id(),
        station_id=station.id,
        demand_key=key,
        outcome=Outcome.REFUSED,
        reason=Reason.STATION_CLOSED,
        mode=Kind.CLOSED,
        because=Because.WEEKLY,
        calendar_known=True,
        party_size=1,
        scanned_at=at,
        local_day=local_day(at, CITY_ZONE),
        local_hour=local_hour(at, CITY_ZONE),
        changed_at=at,
    )


async def build(held: Runtime) -> Night:
    at = held.now()
    early = at - timedelta(days=400)
    day = local_day(at, CITY_ZONE) - timedelta(days=2)
    rows = [{"weekday": day, "opens": "06:00", "closes": "18:00"} for day in range(1, 8)]
    hours = {"regular": rows, "public_holiday": None, "makeup_workday": None}
    evening = at.replace(year=day.year, month=day.month, day=day.day, hour=12, minute=0, second=0)
    async with held.database.write() as tx:
        root = await a_unit(tx, at=early, name="重庆市总工会")
        for code, name in (("CQ0001", "解放碑驿站"), ("CQ0002", "几江驿站")):
            station = await a_station(
                tx,
                unit=root,
                at=early,
                code=code,
                name=name,
                staffed_hours=None,
                access_hours=hours,
                max_stay_min=30,
            )
            if code == "CQ0001":
                # From 20:00 in Chongqing on.
                for number in range(CAME):
                    at = evening + timedelta(hours=number)
                    tx.add(closed(station, at, bytes([number])))
    await an_account(held, "boss", Role.CITY_ADMIN)
    await rolled(held)
    return Night("", day.isoformat(), (day + timedelta(days=1)).isoformat())


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    port = free_port()
    settings = make_settings(
        tmp_path_factory.mktemp("night"), "", public_url=f"http://127.0.0.1:{port}"
    )
    made = prepared(settings, build)
    with serving(settings, port) as address:
        yield replace(made, address=address)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with a_browser() as browser:
        yield browser


@pytest.fixture
def desk(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(**DESK)  # type: ignore[arg-type]
    yield context
    context.close()


def opened(desk: BrowserContext, night: Night, **choices: str) -> Page:
    """Open the page, signed in, and its form."""
    page = desk.new_page()
    page.goto(night.page(**choices))
    sign_in(page)
    expect(page.locator("#app")).to_be_visible()
    page.click("#supposed summary")
    expect(page.locator("#supposed .go")).to_be_visible()
    return page


def suppose_hours(page: Page, text: str) -> None:
    page.select_option("#supposed-access_hours", "other")
    page.fill("#supposed-access_hours-text", text)


def cells(page: Page, row: int) -> list[str]:
    return page.locator(f"#supposed .rows tbody tr >> nth={row} >> td").all_inner_texts()


def test_an_administrator_asks_what_longer_hours_had_brought_and_takes_it_away(
    night: Night, desk: BrowserContext
) -> None:
    page = opened(desk, night)
    picture(page, "supposed-01-form")
    suppose_hours(page, "每天 06:00-22:00")
    picture(page, "supposed-02-hours")
    page.click("#supposed .go")
    told = page.locator("#supposed .told")
    expect(told.locator("h2")).to_contain_text("全市 · ")
    expect(told).to_contain_text("假设：扫码开放时间 每天 06:00-22:00")
    sums = dict(
        zip(told.locator("dt").all_inner_texts(), told.locator("dd").all_inner_texts(), strict=True)
    )
    assert sums == {
        "重新判断的扫码": "3",
        "新放行次数": "2",
        "新拒绝次数": "0",
        "净变化": "+2\n放行 0 → 2",
        "未满足需求": "3 → 1",
    }
    expect(told.locator(".rows tbody tr th")).to_have_text(
        ["合计", re.compile("解放碑驿站"), re.compile("几江驿站")]
    )
    assert cells(page, 1) == ["0", "2", "2", "0", "0", "+2", "3", "1", "3", "1", "100.0%"]
    assert cells(page, 2) == ["0"] * 10 + ["100.0%"]
    expect(told).to_contain_text("驿站不开放")
    picture(page, "supposed-03-told")
    begun = {"csv": b"\xef\xbb\xbf", "xlsx": b"PK"}
    for form, mark in begun.items():
        with page.expect_download() as downloading:
            page.click(f"[data-supposed-file={form}]")
        name = downloading.value.suggested_filename
        assert name == f"what-if-{night.day}-{night.after}.{form}"
        assert Path(downloading.value.path()).read_bytes().startswith(mark)
        expect(page.locator("#supposed [role=status]")).to_have_text(f"已下载：{name}")
    # The page moved on: what is shown says that it did not.
    note = told.locator(".note")
    expect(note).to_be_hidden()
    page.select_option("#by", "hour")
    expect(note).to_contain_text("上面的选择已改")
    page.click("#supposed .go")
    expect(note).to_be_hidden()
    expect(told.locator(".rows tbody tr")).to_have_count(25)
    assert cells(page, 21)[2] == "1"
    page.click("#sign-out")
    expect(page.locator("#login")).to_be_visible()
    assert page.locator("#supposed td").count() == 0


def test_of_one_station_the_scans_are_listed_in_both_languages(
    night: Night, desk: BrowserContext
) -> None:
    page = opened(desk, night, station="CQ0001", by="day")
    suppose_hours(page, "daily 06:00-24:00")
    page.check("#supposed-override")
    page.fill("#supposed-capacity", "9")
    page.click("#supposed .go")
    page.click("text=逐次列出")
    listed = page.locator("#supposed details .scroll tbody tr")
    expect(listed).to_have_count(CAME)
    expect(listed.first).to_have_text(f"{night.day} 20:00:00" + "驿站不开放同意开门")
    page.click("text=推算的前提")
    assert page.locator("#supposed li").count() > 3
    expect(page.locator("#supposed")).to_contain_text("有 0 次扫码，按今天的开放时间")
    assert not SNAKE.findall(page.locator("#supposed").inner_text())
    picture(page, "supposed-04-station")
    page.click("#lang")
    text = page.locator("#supposed").inner_text()
    assert "Seats of each station 9" in text
    said = page.locator("#supposed li").all_inner_texts()
    own = text
    for sentence in (*said, "解放碑驿站"):
        own = own.replace(sentence, "")
    assert not re.search("[一-鿿]", own), own
    assert not SNAKE.findall(own)
    assert "undefined" not in own
    picture(page, "supposed-05-english")


def test_it_says_how_much_of_its_days_is_over_and_whether_holidays_are_known(
    night: Night, desk: BrowserContext
) -> None:
    """Two days are over, today goes on, and tomorrow is to come; no calendar is imported."""
    to = (date.fromisoformat(night.day) + timedelta(days=4)).isoformat()
    page = opened(desk, night, to=to, by="day")
    suppose_hours(page, "每天 06:00-22:00")
    page.click("#supposed .go")
    told = page.locator("#supposed .told")
    over = "已结束 2 天，进行中 1 天，还没到 1 天；进行中的日子数字还会增加"
    unknown = "有的年份还没有导入节假日"
    expect(told).to_contain_text(f"{over}；{unknown}")
    shares = [cells(page, row)[-1] for row in range(5)]
    assert (shares[1], shares[2], shares[4]) == ("100.0%", "100.0%", "0.0%")
    assert 50 <= float(shares[0].rstrip("%")) <= 75
    # Nothing is known of tomorrow, which is not nought.
    assert cells(page, 4)[:-1] == ["—"] * 10
    picture(page, "supposed-09-not-over")
    page.click("#lang")
    expect(told).to_contain_text(
        "2 over, 1 going on, 1 to come; figures of a day going on will grow"
    )
    expect(told).to_contain_text("holidays of a year are not imported yet")
    picture(page, "supposed-10-not-over-english")
    page.click("#lang")
    # With other seats alone every scan keeps its mode: it does not matter.
    page.select_option("#supposed-access_hours", "")
    page.fill("#supposed-capacity", "3")
    page.click("#supposed .go")
    expect(told).to_contain_text("假设：每站座位数 3")
    expect(told).to_contain_text(f"{over}。")
    expect(told).not_to_contain_text(unknown)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "看不懂"),
        ("夜里 06:00-24:00", "看不懂“夜里 06:00-24:00”"),
        ("周五至周一 06:00-24:00", "看不懂"),
        ("每天", "看不懂“每天”"),
        ("每天 06:00-25:00", "“06:00-25:00”不是一段时间"),
        ("每天 06:00-06:00", "不是一段时间"),
        ("每天 06:00-12:00，11:00-13:00", "星期一的时段互相重叠"),
        ("周一 06:00-12:00；周一至周三 11:00-13:00", "星期一的时段互相重叠"),
        ("每天 08:00-09:00；节假日 不开放；节假日 08:00-09:00", "“节假日”写了两次"),
    ],
)
def test_hours_that_nobody_understands_are_refused_in_words_before_anything_is_asked(
    night: Night, desk: BrowserContext, text: str, says: str
) -> None:
    page = opened(desk, night)
    page.route(WHAT_IF, lambda route: pytest.fail("it was asked"))
    suppose_hours(page, text)
    page.click("#supposed .go")
    expect(page.locator("#supposed .error")).to_contain_text("扫码开放时间：")
    expect(page.locator("#supposed .error")).to_contain_text(says)
    assert page.evaluate("document.activeElement.id") == "supposed-access_hours-text"


def test_hours_are_read_as_people_write_them(night: Night, desk: BrowserContext) -> None:
    page = opened(desk, night)

    def read(text: str) -> Any:
        found = page.evaluate("text => window.yizhanHours(text)", text)["hours"]
        days: dict[int, list[str]] = {}
        for row in found["regular"]:
            days.setdefault(row["weekday"], []).append(f"{row['opens']}-{row['closes']}")
        return days, found["public_holiday"], found["makeup_workday"]

    workdays = {day: ["07:00-12:00", "14:00-22:00"] for day in range(1, 6)}
    week = workdays | {6: ["09:00-18:00"], 7: ["09:00-18:00"]}
    for text in (
        "周一至周五 7:00-12:00，14:00-22:00；周六、周日 09:00-18:00",
        "Mon-Fri 07:00-12:00, 14:00-22:00; Sat, Sunday 09:00-18:00",
    ):
        assert read(text) == (week, None, None), text
    assert read("1-5 07:00-12:00 14:00-22:00; 6-7 09:00-18:00; PH closed; MW 08:00-18:00") == (
        week,
        [],
        [{"opens": "08:00", "closes": "18:00"}],
    )
    assert read("星期一到星期五 07：00—12：00 14：00—22：00\n")[0] == workdays
    assert read("每天 20:00-08:00")[0] == {day: ["20:00-08:00"] for day in range(1, 8)}


def test_what_is_wrong_is_said_beside_the_form(night: Night, desk: BrowserContext) -> None:
    page = opened(desk, night)
    error = page.locator("#supposed .error")
    page.click("#supposed .go")
    expect(error).to_contain_text("请至少改一项")
    page.fill("#supposed-capacity", "0")
    page.click("#supposed .go")
    expect(error).to_have_text("每站座位数请填 1 到 10000 的整数。")
    picture(page, "supposed-06-wrong")
    page.fill("#supposed-capacity", "")
    page.fill("#supposed-max_stay_min", "2 h")
    page.click("#supposed .go")
    expect(error).to_contain_text("5 到 1440")
    page.fill("#supposed-max_stay_min", "90")

    def refuse(route: Route) -> None:
        said = {"loc": ["body", "change", "max_stay_min"], "message": "too long"}
        problem = {"code": "request_invalid", "title": "no", "errors": [said]}
        route.fulfill(status=422, json=problem, content_type="application/problem+json")

    page.route(WHAT_IF, refuse)
    page.click("#supposed .go")
    expect(error).to_have_text("最长停留（分钟）：too long")
    page.unroute(WHAT_IF)
    page.route(WHAT_IF, lambda route: route.abort())
    page.click("#supposed .go")
    expect(error).to_contain_text("网络不通")
    page.unroute(WHAT_IF)
    page.click("#supposed .go")
    expect(page.locator("#supposed dd").first).to_have_text(str(CAME))
    expect(error).to_be_hidden()
    expect(page.locator("#supposed .told")).to_contain_text("没有一次扫码的结果会改变")


def test_while_it_computes_it_says_for_how_long_and_may_be_left(
    night: Night, desk: BrowserContext
) -> None:
    page = opened(desk, night)
    held: list[Route] = []
    page.route(WHAT_IF, lambda route: held.append(route))
    page.select_option("#supposed-access_hours", "none")
    page.click("#supposed .go")
    state = page.locator("#supposed [role=status]")
    expect(state).to_contain_text("已用 0:02")
    expect(page.locator("#supposed .go")).to_be_disabled()
    picture(page, "supposed-07-busy")
    page.click("text=停止")
    expect(state).to_contain_text("已停止，没有结果")
    expect(page.locator("#supposed .go")).to_be_enabled()
    page.unroute(WHAT_IF)
    year = date.fromisoformat(night.day).year + 2
    page.goto(night.page(**{"from": f"{year}-02-01", "to": f"{year}-02-03"}))
    page.click("#supposed summary")
    page.select_option("#supposed-access_hours", "none")
    page.click("#supposed .go")
    expect(page.locator("#supposed .told")).to_contain_text("没有可以重新判断的扫码")
    picture(page, "supposed-08-nothing")


def test_everything_that_may_be_ignored_stands_there_and_a_phone_is_wide_enough(
    night: Night, desk: BrowserContext
) -> None:
    page = opened(desk, night)
    with page.expect_request(WHAT_IF) as asked:
        for name in Ignored:
            page.check(f"#supposed-{name.value}")
        page.select_option("#supposed-staffed_hours", "none")
        page.click("#supposed .go")
    change = json.loads(asked.value.post_data or "")["change"]
    assert change == {"staffed_hours": None, "ignore": [name.value for name in Ignored]}
    expect(page.locator("#supposed .rows")).to_be_visible()
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    words = page.evaluate("[window.REPORT_WORDS.zh, window.REPORT_WORDS.en].map(Object.keys)")
    assert set(words[0]) == set(words[1])
