"""Sign-in by one-time code: budgets, breaker, tries, and messages that are never lost (T10-T13)."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.exceptions import InvalidTag

from app.db.types import new_id
from app.people import phones, sign_in, workers
from app.people.sign_in import Asked, Budgets, CodeWrong, NewSession, Proof, TooManyWrongCodes
from app.people.sms import SmsFailed
from app.people.tables import LoginChallenge, SmsState, Worker, WorkerSession
from app.runtime import Runtime
from tests.conftest import Clock

pytestmark = pytest.mark.anyio

BUDGETS = Budgets(
    phone_minute=1,
    phone_hour=5,
    phone_day=10,
    door_hour=20,
    network_hour=300,
    tries=5,
    failures_day=10,
    listed_only=False,
)
PHONE = "+8613812341234"


class Outbox:
    """Remembers what was sent; fails as often as it is told."""

    def __init__(self, failures: int = 0) -> None:
        self.sent: list[tuple[str, str, str]] = []
        self.failures = failures

    async def send(self, phone: str, text: str, code: str) -> None:
        if self.failures:
            self.failures -= 1
            raise SmsFailed("the gateway is away")
        self.sent.append((phone, text, code))


async def ask(
    held: Runtime,
    phone: str = PHONE,
    *,
    network: str = "192.0.2.0/24",
    door: uuid.UUID | None = None,
    budgets: Budgets = BUDGETS,
) -> str:
    async with held.database.write() as tx:
        asked = Asked(phone, network, door)
        return await sign_in.request_code(tx, held.vault, asked, budgets, at=held.now())


async def deliver(held: Runtime, outbox: Outbox) -> int:
    return await sign_in.send_due(
        held.database, outbox, vault=held.vault, domain="yz.example", now=held.now
    )


async def attempt(held: Runtime, challenge: str, code: str, *, budgets: Budgets = BUDGETS) -> Any:
    async with held.database.write() as tx:
        return await sign_in.verify(
            tx,
            held.vault,
            Proof(challenge, code, None, None),
            budgets,
            session_lifetime=timedelta(days=30),
            at=held.now(),
        )


async def state_of(held: Runtime, challenge: str) -> SmsState:
    async with held.database.read() as tx:
        return (await tx.get_one(LoginChallenge, challenge)).sms_state


def other_than(code: str) -> str:
    return "000000" if code != "000000" else "111111"


async def test_a_code_is_sent_and_traded_for_a_session_once(runtime: Runtime) -> None:
    outbox = Outbox()
    challenge = await ask(runtime)
    assert await deliver(runtime, outbox) == 1
    ((phone, text, code),) = outbox.sent
    assert phone == PHONE
    assert code in text
    assert "yz.example" in text
    session = await attempt(runtime, challenge, code)
    assert isinstance(session, NewSession)
    assert isinstance(await attempt(runtime, challenge, code), CodeWrong)
    async with runtime.database.read() as tx:
        secret = runtime.vault.key("owner")
        found = await sign_in.find_worker(tx, session.token, secret=secret, at=runtime.now())
        assert found is not None
        assert found.worker_id == session.worker.id
        assert not found.consented
        rows = (await tx.scalars(sa.select(WorkerSession.token_hash))).all()
        assert session.token.encode() not in rows


async def test_a_session_ends_after_its_lifetime(runtime: Runtime, clock: Clock) -> None:
    outbox = Outbox()
    challenge = await ask(runtime)
    await deliver(runtime, outbox)
    session = await attempt(runtime, challenge, outbox.sent[0][2])
    clock.advance(timedelta(days=30).total_seconds())
    async with runtime.database.read() as tx:
        secret = runtime.vault.key("owner")
        assert await sign_in.find_worker(tx, session.token, secret=secret, at=clock.now()) is None


async def test_a_message_is_sent_once_and_its_code_is_wiped(runtime: Runtime) -> None:
    outbox = Outbox()
    challenge = await ask(runtime)
    counts = [await deliver(runtime, outbox) for _ in range(3)]
    assert counts == [1, 0, 0]
    async with runtime.database.read() as tx:
        row = await tx.get_one(LoginChallenge, challenge)
        assert (row.sms_state, row.code_sealed) == (SmsState.SENT, None)


async def test_two_runs_at_once_send_one_message(runtime: Runtime) -> None:
    outbox = Outbox()
    await ask(runtime)
    await asyncio.gather(*(deliver(runtime, outbox) for _ in range(4)))
    assert len(outbox.sent) == 1


async def test_a_message_that_failed_is_tried_again_until_its_code_is_about_to_end(
    runtime: Runtime, clock: Clock
) -> None:
    challenge = await ask(runtime)
    outbox = Outbox(failures=1)
    assert await deliver(runtime, outbox) == 0
    assert await state_of(runtime, challenge) is SmsState.DUE
    assert await deliver(runtime, outbox) == 0, "taken a moment ago: perhaps still on its way"
    clock.advance(61)
    assert await deliver(runtime, outbox) == 1
    assert await state_of(runtime, challenge) is SmsState.SENT


async def test_a_message_too_old_to_be_of_use_is_given_up(runtime: Runtime, clock: Clock) -> None:
    challenge = await ask(runtime)
    clock.advance(241)
    outbox = Outbox()
    assert await deliver(runtime, outbox) == 0
    assert outbox.sent == []
    async with runtime.database.read() as tx:
        row = await tx.get_one(LoginChallenge, challenge)
        assert (row.sms_state, row.code_sealed) == (SmsState.FAILED, None)


@pytest.mark.parametrize("phone", ["+862363000000", "+23276123456", "+12025550123"])
async def test_no_message_goes_to_a_number_we_do_not_serve(runtime: Runtime, phone: str) -> None:
    outbox = Outbox()
    challenge = await ask(runtime, phone)
    assert await deliver(runtime, outbox) == 0
    assert await state_of(runtime, challenge) is SmsState.WITHHELD


async def test_a_code_that_was_never_sent_is_no_code(runtime: Runtime) -> None:
    challenge = await ask(runtime, "+23276123456")
    async with runtime.database.read() as tx:
        mac = (await tx.get_one(LoginChallenge, challenge)).code_mac
    pepper = runtime.vault.key("otp-pepper")
    (code,) = (
        code
        for code in (f"{number:06d}" for number in range(10**6))
        if sign_in.code_mac(pepper, challenge, code) == mac
    )
    assert isinstance(await attempt(runtime, challenge, code), CodeWrong)


@pytest.mark.parametrize(
    ("gap_s", "asks", "sent"),
    [(0, 3, 1), (30, 4, 2), (61, 7, 5), (13 * 60, 12, 10)],
    ids=["one a minute", "half a minute apart", "five an hour", "ten a day"],
)
async def test_one_number_gets_so_many_messages(
    runtime: Runtime, clock: Clock, gap_s: int, asks: int, sent: int
) -> None:
    outbox = Outbox()
    for _ in range(asks):
        await ask(runtime)
        await deliver(runtime, outbox)
        clock.advance(gap_s)
    assert len(outbox.sent) == sent


async def test_requests_at_once_do_not_overtake_the_budget(runtime: Runtime) -> None:
    async with runtime.database.write() as tx:
        asked = Asked(PHONE, "192.0.2.0/24", None)
        await sign_in.request_code(tx, runtime.vault, asked, BUDGETS, at=runtime.now())
        # The second asks while the first is not committed yet: it has to wait for its turn.
        second = asyncio.create_task(ask(runtime, network="198.51.100.0/24"))
        await asyncio.sleep(0.2)
    await second
    outbox = Outbox()
    await deliver(runtime, outbox)
    assert len(outbox.sent) == 1


async def test_a_door_gets_so_many_messages_an_hour_and_another_door_its_own(
    runtime: Runtime, clock: Clock
) -> None:
    outbox, door, other = Outbox(), new_id(), new_id()
    for n in range(22):
        await ask(runtime, f"+861381234{n:04d}", network=f"10.0.{n}.0/24", door=door)
    await ask(runtime, "+8613912340000", door=other)
    await deliver(runtime, outbox)
    assert len(outbox.sent) == 21
    clock.advance(3601)
    await ask(runtime, "+8613912340001", door=door)
    await deliver(runtime, outbox)
    assert len(outbox.sent) == 22


async def test_a_network_gets_so_many_messages_and_none_is_counted_in_development(
    runtime: Runtime,
) -> None:
    few = replace(BUDGETS, network_hour=3)
    for n in range(5):
        await ask(runtime, f"+861381234{n:04d}", budgets=few)
    await ask(runtime, "+8613912340000", network="198.51.100.0/24", budgets=few)
    await ask(runtime, "+8613912340001", budgets=replace(few, network_hour=None))
    outbox = Outbox()
    await deliver(runtime, outbox)
    assert len(outbox.sent) == 5


async def history_of_200(
    runtime: Runtime, *, used: int, network: str, door: uuid.UUID | None = None
) -> None:
    """Two hundred messages of the last hours, of which so many codes came back."""
    at = runtime.now()
    async with runtime.database.write() as tx:
        await tx.execute(
            sa.insert(LoginChallenge),
            [
                {
                    "id": f"{random.getrandbits(128):032x}",
                    "phone_index": n.to_bytes(32, "big"),
                    "phone_sealed": b"",
                    "code_mac": b"",
                    "door_id": door,
                    "network": network,
                    "sms_state": SmsState.SENT,
                    "failures": 0,
                    "created_at": at - timedelta(hours=2, seconds=n),
                    "expires_at": at - timedelta(hours=1),
                    "used_at": at - timedelta(hours=2) if n < used else None,
                }
                for n in range(200)
            ],
        )


@pytest.mark.parametrize(("used", "sent"), [(39, 0), (40, 1)])
@pytest.mark.parametrize("where", ["network", "door"])
async def test_the_breaker_withholds_where_hardly_any_code_comes_back(
    runtime: Runtime, used: int, sent: int, where: str
) -> None:
    door = new_id() if where == "door" else None
    await history_of_200(runtime, used=used, network="192.0.2.0/24", door=door)
    elsewhere = "198.51.100.0/24"
    await ask(runtime, network=elsewhere if door else "192.0.2.0/24", door=door)
    outbox = Outbox()
    await deliver(runtime, outbox)
    assert len(outbox.sent) == sent
    await ask(runtime, "+8613912340000", network=elsewhere)
    await deliver(runtime, outbox)
    assert len(outbox.sent) == sent + 1, "never for the whole city"


async def test_the_breaker_recovers_as_codes_come_back_and_as_the_day_passes(
    runtime: Runtime, clock: Clock
) -> None:
    await history_of_200(runtime, used=39, network="192.0.2.0/24")
    outbox = Outbox()
    await ask(runtime, "+8613812340001")
    async with runtime.database.write() as tx:
        late = await tx.scalar(
            sa.select(LoginChallenge.id)
            .where(LoginChallenge.sms_state == SmsState.SENT, LoginChallenge.used_at.is_(None))
            .limit(1)
        )
        await tx.execute(
            sa.update(LoginChallenge).where(LoginChallenge.id == late).values(used_at=clock.now())
        )
    await ask(runtime, "+8613812340002")
    await deliver(runtime, outbox)
    assert [phone for phone, _, _ in outbox.sent] == ["+8613812340002"]
    async with runtime.database.write() as tx:
        await tx.execute(
            sa.update(LoginChallenge)
            .where(LoginChallenge.used_at.is_not(None))
            .values(used_at=None)
        )
    clock.advance(timedelta(hours=22, seconds=1).total_seconds())
    await ask(runtime, "+8613812340003")
    await deliver(runtime, outbox)
    assert len(outbox.sent) == 2


async def test_a_restricted_registration_sends_and_signs_in_listed_numbers_only(
    runtime: Runtime,
) -> None:
    listed = replace(BUDGETS, listed_only=True)
    outbox = Outbox()
    assert await state_of(runtime, await ask(runtime, budgets=listed)) is SmsState.WITHHELD
    async with runtime.database.write() as tx:
        for phone, is_listed in ((PHONE, True), ("+8613912341234", False)):
            await workers.register(
                tx, runtime.vault, phone, occupation=None, listed=is_listed, at=runtime.now()
            )
    refused = await ask(runtime, "+8613912341234", budgets=listed)
    assert await state_of(runtime, refused) is SmsState.WITHHELD
    challenge = await ask(runtime, budgets=listed)
    await deliver(runtime, outbox)
    assert [phone for phone, _, _ in outbox.sent] == [PHONE]
    session = await attempt(runtime, challenge, outbox.sent[0][2], budgets=listed)
    assert isinstance(session, NewSession)
    async with runtime.database.read() as tx:
        assert await tx.scalar(sa.select(sa.func.count()).select_from(Worker)) == 2


async def test_an_unlisted_number_with_a_code_from_before_is_refused(runtime: Runtime) -> None:
    outbox = Outbox()
    challenge = await ask(runtime)
    await deliver(runtime, outbox)
    listed = replace(BUDGETS, listed_only=True)
    refused = await attempt(runtime, challenge, outbox.sent[0][2], budgets=listed)
    assert isinstance(refused, CodeWrong)
    async with runtime.database.read() as tx:
        assert await tx.scalar(sa.select(Worker.id)) is None


async def test_a_code_ends_after_five_minutes(runtime: Runtime, clock: Clock) -> None:
    outbox = Outbox()
    challenge = await ask(runtime)
    await deliver(runtime, outbox)
    clock.advance(300)
    assert isinstance(await attempt(runtime, challenge, outbox.sent[0][2]), CodeWrong)


async def test_a_code_can_be_tried_five_times(runtime: Runtime) -> None:
    outbox = Outbox()
    challenge = await ask(runtime)
    await deliver(runtime, outbox)
    code = outbox.sent[0][2]
    for _ in range(5):
        assert isinstance(await attempt(runtime, challenge, other_than(code)), CodeWrong)
    assert isinstance(await attempt(runtime, challenge, code), CodeWrong)


async def test_the_fifth_try_may_be_right(runtime: Runtime) -> None:
    outbox = Outbox()
    challenge = await ask(runtime)
    await deliver(runtime, outbox)
    code = outbox.sent[0][2]
    for _ in range(4):
        await attempt(runtime, challenge, other_than(code))
    assert isinstance(await attempt(runtime, challenge, code), NewSession)


async def test_resend_keeps_the_counter_and_ten_failures_make_every_code_wait(
    runtime: Runtime, clock: Clock
) -> None:
    outbox = Outbox()
    for _ in range(2):
        challenge = await ask(runtime)
        await deliver(runtime, outbox)
        for _ in range(5):
            await attempt(runtime, challenge, other_than(outbox.sent[-1][2]))
        clock.advance(61)
    challenge = await ask(runtime)
    await deliver(runtime, outbox)
    code = outbox.sent[-1][2]
    # The wait of a minute after the tenth failure is over; the eleventh makes it two.
    assert isinstance(await attempt(runtime, challenge, other_than(code)), CodeWrong)
    waits = await attempt(runtime, challenge, code)
    assert isinstance(waits, TooManyWrongCodes)
    assert waits.retry_after_s == 120
    clock.advance(119)
    assert isinstance(await attempt(runtime, challenge, code), TooManyWrongCodes)
    clock.advance(1)
    assert isinstance(await attempt(runtime, challenge, code), NewSession)


async def test_failures_of_one_number_do_not_delay_another(runtime: Runtime, clock: Clock) -> None:
    outbox = Outbox()
    for _ in range(2):
        challenge = await ask(runtime)
        await deliver(runtime, outbox)
        for _ in range(5):
            await attempt(runtime, challenge, other_than(outbox.sent[-1][2]))
        clock.advance(30)
        clock.advance(31)
    challenge = await ask(runtime, "+8613912341234")
    await deliver(runtime, outbox)
    assert isinstance(await attempt(runtime, challenge, outbox.sent[-1][2]), NewSession)


async def test_two_right_codes_of_a_new_number_at_once_make_one_worker(
    runtime: Runtime, clock: Clock
) -> None:
    outbox = Outbox()
    first = await ask(runtime)
    clock.advance(61)
    second = await ask(runtime)
    await deliver(runtime, outbox)
    codes = [code for _, _, code in outbox.sent]
    async with runtime.database.write() as tx:
        registered = await sign_in.verify(
            tx,
            runtime.vault,
            Proof(first, codes[0], None, None),
            BUDGETS,
            session_lifetime=timedelta(days=30),
            at=clock.now(),
        )
        late = asyncio.create_task(attempt(runtime, second, codes[1]))
        await asyncio.sleep(0.2)
    assert isinstance(registered, NewSession)
    again = await late
    assert isinstance(again, NewSession)
    assert again.worker.id == registered.worker.id


async def test_one_code_tried_twice_at_once_opens_one_session(runtime: Runtime) -> None:
    outbox = Outbox()
    challenge = await ask(runtime)
    await deliver(runtime, outbox)
    results = await asyncio.gather(
        *(attempt(runtime, challenge, outbox.sent[0][2]) for _ in range(4))
    )
    assert sorted(type(result).__name__ for result in results) == [
        "CodeWrong",
        "CodeWrong",
        "CodeWrong",
        "NewSession",
    ]


@pytest.mark.parametrize("seed", range(6))
async def test_only_the_right_unused_timely_code_ever_opens(
    runtime: Runtime, clock: Clock, seed: int
) -> None:
    """A random walk over {send, wrong, right, wait}, compared with a model of the rules (T10)."""
    chance = random.Random(seed)
    outbox = Outbox()
    model: dict[str, dict[str, Any]] = {}
    failures = 0
    for _ in range(40):
        step = chance.choice(["send", "wrong", "right", "wait"])
        if step == "wait":
            clock.advance(chance.choice([1, 61, 150, 299]))
        elif step == "send":
            before = len(outbox.sent)
            challenge = await ask(runtime)
            await deliver(runtime, outbox)
            if len(outbox.sent) > before:
                model[challenge] = {
                    "code": outbox.sent[-1][2],
                    "at": clock.now(),
                    "tries": 0,
                    "used": False,
                }
        elif model:
            challenge = chance.choice(list(model))
            known = model[challenge]
            code = known["code"] if step == "right" else other_than(known["code"])
            result = await attempt(runtime, challenge, code)
            timely = clock.now() - known["at"] < timedelta(minutes=5)
            open_still = timely and not known["used"] and known["tries"] < 5
            if isinstance(result, NewSession):
                assert step == "right"
                assert open_still
                known["used"] = True
            elif isinstance(result, TooManyWrongCodes):
                assert failures >= 10
            elif step == "right":
                assert not open_still
            elif open_still:
                known["tries"] += 1
                failures += 1


@asynccontextmanager
async def counted(runtime: Runtime) -> AsyncIterator[list[str]]:
    """Note every statement that the writer carries out."""
    statements: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        statements.append(statement)

    engine = runtime.database.engine.sync_engine
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


async def test_every_number_costs_the_same_statements(runtime: Runtime) -> None:
    async with runtime.database.write() as tx:
        await workers.register(
            tx, runtime.vault, PHONE, occupation=None, listed=False, at=runtime.now()
        )
    seen = []
    for phone in (PHONE, PHONE, "+8613912341234", "+23276123456", "+862363000000"):
        async with counted(runtime) as statements:
            await ask(runtime, phone)
        seen.append(statements)
    assert seen[0]
    assert all(statements == seen[0] for statements in seen)


async def test_the_number_is_sealed_and_opens_for_its_own_row_only(runtime: Runtime) -> None:
    async with runtime.database.write() as tx:
        worker = await workers.register(
            tx, runtime.vault, PHONE, occupation=None, listed=False, at=runtime.now()
        )
    assert worker.phone_sealed is not None
    assert PHONE[3:].encode() not in worker.phone_sealed
    assert workers.phone_of(worker, runtime.vault) == PHONE
    with pytest.raises(InvalidTag):
        phones.unseal(runtime.vault.key("phone"), worker.phone_sealed, aad=f"worker|{new_id()}")
