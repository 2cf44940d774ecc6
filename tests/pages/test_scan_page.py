"""The phone page in a real browser, against the real server, with a controller beside it."""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import zxingcpp
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from app.doors import tokens
from app.doors.registry import poster_token
from app.doors.tokens import SigningKey, TokenKind, sign_display
from app.places.tables import Station
from app.runtime import Runtime
from app.settings import Settings
from tests.conftest import make_settings
from tests.support.browser import a_browser, chromium, picture
from tests.support.controller import FakeController, a_fake_controller
from tests.support.server import free_port, prepared, serving
from tests.support.worlds import (
    DAY_AND_NIGHT,
    a_controller,
    a_door,
    a_station,
    a_unit,
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="no Chromium here: apt-get install chromium"),
]

WIRE_BUDGET = 30_000
"""Bytes over the wire for everything the page loads."""

ZH = {"locale": "zh-CN", "viewport": {"width": 360, "height": 740}}


@dataclass(frozen=True)
class Places:
    """The doors of the test's city."""

    open: str
    staffed: str
    closed: str
    silent: str
    tap: str
    contact: str
    contact_door: str
    credential: str
    tap_credential: str
    contact_credential: str
    screen_key: SigningKey
    screen_door: str
    screen_credential: str


async def build(held: Runtime) -> Places:
    at = held.now()
    posters = {}
    credentials = {}
    async with held.database.write() as tx:
        unit = await a_unit(tx, at=at)
        shapes: dict[str, dict[str, Any]] = {
            "open": {"staffed_hours": None, "name": "观音桥步行街骑手驿站"},
            "staffed": {"staffed_hours": DAY_AND_NIGHT, "name": "解放碑劳动者驿站"},
            "closed": {"staffed_hours": None, "access_hours": None, "name": "北碚天生街驿站"},
            "silent": {"staffed_hours": None, "offline_hours": 12, "name": "南坪万达司机驿站"},
            "contact": {"staffed_hours": None, "name": "沙坪坝三峡广场驿站"},
            "screen": {"staffed_hours": None, "name": "鱼洞货车司机之家"},
            "tap": {"staffed_hours": None, "confirm_tap": True, "name": "杨家坪步行街驿站"},
        }
        for name, shape in shapes.items():
            station: Station = await a_station(tx, unit=unit, at=at, **shape)
            door = await a_door(tx, station, at=at)
            if name == "contact":
                door.has_contact, contact_door = True, str(door.id)
            if name == "screen":
                door.has_display, screen_door = True, door.number
                _, credentials[name] = await a_controller(tx, station, at=at)
                continue
            posters[name] = poster_token(held.keys.signing(TokenKind.POSTER), door)
            if name in ("open", "tap", "contact"):
                _, credentials[name] = await a_controller(tx, station, at=at)
    return Places(
        **posters,
        contact_door=contact_door,
        credential=credentials["open"],
        tap_credential=credentials["tap"],
        contact_credential=credentials["contact"],
        screen_key=held.keys.signing(TokenKind.DISPLAY),
        screen_door=screen_door,
        screen_credential=credentials["screen"],
    )


@dataclass(frozen=True)
class City:
    """A served city."""

    address: str
    places: Places
    settings: Settings

    def page(self, token: str) -> str:
        return f"{self.address}/s/{token}"

    def last_code(self) -> str:
        lines = (self.settings.data_dir / "outbox.jsonl").read_text("utf-8").splitlines()
        return str(json.loads(lines[-1])["code"])


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[City]:
    port = free_port()
    settings = make_settings(
        tmp_path_factory.mktemp("city"),
        "",
        public_url=f"http://127.0.0.1:{port}",
        max_wait_s=2,
        limit_scan_minute=1000,
        limit_doors_hour=1000,
        limit_otp_door_hour=1000,
        limit_otp_phone_minute=100,
        limit_otp_phone_hour=100,
        limit_otp_phone_day=100,
    )
    places = prepared(settings, build)
    with serving(settings, port) as address:
        yield City(address, places, settings)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with a_browser() as browser:
        yield browser


@pytest.fixture
def phone(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(**ZH)  # type: ignore[arg-type]
    yield context
    context.close()


@pytest.fixture
def controller(city: City) -> Iterator[FakeController]:
    with a_fake_controller(city.address, city.places.credential) as controller:
        yield controller


_numbers = iter(range(100, 1000))


def sign_in(page: Page, city: City, token: str, *, consent: bool = True) -> None:
    page.goto(city.page(token))
    sign_in_here(page, city, consent=consent)


def sign_in_here(page: Page, city: City, *, consent: bool = True) -> None:
    """Sign in on the page as it stands."""
    page.fill("#phone", f"1390000{next(_numbers):04d}")
    sent = (city.settings.data_dir / "outbox.jsonl").exists() and len(
        (city.settings.data_dir / "outbox.jsonl").read_text("utf-8").splitlines()
    )
    page.click("#phone-form .main")
    expect(page.locator("#code-form")).to_be_visible()
    for _ in range(100):
        box = city.settings.data_dir / "outbox.jsonl"
        if box.exists() and len(box.read_text("utf-8").splitlines()) > (sent or 0):
            break
        page.wait_for_timeout(30)
    page.fill("#code", city.last_code())
    page.click("#occupations label:first-child")
    if consent:
        page.check("#consent")
    page.click("#code-form .main")


def scans_of(page: Page) -> list[dict[str, Any]]:
    """Note every scan the page asks for, with its key."""
    asked: list[dict[str, Any]] = []

    def note(request: Any) -> None:
        if request.method == "POST" and request.url.endswith("/v1/scans"):
            asked.append({"key": request.headers["idempotency-key"]})

    page.on("request", note)
    return asked


def test_first_visit_from_the_number_to_the_open_door(
    city: City, phone: BrowserContext, controller: FakeController
) -> None:
    page = phone.new_page()
    page.goto(city.page(city.places.open))
    expect(page.locator("#phone-form")).to_be_visible()
    expect(page.locator("#station")).to_have_text("观音桥步行街骑手驿站")
    picture(page, "01-first-visit")
    page.fill("#phone", "123")
    page.click("#phone-form .main")
    expect(page.locator("#error")).to_have_text("请输入11位手机号。")
    picture(page, "02-bad-number")
    controller.claim_gap_s = 1.0
    sign_in(page, city, city.places.open)
    expect(page.locator("#headline")).to_have_text("控制器已收到")
    picture(page, "04-claimed")
    expect(page.locator("#headline")).to_have_text("门已开", timeout=5000)
    expect(page.locator("#facts li.on")).to_have_count(3)
    picture(page, "05-open")
    assert len(controller.pulses) == 1
    page.click("#leave")
    expect(page.locator("#left")).to_be_visible()
    picture(page, "06-left")


def door_moves(city: City, seq: int, type: str) -> None:
    """Let the contact of its door say that it opened or closed, now."""
    event = {
        "event_id": f"e{seq}",
        "seq": seq,
        "type": type,
        "door": city.places.contact_door,
        "occurred_at": "1970-01-01T00:00:00Z",
        "mono_ms": seq,
    }
    answer = httpx.post(
        f"{city.address}/v1/controller/events",
        json={"boot_id": "b", "epoch": 1, "mono_ms": seq, "events": [event]},
        headers={"Authorization": f"Bearer {city.places.contact_credential}"},
    )
    assert answer.status_code == 200, answer.text


def test_at_a_door_with_a_contact_unlocked_is_not_yet_open(
    city: City, phone: BrowserContext
) -> None:
    page = phone.new_page()
    with a_fake_controller(city.address, city.places.contact_credential):
        sign_in(page, city, city.places.contact)
        expect(page.locator("#headline")).to_have_text("请推门", timeout=5000)
        expect(page.locator("#facts li.on")).to_have_count(2)
        expect(page.locator("#inside")).to_be_hidden()
        picture(page, "17-push")
        door_moves(city, 1, "door_opened")
        expect(page.locator("#headline")).to_have_text("门已开", timeout=5000)
        expect(page.locator("#facts li.on")).to_have_count(3)
        expect(page.locator("#inside")).to_be_visible()
        picture(page, "18-opened")
        door_moves(city, 2, "door_closed")


def test_a_pulse_that_opens_nothing_is_said_in_the_end(city: City, phone: BrowserContext) -> None:
    page = phone.new_page()
    with a_fake_controller(city.address, city.places.contact_credential):
        sign_in(page, city, city.places.contact)
        expect(page.locator("#headline")).to_have_text("请推门", timeout=5000)
        expect(page.locator("#headline")).to_have_text("门好像没有打开", timeout=30_000)
        expect(page.locator("#again")).to_be_visible()
        picture(page, "19-shut")


def test_the_code_step_has_an_unticked_consent(city: City, phone: BrowserContext) -> None:
    page = phone.new_page()
    page.goto(city.page(city.places.open))
    page.fill("#phone", f"1390000{next(_numbers):04d}")
    page.click("#phone-form .main")
    expect(page.locator("#code-form")).to_be_visible()
    assert not page.is_checked("#consent")
    picture(page, "03-code")
    page.fill("#code", "000000")
    page.click("#code-form .main")
    expect(page.locator("#error")).to_contain_text("验证码不对")
    picture(page, "03-wrong-code")


def test_a_later_visit_opens_with_no_tap_and_a_reload_repeats_it(
    city: City, phone: BrowserContext, controller: FakeController
) -> None:
    page = phone.new_page()
    sign_in(page, city, city.places.open)
    expect(page.locator("#headline")).to_have_text("门已开", timeout=5000)
    later = phone.new_page()
    asked = scans_of(later)
    later.goto(city.page(city.places.open))
    expect(later.locator("#headline")).to_have_text("门已开", timeout=5000)
    assert len(asked) == 1
    later.reload()
    expect(later.locator("#headline")).to_have_text("门已开", timeout=5000)
    assert len(asked) == 1
    later.goto("about:blank")
    later.go_back()
    later.wait_for_timeout(500)
    assert len(asked) == 1


def test_a_hidden_page_waits_until_it_is_seen(
    city: City, phone: BrowserContext, controller: FakeController
) -> None:
    page = phone.new_page()
    sign_in(page, city, city.places.open)
    expect(page.locator("#headline")).to_have_text("门已开", timeout=5000)
    hidden = phone.new_page()
    asked = scans_of(hidden)
    hidden.add_init_script(
        "window.__hidden = true;"
        "Object.defineProperty(document, 'visibilityState', "
        "{get: () => window.__hidden ? 'hidden' : 'visible'});"
    )
    hidden.goto(city.page(city.places.open))
    hidden.wait_for_timeout(500)
    assert asked == []
    hidden.evaluate(
        "window.__hidden = false; document.dispatchEvent(new Event('visibilitychange'))"
    )
    expect(hidden.locator("#headline")).to_have_text("门已开", timeout=5000)
    assert len(asked) == 1


def test_a_station_may_ask_for_one_deliberate_tap(city: City, phone: BrowserContext) -> None:
    page = phone.new_page()
    with a_fake_controller(city.address, city.places.tap_credential):
        sign_in(page, city, city.places.tap)
        expect(page.locator("#headline")).to_have_text("门已开", timeout=5000)
        later = phone.new_page()
        asked = scans_of(later)
        later.goto(city.page(city.places.tap))
        expect(later.locator("#open")).to_be_visible()
        picture(later, "07-tap")
        assert asked == []
        later.click("#open")
        expect(later.locator("#headline")).to_have_text("门已开", timeout=5000)


def test_staffed_hours_are_a_welcome(city: City, phone: BrowserContext) -> None:
    page = phone.new_page()
    sign_in(page, city, city.places.staffed, consent=False)
    expect(page.locator("#headline")).to_have_text("欢迎")
    expect(page.locator("#leave")).to_be_visible()
    picture(page, "08-walk-in")


def test_a_refusal_says_why_and_where_to_go(city: City, phone: BrowserContext) -> None:
    page = phone.new_page()
    sign_in(page, city, city.places.closed)
    expect(page.locator("#why")).to_contain_text("驿站现在不开放")
    expect(page.locator("#alternatives li")).to_have_count(3)
    picture(page, "09-refused")
    page.click("#lang")
    expect(page.locator("#why")).to_contain_text("The station is closed now")
    picture(page, "10-refused-english")


def test_a_door_that_does_not_answer_says_so_then_lets_him_try_again(
    city: City, phone: BrowserContext, controller: FakeController
) -> None:
    controller.answers = False
    page = phone.new_page()
    asked = scans_of(page)
    sign_in(page, city, city.places.open)
    expect(page.locator("#headline")).to_have_text("正在开门…")
    picture(page, "11-pending")
    expect(page.locator("#headline")).to_have_text("门还没有回应", timeout=5000)
    picture(page, "12-slow")
    expect(page.locator("#headline")).to_have_text("门没有回应", timeout=12_000)
    picture(page, "13-expired")
    controller.answers = True
    page.click("#again")
    expect(page.locator("#headline")).to_have_text("门已开", timeout=5000)
    assert len(asked) == 2
    assert asked[0]["key"] != asked[1]["key"]


def test_a_failing_relay_is_told(
    city: City, phone: BrowserContext, controller: FakeController
) -> None:
    controller.result = "failed"
    page = phone.new_page()
    sign_in(page, city, city.places.open)
    expect(page.locator("#headline")).to_have_text("门没有打开", timeout=5000)
    picture(page, "14-failed")


def test_a_lost_answer_is_asked_for_again_with_the_same_key(
    city: City, phone: BrowserContext, controller: FakeController
) -> None:
    page = phone.new_page()
    sign_in(page, city, city.places.open)
    expect(page.locator("#headline")).to_have_text("门已开", timeout=5000)
    later = phone.new_page()
    asked = scans_of(later)
    lost = iter([True])

    def lose_once(route: Route) -> None:
        if next(lost, False):
            route.abort()
        else:
            route.continue_()

    later.route("**/v1/scans", lose_once)
    later.goto(city.page(city.places.open))
    expect(later.locator("#error")).to_have_text("网络不通，请检查信号后再试一次。")
    picture(later, "15-no-network")
    later.click("#open")
    expect(later.locator("#headline")).to_have_text("门已开", timeout=5000)
    assert len(asked) == 2
    assert asked[0]["key"] == asked[1]["key"]


def test_own_data_can_be_seen_withdrawn_and_erased(
    city: City, phone: BrowserContext, controller: FakeController
) -> None:
    page = phone.new_page()
    sign_in(page, city, city.places.open)
    expect(page.locator("#headline")).to_have_text("门已开", timeout=5000)
    page.click("#mine")
    expect(page.locator("#me h2")).to_have_text(re.compile(r"^139\*\*\*\*\d{4}$"))
    expect(page.locator("#me li")).to_have_count(1)
    picture(page, "16-own-data")
    page.click("text=撤回同意")
    expect(page.locator("text=同意记录我的到访")).to_be_visible()
    page.click("text=删除我的账号和数据")
    page.click("text=确定删除")
    expect(page.locator("#phone-form")).to_be_visible()


def a_screen_code(city: City, *, left: timedelta) -> str:
    """Sign what the door's screen shows, with so much of its 45 s left."""
    issued_at = datetime.now(UTC) - timedelta(seconds=45) + left
    return sign_display(
        city.places.screen_key,
        door=city.places.screen_door,
        issued_at=issued_at,
        expires_at=issued_at + timedelta(seconds=45),
        jti=f"s-{issued_at.timestamp():.0f}",
    )


def test_signing_in_may_take_longer_than_the_code_on_the_screen_lives(
    city: City, phone: BrowserContext
) -> None:
    page = phone.new_page()
    token = a_screen_code(city, left=timedelta(seconds=4))
    exchanged = []
    page.on("response", lambda r: exchanged.append(r.status) if "/ticket" in r.url else None)
    with a_fake_controller(city.address, city.places.screen_credential):
        page.goto(city.page(token))
        expect(page.locator("#phone-form")).to_be_visible()
        assert exchanged == [201]
        page.wait_for_timeout(5000)
        sign_in_here(page, city)
        expect(page.locator("#headline")).to_have_text("门已开", timeout=5000)


def test_a_code_on_the_screen_that_is_over_asks_for_the_next_one(
    city: City, phone: BrowserContext, controller: FakeController
) -> None:
    page = phone.new_page()
    sign_in(page, city, city.places.open)
    expect(page.locator("#headline")).to_have_text("门已开", timeout=5000)
    page.goto(city.page(a_screen_code(city, left=timedelta(seconds=-5))))
    expect(page.locator("#why")).to_be_visible()
    expect(page.locator("#station")).to_have_text("鱼洞货车司机之家")
    picture(page, "17-screen-code-over")


def test_where_the_link_is_down_a_pass_is_shown_and_renews_itself(
    city: City, phone: BrowserContext, controller: FakeController
) -> None:
    page = phone.new_page()
    sign_in(page, city, city.places.open)
    expect(page.locator("#headline")).to_have_text("门已开", timeout=5000)
    page.goto(city.page(city.places.silent))
    expect(page.locator("#why")).to_contain_text("没有联网")
    page.clock.install()
    page.click("#show-pass")
    expect(page.locator("#pass-code svg")).to_be_visible()
    first = pass_on(page)
    picture(page, "18-pass")
    assert tokens.kind_of(first) is TokenKind.PASS
    page.clock.fast_forward(31_000)
    page.wait_for_function("document.querySelector('#pass-code svg')")
    for _ in range(100):
        if pass_on(page) != first:
            break
        page.wait_for_timeout(30)
    assert pass_on(page) != first
    page.click("#pass-close")
    expect(page.locator("#pass")).to_be_hidden()
    assert page.locator("#pass-code svg").count() == 0


def pass_on(page: Page) -> str:
    """Read the code that the page shows, as a reader at the door does."""
    shot = page.locator("#pass-code").screenshot()
    image = Image.open(io.BytesIO(shot)).convert("L")
    (found,) = zxingcpp.read_barcodes(image, zxingcpp.BarcodeFormat.QRCode)
    return str(found.text)


def test_a_foreign_code_is_no_door(city: City, phone: BrowserContext) -> None:
    page = phone.new_page()
    page.goto(city.page("not-a-code"))
    expect(page.locator("#station")).to_have_text("请扫描门上的二维码")


def test_it_is_small_and_fits_a_narrow_phone(city: City, phone: BrowserContext) -> None:
    page = phone.new_page()
    loaded: dict[str, int] = {}
    session = phone.new_cdp_session(page)
    session.send("Network.enable")
    urls: dict[str, str] = {}
    session.on(
        "Network.requestWillBeSent", lambda e: urls.update({e["requestId"]: e["request"]["url"]})
    )
    session.on(
        "Network.loadingFinished",
        lambda e: loaded.update({urls[e["requestId"]]: e["encodedDataLength"]}),
    )
    page.goto(city.page(city.places.open))
    expect(page.locator("#phone-form")).to_be_visible()
    page.evaluate("import('/pages/me.js').catch(() => 0)")
    page.wait_for_timeout(300)
    own = {url: size for url, size in loaded.items() if "/v1/" not in url}
    assert len(own) >= 4
    assert 1_000 < sum(own.values()) < WIRE_BUDGET, own
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 360


def test_nothing_secret_is_kept_in_the_browser(
    city: City, phone: BrowserContext, controller: FakeController
) -> None:
    page = phone.new_page()
    sign_in(page, city, city.places.open)
    expect(page.locator("#headline")).to_have_text("门已开", timeout=5000)
    kept = page.evaluate("JSON.stringify(localStorage) + JSON.stringify(sessionStorage)")
    assert "1390000" not in kept
    cookie = next(c for c in phone.cookies() if c["name"] == "yizhan_session")
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Lax"
