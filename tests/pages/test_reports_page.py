"""The administrator's page of reports in a real browser, against the real server."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from app.api.admin.source import ROWS_OUT
from app.audit import COMMAND_LINE
from app.doors.rules import CommandState, Outcome, Reason
from app.people import admins
from app.people.rules import Role
from app.people.tables import Occupation
from app.places.rules import CITY_ZONE, Because, Kind, local_day
from app.places.tables import FacilityKind, FacilityStatus, OperatingModel, Station, Unit, UnitKind
from app.reports.dimensions import DIMENSIONS, ENDINGS
from app.reports.frame import MOST_STREAMED
from app.reports.made import HISTOGRAMS, MADE, Rows
from app.reports.occupations import NOT_SAID
from app.reports.ranking import Ranked
from app.reports.rules import Bucket, By
from app.reports.rules.counters import C, F
from app.reports.rules.health import Counts, Heard
from app.reports.rules.slots import Class
from app.runtime import Runtime
from app.usual.rules import Unknown
from app.visits import presence
from app.visits.presence import Arrival
from app.visits.rules import Level
from app.visits.tables import EndSource
from tests.conftest import make_settings
from tests.support.browser import a_browser, chromium, picture
from tests.support.counting import rolled
from tests.support.server import free_port, prepared, serving
from tests.support.worlds import a_facility, a_station, a_unit, a_worker

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="no Chromium here: apt-get install chromium"),
]

DESK = {"locale": "zh-CN", "viewport": {"width": 1440, "height": 900}}
PASSWORD = "correct horse battery"
CAME = 60
"""Visits of the first station: more than one page of rows."""
CAME_BEFORE = 12
"""Visits there a week earlier: they divide by any number of days of a class among four."""
WIRE_BUDGET = 60_000
SNAKE = re.compile(r"\b[a-z]+_[a-z_]+\b")
"""What the API calls something and people do not."""


@dataclass(frozen=True)
class City:
    """A served city: two districts, each with a station, and visits in the first, two days ago."""

    address: str
    day: str
    """When they came."""
    after: str
    next_year: str
    far_unit: str

    def page(self, **choices: str) -> str:
        query = "&".join(f"{name}={value}" for name, value in choices.items())
        return f"{self.address}/admin/reports?{query}"

    @property
    def that_day(self) -> dict[str, str]:
        return {"from": self.day, "to": self.after}


async def an_account(
    held: Runtime, name: str, role: Role, unit: Unit | None = None, station: Station | None = None
) -> None:
    hashed = await admins.hash_password(PASSWORD)
    async with held.database.write() as tx:
        new = admins.NewAdmin(
            name, hashed, role, unit.id if unit else None, station.id if station else None
        )
        await admins.create(tx, new, vault=held.vault, actor=COMMAND_LINE, at=held.now())


async def build(held: Runtime) -> City:
    at = held.now()
    early = at - timedelta(days=400)
    async with held.database.write() as tx:
        root = await a_unit(tx, at=early, name="重庆市总工会")
        near = await a_unit(tx, parent=root, at=early, name="渝中区总工会")
        far = await a_unit(tx, parent=root, at=early, name="江津区总工会")
        station: Station = await a_station(
            tx, unit=near, at=early, code="CQ0001", name="解放碑驿站", staffed_hours=None
        )
        await a_station(tx, unit=far, at=early, code="CQ0002", name="几江驿站")
        await a_facility(tx, station, at=early, kind=FacilityKind.MICROWAVE)
        came = at - timedelta(days=2)
        for number in range(CAME + CAME_BEFORE):
            worker = await a_worker(tx, held, at=early)
            arrival = Arrival(
                station_id=station.id,
                timezone=station.timezone,
                owner_key=worker.owner_key,
                worker_id=worker.id,
                occupation=Occupation.RIDER,
                mode=Kind.SCAN,
                party_size=1 + number % 2,
                max_stay=timedelta(minutes=60),
            )
            week = timedelta(days=7 if number >= CAME else 0)
            await presence.open_visit(tx, arrival, started_at=came - week)
    await an_account(held, "boss", Role.CITY_ADMIN)
    await an_account(held, "near", Role.UNIT_ADMIN, near)
    await an_account(held, "keeper", Role.STATION_KEEPER, station=station)
    await rolled(held)
    day = local_day(came, CITY_ZONE)
    days = [day, day + timedelta(days=1), day + timedelta(days=365)]
    return City("", *(each.isoformat() for each in days), str(far.id))


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[City]:
    port = free_port()
    settings = make_settings(
        tmp_path_factory.mktemp("city"), "", public_url=f"http://127.0.0.1:{port}"
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


def sign_in(page: Page, who: str = "boss", password: str = PASSWORD) -> None:
    page.fill("#username", who)
    page.fill("#password", password)
    page.click("#login .main")


def opened(desk: BrowserContext, city: City, who: str = "boss", **choices: str) -> Page:
    """Open the page with these choices, signed in."""
    page = desk.new_page()
    page.goto(city.page(**choices))
    sign_in(page, who)
    expect(page.locator("#app")).to_be_visible()
    return page


def figure(page: Page, row: int, name: str) -> Any:
    """Give a cell of the table, the total not counted."""
    return page.locator(f'tbody tr:not(.total) >> nth={row} >> td[data-figure="{name}"]')


def choices_of(page: Page) -> dict[str, str]:
    return {name: found[0] for name, found in parse_qs(urlsplit(page.url).query).items()}


def test_an_administrator_signs_in_reads_and_signs_out(city: City, desk: BrowserContext) -> None:
    page = desk.new_page()
    page.goto(city.page(report="visits", by="station", **city.that_day))
    expect(page.locator("#login")).to_be_visible()
    picture(page, "reports-01-sign-in")
    sign_in(page, password="not the password")
    expect(page.locator("#login-error")).to_have_text("用户名、密码或动态码不对。请检查后再试。")
    picture(page, "reports-02-refused")
    sign_in(page)
    expect(page.locator("#title")).to_have_text("到访 · 全市")
    expect(page.locator("#who")).to_contain_text("您看到全市所有驿站")
    expect(figure(page, 0, "visits")).to_have_text(str(CAME))
    expect(page.locator('tr.total td[data-figure="persons"]')).to_have_text(str(CAME * 3 // 2))
    expect(page.locator("#state")).to_contain_text("（含），共 1 天：已结束 1 天")
    expect(page.locator("#state")).to_contain_text("统计到")
    picture(page, "reports-03-visits")
    kept = page.evaluate("JSON.stringify(localStorage) + JSON.stringify(sessionStorage)")
    assert set(json.loads(json.loads(kept.removesuffix("{}"))["yizhan.admin"])) == {
        "username",
        "role",
    }
    cookie = next(one for one in desk.cookies() if one["name"] == "yizhan_admin")
    assert cookie["httpOnly"]
    page.click("#sign-out")
    expect(page.locator("#login")).to_be_visible()
    assert page.locator("#table td").count() == 0
    page.reload()
    expect(page.locator("#login")).to_be_visible()


def test_no_data_looks_unlike_zero(city: City, desk: BrowserContext) -> None:
    page = opened(desk, city, report="visits", by="station", **city.that_day)
    expect(figure(page, 1, "visits")).to_have_text("0")
    expect(figure(page, 1, "offhours_share")).to_have_text("—")
    year = int(city.next_year[:4]) + 1
    page.goto(city.page(**{"by": "day", "from": f"{year}-02-01", "to": f"{year}-03-01"}))
    expect(figure(page, 0, "visits")).to_have_text("—")
    expect(page.locator("#state")).to_contain_text("这不是零")
    expect(page.locator("#chart")).to_be_hidden()
    picture(page, "reports-04-nothing-known")


def test_choices_stand_in_the_address_and_the_back_button_goes_back(
    city: City, desk: BrowserContext
) -> None:
    page = opened(desk, city, report="visits", by="station", **city.that_day)
    page.select_option("#by", "hour")
    expect(page.locator("#chart svg .bar")).not_to_have_count(0)
    assert choices_of(page) == {"report": "visits", "by": "hour", **city.that_day}
    picture(page, "reports-05-by-hour")
    page.click("[data-report=promise]")
    expect(page.locator("#title")).to_have_text("兑现承诺 · 全市")
    page.select_option("#by", "unit")
    page.check("#compare")
    expect(page.locator("#state")).to_contain_text("前期：")
    assert choices_of(page)["compare"] == "before"
    page.go_back()
    page.go_back()
    page.go_back()
    expect(page.locator("#title")).to_have_text("到访 · 全市")
    expect(page.locator("#by")).to_have_value("hour")
    page.reload()
    expect(page.locator("#by")).to_have_value("hour")
    expect(page.locator("#from")).to_have_value(city.day)
    expect(page.locator("#to")).to_have_value(city.day)


def test_a_branch_is_opened_as_far_down_as_there_is_something(
    city: City, desk: BrowserContext
) -> None:
    page = opened(desk, city, report="visits", by="station", **city.that_day)
    page.select_option("#by", "branch")
    names = page.locator("#table tbody tr:not(.total) th a")
    expect(names).to_have_text(["渝中区总工会", "江津区总工会"])
    chosen = page.locator("#by option:checked")
    assert chosen.inner_text() == "下级工会（含以下）"
    assert chosen.get_attribute("title") == DIMENSIONS[By.BRANCH].chinese
    names.first.click()
    expect(names).to_have_text(["渝中区总工会"])
    expect(page.locator("#by")).to_have_value("branch")
    names.first.click()
    expect(page.locator("#by")).to_have_value("station")
    expect(names).to_have_text(["解放碑驿站"])


def test_a_unit_leads_further_down_whatever_it_is_called(city: City, desk: BrowserContext) -> None:
    page = opened(desk, city, report="visits", by="station", **city.that_day)
    own = "重庆市总工会（本级）"

    def renamed(route: Route) -> None:
        answer = route.fetch()
        body = answer.json()
        near, far = body["rows"]
        near["name"] += "（本级）"
        far |= {"name": own, "is_own": True}
        route.fulfill(response=answer, json=body)

    page.route("**/v1/admin/reports/visits?*by=branch*", renamed)
    page.select_option("#by", "branch")
    names = page.locator("#table tbody tr:not(.total) th")
    expect(names).to_have_text(["渝中区总工会（本级）", own])
    expect(names.locator("a")).to_have_text(["渝中区总工会（本级）"])


def test_any_figure_says_where_it_comes_from_down_to_the_rows(
    city: City, desk: BrowserContext
) -> None:
    page = opened(desk, city, report="visits", by="station", **city.that_day)
    figure(page, 0, "offhours_share").click()
    panel = page.locator("#source")
    expect(panel).to_be_visible()
    expect(panel.locator("h2")).to_have_text("无人值守时段占比")
    expect(panel.locator(".formula")).to_contain_text("无人值守时段人次 / 人次")
    expect(panel.locator("dd").first).to_have_text(f"无人值守时段人次 {CAME}")
    expect(panel).to_contain_text("100.0% 可知")
    expect(panel).to_contain_text("扫码时段人次")
    expect(panel.locator(".scroll tbody tr")).to_have_count(50)
    picture(page, "reports-06-source")
    panel.locator("text=再列 50 条").click()
    expect(panel.locator(".scroll tbody tr")).to_have_count(CAME)
    assert choices_of(page)["source"] == "offhours_share"
    page.reload()
    expect(panel.locator("h2")).to_have_text("无人值守时段占比")
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    assert "source" not in choices_of(page)


def test_what_is_ranked_says_its_formula_and_leads_to_its_report(
    city: City, desk: BrowserContext
) -> None:
    page = opened(desk, city, report="ranking", figure="offhours_share", **city.that_day)
    panel = page.locator("#source")
    expect(figure(page, 0, "value")).to_have_text("100.0%")
    figure(page, 0, "value").click()
    expect(panel.locator("h2")).to_have_text("无人值守时段占比")
    expect(panel.locator(".formula")).to_have_text("无人值守时段人次 / 人次；没有到访则为空")
    expect(panel.locator("dd")).to_have_text([f"无人值守时段人次 {CAME}", f"人次 {CAME}"])
    expect(panel).to_contain_text("打开“到访”报表")
    picture(page, "reports-06-source-ranked")
    page.keyboard.press("Escape")
    figure(page, 0, "numerator").click()
    expect(panel.locator(".formula")).to_contain_text("在值守时段以外开始的到访")
    page.keyboard.press("Escape")
    figure(page, 0, "percentile").click()
    expect(panel.locator(".formula")).to_contain_text("除外：未满足需求、放行率")
    page.keyboard.press("Escape")
    for name, title, formula, home in (
        ("promise_rate", "兑现率", "可用时长 / (承诺开放时长 - 状态未知时长)", "兑现承诺"),
        ("visits_per_seat", "每座位人次", "人次 / 座位数：", "到访"),
        ("visits", "人次", "started_at", "到访"),
    ):
        page.select_option("#figure", name)
        expect(page.locator("thead [data-sort=value]")).to_contain_text(title)
        figure(page, 0, "value").click()
        expect(panel.locator("h2")).to_have_text(title)
        expect(panel.locator(".formula")).to_contain_text(formula)
        expect(panel).to_contain_text(f"打开“{home}”报表")
        page.keyboard.press("Escape")
    figure(page, 0, "value").wait_for()


def test_a_cell_of_any_cut_says_what_is_behind_it_alone(city: City, desk: BrowserContext) -> None:
    days = {"from": city.day, "to": (date.fromisoformat(city.day) + timedelta(days=2)).isoformat()}
    page, panel_of = opened(desk, city), dict[str, int]()
    for cut in (
        {"by": "hour", "station": "CQ0001"},
        {"by": "weekday", "bucket": "hour", "station": "CQ0001"},
        {"by": "day", "station": "CQ0001"},
        {"by": "station"},
        {"by": "unit"},
        {"by": "branch"},
        {"by": "operating_model"},
    ):
        page.goto(city.page(report="visits", **cut, **days))
        cells = page.locator('tbody tr:not(.total) td[data-figure="visits"]')
        cells.first.wait_for()
        for number, text in enumerate(cells.all_inner_texts()):
            if text not in ("0", str(CAME)) or (text == "0" and number > 2):
                continue
            cells.nth(number).click()
            counted = page.locator("#source table").first.locator("td.num")
            expect(counted).to_have_count(3)
            assert sum(int(each) for each in counted.all_inner_texts()) == int(text), cut
            expect(page.locator("#source .note")).to_have_count(0)
            if "station" in (*cut, cut["by"]):
                listed = page.locator("#source .scroll tbody tr")
                expect(listed).to_have_count(min(int(text), 50))
            panel_of[text] = panel_of.get(text, 0) + 1
    assert panel_of[str(CAME)] == 7
    # Nine, but for two where they came in one of the first hours of the day.
    assert panel_of["0"] >= 7


def test_the_keyboard_suffices(city: City, desk: BrowserContext) -> None:
    page = opened(desk, city, report="visits", by="station", **city.that_day)
    figure(page, 0, "visits").wait_for()
    page.locator("#table [tabindex='0']").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("#source h2")).to_have_text("总人数（含同行）")
    page.keyboard.press("Escape")
    expect(page.locator("#source")).to_be_hidden()
    assert page.evaluate("document.activeElement.dataset.figure") == "persons"
    page.locator("#scope").focus()
    page.fill("#scope", "cq0002")
    expect(page.locator("#places li")).to_have_text([re.compile("几江驿站")])
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#title")).to_have_text("到访 · 几江驿站 CQ0002")
    assert choices_of(page)["station"] == "CQ0002"


def test_files_are_taken_away(city: City, desk: BrowserContext) -> None:
    page = opened(desk, city, report="visits", by="day", station="CQ0001", **city.that_day)
    expect(page.locator("#sheet")).to_be_visible()
    begun = {"csv": b"\xef\xbb\xbf", "xlsx": b"PK", "pdf": b"%PDF"}
    for form, mark in begun.items():
        with page.expect_download() as downloading:
            page.click(f"[data-file={form}]")
        name = downloading.value.suggested_filename
        assert name.endswith(f".{form}"), name
        assert Path(downloading.value.path()).read_bytes().startswith(mark)
        expect(page.locator("#download")).to_have_text(f"已下载：{name}")

    def refuse(route: Route) -> None:
        problem = {"code": "database_unavailable", "title": "no"}
        route.fulfill(status=503, json=problem, content_type="application/problem+json")

    page.route("**/*format=csv*", refuse)
    page.click("[data-file=csv]")
    expect(page.locator("#download")).to_have_text("系统忙。请过一会儿再试。")
    picture(page, "reports-07-no-file")


def test_a_session_that_is_over_brings_the_form_and_then_the_same_report(
    city: City, desk: BrowserContext
) -> None:
    page = opened(desk, city, report="access", by="unit", **city.that_day)
    expect(page.locator("#title")).to_have_text("扫码开门 · 全市")
    figure(page, 0, "decided").wait_for()
    desk.clear_cookies()
    page.select_option("#by", "all")
    expect(page.locator("#login-note")).to_have_text(re.compile("登录已过期"))
    assert page.locator("#table td").count() == 0
    sign_in(page)
    expect(page.locator("#title")).to_have_text("扫码开门 · 全市")
    expect(page.locator("#by")).to_have_value("all")


def test_a_lost_network_says_so_and_offers_to_try_again(city: City, desk: BrowserContext) -> None:
    page = opened(desk, city, report="visits", by="station", **city.that_day)
    figure(page, 0, "visits").wait_for()
    page.route("**/v1/admin/reports/promise*", lambda route: route.abort())
    page.click("[data-report=promise]")
    expect(page.locator("#error")).to_contain_text("网络不通，没有收到回答")
    picture(page, "reports-08-no-network")
    page.unroute("**/v1/admin/reports/promise*")
    page.click("#error button")
    figure(page, 0, "promise_rate").wait_for()
    expect(page.locator("#error")).to_be_hidden()


def test_what_a_scope_hides_is_said(city: City, desk: BrowserContext) -> None:
    page = opened(desk, city, "near", report="visits", by="station", **city.that_day)
    expect(page.locator("#who")).to_contain_text("您只看得到“渝中区总工会”及其下属的驿站")
    expect(page.locator("tbody tr:not(.total)")).to_have_count(1)
    expect(page.locator("#notes")).to_contain_text("也不计入合计")
    page.goto(city.page(report="visits", by="station", unit=city.far_unit, **city.that_day))
    expect(page.locator("#error")).to_contain_text("或它不在您的范围内。请在“范围”里重新选择。")
    picture(page, "reports-09-outside")


def test_a_keeper_sees_his_station_and_is_told_so(city: City, desk: BrowserContext) -> None:
    page = opened(desk, city, "keeper", report="access", by="station", **city.that_day)
    expect(page.locator("#who")).to_contain_text("您只看得到“解放碑驿站”一个驿站")
    expect(page.locator("tbody tr:not(.total)")).to_have_count(1)
    expect(page.locator("#notes")).to_contain_text("只有全市报表才列出")
    page.locator("#scope").focus()
    expect(page.locator("#places li")).to_have_count(2)


def test_what_is_to_be_expected_stands_with_the_persons_inside(
    city: City, desk: BrowserContext
) -> None:
    page = opened(desk, city, report="occupancy", by="day", **city.that_day)
    with page.expect_response(re.compile(r"/v1/admin/units/.*/forecast$")) as answered:
        page.click("#ahead summary")
    told = page.locator("#ahead-told")
    expect(told).to_contain_text("知道平时有多少人的驿站不到一半，无法预计")
    answer = page.request.get(answered.value.url).json()
    for number, hour in enumerate(answer["hours"]):
        hour |= {"persons": number / 4, "low": number / 8, "high": number, "values": 8}
        hour |= {"unexpected_because": None}
    page.route("**/forecast", lambda route: route.fulfill(json=answer))
    expect(told.locator(".now")).to_have_count(0)  # A branch has no level.
    page.goto(city.page(report="occupancy", by="day", station="CQ0001", **city.that_day))
    with page.expect_request(re.compile(r"/v1/admin/stations/.*/forecast$")):
        page.click("#ahead summary")
    expect(told.locator("svg .bar")).to_have_count(24)
    expect(told.locator("tbody tr").last).to_contain_text(re.compile(r"5\.8.*2\.9–23\.0"))


def test_how_a_station_is_now_stands_beside_what_is_expected_or_why_nobody_knows(
    city: City, desk: BrowserContext
) -> None:
    page = opened(desk, city, report="occupancy", by="day", station="CQ0001", **city.that_day)

    def nothing_usual(route: Route) -> None:
        """A minute after its start the server makes out what is usual: it may have done so."""
        route.fulfill(json=route.fetch().json() | {"busy_vs_usual": None, "usual": None})

    page.route("**/occupancy", nothing_usual)
    with page.expect_response(re.compile(r"/v1/admin/stations/.*/occupancy$")) as answered:
        page.click("#ahead summary")
    now = page.locator("#ahead-told .now")
    expect(now).to_contain_text("情况未知")  # It has no controller.
    expect(now).to_contain_text("现在要扫码开门，而驿站没有控制器。只计到在站 0 人，实际可能更多")
    expect(now).to_contain_text("还没有算出平时的情况，无法比较。")
    picture(page, "reports-13-now-unknown")
    answer = page.request.get(answered.value.url).json()
    answer |= {"is_known": True, "unknown_because": None, "level": "较多", "inside": 9}
    usual = {"day_class": "workday", "quarter": "23:30", "median": 2.5, "days": 7}
    answer |= {"busy_vs_usual": 3.6, "usual": usual | {"made_at": answer["as_of"]}}
    page.unroute("**/occupancy")
    page.route("**/occupancy", lambda route: route.fulfill(json=answer))
    ahead = page.request.get(answered.value.url.replace("occupancy", "forecast")).json()
    for number, hour in enumerate(ahead["hours"]):
        hour |= {"persons": number / 4, "low": number / 8, "high": number, "values": 8}
    page.route("**/forecast", lambda route: route.fulfill(json=ahead))
    page.reload()
    page.click("#ahead summary")
    expect(now.locator("strong")).to_have_text("较多")
    expect(now).to_contain_text("在站 9 人")
    expect(now).to_contain_text("中位数是 2.5 人：最近 8 天中已知的 7 天")
    expect(now).to_contain_text("现在是平时的 3.6 倍")
    expect(page.locator("#ahead-told svg .bar")).to_have_count(24)
    picture(page, "reports-14-now")
    page.click("#lang")
    page.click("#ahead summary")
    expect(now.locator("strong")).to_have_text("Busy")
    expect(now).to_contain_text("the median of persons inside is 2.5")
    answer |= {"busy_vs_usual": None, "usual": answer["usual"] | {"median": None, "days": 3}}
    page.click("#ahead summary")
    page.click("#ahead summary")
    expect(now).to_contain_text("only 3 of the last 8 days are known")
    assert not SNAKE.search(now.inner_text())


def test_the_period_before_stands_beside_and_says_how_it_was_weighed(
    city: City, desk: BrowserContext
) -> None:
    page = opened(desk, city, report="visits", by="all", compare="before", **city.that_day)
    expect(figure(page, 0, "visits")).to_have_text(str(CAME))
    figure(page, 0, "visits_before").click()
    expect(page.locator("#source h2")).to_have_text("人次 · 前期")
    expect(page.locator("#source .formula")).to_contain_text(ENDINGS["_before"].chinese)
    page.keyboard.press("Escape")
    expect(page.locator("#state")).to_contain_text(re.compile(r"已结束的 \d+ 天中比较了 \d+ 天"))
    picture(page, "reports-11-compared")
    figure(page, 0, "visits_change").click()
    formula = page.locator("#source")
    expect(formula).to_contain_text("本期可比的日子 / 前期 - 1")
    expect(formula.locator("dd").first).to_have_text(f"人次 {CAME}")
    picture(page, "reports-12-change")


def test_a_share_before_says_what_was_divided_and_that_its_change_is_no_points(
    city: City, desk: BrowserContext
) -> None:
    page = opened(desk, city, report="visits", by="all", compare="before", **city.that_day)
    share = figure(page, 0, "offhours_share_before")
    expect(share).to_have_text(re.compile(r"^(\d+(\.\d+)?%|—)$"))
    share.click()
    panel = page.locator("#source")
    expect(panel.locator("h2")).to_have_text("无人值守时段占比 · 前期")
    expect(panel.locator(".formula")).to_contain_text("分子和分母各自这样折算再相除")
    expect(panel.locator("dd").first).to_have_text(re.compile("^无人值守时段人次 [—0-9]"))
    expect(panel.locator("dd").last).to_have_text(re.compile("^人次 [—0-9]"))
    picture(page, "reports-21-share-before")
    page.keyboard.press("Escape")
    expect(page.locator("thead")).to_contain_text("相对变化")
    figure(page, 0, "offhours_share_change").click()
    expect(panel.locator("h2")).to_have_text("无人值守时段占比 · 相对变化")
    expect(panel.locator(".formula")).to_contain_text("不是百分点")
    picture(page, "reports-22-share-change")
    page.goto(
        city.page(report="visits", by="all", compare="before", columns="all", **city.that_day)
    )
    mean = figure(page, 0, "dwell_mean_s_before")
    mean.click()
    expect(panel.locator("dd").first).to_have_text(re.compile("^停留总时长 .* 小时$"))
    picture(page, "reports-23-mean-before")


def around(city: City) -> tuple[dict[str, str], int, int]:
    """Choose the four days until they came, compared, and how many days of that day's class are
    among them and among the four before, when others had come."""
    day = date.fromisoformat(city.day)

    def alike(first: int) -> int:
        days = (day + timedelta(days=first + number) for number in range(4))
        return sum((one.isoweekday() < 6) is (day.isoweekday() < 6) for one in days)

    days = {"from": (day - timedelta(days=3)).isoformat(), "to": city.after}
    choices = days | {"report": "visits", "by": "station", "station": "CQ0001"}
    return choices | {"compare": "before"}, alike(-3), alike(-7)


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_what_is_behind_a_figure_of_the_period_before_is_told_by_the_days_that_are_compared(
    city: City, desk: BrowserContext, lang: str
) -> None:
    choices, now, then = around(city)
    page = opened(desk, city, **choices)
    if lang == "en":
        page.click("#lang")
    before = figure(page, 0, "visits_before")
    # As it is shown: what came then, weighed to as many such days as there are now.
    expect(before).to_have_text(f"{CAME_BEFORE * now // then}.0")
    panel = page.locator("#source")
    tables, listed = panel.locator(".days table"), panel.locator(".scroll:not(.days) tbody tr")
    scanned = {"zh": "扫码时段人次", "en": "visits in other modes"}[lang]
    days = {"zh": "比较的天数", "en": "Days compared"}[lang]
    is_workday = date.fromisoformat(city.day).isoweekday() < 6
    words = {"zh": ("工作日", "周末"), "en": ("Workday", "Weekend")}[lang]
    same_class = words[0 if is_workday else 1]

    def told(table: int, name: str) -> str:
        heads = tables.nth(table).locator("thead th").all_inner_texts()
        row = tables.nth(table).locator("tbody tr", has_text=name)
        return str(row.locator("td").nth(heads.index(same_class) - 1).inner_text())

    with page.expect_request("**/visits/source?*") as asked:
        before.click()
    query = parse_qs(urlsplit(asked.value.url).query)
    assert (query["figure"], query["from"], query["to"]) == (
        ["visits_before"],
        [choices["from"]],
        [choices["to"]],
    )
    expect(tables).to_have_count(2)
    assert (told(0, days), told(0, scanned)) == (str(then), str(CAME_BEFORE))
    assert (told(1, days), told(1, scanned)) == (str(now), str(CAME))
    expect(listed).to_have_count(CAME_BEFORE)
    expect(panel.locator(".note")).to_have_count(0)
    expect(panel).to_contain_text("前期 4 天：" if lang == "zh" else "Of 4 days before:")
    expect(panel).to_contain_text("明细行 · 前期" if lang == "zh" else "Rows · before")
    text = panel.inner_text()
    assert not SNAKE.findall(text), text
    assert "undefined" not in text
    assert lang == "zh" or not re.search("[一-鿿]", tables.first.inner_text())
    picture(page, f"reports-24-before-{lang}")
    page.keyboard.press("Escape")
    # A change is of both periods.
    figure(page, 0, "visits_change").click()
    expect(tables).to_have_count(2)
    assert (told(0, scanned), told(1, scanned)) == (str(CAME_BEFORE), str(CAME))
    expect(listed).to_have_count(50)
    expect(panel.locator(".note")).to_have_count(0)
    expect(panel).to_contain_text("明细行 · 前期和本期" if lang == "zh" else "of both periods")
    listed.first.scroll_into_view_if_needed()
    picture(page, f"reports-25-change-{lang}")


def test_a_figure_of_the_period_before_is_told_of_any_row_and_where_nothing_is_compared(
    city: City, desk: BrowserContext
) -> None:
    choices, *_ = around(city)
    page = opened(desk, city, **choices | {"by": "all"})
    panel = page.locator("#source")
    share = figure(page, 0, "offhours_share_before")
    share.click()
    expect(panel.locator(".days table")).to_have_count(2)
    expect(panel.locator(".note")).to_have_count(0)
    # What is hidden in the table, a link still opens.
    key = page.locator("tbody tr:not(.total)").first.get_attribute("data-key") or ""
    assert key
    over = {"by": "all", "source": "visits_over", "row": key}
    page.goto(city.page(**choices | over))
    expect(panel.locator(".days table")).to_have_count(1)
    expect(panel.locator(".scroll:not(.days) tbody tr")).to_have_count(50)
    # Of a whole district the rows are a click away, and are compared there as well.
    near = {name: value for name, value in choices.items() if name != "station"}
    page.goto(city.page(**near | {"by": "unit"}))
    figure(page, 0, "visits_before").click()
    panel.locator("a", has_text="按驿站拆开看").click()
    expect(page.locator("#by")).to_have_value("station")
    expect(page.locator("#compare")).to_be_checked()
    # Days to come: nothing is compared, and nothing is counted.
    year = int(city.next_year[:4]) + 1
    come = {"from": f"{year}-02-01", "to": f"{year}-02-08"}
    page.goto(city.page(**choices | come))
    figure(page, 0, "visits_before").click()
    expect(panel).to_contain_text("没有一天可以比较")
    expect(panel.locator(".days")).to_have_count(0)
    picture(page, "reports-26-not-compared")


def test_of_one_station_and_too_many_days_it_is_the_days_that_must_be_fewer(
    city: City, desk: BrowserContext
) -> None:
    days = {"from": (date.fromisoformat(city.day) - timedelta(days=40)).isoformat()}
    page = opened(desk, city, report="visits", by="station", to=city.after, **days)
    figure(page, 0, "visits").click()
    panel = page.locator("#source")
    expect(panel).to_contain_text("明细行一次最多列 31 天。请选短一点的时间。")
    expect(panel).not_to_contain_text("请先在表中选一个驿站")
    picture(page, "reports-27-too-many-days")
    page.goto(city.page(report="visits", by="all", to=city.after, **days))
    figure(page, 0, "visits").click()
    expect(panel).to_contain_text("请先在表中选一个驿站")


@pytest.mark.parametrize("bucket", ["hour_of_day", "weekday", "day_class", "hour"])
def test_a_station_is_cut_by_every_piece_of_time(
    city: City, desk: BrowserContext, bucket: str
) -> None:
    where = {"by": "station", "bucket": bucket, "station": "CQ0001"}
    page = opened(desk, city, report="occupancy", columns="all", **where, **city.that_day)
    most = page.locator('tbody tr:not(.total) td[data-figure="max_observed"]')
    most.first.wait_for()
    assert any(int(text) > 0 for text in most.all_inner_texts() if text.isdigit())
    picture(page, f"reports-13-{bucket}")


def test_occupations_are_asked_for_by_whole_months_and_hide_small_cells(
    city: City, desk: BrowserContext
) -> None:
    page = opened(desk, city, report="occupations", by="all", **city.that_day)
    expect(page.locator("#state")).to_contain_text("职业构成只按整月统计，时间已改为")
    month = choices_of(page)["from"][:7]
    expect(page.locator("#from")).to_have_value(f"{month}-01")
    figure(page, 0, "visits").click()
    expect(page.locator("#source")).to_contain_text("只给公式，不给计数和明细")


def test_a_whole_city_by_station_stays_fluent(city: City, desk: BrowserContext) -> None:
    page = opened(desk, city, report="visits", by="station", **city.that_day)
    figure(page, 0, "visits").wait_for()
    answer = page.request.get(
        f"{city.address}/v1/admin/reports/visits",
        params={"from": city.day, "to": city.after, "by": "station"},
    ).json()
    row = answer["rows"][0]
    answer["rows"] = [
        row | {"station": f"CQ{n:05d}", "name": f"第{n}号驿站", "visits": n % 977 or None}
        for n in range(5523)
    ]
    page.route("**/v1/admin/reports/visits?*by=station*", lambda route: route.fulfill(json=answer))
    page.reload()
    rows = page.locator("tbody tr:not(.total)")
    expect(rows).to_have_count(200)
    expect(page.locator("#count")).to_have_text("显示 200 行，共 5,523 行")
    page.click("#more")
    expect(rows).to_have_count(400)
    page.click('[data-sort="visits"]')
    expect(figure(page, 0, "visits")).to_have_text("976")
    page.click('[data-sort="visits"]')
    expect(figure(page, 0, "visits")).to_have_text("1")
    page.fill("#filter", "第5522号")
    expect(rows).to_have_count(1)
    expect(page.locator("#count")).to_have_text("共 1 行（筛选自 5,523 行）")


def test_what_is_too_much_for_a_browser_is_offered_as_a_file(
    city: City, desk: BrowserContext
) -> None:
    page = opened(desk, city, report="visits", by="station", **city.that_day)
    figure(page, 0, "visits").wait_for()
    much = "[" + " " * 33 * 1024 * 1024 + "]"
    page.route("**/v1/admin/reports/visits?*by=unit", lambda route: route.fulfill(body=much))
    page.select_option("#by", "unit")
    # A browser is handed these 33 MiB through its debugging line: a busy machine takes long.
    expect(page.locator("#error")).to_contain_text("浏览器放不下", timeout=60_000)
    page.unroute("**/v1/admin/reports/visits?*by=unit")
    with page.expect_download() as downloading:
        page.click("#error button")
    assert downloading.value.suggested_filename.endswith(".csv")


def test_of_too_many_rows_a_file_is_offered_and_how_many_it_may_have(
    city: City, desk: BrowserContext
) -> None:
    page = opened(desk, city, report="visits", by="station", **city.that_day)
    figure(page, 0, "visits").wait_for()

    def refuse(route: Route) -> None:
        said = "the report would have more than 20000 rows; ask for fewer days"
        problem = {"code": "period_invalid", "title": "no", "detail": said}
        route.fulfill(status=422, json=problem, content_type="application/problem+json")

    page.route("**/v1/admin/reports/visits?*by=unit*", refuse)
    page.route("**/v1/admin/reports/occupations?*", refuse)
    page.select_option("#by", "unit")
    error = page.locator("#error")
    expect(error).to_contain_text(f"或直接下载 CSV（最多 {MOST_STREAMED // 10_000} 万行）")
    expect(error.locator("button")).to_have_count(1)
    page.click("#lang")
    expect(error).to_contain_text(f"{MOST_STREAMED // 1_000_000} million rows at most")
    page.click("[data-report=occupations]")
    expect(error).to_contain_text("take the CSV")
    expect(error.locator("button")).to_have_count(1)


EVERY = (
    ("visits", "station"),
    ("visits", "operating_model"),
    ("visits", "day_class"),
    ("access", "hour"),
    ("occupancy", "weekday"),
    ("facilities", "station"),
    ("promise", "week"),
    ("controllers", "station"),
    ("ranking", "station"),
)


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_every_report_speaks_in_words_and_fits(city: City, desk: BrowserContext, lang: str) -> None:
    page = opened(desk, city, **city.that_day)
    wrong: list[str] = []
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    if lang == "en":
        page.click("#lang")
    for report, by in EVERY:
        page.goto(city.page(report=report, by=by, columns="all", **city.that_day))
        expect(page.locator("#table table")).to_be_visible()
        text = page.locator("body").inner_text()
        assert not SNAKE.findall(text), (report, by)
        assert "undefined" not in text
        assert "NaN" not in text
        if lang == "en":
            table = page.locator("#table thead").inner_text()
            assert not re.search("[一-鿿]", table), table
        picture(page, f"reports-10-{report}-{by}-{lang}")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert wrong == []


def test_every_value_that_the_api_names_has_words_in_both_languages(
    city: City, desk: BrowserContext
) -> None:
    page = desk.new_page()
    page.goto(city.page())
    words = page.evaluate("window.VALUES")
    needed: dict[str, Any] = {
        "by": By,
        "bucket": Bucket,
        "role": Role,
        "unit_kind": UnitKind,
        "operating_model": OperatingModel,
        "day_class": Class,
        "kind": FacilityKind,
        "reason": Reason,
        "outcome": Outcome,
        "mode": Kind,
        "because": Because,
        "state": CommandState,
        "end_source": EndSource,
        "status": FacilityStatus,
        "heard": Heard,
        "counts": Counts,
        "counter": [
            *(one.name.lower() for one in C if one is not C.QUARTER),
            *HISTOGRAMS.values(),
            "distinct_workers",
            "quarter_person_ms",
            *(
                name
                for figures in MADE.values()
                for made in figures.values()
                for name in made.times
            ),
        ],
        "used": [one.name.lower() for one in F],
        "level": Level,
        "unknown_because": Unknown,
    }
    for kind, values in needed.items():
        for value in values:
            name = getattr(value, "value", value)
            assert len(words[kind].get(name, [])) == 2, (kind, name)
    told = page.evaluate("window.OCCUPATIONS.map(function (row) { return row[0]; })")
    assert {*told, *words["occupation"]} >= {*(each.value for each in Occupation), NOT_SAID}
    shown = {name for shape in ROWS_OUT.values() for name in shape.model_fields}
    assert shown - {"id", "facility_id"} == set(words["row"])
    assert set(ROWS_OUT) == set(Rows)
    zh, en = page.evaluate("[window.REPORT_WORDS.zh, window.REPORT_WORDS.en]")
    assert set(zh) == set(en)
    assert set(zh["problems"]) == set(en["problems"])
    fields = {name for figures in MADE.values() for name in figures}
    assert {one.value for one in Ranked} - fields == {"visits_per_seat"}


def test_it_loads_little_and_only_from_here(city: City, desk: BrowserContext) -> None:
    page = desk.new_page()
    loaded: dict[str, int] = {}

    def note(response: Any) -> None:
        size = response.request.sizes()["responseBodySize"]
        loaded[response.url] = size

    page.on("requestfinished", lambda request: note(request.response()))
    page.goto(city.page())
    expect(page.locator("#login")).to_be_visible()
    page.wait_for_load_state("networkidle")
    own = {url: size for url, size in loaded.items() if "/v1/" not in url}
    assert len(own) >= 9
    assert all(url.startswith(city.address) for url in own)
    assert 5_000 < sum(own.values()) < WIRE_BUDGET, own
