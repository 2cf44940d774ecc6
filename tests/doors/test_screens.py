"""Codes on a screen: rotating, exchanged on load, used up only by an opened door."""

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from app.alerts.rules import AlertKind
from app.alerts.tables import Alert
from app.doors import screens, tokens
from app.doors.tables import Door, DoorTicket
from app.doors.tokens import TokenKind
from app.jobs import find, run_once
from app.runtime import Runtime
from tests.conftest import NIGHT, Clock
from tests.support.worlds import Scene, a_listener, a_scene, a_worker, an_admin

pytestmark = pytest.mark.anyio


async def a_screen(runtime: Runtime, **changes: Any) -> Scene:
    """Set the scene of a door with a screen."""
    scene = await a_scene(runtime)
    async with runtime.database.write() as tx:
        door = await tx.get_one(Door, scene.door.id)
        door.has_display = True
        for name, value in changes.items():
            setattr(door, name, value)
    return scene


async def codes(client: httpx.AsyncClient, scene: Scene) -> list[dict[str, Any]]:
    answer = await client.get(
        f"/v1/controller/doors/{scene.door.id}/codes", headers=scene.controller_headers
    )
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["codes"]
    return found


async def the_code(client: httpx.AsyncClient, scene: Scene) -> str:
    return str((await codes(client, scene))[0]["token"])


async def scans(
    client: httpx.AsyncClient, scene: Scene, token: str, key: str, worker: Any = None
) -> dict[str, Any]:
    headers = (worker or scene.worker).headers | {"Idempotency-Key": key}
    answer = await client.post("/v1/scans", json={"token": token}, headers=headers)
    assert answer.status_code in (200, 201), answer.text
    found: dict[str, Any] = answer.json()
    return found


async def opens(client: httpx.AsyncClient, scene: Scene) -> None:
    """Let the controller carry out whatever is pending."""
    poll = await client.get(
        "/v1/controller/commands", params={"wait": 0}, headers=scene.controller_headers
    )
    for command in poll.json()["commands"]:
        path = f"/v1/controller/commands/{command['id']}"
        claim = {"boot_id": "b", "nonce": command["id"]}
        await client.post(f"{path}/claim", json=claim, headers=scene.controller_headers)
        ack = {"boot_id": "b", "result": "executed", "pulse_after_claim_ms": 0}
        done = await client.post(f"{path}/ack", json=ack, headers=scene.controller_headers)
        assert done.status_code == 200, done.text


async def is_heard(client: httpx.AsyncClient, scene: Scene) -> None:
    await client.get(
        "/v1/controller/commands", params={"wait": 0}, headers=scene.controller_headers
    )


async def exchanges(client: httpx.AsyncClient, token: str) -> httpx.Response:
    return await client.post("/v1/doors/ticket", json={"token": token})


async def test_codes_rotate_every_half_minute_and_reach_a_quarter_of_an_hour_ahead(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_screen(runtime)
    found = await codes(client, scene)
    assert len(found) == 30
    times = [
        (datetime.fromisoformat(code["shown_from"]), datetime.fromisoformat(code["shown_until"]))
        for code in found
    ]
    assert times[0][0] <= NIGHT < times[0][1]
    for (_, until), (begins, _) in pairwise(times):
        assert until == begins
    assert times[-1][1] <= NIGHT + screens.AHEAD
    assert all(code["url"] == f"http://testserver/s/{code['token']}" for code in found)
    # The same instants have the same codes: two screens of one door agree.
    clock.advance(61)
    assert [code["token"] for code in await codes(client, scene)][:28] == [
        code["token"] for code in found
    ][2:]


async def test_only_a_screen_of_its_own_station_gets_codes(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene, other, plain = await a_screen(runtime), await a_screen(runtime), await a_scene(runtime)
    foreign = f"/v1/controller/doors/{other.door.id}/codes"
    answer = await client.get(foreign, headers=scene.controller_headers)
    assert answer.json()["code"] == "door_not_found"
    without = f"/v1/controller/doors/{plain.door.id}/codes"
    answer = await client.get(without, headers=plain.controller_headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "door_has_no_screen")


async def test_the_code_on_the_screen_opens_and_only_an_opened_door_uses_it_up(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_screen(runtime)
    token = await the_code(client, scene)
    first = await scans(client, scene, token, "1")
    assert (first["outcome"], first["reason"]) == ("granted", "ok")
    # The controller never came: the command is over, the code is not.
    clock.advance(11)
    again = await scans(client, scene, token, "2")
    assert again["outcome"] == "granted"
    await opens(client, scene)
    # Within 10 s of the pulse it is the same scan; afterwards the code is used up for him ...
    clock.advance(11)
    used = await scans(client, scene, token, "3")
    assert (used["outcome"], used["reason"]) == ("refused", "token_expired")
    # ... and for nobody else.
    async with runtime.database.write() as tx:
        colleague = await a_worker(tx, runtime, at=runtime.now())
    assert (await scans(client, scene, token, "4", colleague))["outcome"] == "granted"


async def test_a_photo_of_the_screen_is_worth_nothing_after_45_seconds(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    """T02, at the second."""
    scene = await a_screen(runtime)
    clock.set(NIGHT - timedelta(seconds=NIGHT.timestamp() % 30))
    token = await the_code(client, scene)
    for after, outcome in ((44.9, "granted"), (45, "refused"), (46, "refused")):
        clock.set(NIGHT + timedelta(seconds=after))
        async with runtime.database.write() as tx:
            worker = await a_worker(tx, runtime, at=runtime.now())
        found = await scans(client, scene, token, f"at{after}", worker)
        assert (after, found["outcome"]) == (after, outcome)
        if outcome == "refused":
            assert found["reason"] == "token_expired"


@given(st.floats(-120, 120))
def test_a_code_is_good_from_when_it_is_shown_and_for_45_seconds(after: float) -> None:
    """T02: for all t, accepted means 0 <= t - iat <= 45 s, but for the reader's slow clock."""
    key = tokens.generate_key(TokenKind.DISPLAY)
    public = tokens.verifying_key(key.kid, key.kind, tokens.public_bytes(key))
    shown = tokens.EPOCH + timedelta(days=20_000)
    token = tokens.sign_display(
        key, door="d", issued_at=shown, expires_at=shown + timedelta(seconds=45), jti="d-1"
    )
    at = shown + timedelta(seconds=after)
    good = isinstance(tokens.verify_display({key.kid: public}, token, at), tokens.DisplayClaims)
    assert good == (-tokens.CLOCK_SLACK <= at - shown < timedelta(seconds=45))


async def test_a_first_sign_in_does_not_outlive_the_code_it_began_with(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_screen(runtime)
    token = await the_code(client, scene)
    ticket = await exchanges(client, token)
    assert ticket.status_code == 201
    cookie = ticket.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "Max-Age=300" in cookie
    # A code by SMS, an occupation, a consent: four minutes later he stands there signed in.
    clock.advance(240)
    await is_heard(client, scene)
    assert (await scans(client, scene, token, "1"))["outcome"] == "granted"
    # Only this browser: whoever got the link sent has no ticket.
    client.cookies.clear()
    async with runtime.database.write() as tx:
        friend = await a_worker(tx, runtime, at=runtime.now())
    sent = await scans(client, scene, token, "2", friend)
    assert (sent["outcome"], sent["reason"]) == ("refused", "token_expired")


async def test_a_ticket_is_for_its_code_and_for_five_minutes(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene, other = await a_screen(runtime), await a_screen(runtime)
    token, elsewhere = await the_code(client, scene), await the_code(client, other)
    await exchanges(client, token)
    clock.advance(299)
    await is_heard(client, scene)
    assert (await scans(client, other, elsewhere, "1"))["reason"] == "token_expired"
    assert (await scans(client, scene, token, "2"))["outcome"] == "granted"
    clock.advance(1)
    async with runtime.database.write() as tx:
        next_one = await a_worker(tx, runtime, at=runtime.now())
    assert (await scans(client, scene, token, "3", next_one))["reason"] == "token_expired"


async def test_only_a_code_shown_now_is_exchanged(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_screen(runtime)
    found = await codes(client, scene)
    late, early = found[0]["token"], found[5]["token"]
    clock.advance(50)
    pass_ = await client.post(
        "/v1/me/pass", json={"door": str(scene.door.id)}, headers=scene.worker.headers
    )
    for token in (late, early, scene.poster, pass_.json()["token"], "nonsense", ""):
        answer = await exchanges(client, token)
        assert (answer.status_code, answer.json()["code"]) == (422, "code_refused"), token
        assert "Set-Cookie" not in answer.headers
    async with runtime.database.read() as tx:
        assert await tx.scalar(sa.select(sa.func.count()).select_from(DoorTicket)) == 0


async def test_a_code_is_exchanged_by_so_many_phones_and_no_more(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_screen(runtime)
    token = await the_code(client, scene)
    for _ in range(screens.TICKETS_PER_CODE):
        assert (await exchanges(client, token)).status_code == 201
    refused = await exchanges(client, token)
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_tickets")
    assert refused.headers["Retry-After"] == "30"


async def test_the_poster_of_a_door_with_a_living_screen_is_refused(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    """Law 13: until the screen has been dead for five minutes."""
    scene = await a_screen(runtime)
    await codes(client, scene)
    for after in (0, 299):
        clock.set(NIGHT + timedelta(seconds=after))
        found = await scans(client, scene, scene.poster, f"k{after}")
        assert (found["outcome"], found["reason"]) == ("refused", "display_required")
        assert found["message"]
    clock.set(NIGHT + timedelta(seconds=300))
    # The controller is heard, only its screen is dark.
    await is_heard(client, scene)
    assert (await scans(client, scene, scene.poster, "k300"))["outcome"] == "granted"


async def test_without_the_fallback_a_dead_screen_opens_nothing(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_screen(runtime, poster_fallback=False)
    assert (await scans(client, scene, scene.poster, "k"))["reason"] == "display_required"


async def dead_screens(runtime: Runtime) -> list[str]:
    """Let the job look; gives of which doors an alert is open."""
    watch = find("watch-doors")
    assert watch is not None
    await run_once(runtime, watch)
    async with runtime.database.read() as tx:
        found = await tx.scalars(
            sa.select(Alert.subject).where(
                Alert.kind == AlertKind.DISPLAY_DEAD, Alert.closed_at.is_(None)
            )
        )
        return list(found)


async def test_somebody_hears_of_a_dead_screen_until_it_shows_codes_again(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_screen(runtime)
    await a_listener(runtime)
    await codes(client, scene)
    clock.advance(299)
    assert await dead_screens(runtime) == []
    clock.advance(1)
    assert await dead_screens(runtime) == [f"door:{scene.door.id}"]
    assert await dead_screens(runtime) == [f"door:{scene.door.id}"]
    await codes(client, scene)
    assert await dead_screens(runtime) == []
    # A door that loses its screen has no dead one.
    clock.advance(400)
    assert await dead_screens(runtime) != []
    async with runtime.database.write() as tx:
        (await tx.get_one(Door, scene.door.id)).has_display = False
    assert await dead_screens(runtime) == []


async def test_the_screens_of_a_station_that_is_retired_are_no_longer_watched(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_screen(runtime)
    await a_listener(runtime)
    async with runtime.database.write() as tx:
        chief = await an_admin(tx, at=runtime.now())
    clock.advance(300)
    assert await dead_screens(runtime) == [f"door:{scene.door.id}"]
    path = f"/v1/admin/stations/{scene.station.id}/retire"
    assert (await client.post(path, headers=chief.headers)).status_code == 200
    assert await dead_screens(runtime) == []


async def test_a_dead_screen_that_somebody_closed_opens_again_only_by_another_death(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_screen(runtime)
    await a_listener(runtime)
    async with runtime.database.write() as tx:
        chief = await an_admin(tx, at=runtime.now())
    await codes(client, scene)
    clock.advance(300)
    assert await dead_screens(runtime) != []
    async with runtime.database.read() as tx:
        alert_id = await tx.scalar(sa.select(Alert.id).where(Alert.kind == AlertKind.DISPLAY_DEAD))
    path = f"/v1/admin/alerts/{alert_id}/close"
    assert (await client.post(path, headers=chief.headers)).status_code == 200
    clock.advance(15)
    assert await dead_screens(runtime) == []
    await codes(client, scene)
    clock.advance(299)
    assert await dead_screens(runtime) == []
    clock.advance(1)
    assert await dead_screens(runtime) == [f"door:{scene.door.id}"]


async def test_no_screen_is_called_dead_before_somebody_has_listened_for_so_long(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    """While our database was away, no screen could fetch codes."""
    scene = await a_screen(runtime)
    await codes(client, scene)
    clock.advance(3600)
    for seconds, dead in ((0, 0), (299, 0), (1, 1)):
        for _ in range(seconds // 13):
            clock.advance(13)
            await runtime.controllers.write_heard(at=runtime.now())
        clock.advance(seconds % 13)
        await runtime.controllers.write_heard(at=runtime.now())
        assert len(await dead_screens(runtime)) == dead


async def test_the_page_says_which_door_a_code_on_a_screen_is_for(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_screen(runtime)
    token = await the_code(client, scene)
    clock.advance(3600)
    # Stale, it still names the door: the page can say what to do.
    answer = await client.get(f"/v1/doors/{token}")
    assert answer.json()["door"]["name"] == scene.door.name


async def test_a_door_is_given_a_screen_and_loses_it(
    client: httpx.AsyncClient, app: FastAPI, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)
    async with runtime.database.write() as tx:
        chief = await an_admin(tx, at=runtime.now())
    body = {"station": str(scene.station.id), "name": "屏", "has_display": True}
    made = await client.post("/v1/admin/doors", json=body, headers=chief.headers)
    assert made.status_code == 201, made.text
    assert (made.json()["has_display"], made.json()["poster_fallback"]) == (True, True)
    path = f"/v1/admin/doors/{made.json()['id']}"
    changed = await client.patch(
        path, json={"has_display": False, "poster_fallback": False}, headers=chief.headers
    )
    assert (changed.json()["has_display"], changed.json()["poster_fallback"]) == (False, False)
