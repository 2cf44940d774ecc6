"""A worker as a person over HTTP: sign in, own data, consent, export, erasure."""

import json
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from app import jobs
from app.doors.tables import Scan
from app.main import create_app
from app.people import workers
from app.people.tables import Consent, LoginChallenge, Occupation, SmsState, Worker
from app.places.rules import Kind
from app.runtime import Runtime
from app.settings import Registration, Settings
from app.visits import presence
from app.visits.presence import Arrival
from tests.conftest import Clock, make_settings
from tests.support.worlds import SomeWorker, a_door, a_scene, a_station, a_worker

pytestmark = pytest.mark.anyio

PHONE = "13812341234"


def outbox(settings: Settings) -> list[dict[str, Any]]:
    path = settings.data_dir / "outbox.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def signed_in(
    client: httpx.AsyncClient, settings: Settings, phone: str = PHONE, **body: Any
) -> httpx.Response:
    asked = await client.post("/v1/auth/otp", json={"phone": phone})
    assert asked.status_code == 202, asked.text
    code = outbox(settings)[-1]["code"]
    challenge = asked.json()["challenge_id"]
    return await client.post(
        "/v1/auth/otp/verify", json={"challenge_id": challenge, "code": code, **body}
    )


@asynccontextmanager
async def another_service(settings: Settings, clock: Clock) -> AsyncIterator[httpx.AsyncClient]:
    """The service with other settings."""
    app = create_app(settings, now=clock.now, monotonic=clock.monotonic, run_jobs=False)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=settings.public_url) as client:
            yield client


async def a_visit(
    runtime: Runtime, worker: SomeWorker, *, at: datetime, consented: bool = True
) -> Any:
    """Let a worker into a station; gives the station."""
    async with runtime.database.write() as tx:
        station = await a_station(tx, at=at)
        arrival = Arrival(
            station_id=station.id,
            timezone=station.timezone,
            owner_key=worker.owner_key,
            worker_id=worker.id if consented else None,
            occupation=Occupation.RIDER,
            mode=Kind.SCAN,
            party_size=1,
            max_stay=timedelta(hours=1),
        )
        await presence.open_visit(tx, arrival, started_at=at)
    return station


async def test_a_new_number_registers_itself_with_occupation_and_consent(
    client: httpx.AsyncClient, settings: Settings, clock: Clock, runtime: Runtime
) -> None:
    answer = await signed_in(client, settings, occupation="rider", consent={"version": "2026-11"})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["token_type"] == "bearer"
    assert body["expires_in"] == 30 * 24 * 3600
    assert body["worker"]["phone"] == "138****1234"
    assert body["worker"]["occupation"] == "rider"
    assert body["worker"]["consent"]["version"] == "2026-11"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"yizhan_session={body['access_token']};")
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie
    async with runtime.database.read() as tx:
        (consent,) = (await tx.scalars(sa.select(Consent))).all()
    assert (consent.version, consent.channel, consent.given_at) == (
        "2026-11",
        "phone_page",
        clock.now(),
    )
    (message,) = outbox(settings)
    assert message["phone"] == "+86" + PHONE
    assert message["text"].startswith("【工会驿站】验证码 ")
    assert "testserver" in message["text"]


async def test_without_ticking_the_box_there_is_no_consent(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    answer = await signed_in(client, settings, occupation="rider")
    assert answer.json()["worker"]["consent"] is None


async def test_the_page_and_an_app_carry_the_same_session(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    token = (await signed_in(client, settings)).json()["access_token"]
    by_cookie = await client.get("/v1/me")
    assert by_cookie.status_code == 200
    client.cookies.clear()
    assert (await client.get("/v1/me")).status_code == 401
    by_bearer = await client.get("/v1/me", headers={"Authorization": f"Bearer {token}"})
    assert by_bearer.json() == by_cookie.json()


async def test_on_https_the_cookie_is_bound_to_the_host(
    database_url: str, tmp_path: Path, clock: Clock
) -> None:
    settings = make_settings(tmp_path, database_url, public_url="https://yz.example")
    async with another_service(settings, clock) as client:
        answer = await signed_in(client, settings)
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-yizhan=")
        assert "Secure" in cookie
        assert "Path=/" in cookie
        assert "Domain" not in cookie
        assert (await client.get("/v1/me")).status_code == 200


async def test_every_number_gets_the_same_answer(
    client: httpx.AsyncClient, settings: Settings, clock: Clock
) -> None:
    await signed_in(client, settings)
    client.cookies.clear()
    clock.advance(61)
    answers = [
        await client.post("/v1/auth/otp", json={"phone": phone})
        for phone in (PHONE, PHONE, "13912341234", "+23276123456", "023-63000000")
    ]
    sent = {message["phone"] for message in outbox(settings)[1:]}
    assert sent == {"+8613812341234", "+8613912341234"}
    assert {answer.status_code for answer in answers} == {202}
    shapes = set()
    for answer in answers:
        challenge = answer.json()["challenge_id"]
        assert len(challenge) == 32
        int(challenge, 16)
        shapes.add(
            (answer.text.replace(challenge, "X"), tuple(sorted(answer.headers.multi_items())))
        )
    assert len(shapes) == 1


async def test_a_restricted_registration_answers_alike_and_sends_nothing(
    database_url: str, tmp_path: Path, clock: Clock
) -> None:
    settings = make_settings(tmp_path, database_url, registration=Registration.LISTED)
    async with another_service(settings, clock) as client:
        answer = await client.post("/v1/auth/otp", json={"phone": PHONE})
        assert answer.status_code == 202
        assert outbox(settings) == []


@pytest.mark.parametrize("phone", ["hello", "12", "", "+", "\x00" * 5, "1" * 33, "①②③"])
async def test_what_is_no_number_is_refused(client: httpx.AsyncClient, phone: str) -> None:
    answer = await client.post("/v1/auth/otp", json={"phone": phone})
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_door_code_charges_its_door_and_any_other_text_none(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)
    for phone, token in ((PHONE, scene.poster), ("13912341234", "rubbish"), ("13712341234", None)):
        answer = await client.post("/v1/auth/otp", json={"phone": phone, "token": token})
        assert answer.status_code == 202, answer.text
    async with runtime.database.read() as tx:
        doors = (
            await tx.scalars(sa.select(LoginChallenge.door_id).order_by(LoginChallenge.created_at))
        ).all()
    assert sorted(map(str, doors)) == sorted([str(scene.door.id), "None", "None"])


async def test_every_wrong_proof_gets_the_same_answer(
    client: httpx.AsyncClient, settings: Settings, clock: Clock
) -> None:
    asked = await client.post("/v1/auth/otp", json={"phone": PHONE})
    challenge = asked.json()["challenge_id"]
    code = outbox(settings)[-1]["code"]
    wrong = "000000" if code != "000000" else "111111"

    async def tried(challenge: str, code: str) -> httpx.Response:
        return await client.post(
            "/v1/auth/otp/verify", json={"challenge_id": challenge, "code": code}
        )

    answers = [await tried("0" * 32, code), await tried(challenge, wrong)]
    assert (await tried(challenge, code)).status_code == 200
    answers.append(await tried(challenge, code))
    clock.advance(301)
    answers.append(await tried(challenge, code))
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.json()["code"] for answer in answers} == {"code_wrong"}
    assert len({answer.text for answer in answers}) == 1


async def test_a_wrong_code_is_counted_although_the_answer_is_an_error(
    client: httpx.AsyncClient, settings: Settings, runtime: Runtime
) -> None:
    asked = await client.post("/v1/auth/otp", json={"phone": PHONE})
    challenge = asked.json()["challenge_id"]
    code = outbox(settings)[-1]["code"]
    wrong = "000000" if code != "000000" else "111111"
    for _ in range(5):
        body = {"challenge_id": challenge, "code": wrong}
        assert (await client.post("/v1/auth/otp/verify", json=body)).status_code == 401
    async with runtime.database.read() as tx:
        assert (await tx.get_one(LoginChallenge, challenge)).failures == 5
    body = {"challenge_id": challenge, "code": code}
    assert (await client.post("/v1/auth/otp/verify", json=body)).status_code == 401


async def test_too_many_wrong_codes_say_when_to_come_back(
    client: httpx.AsyncClient, settings: Settings, clock: Clock
) -> None:
    for _ in range(2):
        asked = await client.post("/v1/auth/otp", json={"phone": PHONE})
        code = outbox(settings)[-1]["code"]
        wrong = "000000" if code != "000000" else "111111"
        body = {"challenge_id": asked.json()["challenge_id"], "code": wrong}
        for _ in range(5):
            assert (await client.post("/v1/auth/otp/verify", json=body)).status_code == 401
        clock.advance(61)
    clock.advance(-20)
    asked = await client.post("/v1/auth/otp", json={"phone": PHONE})
    body = {"challenge_id": asked.json()["challenge_id"], "code": "123456"}
    answer = await client.post("/v1/auth/otp/verify", json=body)
    assert answer.status_code == 429
    assert answer.json()["code"] == "too_many_wrong_codes"
    assert answer.headers["retry-after"] == "19"


async def test_an_attacker_who_burns_the_budgets_leaves_a_session_alone(
    client: httpx.AsyncClient, settings: Settings, clock: Clock
) -> None:
    token = (await signed_in(client, settings)).json()["access_token"]
    client.cookies.clear()
    for _ in range(12):
        asked = await client.post("/v1/auth/otp", json={"phone": PHONE})
        body = {"challenge_id": asked.json()["challenge_id"], "code": "000000"}
        for _ in range(5):
            await client.post("/v1/auth/otp/verify", json=body)
        clock.advance(61)
    me = await client.get("/v1/me", headers={"Authorization": f"Bearer {token}"})
    assert me.status_code == 200


async def test_logging_out_ends_the_session_and_clears_the_cookie(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    token = (await signed_in(client, settings)).json()["access_token"]
    answer = await client.post("/v1/auth/logout")
    assert answer.status_code == 204
    assert answer.headers["set-cookie"].startswith('yizhan_session=""; ')
    assert not client.cookies
    bearer = {"Authorization": f"Bearer {token}"}
    assert (await client.get("/v1/me", headers=bearer)).status_code == 401
    assert (await client.post("/v1/auth/logout", headers=bearer)).status_code == 401


async def test_each_sign_in_has_a_token_of_its_own_whatever_cookie_came(
    client: httpx.AsyncClient, settings: Settings, clock: Clock
) -> None:
    client.cookies.set("yizhan_session", "planted")
    first = (await signed_in(client, settings)).json()["access_token"]
    clock.advance(61)
    second = (await signed_in(client, settings)).json()["access_token"]
    assert len({first, second, "planted"}) == 3
    planted = {"Authorization": "Bearer planted"}
    assert (await client.get("/v1/me", headers=planted)).status_code == 401


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://testserver", 200),
        ("HTTP://TestServer", 200),
        ("http://evil.example", 403),
        ("http://testserver.evil.example", 403),
        ("null", 403),
        ("http://[", 403),
    ],
)
async def test_a_cookie_from_another_site_changes_nothing(
    client: httpx.AsyncClient, settings: Settings, origin: str | None, status: int
) -> None:
    await signed_in(client, settings)
    headers = {"Origin": origin} if origin else {}
    answer = await client.patch("/v1/me", json={"occupation": "driver"}, headers=headers)
    assert answer.status_code == status, answer.text
    me = (await client.get("/v1/me")).json()
    assert (me["occupation"] == "driver") is (status == 200)


async def test_a_bearer_token_needs_no_origin(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    token = (await signed_in(client, settings)).json()["access_token"]
    answer = await client.patch(
        "/v1/me",
        json={"occupation": "driver"},
        headers={"Authorization": f"Bearer {token}", "Origin": "http://elsewhere.example"},
    )
    assert answer.status_code == 200


async def test_consent_is_given_renewed_and_withdrawn_and_every_step_is_kept(
    client: httpx.AsyncClient,
    settings: Settings,
    runtime: Runtime,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "CONSENT_VERSIONS", frozenset({"1", "2"}))
    await signed_in(client, settings, consent={"version": "1"})
    unknown = await client.patch("/v1/me", json={"consent": {"version": "banana"}})
    assert unknown.status_code == 422
    given_at = clock.now()
    clock.advance(60)
    again = await client.patch("/v1/me", json={"consent": {"version": "1"}})
    assert datetime.fromisoformat(again.json()["consent"]["given_at"]) == given_at
    newer = await client.patch("/v1/me", json={"consent": {"version": "2"}})
    assert newer.json()["consent"]["version"] == "2"
    untouched = await client.patch("/v1/me", json={"occupation": "courier"})
    assert untouched.json()["consent"]["version"] == "2"
    clock.advance(60)
    withdrawn = await client.patch("/v1/me", json={"consent": None})
    assert withdrawn.json()["consent"] is None
    async with runtime.database.read() as tx:
        rows = (await tx.scalars(sa.select(Consent).order_by(Consent.given_at))).all()
    assert [(row.version, row.withdrawn_at) for row in rows] == [
        ("1", given_at + timedelta(seconds=60)),
        ("2", given_at + timedelta(seconds=120)),
    ]


async def test_after_withdrawal_a_scan_is_stored_without_the_worker(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)

    async def scanned(key: str) -> Scan:
        answer = await client.post(
            "/v1/scans",
            json={"token": scene.poster},
            headers={**scene.worker.headers, "Idempotency-Key": key},
        )
        async with runtime.database.read() as tx:
            return await tx.get_one(Scan, uuid.UUID(answer.json()["id"]))

    assert (await scanned("one")).worker_id == scene.worker.id
    await client.patch("/v1/me", json={"consent": None}, headers=scene.worker.headers)
    async with runtime.database.write() as tx:
        await tx.execute(sa.text("UPDATE commands SET state = 'expired'"))
    assert (await scanned("two")).worker_id is None


async def test_own_visits_come_newest_first_in_pages_with_the_station(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    async with runtime.database.write() as tx:
        mine = await a_worker(tx, runtime, at=clock.now())
        other = await a_worker(tx, runtime, at=clock.now())
    stations = []
    for _ in range(3):
        stations.append(await a_visit(runtime, mine, at=clock.now()))
        await a_visit(runtime, other, at=clock.now())
        clock.advance(600)
    page = await client.get("/v1/me/visits?limit=2", headers=mine.headers)
    assert [visit["station"]["code"] for visit in page.json()] == [
        stations[2].code,
        stations[1].code,
    ]
    assert page.json()[0]["station"]["name"] == stations[2].name
    assert page.json()[0]["ended_at"] is None
    rest = page.headers["link"].split(">")[0].lstrip("<")
    last = await client.get(rest, headers=mine.headers)
    assert last.status_code == 200, (rest, last.text)
    assert [visit["station"]["code"] for visit in last.json()] == [stations[0].code]
    assert "link" not in last.headers


async def test_without_consent_only_the_visit_he_is_in_is_his(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    async with runtime.database.write() as tx:
        worker = await a_worker(tx, runtime, at=clock.now(), consented=False)
    await a_visit(runtime, worker, at=clock.now(), consented=False)
    seen = (await client.get("/v1/me/visits", headers=worker.headers)).json()
    assert len(seen) == 1
    left = await client.post(f"/v1/visits/{seen[0]['id']}/leave", headers=worker.headers)
    assert left.status_code == 200
    assert (await client.get("/v1/me/visits", headers=worker.headers)).json() == []


@pytest.mark.parametrize("cursor", ["x", "WyJhIl0", "W10", "bnVsbA", "é", "WzFd"])
async def test_a_cursor_of_nobody_is_refused(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock, cursor: str
) -> None:
    async with runtime.database.write() as tx:
        worker = await a_worker(tx, runtime, at=clock.now())
    answer = await client.get("/v1/me/visits", params={"cursor": cursor}, headers=worker.headers)
    assert answer.status_code == 422, answer.text


async def test_export_is_an_attachment_of_everything_and_erasure_ends_everything(
    client: httpx.AsyncClient, settings: Settings, runtime: Runtime
) -> None:
    token = (await signed_in(client, settings, consent={"version": "2026-11"})).json()[
        "access_token"
    ]
    export = await client.get("/v1/me/export")
    assert export.status_code == 200
    assert "attachment" in export.headers["content-disposition"]
    assert export.json()["workers"][0]["phone"] == "+86" + PHONE
    assert token not in export.text
    erased = await client.delete("/v1/me")
    assert erased.status_code == 204
    bearer = {"Authorization": f"Bearer {token}"}
    assert (await client.get("/v1/me", headers=bearer)).status_code == 401
    async with runtime.database.read() as tx:
        (row,) = (await tx.scalars(sa.select(Worker))).all()
        assert (row.phone_sealed, row.phone_index, row.occupation) == (None, None, None)
        assert list(await tx.scalars(sa.select(LoginChallenge.phone_sealed))) == [None]


async def test_who_was_erased_may_come_back_as_somebody_new(
    client: httpx.AsyncClient, settings: Settings, clock: Clock
) -> None:
    first = (await signed_in(client, settings)).json()["worker"]["id"]
    await client.delete("/v1/me")
    clock.advance(61)
    second = (await signed_in(client, settings)).json()["worker"]["id"]
    assert first != second


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/auth/otp", {"phone": PHONE, "admin": True}),
        ("/v1/auth/otp/verify", {"challenge_id": "0" * 32, "code": "123456", "listed": True}),
        ("/v1/auth/otp/verify", {"challenge_id": "0" * 31, "code": "123456"}),
        ("/v1/auth/otp/verify", {"challenge_id": "0" * 32, "code": "12345"}),
        ("/v1/auth/otp/verify", {"challenge_id": "0" * 32, "code": "１２３４５６"}),
    ],
)
async def test_unknown_fields_and_odd_values_are_refused(
    client: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    answer = await client.post(path, json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"]


async def test_no_number_token_or_code_is_ever_logged(
    client: httpx.AsyncClient,
    settings: Settings,
    runtime: Runtime,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # What the test's own client prints is nobody's log; the database driver's is.
    for name in ("httpcore", "httpx"):
        caplog.set_level(logging.INFO, logger=name)
    challenge = (await client.post("/v1/auth/otp", json={"phone": PHONE})).json()["challenge_id"]
    code = outbox(settings)[-1]["code"]
    wrong = {"challenge_id": challenge, "code": "000000" if code != "000000" else "111111"}
    await client.post("/v1/auth/otp/verify", json=wrong)
    body = {"challenge_id": challenge, "code": code}
    token = (await client.post("/v1/auth/otp/verify", json=body)).json()["access_token"]
    await client.get("/v1/me")
    await client.get("/v1/me/export")
    await client.post("/v1/auth/otp", json={"phone": "nonsense " + PHONE})
    async with runtime.database.write() as tx:
        station = await a_station(tx, at=clock.now())
        await a_door(tx, station, at=clock.now())
    await client.delete("/v1/me")
    said = caplog.text
    assert said, "something was logged"
    for secret in (PHONE, token, f" {code}", f"'{code}'"):
        assert secret not in said


async def test_a_gateway_that_is_away_loses_no_message(
    client: httpx.AsyncClient, runtime: Runtime, settings: Settings, clock: Clock
) -> None:
    blocked = settings.data_dir / "outbox.jsonl"
    blocked.mkdir()
    await client.post("/v1/auth/otp", json={"phone": PHONE})
    async with runtime.database.read() as tx:
        assert await tx.scalar(sa.select(LoginChallenge.sms_state)) is SmsState.DUE
    blocked.rmdir()
    clock.advance(61)
    await jobs.send_codes(runtime)
    assert [message["phone"] for message in outbox(settings)] == ["+86" + PHONE]
