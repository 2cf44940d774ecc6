"""Webhooks from the alert to a real receiver: once claimed, signed, retried, given up, off, on."""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from app import jobs, privacy
from app.alerts import book
from app.alerts.book import Evidence
from app.alerts.rules import AlertKind
from app.alerts.tables import Alert
from app.alerts.webhooks import sending
from app.alerts.webhooks.courier import Courier
from app.alerts.webhooks.rules import CLAIM, DeliveryState
from app.alerts.webhooks.sending import Sender
from app.alerts.webhooks.tables import Delivery, Webhook
from app.db.engine import Database
from app.places.tables import Station, Unit
from app.runtime import Runtime
from tests.conftest import Clock
from tests.support.receivers import (
    HOST,
    Answer,
    Certificates,
    Heard,
    Receiver,
    answering,
    certificates,
    receiving,
)
from tests.support.worlds import SomeAdmin, a_station, a_unit, an_admin

pytestmark = pytest.mark.anyio

PATIENCE_S = 20
"""A test that waits longer for something to happen has failed."""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("tls"), HOST)


class Town:
    """A city with one station and its chief, whose webhooks lead to loopback."""

    def __init__(
        self,
        held: Runtime,
        client: httpx.AsyncClient,
        clock: Clock,
        shown: Certificates,
        unit: Unit,
        station: Station,
        chief: SomeAdmin,
    ) -> None:
        self.held = held
        self.client = client
        self.clock = clock
        self.shown = shown
        self.unit = unit
        self.station = station
        self.chief = chief
        self.number = 0

    def sender(self, *receivers: Receiver, timeout_s: float = PATIENCE_S, **more: Any) -> Sender:
        """Give what a process sends with; loopback passes for public here, and nothing else."""

        async def resolve(_host: str, _port: int) -> list[str]:
            return ["127.0.0.1"]

        courier = Courier(
            hosts={receiver.host for receiver in receivers},
            monotonic=self.held.monotonic,
            resolve=resolve,
            permits=lambda address: address == "127.0.0.1",
            trust=self.shown.trust,
            timeout_s=timeout_s,
        )
        held = self.held
        values: dict[str, Any] = {
            "database": held.database,
            "courier": courier,
            "vault": held.vault,
            "public_url": "https://yizhan.example.org",
            "now": held.now,
            "draw": lambda: 0.5,
        }
        return Sender(**(values | more))

    async def webhook(self, url: str, **more: Any) -> dict[str, Any]:
        """Add a webhook; the application under test lists every host of these tests."""
        body = {"unit": str(self.unit.id), "name": "值班室", "url": url, **more}
        found: dict[str, Any] = await self.ask("POST", "/v1/admin/webhooks", json=body)
        return found

    async def alert(self, kind: AlertKind = AlertKind.DOOR_FORCED) -> str:
        """Open an alert about another door each time."""
        self.number += 1
        at = self.held.now()
        detail = {"event": "SECRET-DETAIL", "phone": "13812341234"}
        evidence = Evidence(kind, f"door:{self.number}", self.station.id, at, detail)
        async with self.held.database.write() as tx:
            return str(await book.note(tx, evidence, at=at))

    async def ask(self, method: str, path: str, **more: Any) -> Any:
        """Ask as a city administrator who has just signed in: a session idles for an hour only."""
        async with self.held.database.write() as tx:
            admin = await an_admin(tx, at=self.held.now())
        answer = await self.client.request(method, path, headers=admin.headers, **more)
        assert answer.is_success, answer.text
        return answer.json()

    async def deliveries(self, webhook: dict[str, Any]) -> list[dict[str, Any]]:
        """Read the log, oldest first."""
        found = await self.ask("GET", f"/v1/admin/webhooks/{webhook['id']}/deliveries")
        return list(reversed(found))

    async def look(self, webhook: dict[str, Any]) -> dict[str, Any]:
        """Read a webhook."""
        found: dict[str, Any] = await self.ask("GET", f"/v1/admin/webhooks/{webhook['id']}")
        return found

    async def patch(self, webhook: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """Change a webhook."""
        path = f"/v1/admin/webhooks/{webhook['id']}"
        found: dict[str, Any] = await self.ask("PATCH", path, json=changes)
        return found


class AnyHost:
    """Lists every port of the test's host: ports are drawn when a receiver begins."""

    def __contains__(self, authority: object) -> bool:
        return str(authority).startswith(HOST)

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 1


@pytest.fixture
async def town(
    app: Any, runtime: Runtime, client: httpx.AsyncClient, clock: Clock, shown: Certificates
) -> Town:
    app.state.runtime = replace(runtime, courier=Courier(AnyHost(), runtime.monotonic))
    async with runtime.database.write() as tx:
        unit = await a_unit(tx, at=runtime.now())
        station = await a_station(tx, unit=unit, at=runtime.now())
        chief = await an_admin(tx, at=runtime.now())
    return Town(runtime, client, clock, shown, unit, station, chief)


def genuine() -> Callable[..., bool]:
    """Give the document's own way to check a signature."""
    text = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.S)
    names: dict[str, Any] = {}
    exec(example, names)
    found: Callable[..., bool] = names["genuine"]
    return found


def is_signed(heard: Heard, secret: str, clock: Clock) -> bool:
    names = ("Yizhan-Timestamp", "Yizhan-Signature")
    heads = {name: heard.headers[name.lower()] for name in names}
    return genuine()(heads, heard.body, secret, clock.now().timestamp())


async def test_an_alert_is_told_when_it_opens_is_taken_on_and_closes(
    town: Town, shown: Certificates
) -> None:
    async with receiving(shown) as receiver:
        webhook = await town.webhook(receiver.url)
        alert = await town.alert()
        path = f"/v1/admin/alerts/{alert}"
        for act in ("acknowledge", "acknowledge", "close", "close"):
            town.clock.advance(5)
            assert (
                await town.client.post(f"{path}/{act}", headers=town.chief.headers)
            ).status_code == 200
        assert receiver.heard == []  # Nothing leaves within a transaction.
        assert await sending.send_due(town.sender(receiver)) == 3
        assert await sending.send_due(town.sender(receiver)) == 0
    told = [json.loads(heard.body) for heard in receiver.heard]
    assert [each["type"] for each in told] == [
        "alert.opened",
        "alert.acknowledged",
        "alert.closed",
    ]
    assert all(is_signed(heard, webhook["secret"], town.clock) for heard in receiver.heard)
    assert not any(is_signed(heard, "whsec_other", town.clock) for heard in receiver.heard)
    opened, _, closed = told
    assert opened["station"] == {
        "code": town.station.code,
        "name": "解放碑驿站",
        "unit": "市总工会",
    }
    assert (opened["alert"]["kind"], opened["alert"]["severity"]) == ("door_forced", "urgent")
    assert (opened["alert"]["acknowledged_at"], opened["alert"]["closed_at"]) == (None, None)
    assert closed["alert"]["closed_at"] is not None
    assert opened["link"] == f"https://yizhan.example.org/v1/admin/alerts/{alert}"
    assert [each["id"] for each in told] == [
        heard.headers["yizhan-event-id"] for heard in receiver.heard
    ]
    assert len({each["id"] for each in told}) == 3
    whole = b"".join(heard.body for heard in receiver.heard).decode()
    for secret in ("SECRET-DETAIL", "13812341234", "door:", str(town.chief.id), webhook["secret"]):
        assert secret not in whole
    log = await town.deliveries(webhook)
    assert [row["state"] for row in log] == ["delivered"] * 3
    assert [(row["status"], row["attempts"], row["error"]) for row in log] == [(204, 1, None)] * 3
    assert all(row["duration_ms"] is not None for row in log)


async def test_what_is_rolled_back_is_never_told(town: Town, shown: Certificates) -> None:
    async with receiving(shown) as receiver:
        webhook = await town.webhook(receiver.url)
        at = town.held.now()
        async with town.held.database.write() as tx:
            evidence = Evidence(AlertKind.TAMPER, "door:1", town.station.id, at)
            await book.note(tx, evidence, at=at)
            await tx.rollback()
        assert await sending.send_due(town.sender(receiver)) == 0
    assert (receiver.heard, await town.deliveries(webhook)) == ([], [])


async def test_more_evidence_is_not_told_again_and_quiet_closes_are(
    town: Town, shown: Certificates
) -> None:
    async with receiving(shown) as receiver:
        await town.webhook(receiver.url)
        for _ in range(3):
            town.number = 0
            await town.alert(AlertKind.NOT_OPENED)
        town.clock.advance(3_600)
        async with town.held.database.write() as tx:
            assert await book.close_quiet(tx, at=town.held.now()) == 1
            assert not await book.settle(tx, AlertKind.NOT_OPENED, "door:1", at=town.held.now())
        await sending.send_due(town.sender(receiver))
    assert [json.loads(heard.body)["type"] for heard in receiver.heard] == [
        "alert.opened",
        "alert.closed",
    ]


async def test_failures_are_tried_again_with_the_same_id_and_a_new_signature(
    town: Town, shown: Certificates
) -> None:
    statuses = [503, 302, 204]

    async def moody(_heard: Heard) -> bytes:
        return answering(statuses.pop(0), "忙\x00，稍后".encode())

    async with receiving(shown, answer=moody) as receiver:
        webhook = await town.webhook(receiver.url)
        await town.alert()
        sender = town.sender(receiver)
        assert await sending.send_due(sender) == 0
        (row,) = await town.deliveries(webhook)
        assert (row["state"], row["status"], row["attempts"]) == ("due", 503, 1)
        assert row["error"] == "answered 503: 忙 ，稍后"
        town.clock.advance(4.9)  # Half of ten seconds is the pause: not yet.
        assert await sending.send_due(sender) == 0
        assert len(receiver.heard) == 1
        town.clock.advance(0.1)
        assert await sending.send_due(sender) == 0
        assert (await town.look(webhook))["failures"] == 2
        town.clock.advance(10)
        assert await sending.send_due(sender) == 1
    assert len({heard.headers["yizhan-event-id"] for heard in receiver.heard}) == 1
    assert len({heard.body for heard in receiver.heard}) == 1
    assert len({heard.headers["yizhan-timestamp"] for heard in receiver.heard}) == 3
    assert is_signed(receiver.heard[-1], webhook["secret"], town.clock)
    (row,) = await town.deliveries(webhook)
    assert (row["state"], row["status"], row["attempts"]) == ("delivered", 204, 3)
    found = await town.look(webhook)
    assert (found["failures"], found["failing_since"]) == (0, None)


async def bad(_heard: Heard) -> bytes:
    return answering(500)


async def test_a_webhook_that_fails_for_half_a_day_is_switched_off_until_somebody_says_otherwise(
    town: Town, shown: Certificates
) -> None:
    async with receiving(shown, answer=bad) as receiver:
        webhook = await town.webhook(receiver.url)
        await town.alert()
        begun = town.clock.now()
        sender = town.sender(receiver)
        for _ in range(19):
            # Each time another alert: one delivery alone has fewer tries in half a day.
            await sending.send_due(sender)
            town.clock.advance(600)
            await town.alert()
        found = await town.look(webhook)
        assert (found["off_at"], found["failures"]) == (None, 19)
        await sending.send_due(sender)
        assert (await town.look(webhook))["off_at"] is None  # Often enough, but not long enough.
        town.clock.set(begun + timedelta(hours=12))
        await sending.send_due(sender)
        found = await town.look(webhook)
        assert (found["off_because"], found["failures"]) == ("failures", 21)
        tried = len(receiver.heard)
        await town.alert()
        town.clock.advance(3_600)
        assert await sending.send_due(sender) == 0
        assert len(receiver.heard) == tried
        assert await off_alerts(town, "open") == 1

        receiver.answer = thanks_after_all
        found = await town.patch(webhook, enabled=True)
        assert (found["off_at"], found["off_because"], found["failures"]) == (None, None, 0)
        assert await off_alerts(town, "open") == 0
        # What was queued before it went off is sent now; what happened meanwhile is not.
        assert await sending.send_due(sender) == 20
    log = await town.deliveries(webhook)
    assert {row["state"] for row in log} == {"delivered"}
    assert len(log) == 20


async def thanks_after_all(_heard: Heard) -> bytes:
    return answering(200, b"ok")


async def off_alerts(town: Town, state: str) -> int:
    params = {"kind": "webhook_off", "state": state}
    return len(await town.ask("GET", "/v1/admin/alerts", params=params))


async def test_a_webhook_that_goes_off_is_told_to_the_others(
    town: Town, shown: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "must_switch_off", lambda *_: True)
    async with receiving(shown, answer=bad) as broken, receiving(shown) as well:
        await town.webhook(broken.url, kinds=["door_forced"])
        await town.webhook(well.url, kinds=["webhook_off"])
        await town.alert()
        sender = town.sender(broken, well)
        await sending.send_due(sender)
        await sending.send_due(sender)
    (heard,) = well.heard
    told = json.loads(heard.body)
    assert (told["type"], told["station"]) == ("alert.opened", None)
    assert told["alert"]["kind"] == "webhook_off"


async def test_after_a_day_a_delivery_is_given_up(town: Town, shown: Certificates) -> None:
    async with receiving(shown, answer=bad) as receiver:
        webhook = await town.webhook(receiver.url)
        await town.alert()
        sender = town.sender(receiver, draw=lambda: 1.0)
        for _ in range(40):
            await sending.send_due(sender)
            (row,) = await town.deliveries(webhook)
            if row["state"] != "due":
                break
            async with town.held.database.write() as tx:  # It would be off by now; not here.
                await tx.execute(sa.update(Webhook).values(failures=0, failing_since=None))
            town.clock.set(datetime.fromisoformat(row["next_at"]))
    assert (row["state"], row["status"]) == ("failed", 500)
    assert 12 <= row["attempts"] == len(receiver.heard) <= 30
    town.clock.advance(100_000)
    assert await sending.send_due(sender) == 0


async def test_what_waited_a_day_for_a_webhook_that_is_off_is_given_up(
    town: Town, shown: Certificates
) -> None:
    async with receiving(shown) as receiver:
        webhook = await town.webhook(receiver.url)
        await town.alert()
        await town.patch(webhook, enabled=False)
        sender = town.sender(receiver)
        town.clock.advance(24 * 3_600 - 1)
        assert await sending.send_due(sender) == 0
        assert [row["state"] for row in await town.deliveries(webhook)] == ["due"]
        town.clock.advance(1)
        assert await sending.send_due(sender) == 0
        (row,) = await town.deliveries(webhook)
        assert (row["state"], row["error"]) == ("failed", "not sent within a day")
    assert receiver.heard == []


async def test_two_secrets_sign_until_the_overlap_is_over(town: Town, shown: Certificates) -> None:
    async with receiving(shown) as receiver:
        webhook = await town.webhook(receiver.url)
        path = f"/v1/admin/webhooks/{webhook['id']}/rotate-secret"
        answer = await town.ask("POST", path, json={"overlap_hours": 2})
        old, new = webhook["secret"], answer["secret"]
        assert old != new
        for seconds, signing in ((7_199, {old, new}), (1, {new})):
            town.clock.advance(seconds)
            await town.alert()
            await sending.send_due(town.sender(receiver))
            heard = receiver.heard[-1]
            assert {each for each in (old, new) if is_signed(heard, each, town.clock)} == signing


@asynccontextmanager
async def another_process(held: Runtime) -> AsyncIterator[Database]:
    """Open the same database again, as a second process would."""
    database = Database(held.database.url.render_as_string(hide_password=False), pool_size=3)
    yield database
    await database.dispose()


async def test_two_senders_send_each_delivery_once(town: Town, shown: Certificates) -> None:
    async with receiving(shown) as receiver, another_process(town.held) as database:
        webhook = await town.webhook(receiver.url)
        second = await town.webhook(receiver.url)
        for _ in range(15):
            await town.alert()
        one, two = town.sender(receiver), town.sender(receiver, database=database)
        sent = list(await asyncio.gather(sending.send_due(one), sending.send_due(two)))
        while more := await sending.send_due(one):  # Two lanes that met leave some for later.
            sent.append(more)
    assert sum(sent) == 30
    heard = [each.headers["yizhan-event-id"] for each in receiver.heard]
    assert len(heard) == 30
    assert len(set(heard)) == 15  # The same event has the same id at both webhooks.
    for hook in (webhook, second):
        assert {(row["state"], row["attempts"]) for row in await town.deliveries(hook)} == {
            ("delivered", 1)
        }


class Gate:
    """A receiver's answer that waits until somebody opens the gate."""

    def __init__(self, status: int = 204) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()
        self.status = status

    async def answer(self, _heard: Heard) -> bytes:
        self.reached.set()
        await self.open.wait()
        return answering(self.status)


async def within(what: Any) -> Any:
    return await asyncio.wait_for(what, PATIENCE_S)


async def test_what_one_process_is_sending_no_other_takes_until_the_claim_is_over(
    town: Town, shown: Certificates
) -> None:
    gate = Gate()
    async with (
        receiving(shown, answer=gate.answer) as receiver,
        another_process(town.held) as database,
    ):
        webhook = await town.webhook(receiver.url)
        await town.alert()
        first = asyncio.create_task(sending.send_due(town.sender(receiver)))
        await within(gate.reached.wait())
        other = town.sender(receiver, database=database)
        town.clock.advance(CLAIM.total_seconds() - 1)
        assert await sending.send_due(other) == 0
        assert len(receiver.heard) == 1
        # The first process has stood still for a minute: it counts as dead.
        town.clock.advance(1)
        gate.reached.clear()
        second = asyncio.create_task(sending.send_due(other))
        await within(gate.reached.wait())
        assert len(receiver.heard) == 2
        gate.open.set()
        await within(asyncio.gather(first, second))
    (row,) = await town.deliveries(webhook)
    assert (row["state"], row["attempts"]) == ("delivered", 2)
    assert len({heard.headers["yizhan-event-id"] for heard in receiver.heard}) == 1


async def test_a_failure_of_a_process_that_lost_its_claim_counts_for_nothing(
    town: Town, shown: Certificates
) -> None:
    gate = Gate(500)
    answers: list[Answer] = [gate.answer, thanks_after_all]

    async def in_turn(heard: Heard) -> bytes:
        return await answers.pop(0)(heard)

    async with receiving(shown, answer=in_turn) as receiver:
        webhook = await town.webhook(receiver.url)
        await town.alert()
        slow = asyncio.create_task(sending.send_due(town.sender(receiver)))
        await within(gate.reached.wait())
        town.clock.advance(CLAIM.total_seconds())
        assert await sending.send_due(town.sender(receiver)) == 1
        gate.open.set()
        assert await within(slow) == 0
    (row,) = await town.deliveries(webhook)
    assert (row["state"], row["status"], row["error"]) == ("delivered", 200, None)
    assert (await town.look(webhook))["failures"] == 0


@pytest.mark.parametrize("status", [500, 204])
async def test_what_was_under_way_when_its_webhook_was_retired_stays_given_up(
    town: Town, shown: Certificates, status: int
) -> None:
    gate = Gate(status)
    async with receiving(shown, answer=gate.answer) as receiver:
        webhook = await town.webhook(receiver.url)
        await town.alert()
        run = asyncio.create_task(sending.send_due(town.sender(receiver)))
        await within(gate.reached.wait())
        await town.ask("POST", f"/v1/admin/webhooks/{webhook['id']}/retire")
        gate.open.set()
        await within(run)
    (row,) = await town.deliveries(webhook)
    assert (row["state"], row["error"]) == ("failed", "the webhook was retired")
    async with town.held.database.read() as tx:
        claim = await tx.execute(sa.select(Delivery.claim, Delivery.claimed_until))
        assert claim.one() == (None, None)


async def test_a_receiver_that_hangs_holds_up_nobody(town: Town, shown: Certificates) -> None:
    gate, heard = Gate(), asyncio.Event()

    async def quick(_heard: Heard) -> bytes:
        heard.set()
        return answering(204)

    async with receiving(shown, answer=gate.answer) as slow, receiving(shown) as well:
        well.answer = quick
        await town.webhook(slow.url)
        await town.webhook(well.url)
        await town.alert()
        run = asyncio.create_task(sending.send_due(town.sender(slow, well, timeout_s=60)))
        await within(gate.reached.wait())
        await within(heard.wait())
        for _ in range(2):
            # While the slow one still waits, what happens now reaches the other in the same run.
            heard.clear()
            await town.alert()
            await within(heard.wait())
        assert not run.done()
        assert (len(slow.heard), len(well.heard)) == (1, 3)
        gate.open.set()
        await within(run)
    assert len(slow.heard) == 3


async def test_only_so_many_tries_are_under_way_at_a_time(
    town: Town, shown: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "AT_ONCE", 2)
    monkeypatch.setattr(sending, "LOOK_AGAIN_S", 0.02)
    gate, looked, look, looks = Gate(), asyncio.Event(), sending._waiting, 0
    async with receiving(shown, answer=gate.answer) as receiver:

        async def looking(sender: Sender) -> Any:
            nonlocal looks
            looks += len(receiver.heard) >= 2
            if looks >= 20:
                looked.set()
            return await look(sender)

        monkeypatch.setattr(sending, "_waiting", looking)
        for _ in range(6):
            await town.webhook(receiver.url)
        await town.alert()
        run = asyncio.create_task(sending.send_due(town.sender(receiver)))
        await within(looked.wait())  # The run goes round and round, and begins no third.
        assert len(receiver.heard) == 2
        gate.open.set()
        assert await within(run) == 6


async def test_one_webhook_whose_secret_cannot_be_read_stops_no_other(
    town: Town, shown: Certificates
) -> None:
    async with receiving(shown) as receiver:
        broken = await town.webhook(receiver.url)
        well = await town.webhook(receiver.url)
        async with town.held.database.write() as tx:
            await tx.execute(
                sa.update(Webhook)
                .where(Webhook.id == uuid.UUID(broken["id"]))
                .values(secret_sealed=b"x" * 60)
            )
        await town.alert()
        assert await sending.send_due(town.sender(receiver)) == 1
    assert [row["state"] for row in await town.deliveries(well)] == ["delivered"]
    assert [row["state"] for row in await town.deliveries(broken)] == ["due"]


async def test_a_host_that_is_no_longer_listed_hears_nothing(
    town: Town, shown: Certificates
) -> None:
    async with receiving(shown) as receiver:
        webhook = await town.webhook(receiver.url)
        await town.alert()
        assert await sending.send_due(town.sender()) == 0
        assert receiver.heard == []
    (row,) = await town.deliveries(webhook)
    assert row["error"] == "this host is not listed in WEBHOOK_HOSTS"


async def test_the_job_sends_and_the_log_is_kept_for_thirty_days(
    town: Town, shown: Certificates
) -> None:
    async with receiving(shown) as receiver:
        webhook = await town.webhook(receiver.url)
        await town.alert()
        held = replace(town.held, courier=town.sender(receiver).courier)
        job = jobs.find("send-webhooks")
        assert job is not None
        await jobs.run_once(held, job)
        assert len(receiver.heard) == 1
    town.clock.advance(timedelta(days=30).total_seconds())
    for seconds, kept in ((0, 1), (1, 0)):
        town.clock.advance(seconds)
        await privacy.retain(town.held.database, at=town.held.now(), retention_days=180)
        async with town.held.database.read() as tx:
            rows = (await tx.scalars(sa.select(Delivery.state))).all()
            assert await tx.scalar(sa.select(sa.func.count()).select_from(Alert)) == 1
        assert rows == [DeliveryState.DELIVERED] * kept
    assert webhook["id"]
