"""Administrators register doors, print posters, open from afar, and enrol controllers."""

import io
from datetime import timedelta
from typing import Any

import httpx
import pypdf
import pytest
import sqlalchemy as sa
import zxingcpp
from PIL import Image

from app.audit import Action, AuditEntry
from app.doors.tables import Controller
from app.people.tables import Role
from app.runtime import Runtime
from tests.conftest import Clock
from tests.support.worlds import Scene, SomeAdmin, SomeWorker, a_scene, an_admin

pytestmark = pytest.mark.anyio


async def the_chief(runtime: Runtime, **kind: Any) -> SomeAdmin:
    async with runtime.database.write() as tx:
        return await an_admin(tx, at=runtime.now(), **kind)


async def acts(runtime: Runtime) -> list[Action]:
    async with runtime.database.read() as tx:
        entries = sa.select(AuditEntry.action).order_by(AuditEntry.at, AuditEntry.id)
        return list(await tx.scalars(entries))


async def scans(client: httpx.AsyncClient, worker: SomeWorker, token: str) -> dict[str, Any]:
    headers = worker.headers | {"Idempotency-Key": "k"}
    answer = await client.post("/v1/scans", json={"token": token}, headers=headers)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def told(client: httpx.AsyncClient, scene: Scene) -> list[dict[str, Any]]:
    answer = await client.get(
        "/v1/controller/commands", params={"wait": 0}, headers=scene.controller_headers
    )
    return list(answer.json()["commands"]) if answer.status_code == 200 else []


async def test_a_door_is_added_changed_and_retired(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief, scene = await the_chief(runtime), await a_scene(runtime)
    config = await client.get("/v1/controller/config", headers=scene.controller_headers)
    added = await client.post(
        "/v1/admin/doors",
        json={"station": str(scene.station.id), "name": "侧门"},
        headers=chief.headers,
    )
    assert added.status_code == 201, added.text
    path = f"/v1/admin/doors/{added.json()['id']}"
    changed = await client.patch(path, json={"pulse_ms": 5000}, headers=chief.headers)
    assert (changed.json()["name"], changed.json()["pulse_ms"]) == ("侧门", 5000)
    newer = await client.get("/v1/controller/config", headers=scene.controller_headers)
    assert newer.json()["version"] != config.json()["version"]
    assert {door["pulse_ms"] for door in newer.json()["doors"]} == {3000, 5000}
    assert (await client.post(f"{path}/retire", headers=chief.headers)).json()["retired_at"]
    assert (await client.get(path, headers=chief.headers)).status_code == 200  # Never deleted.
    assert await acts(runtime) == [Action.DOOR_ADDED, Action.DOOR_AMENDED, Action.DOOR_RETIRED]


async def test_a_poster_is_drawn_in_three_forms_and_leads_to_the_door(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief, scene = await the_chief(runtime), await a_scene(runtime)
    path = f"/v1/admin/doors/{scene.door.id}/poster"
    png = await client.get(f"{path}.png", headers=chief.headers)
    (code,) = zxingcpp.read_barcodes(
        Image.open(io.BytesIO(png.content)), zxingcpp.BarcodeFormat.QRCode
    )
    assert code.text.startswith("http://testserver/s/")
    assert (await scans(client, scene.worker, code.text.rsplit("/", 1)[1]))["outcome"] == "granted"
    svg = await client.get(f"{path}.svg", headers=chief.headers)
    assert svg.headers["Content-Type"] == "image/svg+xml"
    pdf = await client.get(f"{path}.pdf", headers=chief.headers)
    assert scene.station.code in pypdf.PdfReader(io.BytesIO(pdf.content)).pages[0].extract_text()
    assert (await client.get(f"{path}.gif", headers=chief.headers)).status_code == 422
    assert await acts(runtime) == [Action.POSTER_PRINTED] * 3


async def test_a_revoked_poster_opens_nothing_and_a_replaced_one_within_its_grace(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    chief, scene = await the_chief(runtime), await a_scene(runtime)
    another = (await a_scene(runtime)).worker
    path = f"/v1/admin/doors/{scene.door.id}/revoke-posters"
    revoked = await client.post(path, json={"grace_s": 600}, headers=chief.headers)
    assert revoked.json()["generation"] == 2
    assert (await scans(client, scene.worker, scene.poster))["outcome"] == "granted"
    clock.advance(600)
    assert (await scans(client, another, scene.poster))["reason"] == "token_revoked"
    too_long = await client.post(path, json={"grace_s": 86_400 * 14 + 1}, headers=chief.headers)
    assert too_long.status_code == 422


async def test_a_lost_sheet_is_revoked_without_grace(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief, scene = await the_chief(runtime), await a_scene(runtime)
    await client.post(f"/v1/admin/doors/{scene.door.id}/revoke-posters", headers=chief.headers)
    assert (await scans(client, scene.worker, scene.poster))["reason"] == "token_revoked"


async def test_a_door_is_opened_from_afar_once_and_audited_with_the_reason(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief, scene = await the_chief(runtime), await a_scene(runtime)
    path = f"/v1/admin/doors/{scene.door.id}/unlock"
    opened = await client.post(path, json={"reason": "有人被困"}, headers=chief.headers)
    assert opened.status_code == 201, opened.text
    (command,) = await told(client, scene)
    assert command["id"] == opened.json()["id"]
    async with runtime.database.read() as tx:
        entry = await tx.scalar(sa.select(AuditEntry))
        assert entry is not None
        assert entry.action is Action.DOOR_UNLOCKED
        assert entry.after["reason"] == "有人被困"
    assert (await client.post(path, json={}, headers=chief.headers)).status_code == 422


async def test_nobody_opens_from_afar_in_an_emergency_or_where_nobody_hears(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    chief, scene = await the_chief(runtime), await a_scene(runtime)
    path = f"/v1/admin/doors/{scene.door.id}/unlock"
    at = runtime.now()
    lockdown = await client.post(
        f"/v1/admin/stations/{scene.station.id}/overrides",
        json={
            "kind": "lockdown",
            "from": at.isoformat(),
            "until": (at + timedelta(minutes=30)).isoformat(),
        },
        headers=chief.headers,
    )
    assert lockdown.status_code == 201, lockdown.text
    held = await client.post(path, json={"reason": "x"}, headers=chief.headers)
    assert (held.status_code, held.json()["code"]) == (409, "emergency_holds")
    clock.advance(1800)
    silent = await client.post(path, json={"reason": "x"}, headers=chief.headers)
    assert (silent.status_code, silent.json()["code"]) == (409, "controller_silent")
    await client.post(f"/v1/admin/doors/{scene.door.id}/retire", headers=chief.headers)
    retired = await client.post(path, json={"reason": "x"}, headers=chief.headers)
    assert (retired.status_code, retired.json()["code"]) == (409, "door_out_of_use")


async def test_a_frozen_controller_is_called_frozen_and_not_offline(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief, scene = await the_chief(runtime), await a_scene(runtime)
    async with runtime.database.write() as tx:
        controller = await tx.get_one(Controller, scene.controller_id)
        controller.frozen_at = runtime.now()
    path = f"/v1/admin/doors/{scene.door.id}/unlock"
    frozen = await client.post(path, json={"reason": "x"}, headers=chief.headers)
    assert (frozen.status_code, frozen.json()["code"]) == (409, "controller_frozen")
    thaw = f"/v1/admin/controllers/{scene.controller_id}/thaw"
    assert (await client.post(thaw, headers=chief.headers)).status_code == 200
    opened = await client.post(path, json={"reason": "x"}, headers=chief.headers)
    assert opened.status_code == 201


async def test_an_enrolment_code_is_issued_and_a_controller_retired(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    chief, scene = await the_chief(runtime), await a_scene(runtime)
    issued = await client.post(
        "/v1/admin/controllers/enrolment",
        json={"station": str(scene.station.id)},
        headers=chief.headers,
    )
    taken = await client.post(
        "/v1/controller/enrol",
        json={"code": issued.json()["code"], "serial": "SN", "firmware": "1", "nonce": "n"},
    )
    controller = f"/v1/admin/controllers/{taken.json()['controller_id']}"
    await client.patch(controller, json={"serial": "SN-77"}, headers=chief.headers)
    retired = await client.post(f"{controller}/retire", headers=chief.headers)
    assert (retired.json()["serial"], bool(retired.json()["retired_at"])) == ("SN-77", True)
    headers = {"Authorization": f"Bearer {taken.json()['credential']}"}
    refused = await client.get("/v1/controller/config", headers=headers)
    assert refused.status_code == 401
    assert await acts(runtime) == [
        Action.ENROLMENT_ISSUED,
        Action.ENROLMENT_USED,
        Action.CONTROLLER_AMENDED,
        Action.CONTROLLER_RETIRED,
    ]


async def test_the_trail_says_whose_code_let_which_controller_in_and_when(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    chief, scene = await the_chief(runtime), await a_scene(runtime)
    other = await the_chief(runtime)
    issued = [
        await client.post(
            "/v1/admin/controllers/enrolment",
            json={"station": str(scene.station.id)},
            headers=one.headers,
        )
        for one in (other, chief)  # In one instant: the trail must not take one for the other.
    ]
    clock.advance(600)
    body = {"code": issued[1].json()["code"], "serial": "SN", "firmware": "1", "nonce": "n"}
    lost = await client.post("/v1/controller/enrol", json=body)
    clock.advance(60)
    assert (await client.post("/v1/controller/enrol", json=body)).status_code == 201
    refused = await client.post("/v1/controller/enrol", json=body | {"nonce": "m"})
    assert refused.status_code == 401
    told = (await client.get("/v1/admin/audit", headers=chief.headers)).json()
    used = [entry for entry in told if entry["action"] == "enrolment.used"]
    assert [entry["at"] for entry in used] == [
        (clock.now() - timedelta(seconds=ago)).isoformat().replace("+00:00", "Z") for ago in (0, 60)
    ]
    for entry in used:
        assert entry["admin_id"] == str(chief.id)
        assert entry["station_id"] == str(scene.station.id)
        assert entry["after"] == {"controller": lost.json()["controller_id"], "serial": "SN"}


async def test_only_the_city_rotates_keys(client: httpx.AsyncClient, runtime: Runtime) -> None:
    chief, scene = await the_chief(runtime), await a_scene(runtime)
    keeper = await the_chief(runtime, role=Role.STATION_KEEPER, station=scene.station)
    body = {"kind": "poster"}
    refused = await client.post("/v1/admin/keys/rotate", json=body, headers=keeper.headers)
    assert refused.status_code == 403
    rotated = await client.post("/v1/admin/keys/rotate", json=body, headers=chief.headers)
    assert rotated.json()["state"] == "active"
    listed = await client.get("/v1/admin/keys", headers=chief.headers)
    assert "private" not in listed.text
    states = {key["state"] for key in listed.json() if key["kind"] == "poster"}
    assert states == {"retiring", "active"}
