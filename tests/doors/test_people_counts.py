"""People counters have a series of their own: never clamped, with its resets and its drift."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from app.doors.rules.people import Counted, Standing, counted
from app.people.tables import Role
from app.runtime import Runtime
from tests.conftest import Clock
from tests.support.worlds import Scene, SomeAdmin, a_scene, an_admin

NOW = datetime(2026, 11, 23, 15, 40, tzinfo=UTC)


def test_it_is_summed_and_never_clamped() -> None:
    series = counted([Counted(NOW, 2), Counted(NOW, -3)], Standing(), NOW)
    assert (series.inside, series.lowest, series.resets) == (-1, -1, [])


def test_a_reset_says_how_far_the_count_was_off() -> None:
    words = [Counted(NOW, 3), Counted(NOW, -1), Counted(NOW, 0, reset_to=0), Counted(NOW, 4)]
    series = counted(words, Standing(inside=1, entries=5), NOW)
    (reset,) = series.resets
    assert (reset.counted, reset.reset_to, reset.drift, reset.entries) == (3, 0, 3, 8)
    assert reset.drift_per_100 == 37.5
    assert (series.inside, series.lowest) == (4, 0)


def test_without_entries_a_drift_has_no_rate() -> None:
    (reset,) = counted([Counted(NOW, 0, reset_to=2)], Standing(), NOW).resets
    assert (reset.drift, reset.drift_per_100) == (-2, None)


def test_each_hour_has_its_ins_and_outs_and_where_the_count_stood() -> None:
    words = [
        Counted(NOW, 2),
        Counted(NOW + timedelta(minutes=59), -1),
        Counted(NOW + timedelta(minutes=60), 1),
        Counted(NOW + timedelta(hours=5), -1),
    ]
    found = [
        (hour.from_at, hour.people_in, hour.people_out, hour.inside)
        for hour in counted(words, Standing(), NOW).hours
    ]
    assert found == [
        (NOW, 2, 1, 1),
        (NOW + timedelta(hours=1), 1, 0, 2),
        (NOW + timedelta(hours=5), 0, 1, 1),
    ]


async def the_chief(runtime: Runtime) -> SomeAdmin:
    async with runtime.database.write() as tx:
        return await an_admin(tx, at=runtime.now())


async def reads(
    client: httpx.AsyncClient, scene: Scene, admin: SomeAdmin, **params: str
) -> dict[str, Any]:
    path = f"/v1/admin/stations/{scene.station.id}/people-counts"
    answer = await client.get(path, params=params, headers=admin.headers)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.anyio
async def test_administrators_see_the_series_its_resets_and_its_drift(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene, chief = await a_scene(runtime), await the_chief(runtime)
    before = await reads(client, scene, chief)
    assert (before["inside"], before["told_at"], before["hours"]) == (None, None, [])
    began = runtime.now()
    told = [
        (0, "people_in", {"count": 3}),
        (10, "people_out", {"count": 1}),
        (70, "people_in", {"reset_to": 1}),
        (80, "people_out", {"count": 2}),
        (130, "people_in", {}),
    ]
    clock.advance(3 * 3600)
    batch = [
        {
            "event_id": f"e{seq}",
            "seq": seq,
            "type": type,
            "occurred_at": (began + timedelta(minutes=minutes)).isoformat(),
        }
        | more
        for seq, (minutes, type, more) in enumerate(told, start=1)
    ]
    body = {"boot_id": "b", "epoch": 1, "sent_at": runtime.now().isoformat(), "events": batch}
    for events in (batch[2:], batch[:2], batch):
        sent = await client.post(
            "/v1/controller/events",
            json=body | {"events": events},
            headers=scene.controller_headers,
        )
        assert sent.status_code == 200, sent.text
    chief = await the_chief(runtime)
    found = await reads(client, scene, chief, since=began.isoformat())
    assert [(hour["people_in"], hour["people_out"], hour["inside"]) for hour in found["hours"]] == [
        (3, 1, 2),
        (0, 2, -1),
        (1, 0, 0),
    ]
    assert (found["inside"], found["lowest"], found["visits_inside"]) == (0, -1, 0)
    (reset,) = found["resets"]
    assert (reset["counted"], reset["reset_to"], reset["drift"], reset["entries"]) == (2, 1, 1, 3)
    # What came before a time decides where its count begins.
    since = (began + timedelta(minutes=75)).isoformat()
    later = await reads(client, scene, chief, since=since)
    assert (later["inside"], later["lowest"], later["resets"]) == (0, -1, [])


@pytest.mark.anyio
async def test_a_station_elsewhere_is_none_and_a_time_must_make_sense(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene, other, chief = await a_scene(runtime), await a_scene(runtime), await the_chief(runtime)
    async with runtime.database.write() as tx:
        at, role = runtime.now(), Role.STATION_KEEPER
        keeper = await an_admin(tx, at=at, role=role, station=other.station)
    path = f"/v1/admin/stations/{scene.station.id}/people-counts"
    assert (await client.get(path, headers=keeper.headers)).status_code == 404
    now = runtime.now()
    for since in (now, now + timedelta(1), now - timedelta(32)):
        answer = await client.get(path, params={"since": since.isoformat()}, headers=chief.headers)
        assert (answer.status_code, answer.json()["code"]) == (422, "count_period_invalid")
