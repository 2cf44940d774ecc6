"""Administrators and their workers over HTTP: sign-in, accounts, listed numbers (T15-T16, T37)."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pyotp
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit import COMMAND_LINE, Action, AuditEntry
from app.main import create_app
from app.people import admins
from app.people.admins import NewAdmin
from app.people.rules import Role
from app.people.tables import Admin, AdminLoginFailure, AdminSession, Worker
from app.runtime import Runtime
from app.settings import Environment, SmsSender
from tests.conftest import Clock, make_settings
from tests.support.worlds import SomeAdmin, a_unit, a_worker, an_admin

pytestmark = pytest.mark.anyio

PASSWORD = "correct horse battery"


async def an_account(
    runtime: Runtime, *, role: Role = Role.CITY_ADMIN, with_totp: bool = False
) -> tuple[Admin, pyotp.TOTP | None]:
    password_hash = await admins.hash_password(PASSWORD)
    async with runtime.database.write() as tx:
        created = await admins.create(
            tx,
            NewAdmin("chief", password_hash, role),
            vault=runtime.vault,
            actor=COMMAND_LINE,
            at=runtime.now(),
            with_totp=with_totp,
        )
    totp = pyotp.parse_uri(created.totp_uri) if created.totp_uri else None
    assert totp is None or isinstance(totp, pyotp.TOTP)
    return created.admin, totp


async def login(client: httpx.AsyncClient, **changes: Any) -> httpx.Response:
    body = {"username": "chief", "password": PASSWORD} | changes
    return await client.post("/v1/admin/login", json=body)


async def the_chief(runtime: Runtime) -> SomeAdmin:
    async with runtime.database.write() as tx:
        return await an_admin(tx, at=runtime.now())


@asynccontextmanager
async def production(
    database_url: str, tmp_path: Path, clock: Clock
) -> AsyncIterator[tuple[httpx.AsyncClient, Runtime]]:
    settings = make_settings(
        tmp_path,
        database_url,
        environment=Environment.PRODUCTION,
        public_url="https://yz.example",
        secret_kek="5dxS1YzCg1pCUT3kKcFYb0V2M7bqoUEj6vUcmqKf2cY=",
        sms_sender=SmsSender.HTTP,
        sms_url="https://sms.example/send",
    )
    app = create_app(settings, now=clock.now, monotonic=clock.monotonic, run_jobs=False)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=settings.public_url) as client:
            yield client, app.state.runtime


async def test_an_administrator_signs_in_and_out(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    admin, _ = await an_account(runtime)
    answer = await login(client)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["expires_in"] == 12 * 3600
    assert body["admin"]["id"] == str(admin.id)
    assert "password" not in answer.text
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("yizhan_admin=")
    assert "HttpOnly" in cookie
    bearer = {"Authorization": f"Bearer {body['access_token']}"}
    assert (await client.get("/v1/admin/admins")).status_code == 200
    assert (await client.post("/v1/admin/logout")).status_code == 204
    assert (await client.get("/v1/admin/admins", headers=bearer)).status_code == 401
    async with runtime.database.read() as tx:
        actions = (await tx.scalars(sa.select(AuditEntry.action).order_by(AuditEntry.id))).all()
        hashes = (await tx.scalars(sa.select(AdminSession.token_hash))).all()
    assert list(actions) == [
        Action.ADMIN_ADDED,
        Action.ADMIN_SIGNED_IN,
        Action.ADMIN_SIGNED_OUT,
    ]
    assert body["access_token"].encode() not in hashes
    assert admin.password_hash.startswith("$argon2id$")


@pytest.mark.parametrize(
    "changes", [{"password": "wrong"}, {"username": "nobody"}, {"username": "CHIEF"}]
)
async def test_whatever_is_wrong_the_answer_is_the_same(
    client: httpx.AsyncClient, runtime: Runtime, changes: dict[str, str]
) -> None:
    await an_account(runtime)
    answer = await login(client, **changes)
    assert answer.status_code == 401
    assert answer.json()["code"] == "login_refused"
    assert answer.json()["detail"] == "Name, password or second factor is wrong."


async def test_an_unknown_name_is_compared_like_a_known_one(
    client: httpx.AsyncClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    await an_account(runtime)
    compared: list[str] = []
    real = admins._matches

    def noted(stored: str, password: str) -> bool:
        compared.append(stored)
        return real(stored, password)

    monkeypatch.setattr(admins, "_matches", noted)
    await login(client, username="nobody")
    await login(client, password="wrong")
    parameters = {stored.rsplit("$", 2)[0] for stored in compared}
    assert len(compared) == 2
    assert len(parameters) == 1, "the same work for both"


async def test_too_many_wrong_passwords_wait_even_with_the_right_one(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    await an_account(runtime)
    for _ in range(10):
        assert (await login(client, password="wrong")).status_code == 401
    clock.advance(60)
    refused = await login(client)
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == str(14 * 60)
    async with runtime.database.read() as tx:
        rows = await tx.scalar(sa.select(sa.func.count()).select_from(AdminLoginFailure))
    assert rows == 10, "the failures were committed, and a refusal is not one more"
    clock.advance(14 * 60)
    assert (await login(client)).status_code == 200


async def test_wrong_passwords_at_once_do_not_overtake_the_budget(
    runtime: Runtime,
) -> None:
    given = admins.Credentials("chief", "wrong", None, "192.0.2.0/24")

    async def tried(tx: AsyncSession) -> Any:
        return await admins.sign_in(
            tx,
            runtime.vault,
            given,
            admins.Checked(None),
            failure_limit=1,
            requires_totp=False,
            at=runtime.now(),
        )

    async def another() -> Any:
        async with runtime.database.write() as tx:
            return await tried(tx)

    async with runtime.database.write() as tx:
        first = await tried(tx)
        await tx.flush()
        # The second comes while the first is not committed yet: it has to wait for its turn.
        second = asyncio.create_task(another())
        await asyncio.sleep(0.2)
    assert isinstance(first, admins.LoginRefused)
    assert isinstance(await second, admins.TooManyLogins)


async def test_a_session_ends_after_an_hour_idle_and_twelve_hours_at_most(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    await an_account(runtime)
    await login(client)
    clock.advance(3599)
    assert (await client.get("/v1/admin/admins")).status_code == 200
    clock.advance(3599)
    assert (await client.get("/v1/admin/admins")).status_code == 200, "use keeps it alive"
    clock.advance(3600)
    assert (await client.get("/v1/admin/admins")).status_code == 401
    await login(client)
    for _ in range(23):
        clock.advance(1800)
        assert (await client.get("/v1/admin/admins")).status_code == 200
    clock.advance(1800)
    assert (await client.get("/v1/admin/admins")).status_code == 401


@pytest.mark.parametrize("role", [Role.CITY_ADMIN, Role.AUDITOR])
async def test_production_asks_the_mighty_for_a_second_factor(
    database_url: str, tmp_path: Path, clock: Clock, role: Role
) -> None:
    async with production(database_url, tmp_path, clock) as (client, runtime):
        await an_account(runtime, role=role)
        answer = await login(client)
        assert answer.status_code == (401 if role is Role.CITY_ADMIN else 200)


async def test_a_time_step_of_the_second_factor_counts_once(
    database_url: str, tmp_path: Path, clock: Clock
) -> None:
    async with production(database_url, tmp_path, clock) as (client, runtime):
        admin, totp = await an_account(runtime, with_totp=True)
        assert totp is not None
        assert admin.totp_sealed is not None
        assert totp.secret.encode() not in admin.totp_sealed
        code = totp.at(clock.now())
        assert (await login(client)).status_code == 401
        assert (
            await login(client, totp="000000" if code != "000000" else "1" * 6)
        ).status_code == 401
        good = await login(client, totp=code)
        assert good.status_code == 200, good.text
        assert good.headers["set-cookie"].startswith("__Host-yizhan-admin=")
        assert "Secure" in good.headers["set-cookie"]
        assert (await login(client, totp=code)).status_code == 401
        clock.advance(30)
        assert (await login(client, totp=code)).status_code == 401
        assert (await login(client, totp=totp.at(clock.now()))).status_code == 200
        clock.advance(30)
        late = totp.at(clock.now())
        clock.advance(30)
        assert (await login(client, totp=late)).status_code == 200, "one step late is in time"
        clock.advance(90)
        assert (
            await login(client, totp=totp.at(clock.now() - timedelta(seconds=60)))
        ).status_code == 401


async def test_an_account_made_in_production_can_sign_in(
    database_url: str, tmp_path: Path, clock: Clock
) -> None:
    async with production(database_url, tmp_path, clock) as (client, runtime):
        chief = await the_chief(runtime)
        made = await client.post(
            "/v1/admin/admins",
            json={"username": "second", "password": PASSWORD, "role": "city_admin"},
            headers=chief.headers,
        )
        assert made.status_code == 201, made.text
        totp = pyotp.parse_uri(made.json()["totp_uri"])
        assert isinstance(totp, pyotp.TOTP)
        answer = await login(client, username="second", totp=totp.at(clock.now()))
        assert answer.status_code == 200


async def test_accounts_are_made_changed_and_closed(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief = await the_chief(runtime)
    async with runtime.database.write() as tx:
        unit = await a_unit(tx, at=runtime.now())
    body = {"username": "keeper", "password": PASSWORD, "role": "station_keeper"}
    missing = await client.post("/v1/admin/admins", json=body, headers=chief.headers)
    assert missing.status_code == 422
    assert missing.json()["code"] == "scope_invalid"
    body["unit"] = str(unit.id)
    made = await client.post("/v1/admin/admins", json=body, headers=chief.headers)
    assert made.status_code == 201, made.text
    assert made.json()["totp_uri"] is None
    taken = await client.post("/v1/admin/admins", json=body, headers=chief.headers)
    assert (taken.status_code, taken.json()["code"]) == (409, "username_taken")
    path = f"/v1/admin/admins/{made.json()['id']}"
    assert (await client.get(path, headers=chief.headers)).json()["unit_id"] == str(unit.id)
    first = await login(client, username="keeper")
    assert first.status_code == 200
    client.cookies.clear()
    session = {"Authorization": f"Bearer {first.json()['access_token']}"}
    assert (await client.get("/v1/admin/stations", headers=session)).status_code == 200
    changed = await client.patch(
        path, json={"password": "another long password"}, headers=chief.headers
    )
    assert changed.status_code == 200, changed.text
    assert (await client.get("/v1/admin/stations", headers=session)).status_code == 401
    assert (await login(client, username="keeper")).status_code == 401
    fresh = await login(client, username="keeper", password="another long password")
    assert fresh.status_code == 200
    client.cookies.clear()
    closed = await client.post(f"{path}/retire", headers=chief.headers)
    assert closed.json()["retired_at"] is not None
    gone = await login(client, username="keeper", password="another long password")
    assert gone.status_code == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"password": "short"},
        {"password": "\ud800" * 12},
        {"role": "emperor"},
        {"role": "city_admin", "unit": "00000000-0000-0000-0000-000000000001"},
        {"role": "unit_admin", "unit": "00000000-0000-0000-0000-000000000001"},
        {"username": " "},
        {"username": "a\x00b"},
        {"created_at": "2026-01-01T00:00:00Z"},
        {"id": "00000000-0000-0000-0000-000000000001"},
        {"totp_sealed": "x"},
        {"retired_at": None},
    ],
)
async def test_what_makes_no_account_changes_nothing(
    client: httpx.AsyncClient, runtime: Runtime, changes: dict[str, Any]
) -> None:
    chief = await the_chief(runtime)
    body = {"username": "x", "password": PASSWORD, "role": "auditor"} | changes
    # Written out by hand: the client refuses to encode half a surrogate pair.
    answer = await client.post(
        "/v1/admin/admins",
        content=json.dumps(body),
        headers={**chief.headers, "Content-Type": "application/json"},
    )
    assert answer.status_code == 422, answer.text
    async with runtime.database.read() as tx:
        assert await tx.scalar(sa.select(sa.func.count()).select_from(Admin)) == 1


async def test_a_number_is_listed_once_and_shown_masked(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief = await the_chief(runtime)
    body = {"phone": "138 1234 1234", "occupation": "sanitation"}
    made = await client.post("/v1/admin/workers", json=body, headers=chief.headers)
    assert made.status_code == 201, made.text
    shown = made.json()
    assert (shown["phone"], shown["listed"], shown["occupation"]) == (
        "138****1234",
        True,
        "sanitation",
    )
    again = await client.post("/v1/admin/workers", json=body, headers=chief.headers)
    assert (again.status_code, again.json()["code"]) == (409, "phone_known")
    landline = await client.post(
        "/v1/admin/workers", json={"phone": "023-63000000"}, headers=chief.headers
    )
    assert (landline.status_code, landline.json()["code"]) == (422, "phone_not_mobile")
    listed = await client.get("/v1/admin/workers", headers=chief.headers)
    assert listed.json() == [shown]
    assert not re.search(r"1[3-9]\d{9}", listed.text)


async def test_a_worker_is_blocked_with_a_reason_and_unblocked(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief = await the_chief(runtime)
    async with runtime.database.write() as tx:
        worker = await a_worker(tx, runtime, at=runtime.now())
    path = f"/v1/admin/workers/{worker.id}"
    blocked = await client.patch(
        path, json={"blocked": True, "blocked_because": "多次损坏设施"}, headers=chief.headers
    )
    assert blocked.json()["blocked_because"] == "多次损坏设施"
    assert blocked.json()["blocked_at"] is not None
    free = await client.patch(path, json={"blocked": False}, headers=chief.headers)
    assert (free.json()["blocked_at"], free.json()["blocked_because"]) == (None, None)
    retired = await client.post(f"{path}/retire", headers=chief.headers)
    assert retired.json()["blocked_at"] is not None
    async with runtime.database.read() as tx:
        row = await tx.get_one(Worker, worker.id)
        assert row.blocked_at is not None
        assert row.erased_at is None


async def test_who_was_erased_is_no_longer_listed(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief = await the_chief(runtime)
    async with runtime.database.write() as tx:
        worker = await a_worker(tx, runtime, at=runtime.now())
    await client.delete("/v1/me", headers=worker.headers)
    assert (await client.get("/v1/admin/workers", headers=chief.headers)).json() == []
    one = await client.get(f"/v1/admin/workers/{worker.id}", headers=chief.headers)
    assert one.status_code == 404


async def test_a_unit_sees_the_workers_it_registered_and_no_others(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async with runtime.database.write() as tx:
        at = runtime.now()
        root = await a_unit(tx, at=at)
        units = [await a_unit(tx, parent=root, at=at, name=name) for name in ("甲", "乙")]
        first, second = [
            await an_admin(tx, at=at, role=Role.UNIT_ADMIN, unit=unit) for unit in units
        ]
        await a_worker(tx, runtime, at=at)
    made = await client.post(
        "/v1/admin/workers", json={"phone": "13812341234"}, headers=first.headers
    )
    assert made.json()["unit_id"] == str(units[0].id)
    assert (await client.get("/v1/admin/workers", headers=first.headers)).json() == [made.json()]
    assert (await client.get("/v1/admin/workers", headers=second.headers)).json() == []
    path = f"/v1/admin/workers/{made.json()['id']}"
    assert (await client.get(path, headers=second.headers)).status_code == 404
    foreign = await client.patch(path, json={"blocked": True}, headers=second.headers)
    assert foreign.status_code == 404


async def test_a_dashboard_that_asks_for_much_at_once_does_not_wait_for_itself(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    chief = await the_chief(runtime)
    clock.advance(300)
    answers = await asyncio.wait_for(
        asyncio.gather(*(client.get("/v1/admin/admins", headers=chief.headers) for _ in range(12))),
        timeout=20,
    )
    assert {answer.status_code for answer in answers} == {200}


async def test_the_last_city_administrator_stays(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief = await the_chief(runtime)
    own = f"/v1/admin/admins/{chief.id}"
    for refused in (
        await client.post(f"{own}/retire", headers=chief.headers),
        await client.patch(own, json={"role": "auditor"}, headers=chief.headers),
    ):
        assert (refused.status_code, refused.json()["code"]) == (409, "last_city_admin")
    other = await the_chief(runtime)
    done = await client.post(f"/v1/admin/admins/{other.id}/retire", headers=chief.headers)
    assert done.status_code == 200
    assert (await client.post(f"{own}/retire", headers=chief.headers)).status_code == 409
