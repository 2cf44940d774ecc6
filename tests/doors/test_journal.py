"""A controller's journal over HTTP: each event once, nothing lost unsaid, effects that follow."""

import asyncio
import contextlib
import dataclasses
import itertools
import json
import random
import uuid
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from app import jobs, privacy
from app.alerts.rules import KEPT_CLOSED, AlertKind
from app.alerts.tables import Alert
from app.audit import COMMAND_LINE
from app.doors import (
    clones,
    completeness,
    contacts,
    controllers,
    effects,
    journal,
    line,
    watch,
)
from app.doors.clones import BootWatch
from app.doors.rules.journal import Quality, Sending
from app.doors.tables import (
    Command,
    Controller,
    JournalCursor,
    JournalEntry,
    PeopleCount,
    QuarantinedEvent,
)
from app.main import create_app
from app.places.tables import Facility, FacilityStatus, Station
from app.runtime import Runtime
from app.settings import Settings
from app.visits import occupancy
from app.visits.tables import FacilityUse, Visit, VoidBecause
from tests.conftest import Clock
from tests.support.statements import statements_of
from tests.support.worlds import Scene, SomeAdmin, a_facility, a_scene, a_worker, an_admin

pytestmark = pytest.mark.anyio


def an_event(seq: int, runtime: Runtime, type: str = "note", **more: Any) -> dict[str, Any]:
    """Make an event that happens now."""
    return {
        "event_id": f"e{seq}",
        "seq": seq,
        "type": type,
        "occurred_at": runtime.now().isoformat(),
    } | more


async def sends(
    client: httpx.AsyncClient,
    scene: Scene,
    events: list[Any],
    *,
    boot_id: str = "b",
    epoch: int = 1,
    **more: Any,
) -> dict[str, Any]:
    body = {"boot_id": boot_id, "epoch": epoch, "events": events} | more
    answer = await client.post("/v1/controller/events", json=body, headers=scene.controller_headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def statuses(answer: dict[str, Any]) -> list[str]:
    return [result["status"] for result in answer["results"]]


async def rows(runtime: Runtime, kind: Any) -> list[Any]:
    async with runtime.database.read() as tx:
        return list(await tx.scalars(sa.select(kind)))


async def alerts(runtime: Runtime) -> dict[AlertKind, Alert]:
    return {alert.kind: alert for alert in await rows(runtime, Alert) if alert.closed_at is None}


async def the_chief(runtime: Runtime) -> SomeAdmin:
    async with runtime.database.write() as tx:
        return await an_admin(tx, at=runtime.now())


async def with_contact(runtime: Runtime, scene: Scene) -> None:
    async with runtime.database.write() as tx:
        door = await tx.get_one(type(scene.door), scene.door.id)
        door.has_contact = True


async def pulses(client: httpx.AsyncClient, runtime: Runtime, scene: Scene, key: str = "k") -> str:
    """Let the worker scan and the controller pulse; gives the scan's id."""
    headers = scene.worker.headers | {"Idempotency-Key": key}
    scan = await client.post("/v1/scans", json={"token": scene.poster}, headers=headers)
    assert scan.json()["outcome"] == "granted", scan.text
    poll = await client.get(
        "/v1/controller/commands", params={"wait": 0}, headers=scene.controller_headers
    )
    (command,) = poll.json()["commands"]
    path = f"/v1/controller/commands/{command['id']}"
    claim = {"boot_id": "b", "nonce": "n"}
    await client.post(f"{path}/claim", json=claim, headers=scene.controller_headers)
    ack = {"boot_id": "b", "result": "executed", "pulse_after_claim_ms": 0}
    done = await client.post(f"{path}/ack", json=ack, headers=scene.controller_headers)
    assert done.status_code == 200, done.text
    return str(scan.json()["id"])


async def state_of(client: httpx.AsyncClient, scene: Scene, scan_id: str) -> str:
    answer = await client.get(f"/v1/scans/{scan_id}", headers=scene.worker.headers)
    return str(answer.json()["state"])


async def test_a_batch_is_taken_in_once_however_often_it_is_sent(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)
    batch = [an_event(seq, runtime) for seq in (1, 2, 3)]
    first = await sends(client, scene, batch)
    assert (statuses(first), first["acked_through"]) == (["accepted"] * 3, 3)
    again = await sends(client, scene, batch)
    assert (statuses(again), again["acked_through"]) == (["duplicate"] * 3, 3)
    # After a reboot the device names the boot that recorded them.
    named = [event | {"boot_id": "b"} for event in batch]
    later = await sends(client, scene, named, boot_id="b2")
    assert statuses(later) == ["duplicate"] * 3
    assert len(await rows(runtime, JournalEntry)) == 3
    assert await alerts(runtime) == {}


@pytest.mark.parametrize("seed", range(3))
async def test_split_shuffled_repeated_and_in_parallel_it_has_the_effect_of_once(
    client: httpx.AsyncClient, runtime: Runtime, seed: int
) -> None:
    """R03."""
    rng, scene = random.Random(seed), await a_scene(runtime)
    events = [an_event(seq, runtime, "people_in", count=1) for seq in range(1, 41)]
    batches = []
    for _ in range(6):
        sent = rng.sample(events, len(events))
        while sent:
            size = rng.randint(1, 15)
            batches.append(sent[:size])
            sent = sent[size:]
    rng.shuffle(batches)
    for start in range(0, len(batches), 4):
        together = batches[start : start + 4]
        for answer in await asyncio.gather(*(sends(client, scene, part) for part in together)):
            assert "quarantined" not in statuses(answer)
    await effects.apply_due(runtime.database, runtime.scans, now=runtime.now)
    assert sorted(row.seq for row in await rows(runtime, JournalEntry)) == list(range(1, 41))
    assert len(await rows(runtime, PeopleCount)) == 40
    assert (await sends(client, scene, []))["acked_through"] == 40


async def test_one_bad_event_keeps_no_other_out(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    """T26."""
    scene = await a_scene(runtime)
    batch: list[Any] = [an_event(seq, runtime) for seq in range(1, 101)]
    batch[49] = an_event(50, runtime, type="explosion")
    batch.append("not an event")
    answer = await sends(client, scene, batch)
    assert statuses(answer).count("accepted") == 99
    assert answer["results"][49]["reason"] == "unknown_type"
    assert answer["results"][100]["reason"] == "not_an_object"
    assert answer["acked_through"] == 100
    assert {row.reason for row in await rows(runtime, QuarantinedEvent)} == {
        "unknown_type",
        "not_an_object",
    }
    assert AlertKind.QUARANTINE in await alerts(runtime)
    again = await sends(client, scene, batch)
    assert statuses(again).count("quarantined") == 2
    assert len(await rows(runtime, QuarantinedEvent)) == 2


@pytest.mark.parametrize(
    "poison",
    [
        {"type": ["note"]},
        {"type": {"is": "note"}},
        {"type": "door_opened", "door": ["d"]},
        {"type": "door_opened", "door": {"d": 1}},
        {"type": "facility_use", "facility": ["f"]},
        {"type": "facility_status", "status": "working", "facility": {"f": 1}},
    ],
)
async def test_a_field_of_a_shape_nobody_thought_of_keeps_no_other_event_out(
    client: httpx.AsyncClient, runtime: Runtime, poison: dict[str, Any]
) -> None:
    """T26."""
    scene = await a_scene(runtime)
    answer = await sends(client, scene, [an_event(1, runtime) | poison, an_event(2, runtime)])
    assert statuses(answer) == ["quarantined", "accepted"]
    assert answer["acked_through"] == 2


async def test_what_is_about_no_door_may_say_of_one_what_it_likes(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)
    doors: list[Any] = ["front", ["d"], {"d": 1}, 7, str(scene.door.id)]
    batch = [an_event(seq, runtime, door=door) for seq, door in enumerate(doors, start=1)]
    assert statuses(await sends(client, scene, batch)) == ["accepted"] * 5
    assert [row.door_id for row in await rows(runtime, JournalEntry)] == [None] * 4 + [
        scene.door.id
    ]


async def test_a_use_that_names_a_door_still_needs_its_facility(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)
    used = an_event(1, runtime, "facility_use", door=str(scene.door.id), facility="nobody")
    answer = await sends(client, scene, [used])
    assert answer["results"][0]["reason"] == "unknown_facility"


@pytest.mark.parametrize(
    "clocks",
    [
        {"sent_at": "1970-01-01T00:00:07+00:00"},
        {"sent_at": "2106-02-07T06:28:15Z"},
        {"sent_at": "0001-01-01T00:00:00+14:00"},
        {"mono_ms": 2**53 - 1},
        {"mono_ms": 0, "sync_mono_ms": 2**53 - 1},
    ],
)
async def test_no_clock_is_so_far_off_that_the_journal_is_refused(
    client: httpx.AsyncClient, runtime: Runtime, clocks: dict[str, Any]
) -> None:
    scene = await a_scene(runtime)
    clocks = dict(clocks)
    if (heard := clocks.pop("sync_mono_ms", None)) is not None:
        now = runtime.now().isoformat()
        clocks["sync"] = {"server_time": now, "mono_ms": heard, "rtt_ms": 40}
    batch = [an_event(1, runtime, mono_ms=0), an_event(2, runtime, mono_ms=2**53 - 1)]
    assert statuses(await sends(client, scene, batch, **clocks)) == ["accepted"] * 2
    for entry in await rows(runtime, JournalEntry):
        assert entry.corrected_at <= runtime.now()


@pytest.mark.parametrize("rtt_ms", [700_000, 0.5, -1, "80", None])
async def test_a_sync_that_cannot_be_used_keeps_no_event_out(
    client: httpx.AsyncClient, runtime: Runtime, rtt_ms: Any
) -> None:
    scene = await a_scene(runtime)
    began = runtime.now()
    sync = {"server_time": began.isoformat(), "mono_ms": 0, "rtt_ms": rtt_ms}
    event = an_event(1, runtime, mono_ms=1_000)
    answer = await sends(client, scene, [event], mono_ms=5_000, sync=sync)
    assert statuses(answer) == ["accepted"]
    (entry,) = await rows(runtime, JournalEntry)
    assert (entry.quality, entry.corrected_at) == ("sent", began - timedelta(seconds=4))


async def test_a_door_or_facility_of_another_station_is_not_this_controllers(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene, other = await a_scene(runtime), await a_scene(runtime)
    batch = [
        an_event(1, runtime, "door_opened", door=str(other.door.id)),
        an_event(2, runtime, "door_opened"),
        an_event(3, runtime, "facility_use", facility="nobody"),
    ]
    answer = await sends(client, scene, batch)
    assert [result["reason"] for result in answer["results"]] == [
        "unknown_door",
        "unknown_door",
        "unknown_facility",
    ]


async def test_gaps_and_losses_are_told_exactly(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene, chief = await a_scene(runtime), await the_chief(runtime)
    path = f"/v1/admin/controllers/{scene.controller_id}/journal"

    async def state() -> dict[str, Any]:
        (found,) = (await client.get(path, headers=chief.headers)).json()
        return dict(found)

    answer = await sends(client, scene, [an_event(seq, runtime) for seq in (1, 2, 6, 7, 12)])
    assert answer["acked_through"] == 2
    assert (await state())["gaps"] == [{"first": 3, "last": 5}, {"first": 8, "last": 11}]
    overflow = an_event(13, runtime, "overflow", first_seq=3, last_seq=5)
    answer = await sends(client, scene, [overflow])
    assert answer["acked_through"] == 7
    await sends(client, scene, [overflow])
    assert (await alerts(runtime))[AlertKind.EVENTS_LOST].count == 1
    found = await state()
    assert found["gaps"] == [{"first": 8, "last": 11}]
    assert found["lost"] == [{"first": 3, "last": 5}]
    assert (await alerts(runtime))[AlertKind.EVENTS_LOST].detail["events"] == 3
    answer = await sends(client, scene, [an_event(seq, runtime) for seq in range(8, 12)])
    assert answer["acked_through"] == 13
    other = await sends(client, scene, [an_event(90, runtime) | {"seq": 1}], epoch=2)
    assert other["acked_through"] == 1


async def test_what_a_device_reports_lost_and_we_hold_is_no_loss(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    """Our answer got lost, and its memory ran full before it could ask again."""
    scene, chief = await a_scene(runtime), await the_chief(runtime)
    path = f"/v1/admin/controllers/{scene.controller_id}/journal"
    await sends(client, scene, [an_event(seq, runtime) for seq in (1, 2, 3)])
    await sends(client, scene, [an_event(4, runtime, "overflow", first_seq=1, last_seq=3)])
    assert AlertKind.EVENTS_LOST not in await alerts(runtime)
    answer = await sends(
        client,
        scene,
        [
            an_event(7, runtime),
            an_event(10, runtime, "overflow", first_seq=2, last_seq=8),
            an_event(11, runtime, "overflow", first_seq=6, last_seq=9),
        ],
    )
    assert answer["acked_through"] == 11
    (found,) = (await client.get(path, headers=chief.headers)).json()
    assert found["lost"] == [{"first": n, "last": m} for n, m in ((5, 6), (8, 8), (9, 9))]
    (told,) = [one for one in await rows(runtime, Alert) if one.kind is AlertKind.EVENTS_LOST]
    assert (told.count, told.detail["events"]) == (2, 3)


async def test_an_overflow_speaks_of_what_was_before_it_only(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    """Or firmware gone wrong would have the cursor pass over what is still to come."""
    scene = await a_scene(runtime)
    await sends(client, scene, [an_event(1, runtime)])
    overflow = an_event(4, runtime, "overflow", first_seq=2, last_seq=2**53 - 1)
    answer = await sends(client, scene, [overflow])
    assert (answer["results"][0]["reason"], answer["acked_through"]) == ("bad_field", 1)


async def test_a_gap_is_told_whatever_was_told_of_others(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)

    async def lost() -> list[Any]:
        async with runtime.database.write() as tx:
            await completeness.watch_gaps(tx, at=runtime.now())
        found = [one for one in await rows(runtime, Alert) if one.kind is AlertKind.EVENTS_LOST]
        silent = [one.detail for one in found if not one.detail["reported"]]
        return sorted((one["epoch"], one["first_seq"], one["events"]) for one in silent)

    await sends(client, scene, [an_event(seq, runtime) for seq in (1, 3)])
    clock.advance(60)
    await sends(client, scene, [an_event(9, runtime, "overflow", first_seq=4, last_seq=8)])
    clock.advance(60)
    await sends(client, scene, [an_event(22, runtime) | {"seq": 2}], epoch=2)
    clock.advance(600)
    assert await lost() == [(1, 2, 1), (2, 1, 1)]
    # The first is never closed, and another one comes.
    await sends(client, scene, [an_event(11, runtime)])
    clock.advance(599)
    assert await lost() == [(1, 2, 1), (2, 1, 1)]
    clock.advance(1)
    assert await lost() == [(1, 2, 2), (2, 1, 1)]


async def test_numbers_that_stay_missing_are_told_once_though_the_device_says_nothing(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    """T27: firmware that drops events and does not say so."""
    scene = await a_scene(runtime)

    async def lost() -> tuple[int, Any] | None:
        async with runtime.database.write() as tx:
            await completeness.watch_gaps(tx, at=runtime.now())
        found = (await alerts(runtime)).get(AlertKind.EVENTS_LOST)
        return found and (found.count, found.detail)

    await sends(client, scene, [an_event(seq, runtime) for seq in (1, 4, 5, 9)])
    began = runtime.now()
    clock.advance(599)
    assert await lost() is None
    await sends(client, scene, [an_event(10, runtime)])  # Later ones do not begin the wait anew.
    clock.advance(1)
    said = {"epoch": 1, "first_seq": 2, "last_seq": 8, "events": 5, "reported": False}
    assert await lost() == (1, said)
    assert (await alerts(runtime))[AlertKind.EVENTS_LOST].opened_at == began
    clock.advance(3600)
    assert await lost() == (1, said)
    async with runtime.database.write() as tx:
        await tx.execute(sa.update(Alert).values(closed_at=runtime.now()))
    assert await lost() is None
    # The first gap closes late; the second one is another.
    await sends(client, scene, [an_event(seq, runtime) for seq in (2, 3)])
    clock.advance(600)
    assert await lost() == (1, said | {"first_seq": 6, "events": 3})


async def test_without_a_gap_no_alert_is_read(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)

    async def statements() -> int:
        with statements_of(runtime.database) as sent:
            async with runtime.database.write() as tx:
                await completeness.watch_gaps(tx, at=runtime.now())
        return len(sent)

    await sends(client, scene, [an_event(1, runtime), an_event(3, runtime)])
    assert await statements() == 1
    clock.advance(600)
    assert await statements() > 1
    await sends(client, scene, [an_event(2, runtime)])
    assert await statements() == 1


async def test_a_gap_is_not_told_again_when_its_alert_is_no_longer_kept(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    await sends(client, scene, [an_event(1, runtime), an_event(3, runtime)])
    job = jobs.find("watch-doors")
    assert job is not None
    clock.advance(600)
    await jobs.run_once(runtime, job)
    clock.advance(timedelta(days=2).total_seconds())
    await jobs.run_once(runtime, job)
    (told,) = await rows(runtime, Alert)
    assert told.closed_at == runtime.now()
    clock.advance((KEPT_CLOSED + timedelta(seconds=1)).total_seconds())
    await sends(client, scene, [an_event(4, runtime)])
    await privacy.retain(runtime.database, at=runtime.now(), retention_days=180)
    assert await rows(runtime, Alert) == []
    await jobs.run_once(runtime, job)
    assert await rows(runtime, Alert) == []


async def test_a_gap_that_closes_in_time_is_no_loss(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    await sends(client, scene, [an_event(1, runtime), an_event(3, runtime)])
    clock.advance(300)
    await sends(client, scene, [an_event(2, runtime)])
    clock.advance(600)
    async with runtime.database.write() as tx:
        await completeness.watch_gaps(tx, at=runtime.now())
    assert await alerts(runtime) == {}


async def test_a_gap_that_closes_between_two_looks_is_no_loss(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    """The cursor is read with its gap; what filled it is committed before the numbers are read."""
    scene = await a_scene(runtime)
    await sends(client, scene, [an_event(1, runtime), an_event(3, runtime)])
    (before,) = await rows(runtime, JournalCursor)
    await sends(client, scene, [an_event(2, runtime)])
    clock.advance(600)
    async with runtime.database.write() as tx:
        cursor = await tx.get_one(JournalCursor, (scene.controller_id, 1))
        cursor.acked_through, cursor.gap_at = before.acked_through, before.gap_at
        await tx.flush()
        await completeness.watch_gaps(tx, at=runtime.now())
    assert await alerts(runtime) == {}


async def test_a_box_that_is_enrolled_anew_goes_on_with_its_numbers(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    """A new code gives another id; what came before it stands under the old one."""
    scene = await a_scene(runtime)
    assert (await sends(client, scene, [], epoch=3))["acked_through"] == 0
    answer = await sends(client, scene, [an_event(seq, runtime) for seq in (42, 41)], epoch=3)
    assert answer["acked_through"] == 42
    clock.advance(600)
    async with runtime.database.write() as tx:
        await completeness.watch_gaps(tx, at=runtime.now())
    assert await alerts(runtime) == {}
    assert (await sends(client, scene, [an_event(44, runtime)], epoch=3))["acked_through"] == 42
    raised = an_event(45, runtime) | {"seq": 3}
    assert (await sends(client, scene, [raised], epoch=4))["acked_through"] == 0


async def enrolled_anew(client: httpx.AsyncClient, runtime: Runtime, scene: Scene) -> Scene:
    """Let the scene's box come in by a new code."""
    async with runtime.database.write() as tx:
        station = await tx.get_one(Station, scene.station.id)
        issued = await controllers.issue_code(tx, station, actor=COMMAND_LINE, at=runtime.now())
    body = {"code": issued.code, "serial": "SN", "firmware": "1", "nonce": "n"}
    answer = (await client.post("/v1/controller/enrol", json=body)).json()
    assert answer["controller_id"] != str(scene.controller_id)
    return dataclasses.replace(
        scene,
        controller_id=uuid.UUID(answer["controller_id"]),
        credential=answer["credential"],
    )


async def test_what_a_box_told_before_it_was_enrolled_anew_counts_once(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    """R01, R03: its answer was lost, so it sends the same again under another id."""
    scene = await a_scene(runtime)
    events = [an_event(seq, runtime, "people_in", count=1) for seq in range(1, 7)]
    assert statuses(await sends(client, scene, events)) == ["accepted"] * 6
    anew = await enrolled_anew(client, runtime, scene)
    clock.advance(60)
    # In any order, with an answer lost again, and from a later boot.
    for some in (events[4:], events[:2], events[:2]):
        named = [event | {"boot_id": "b"} for event in some]
        again = await sends(client, anew, named, boot_id="b2")
        assert (statuses(again), again["acked_through"]) == (["duplicate"] * len(some), 6)
    mixed = [*events[2:4], an_event(7, runtime, "people_in", count=1)]
    answer = await sends(client, anew, mixed, boot_id="b")
    assert statuses(answer) == ["duplicate", "duplicate", "accepted"]
    assert answer["acked_through"] == 7
    once_more = await enrolled_anew(client, runtime, anew)
    answer = await sends(client, once_more, [*events, mixed[2]])
    assert (statuses(answer), answer["acked_through"]) == (["duplicate"] * 7, 7)
    assert len(await rows(runtime, PeopleCount)) == 7
    clock.advance(600)
    async with runtime.database.write() as tx:
        await completeness.watch_gaps(tx, at=runtime.now())
    assert await alerts(runtime) == {}


async def test_a_box_that_takes_the_place_of_another_has_numbers_of_its_own(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    """The same number with other content is neither a repetition nor a clone, nor fills a gap."""
    scene = await a_scene(runtime)
    await sends(client, scene, [an_event(seq, runtime, "people_in") for seq in range(1, 7)])
    clock.advance(60)
    anew = await enrolled_anew(client, runtime, scene)
    events = [an_event(seq, runtime, "people_in", count=2) for seq in (1, 2, 4)]
    answer = await sends(client, anew, events, boot_id="c")
    assert (statuses(answer), answer["acked_through"]) == (["accepted"] * 3, 2)
    assert len(await rows(runtime, PeopleCount)) == 9
    assert await alerts(runtime) == {}
    clock.advance(600)
    async with runtime.database.write() as tx:
        await completeness.watch_gaps(tx, at=runtime.now())
    assert (await alerts(runtime))[AlertKind.EVENTS_LOST].detail["events"] == 1


async def test_what_a_box_reported_lost_before_it_was_enrolled_anew_is_told_once(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    overflow = an_event(7, runtime, "overflow", first_seq=3, last_seq=5)
    events = [an_event(1, runtime), an_event(2, runtime), an_event(6, runtime), overflow]
    assert (await sends(client, scene, events))["acked_through"] == 7
    anew = await enrolled_anew(client, runtime, scene)
    answer = await sends(client, anew, events)
    assert (statuses(answer), answer["acked_through"]) == (["duplicate"] * 4, 7)
    assert (await alerts(runtime))[AlertKind.EVENTS_LOST].count == 1


async def test_what_a_box_that_is_enrolled_anew_reports_lost_is_part_of_what_it_tells_first(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)
    events = [an_event(61, runtime), an_event(62, runtime, "overflow", first_seq=50, last_seq=60)]
    assert (await sends(client, scene, events))["acked_through"] == 62
    assert (await alerts(runtime))[AlertKind.EVENTS_LOST].detail["events"] == 11


async def test_a_lost_journal_is_told_once_for_each_epoch(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)

    async def told(seq: int, epoch: int) -> tuple[int, int] | None:
        event = an_event(100 * epoch + seq, runtime) | {"seq": seq}
        await sends(client, scene, [event], epoch=epoch)
        found = (await alerts(runtime)).get(AlertKind.EVENTS_LOST)
        assert found is None or found.detail["unknown"]
        return found and (found.count, found.detail["epoch"])

    assert await told(1, epoch=2) is None
    assert await told(2, epoch=2) is None
    assert await told(1, epoch=5) == (1, 5)
    assert await told(2, epoch=5) == (1, 5)
    assert await told(3, epoch=2) == (1, 5)
    assert await told(1, epoch=1) == (1, 5)  # What was left of an older one.
    assert await told(1, epoch=6) == (2, 6)


@pytest.mark.parametrize("holds", ["an upload", "its effects"])
@pytest.mark.parametrize(
    "database_url", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)
async def test_nobody_at_the_door_waits_for_an_upload(
    client: httpx.AsyncClient, runtime: Runtime, holds: str
) -> None:
    """SQLite has one writer; there a batch is one short turn."""
    scene = await a_scene(runtime)
    at = runtime.now()
    batch = journal.Batch(1, Sending("b", at), [an_event(1, runtime, "people_in")])
    headers = scene.worker.headers | {"Idempotency-Key": "k"}

    async def is_let_in() -> bool:
        asked = client.post("/v1/scans", json={"token": scene.poster}, headers=headers)
        scan = asyncio.create_task(asked)
        await asyncio.wait([scan], timeout=5)
        return scan.done() and scan.result().json()["outcome"] == "granted"

    async with runtime.database.write() as tx:
        assert await journal.take_in(tx, runtime.wakeups, scene.controller_id, batch, at=at)
        if holds == "an upload":
            assert await is_let_in()
    async with runtime.database.write() as tx:
        station_id = await effects._hold(tx, scene.controller_id)
        (due,) = await effects._due(tx, scene.controller_id)
        await effects._apply(tx, runtime.scans, [due], station_id, at=at)
        if holds == "its effects":
            assert await is_let_in()


async def test_the_same_number_with_other_content_freezes_the_controller(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    """T18: both histories are kept, the door is frozen, an alert is raised, somebody thaws it."""
    scene, chief = await a_scene(runtime), await the_chief(runtime)
    await sends(client, scene, [an_event(1, runtime, text="mine")])
    forked = await sends(client, scene, [an_event(1, runtime, text="the clone's")])
    assert forked["results"][0] == {
        "event_id": "e1",
        "seq": 1,
        "status": "quarantined",
        "reason": "conflict",
    }
    (entry,) = await rows(runtime, JournalEntry)
    (kept,) = await rows(runtime, QuarantinedEvent)
    assert (entry.body["text"], kept.body["event"]["text"]) == ("mine", "the clone's")
    assert AlertKind.CLONE in await alerts(runtime)
    headers = scene.worker.headers | {"Idempotency-Key": "k"}
    scan = await client.post("/v1/scans", json={"token": scene.poster}, headers=headers)
    assert scan.json()["reason"] == "controller_offline"
    controller = f"/v1/admin/controllers/{scene.controller_id}"
    thawed = await client.post(f"{controller}/thaw", headers=chief.headers)
    assert thawed.json()["frozen_at"] is None
    assert AlertKind.CLONE not in await alerts(runtime)
    # Its answer was lost and it comes again: somebody has looked at that already.
    await sends(client, scene, [an_event(1, runtime, text="the clone's")])
    assert AlertKind.CLONE not in await alerts(runtime)
    await pulses(client, runtime, scene, key="k2")


@pytest.mark.parametrize("is_same", [True, False])
async def test_a_number_that_stood_in_quarantine_with_another_content_is_a_clone(
    runtime: Runtime,
    client: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    is_same: bool,
) -> None:
    scene = await a_scene(runtime)
    event = an_event(1, runtime, type="door_opened", door=str(scene.door.id))

    async def none_yet(*_args: object) -> set[str]:
        return set()

    with monkeypatch.context() as patch:
        patch.setattr(journal, "_ids", none_yet)
        assert statuses(await sends(client, scene, [event])) == ["quarantined"]
    again = event if is_same else an_event(1, runtime, text="mine")
    assert statuses(await sends(client, scene, [again])) == ["accepted"]
    assert (AlertKind.CLONE in await alerts(runtime)) is not is_same


async def test_two_boots_that_take_turns_are_a_clone(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)

    async def polls(boot: str) -> None:
        params = {"wait": 0, "boot_id": boot}
        await client.get("/v1/controller/commands", params=params, headers=scene.controller_headers)

    for boot in ("a", "a", "b", "a", "b", "c", "b", "c"):  # Two reboots, each with a late packet.
        await polls(boot)
    await runtime.controllers.boots.write(runtime.database, runtime.wakeups, at=runtime.now())
    assert await alerts(runtime) == {}
    for boot in ("b", "c"):
        await polls(boot)
    await runtime.controllers.boots.write(runtime.database, runtime.wakeups, at=runtime.now())
    assert AlertKind.CLONE in await alerts(runtime)
    (controller,) = await rows(runtime, Controller)
    assert controller.frozen_at is not None


@pytest.mark.parametrize(
    "database_url", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)
async def test_two_boots_are_a_clone_though_each_speaks_to_another_process(
    client: httpx.AsyncClient, runtime: Runtime, settings: Settings, clock: Clock
) -> None:
    scene, chief = await a_scene(runtime), await the_chief(runtime)
    other = create_app(settings, now=clock.now, monotonic=clock.monotonic, run_jobs=False)
    transport = httpx.ASGITransport(other)
    async with (
        other.router.lifespan_context(other),
        httpx.AsyncClient(transport=transport, base_url="http://testserver") as there,
    ):

        async def take_turns(*boots: str) -> bool:
            for boot in boots:
                own = boot == "a"
                await (client if own else there).get(
                    "/v1/controller/commands",
                    params={"wait": 0, "boot_id": boot},
                    headers=scene.controller_headers,
                )
                held: Runtime = runtime if own else other.state.runtime
                await held.controllers.boots.write(held.database, held.wakeups, at=held.now())
            return AlertKind.CLONE in await alerts(runtime)

        assert not await take_turns("a", "b", "a", "b", "a")
        assert await take_turns("b")
        assert await take_turns("a", "b")
        path = f"/v1/admin/controllers/{scene.controller_id}/thaw"
        assert (await client.post(path, headers=chief.headers)).status_code == 200
        # Whoever thawed it has looked: at both processes it begins anew.
        assert not await take_turns("b", "a", "b", "a", "b")
        assert await take_turns("a")


async def test_boots_whose_row_is_held_are_written_the_next_time(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    """Or two processes that write down many would wait for each other for ever."""
    scene, other = await a_scene(runtime), await a_scene(runtime)
    watch, held = BootWatch(), [] if runtime.database.is_embedded else [scene.controller_id]

    async def written() -> set[Any]:
        await watch.write(runtime.database, runtime.wakeups, at=runtime.now())
        return {row.id for row in await rows(runtime, Controller) if row.boots}

    for each in (scene, other):
        watch.hear(each.controller_id, "a", last=None)
    if held:
        async with runtime.database.write() as tx:
            locked = sa.select(Controller.id).where(Controller.id.in_(held))
            await tx.execute(locked.with_for_update(key_share=True))
            assert await written() == {other.controller_id}
    watch.hear(scene.controller_id, "b", last=None)
    assert await written() == {scene.controller_id, other.controller_id}
    found = {row.id: row.boots["heard"] for row in await rows(runtime, Controller)}
    assert found == {scene.controller_id: ["a", "b"], other.controller_id: ["a"]}


@pytest.mark.parametrize("at_once", [1, 200])
async def test_boots_that_the_database_refuses_keep_back_nobody_elses(
    client: httpx.AsyncClient,
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
) -> None:
    """A NUL is a text that PostgreSQL keeps in no JSON."""
    scenes = [await a_scene(runtime) for _ in range(5)]
    watch = BootWatch()
    monkeypatch.setattr(clones, "AT_ONCE", at_once)
    poisoned = sorted(scene.controller_id for scene in scenes)[2]
    for scene in scenes:
        boot = "a\x00" if scene.controller_id == poisoned else "a"
        watch.hear(scene.controller_id, boot, last=None)
    for _ in range(2):
        await watch.write(runtime.database, runtime.wakeups, at=runtime.now())
        heard = {row.id for row in await rows(runtime, Controller) if row.boots}
        assert heard >= {scene.controller_id for scene in scenes} - {poisoned}


async def test_a_poll_that_waits_while_another_boot_speaks_is_no_return(
    client: httpx.AsyncClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last poll of a dead boot still waits at another process, and a bell has it look again."""
    scene = await a_scene(runtime)

    async def polls(boot: str, wait: int) -> None:
        params = {"wait": wait, "boot_id": boot}
        await client.get("/v1/controller/commands", params=params, headers=scene.controller_headers)

    looks, looked, times = runtime.lookout.ask, asyncio.Event(), itertools.count(1)

    async def look_and_tell(*args: Any, **more: Any) -> Any:
        next(times)
        found = await looks(*args, **more)
        looked.set()
        return found

    await polls("a", wait=0)
    await runtime.controllers.boots.write(runtime.database, runtime.wakeups, at=runtime.now())
    monkeypatch.setattr(runtime.lookout, "ask", look_and_tell)
    waiting = asyncio.create_task(polls("a", wait=2))
    await looked.wait()
    async with runtime.database.write() as tx:
        at = runtime.now()
        assert await clones.note(tx, runtime.wakeups, {scene.controller_id: ["b"]}, at=at)
        await runtime.wakeups.wake(tx, f"controller:{scene.controller_id}")
    await waiting
    assert next(times) >= 3  # Two bells that ring apart are two more looks.
    await runtime.controllers.boots.write(runtime.database, runtime.wakeups, at=runtime.now())
    (controller,) = await rows(runtime, Controller)
    assert controller.boots == {"heard": ["a", "b"], "returned": []}


async def test_a_command_granted_before_the_freeze_is_not_claimed_after_it(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)
    headers = scene.worker.headers | {"Idempotency-Key": "k"}
    await client.post("/v1/scans", json={"token": scene.poster}, headers=headers)
    poll = await client.get(
        "/v1/controller/commands", params={"wait": 0}, headers=scene.controller_headers
    )
    (command,) = poll.json()["commands"]
    await sends(client, scene, [an_event(1, runtime, text="a")])
    await sends(client, scene, [an_event(1, runtime, text="b")])
    claimed = await client.post(
        f"/v1/controller/commands/{command['id']}/claim",
        json={"boot_id": "b", "nonce": "n"},
        headers=scene.controller_headers,
    )
    assert (claimed.status_code, claimed.json()["code"]) == (410, "command_refused")


async def test_at_a_door_with_a_contact_the_visit_begins_when_the_door_opened(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    await with_contact(runtime, scene)
    scan_id = await pulses(client, runtime, scene)
    assert await state_of(client, scene, scan_id) == "executed"
    assert await rows(runtime, Visit) == []
    clock.advance(4)
    await sends(
        client,
        scene,
        [an_event(1, runtime, "door_opened", door=str(scene.door.id), mono_ms=9_000)],
        mono_ms=9_000,
    )
    assert await state_of(client, scene, scan_id) == "opened"
    (visit,) = await rows(runtime, Visit)
    assert visit.started_at == runtime.now()


async def test_late_evidence_opens_the_visit_at_its_own_time_and_an_old_opening_none(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    await with_contact(runtime, scene)
    began = runtime.now()
    scan_id = await pulses(client, runtime, scene)
    clock.advance(3_600)
    door = str(scene.door.id)

    def moved(seq: int, type: str, seconds: int) -> dict[str, Any]:
        """Say what the contact did so many seconds after the pulse; the clock is right."""
        at = (began + timedelta(seconds=seconds)).isoformat()
        return an_event(seq, runtime, type, door=door) | {"occurred_at": at}

    sent_at = runtime.now().isoformat()
    early = [moved(1, "door_opened", -300), moved(2, "door_closed", -200)]
    await sends(client, scene, early, sent_at=sent_at)
    assert await rows(runtime, Visit) == []
    opened = [moved(3, "door_opened", 5), moved(4, "door_closed", 9)]
    await sends(client, scene, opened, sent_at=sent_at)
    (visit,) = await rows(runtime, Visit)
    assert visit.started_at == began + timedelta(seconds=5)
    assert await state_of(client, scene, scan_id) == "opened"
    assert {row.effect for row in await rows(runtime, JournalEntry)} == {
        "unmatched",
        "closed",
        "opened:1",
    }


async def test_a_door_that_stands_open_already_lets_him_in_at_the_pulse(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    await with_contact(runtime, scene)
    event = an_event(1, runtime, "door_opened", door=str(scene.door.id), mono_ms=1)
    await sends(client, scene, [event], mono_ms=1)
    clock.advance(60)
    scan_id = await pulses(client, runtime, scene)
    assert await state_of(client, scene, scan_id) == "opened"
    (visit,) = await rows(runtime, Visit)
    (command,) = await rows(runtime, Command)
    assert visit.started_at == command.pulsed_at == command.opened_at


async def test_a_door_that_shut_while_its_box_was_off_is_not_open_to_the_next_pulse(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    await with_contact(runtime, scene)
    door = str(scene.door.id)
    await sends(client, scene, [an_event(1, runtime, "door_opened", door=door, mono_ms=1)])
    await sends(client, scene, [an_event(2, runtime, "door_held", door=door, mono_ms=2)])
    clock.advance(60)
    found = an_event(3, runtime, "door_closed", door=door, mono_ms=1, at_start=True)
    await sends(client, scene, [found], boot_id="b2", mono_ms=1)
    assert await alerts(runtime) == {}
    clock.advance(60)
    scan_id = await pulses(client, runtime, scene)
    assert await state_of(client, scene, scan_id) == "executed"
    assert await rows(runtime, Visit) == []


async def test_a_door_that_a_box_found_open_proves_only_pulses_after_that(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    await with_contact(runtime, scene)
    door = str(scene.door.id)
    before = await pulses(client, runtime, scene)
    clock.advance(4)
    found = an_event(1, runtime, "door_opened", door=door, mono_ms=1, at_start=True)
    await sends(client, scene, [found], boot_id="b2", mono_ms=1)
    assert await state_of(client, scene, before) == "executed"
    assert (await alerts(runtime), await rows(runtime, Visit)) == ({}, [])
    clock.advance(60)
    after = await pulses(client, runtime, scene, "k2")
    assert await state_of(client, scene, after) == "opened"
    (command,) = [row for row in await rows(runtime, Command) if row.opened_at is not None]
    assert command.opened_at == command.pulsed_at


async def test_a_closing_told_after_the_pulse_shows_that_nobody_went_in(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    """The door fell shut before the pulse, and word of it was still on its way."""
    scene = await a_scene(runtime)
    await with_contact(runtime, scene)
    door = str(scene.door.id)
    opened = an_event(1, runtime, "door_opened", door=door, mono_ms=1)
    await sends(client, scene, [opened], mono_ms=1)
    closed = an_event(2, runtime, "door_closed", door=door, mono_ms=5_001)
    clock.advance(60)
    scan_id = await pulses(client, runtime, scene)
    assert await inside(runtime, scene) == 1
    clock.advance(30)
    await sends(client, scene, [closed], mono_ms=90_001)
    assert await inside(runtime, scene) == 0
    (visit,) = await rows(runtime, Visit)
    assert (visit.voided_at, visit.void_because) == (runtime.now(), VoidBecause.NOT_OPENED)
    assert visit.ended_at == visit.started_at
    assert await state_of(client, scene, scan_id) == "executed"
    seen = await client.get("/v1/me/visits", headers=scene.worker.headers)
    assert seen.json() == []


async def test_who_came_back_to_a_visit_that_never_was_is_counted_as_a_visit(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    """He pulses, says that he leaves, comes back; then it turns out that nothing had opened."""
    scene = await a_scene(runtime)
    await with_contact(runtime, scene)
    door = str(scene.door.id)
    opened = an_event(1, runtime, "door_opened", door=door, mono_ms=1)
    await sends(client, scene, [opened], mono_ms=1)
    clock.advance(60)
    await pulses(client, runtime, scene)
    (never,) = await rows(runtime, Visit)
    clock.advance(180)
    left = await client.post(f"/v1/visits/{never.id}/leave", headers=scene.worker.headers)
    assert left.status_code == 200
    clock.advance(300)
    polls = {"params": {"wait": 0}, "headers": scene.controller_headers}
    await client.get("/v1/controller/commands", **polls)
    await pulses(client, runtime, scene, "k2")
    (back,) = [row for row in await rows(runtime, Visit) if row.id != never.id]
    assert back.re_entry
    clock.advance(60)
    late = [
        an_event(2, runtime, "door_closed", door=door, mono_ms=5_001),
        an_event(3, runtime, "door_opened", door=door, mono_ms=500_001),
    ]
    await sends(client, scene, late, mono_ms=600_001)
    found = {row.id: row for row in await rows(runtime, Visit)}
    assert found[never.id].voided_at == runtime.now()
    assert (found[back.id].started_at, found[back.id].re_entry) == (back.started_at, False)
    assert found[back.id].changed_at == runtime.now()


async def inside(runtime: Runtime, scene: Scene) -> int:
    async with runtime.database.read() as tx:
        counted = await occupancy.inside_by_station(tx, [scene.station.id], at=runtime.now())
    return counted[scene.station.id]


async def test_an_opening_told_while_its_pulse_is_written_down_still_begins_the_visit(
    client: httpx.AsyncClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R08: the ack looked at the contact before the opening came, and is not committed yet."""
    scene = await a_scene(runtime)
    await with_contact(runtime, scene)
    event = an_event(1, runtime, type="door_opened", door=str(scene.door.id), mono_ms=1)
    looks, telling = contacts.intervals, list[asyncio.Task[Any]]()

    async def look_and_linger(*args: Any, **more: Any) -> Any:
        found = await looks(*args, **more)
        if not telling:
            telling.append(asyncio.create_task(sends(client, scene, [event], mono_ms=1)))
            await asyncio.wait(telling, timeout=1)
        return found

    monkeypatch.setattr(contacts, "intervals", look_and_linger)
    scan = await pulses(client, runtime, scene)
    assert statuses(await telling[0]) == ["accepted"]
    assert await state_of(client, scene, scan) == "opened"


@pytest.mark.parametrize("number", range(24))
async def test_whatever_a_contact_tells_first_the_visit_is_the_same(
    client: httpx.AsyncClient,
    runtime: Runtime,
    clock: Clock,
    number: int,
) -> None:
    """Open and shut before the pulse, open and shut after it; told in every order."""
    order = list(itertools.permutations(range(4)))[number]
    leaves, consented = bool(number % 2), number % 4 < 2
    scene = await a_scene(runtime)
    async with runtime.database.write() as tx:
        someone = await a_worker(tx, runtime, at=runtime.now(), consented=consented)
    scene = dataclasses.replace(scene, worker=someone)
    await with_contact(runtime, scene)
    door = str(scene.door.id)
    began = runtime.now()
    told = [
        an_event(1, runtime, "door_opened", door=door, mono_ms=1_000),
        an_event(2, runtime, "door_closed", door=door, mono_ms=5_000),
        an_event(3, runtime, "door_opened", door=door, mono_ms=63_000),
        an_event(4, runtime, "door_closed", door=door, mono_ms=66_000),
    ]
    clock.advance(60)
    # What was known before the pulse, at it, and after it.
    early = [one for one in order[:1] if one < 2]
    for one in early:
        await sends(client, scene, [told[one]], mono_ms=60_000)
    scan_id = await pulses(client, runtime, scene)
    clock.advance(20)
    visits = [row for row in await rows(runtime, Visit) if row.voided_at is None]
    if leaves and visits:
        path = f"/v1/visits/{visits[0].id}/leave"
        left = await client.post(path, headers=scene.worker.headers)
        assert left.status_code == 200
    for one in order[len(early) :]:
        await sends(client, scene, [told[one]], mono_ms=80_000)
    (visit,) = [row for row in await rows(runtime, Visit) if row.voided_at is None]
    assert visit.started_at == began + timedelta(seconds=63)
    has_left = leaves and bool(visits)
    assert visit.ended_at == (runtime.now() if has_left else None)
    assert await inside(runtime, scene) == (0 if has_left else 1)
    assert await state_of(client, scene, scan_id) == "opened"


async def test_one_opening_serves_every_pulse_it_follows(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    await with_contact(runtime, scene)
    await pulses(client, runtime, scene)
    async with runtime.database.write() as tx:
        mate = await a_worker(tx, runtime, at=runtime.now())
    second = Scene(
        scene.station, scene.door, scene.poster, scene.controller_id, scene.credential, mate
    )
    clock.advance(3)
    await pulses(client, runtime, second)
    clock.advance(2)
    event = an_event(1, runtime, "door_opened", door=str(scene.door.id), mono_ms=1)
    await sends(client, scene, [event], mono_ms=1)
    assert [row.started_at for row in await rows(runtime, Visit)] == [runtime.now()] * 2


async def test_a_door_that_never_opens_is_noticed_at_the_third_pulse(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    await with_contact(runtime, scene)
    for number in range(3):
        async with runtime.database.write() as tx:
            await watch.not_opened(tx, at=runtime.now())
        assert await alerts(runtime) == {}
        async with runtime.database.write() as tx:
            worker = await a_worker(tx, runtime, at=runtime.now())
        each = Scene(
            scene.station, scene.door, scene.poster, scene.controller_id, scene.credential, worker
        )
        await pulses(client, runtime, each, key=str(number))
        clock.advance(40)
        (controller,) = await rows(runtime, Controller)
        runtime.controllers.heard(controller.id, runtime.now())
    async with runtime.database.write() as tx:
        await watch.not_opened(tx, at=runtime.now())
    assert (await alerts(runtime))[AlertKind.NOT_OPENED].detail == {"times": 3}
    assert await rows(runtime, Visit) == []
    # Looking again is no news; another vain pulse is.
    async with runtime.database.write() as tx:
        await watch.not_opened(tx, at=runtime.now())
    assert (await alerts(runtime))[AlertKind.NOT_OPENED].count == 1
    await pulses(client, runtime, scene, key="fourth")
    clock.advance(40)
    async with runtime.database.write() as tx:
        await watch.not_opened(tx, at=runtime.now())
    found = (await alerts(runtime))[AlertKind.NOT_OPENED]
    assert (found.count, found.last_at) == (2, runtime.now() - timedelta(seconds=40))
    # Nor is it news once somebody closed it.
    await closes(client, runtime, AlertKind.NOT_OPENED)
    async with runtime.database.write() as tx:
        await watch.not_opened(tx, at=runtime.now())
    assert await alerts(runtime) == {}


async def test_vain_pulses_are_counted_since_the_door_last_opened(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    await with_contact(runtime, scene)

    async def tries(number: int, opens: bool = False) -> None:
        async with runtime.database.write() as tx:
            worker = await a_worker(tx, runtime, at=runtime.now())
        each = Scene(
            scene.station, scene.door, scene.poster, scene.controller_id, scene.credential, worker
        )
        await pulses(client, runtime, each, key=str(number))
        if opens:
            for seq, type in ((1, "door_opened"), (2, "door_closed")):
                clock.advance(1)
                event = an_event(seq, runtime, type, door=str(scene.door.id), mono_ms=seq)
                await sends(client, scene, [event], mono_ms=seq)
        clock.advance(40)
        runtime.controllers.heard(scene.controller_id, runtime.now())
        async with runtime.database.write() as tx:
            await watch.not_opened(tx, at=runtime.now())

    await tries(0)
    await tries(1)
    await tries(2, opens=True)
    await tries(3)
    await tries(4)
    assert await alerts(runtime) == {}
    await tries(5)
    assert (await alerts(runtime))[AlertKind.NOT_OPENED].detail == {"times": 3}


@pytest.mark.parametrize("ack", ["failed", "refused", None])
async def test_a_door_that_stays_shut_is_noticed_whatever_hinders_it(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock, ack: str | None
) -> None:
    """A relay that fails, a link that is too slow: also at a door without a contact."""
    scene = await a_scene(runtime)
    for _ in range(3):
        async with runtime.database.write() as tx:
            worker = await a_worker(tx, runtime, at=runtime.now())
        headers = worker.headers | {"Idempotency-Key": "k"}
        scan = await client.post("/v1/scans", json={"token": scene.poster}, headers=headers)
        assert scan.json()["outcome"] == "granted", scan.text
        if ack is not None:
            poll = await client.get(
                "/v1/controller/commands", params={"wait": 0}, headers=scene.controller_headers
            )
            (command,) = poll.json()["commands"]
            path = f"/v1/controller/commands/{command['id']}"
            claim = {"boot_id": "b", "nonce": "n"}
            await client.post(f"{path}/claim", json=claim, headers=scene.controller_headers)
            said = {"boot_id": "b", "result": ack}
            await client.post(f"{path}/ack", json=said, headers=scene.controller_headers)
        clock.advance(40)
        runtime.controllers.heard(scene.controller_id, runtime.now())
    async with runtime.database.write() as tx:
        await watch.not_opened(tx, at=runtime.now())
    assert (await alerts(runtime))[AlertKind.NOT_OPENED].detail == {"times": 3}


async def test_what_a_lockdown_refused_is_no_broken_door(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene, chief = await a_scene(runtime), await the_chief(runtime)
    for number in range(3):
        headers = scene.worker.headers | {"Idempotency-Key": str(number)}
        await client.post("/v1/scans", json={"token": scene.poster}, headers=headers)
        at = runtime.now()
        lockdown = {
            "kind": "lockdown",
            "from": at.isoformat(),
            "until": (at + timedelta(seconds=5)).isoformat(),
            "note": "",
        }
        path = f"/v1/admin/stations/{scene.station.id}/overrides"
        assert (await client.post(path, json=lockdown, headers=chief.headers)).status_code == 201
        clock.advance(40)
        runtime.controllers.heard(scene.controller_id, runtime.now())
    assert {row.state.value for row in await rows(runtime, Command)} == {"refused"}
    async with runtime.database.write() as tx:
        await watch.not_opened(tx, at=runtime.now())
    assert AlertKind.NOT_OPENED not in await alerts(runtime)


async def test_forced_and_held_doors_raise_alerts_also_when_told_late(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    door = str(scene.door.id)
    await sends(
        client,
        scene,
        [
            an_event(1, runtime, "door_forced", door=door, mono_ms=0),
            an_event(2, runtime, "door_held", door=door, mono_ms=3_590_000),
        ],
        mono_ms=3_600_000,
    )
    found = await alerts(runtime)
    assert (found[AlertKind.DOOR_FORCED].late, found[AlertKind.DOOR_HELD].late) == (True, False)
    assert found[AlertKind.DOOR_FORCED].opened_at == runtime.now() - timedelta(hours=1)
    closed = an_event(3, runtime, "door_closed", door=door, mono_ms=3_600_000)
    await sends(client, scene, [closed], mono_ms=3_600_000)
    assert AlertKind.DOOR_HELD not in await alerts(runtime)
    assert AlertKind.DOOR_FORCED in await alerts(runtime)  # Somebody must look at that.


@pytest.mark.parametrize("kind", ["door_forced", "door_held"])
async def test_a_door_of_a_free_station_is_neither_forced_nor_held(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock, kind: str
) -> None:
    """A box that was away, or whose clock was unknown, may not have known that it was free."""
    scene = await a_scene(runtime)
    clock.advance(10 * 3600)
    event = an_event(1, runtime, kind, door=str(scene.door.id), mono_ms=3_590_000)
    await sends(client, scene, [event], mono_ms=3_600_000)
    assert await alerts(runtime) == {}
    assert [row.effect for row in await rows(runtime, JournalEntry)] == ["free"]


async def test_a_door_that_was_forced_at_an_unknown_time_is_told_in_free_hours_too(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    clock.advance(10 * 3600)
    event = an_event(1, runtime, "door_forced", door=str(scene.door.id))
    await sends(client, scene, [event], mono_ms=None, sent_at=None)
    assert AlertKind.DOOR_FORCED in await alerts(runtime)


@pytest.mark.parametrize("act", ["the door", "the station", "the contact"])
async def test_what_is_wrong_with_a_door_is_over_with_it(
    client: httpx.AsyncClient, runtime: Runtime, act: str
) -> None:
    """Nothing else would ever close those alerts."""
    scene, other, chief = await a_scene(runtime), await a_scene(runtime), await the_chief(runtime)
    await with_contact(runtime, scene)
    kinds = ("door_forced", "door_held", "tamper")
    for each in (scene, other):
        door = str(each.door.id)
        events = [
            an_event(seq, runtime, kind, door=door) | {"event_id": f"{door}{seq}"}
            for seq, kind in enumerate(kinds, start=1)
        ]
        await sends(client, each, [*events, an_event(4, runtime, "tamper")])
        await ticks_wrongly_twice(client, runtime, each)
    path = f"/v1/admin/doors/{scene.door.id}"
    if act == "the contact":
        done = await client.patch(path, json={"has_contact": False}, headers=chief.headers)
    elif act == "the door":
        done = await client.post(f"{path}/retire", headers=chief.headers)
    else:
        path = f"/v1/admin/stations/{scene.station.id}"
        done = await client.post(f"{path}/retire", headers=chief.headers)
    assert done.status_code == 200, done.text
    found = [one for one in await rows(runtime, Alert) if one.closed_at is None]
    assert len([one for one in found if one.station_id == other.station.id]) == 6
    left = {one.subject.split(":")[0] for one in found if one.station_id == scene.station.id}
    assert (
        left
        == {
            "the door": {"controller"},  # The box is still there.
            "the station": set(),
            "the contact": {"door", "controller"},
        }[act]
    )
    ours = [one.kind for one in found if one.station_id == scene.station.id]
    assert set(ours) <= {AlertKind.TAMPER, AlertKind.CLONE, AlertKind.CLOCK_SKEW}


async def ticks_wrongly_twice(client: httpx.AsyncClient, runtime: Runtime, scene: Scene) -> None:
    """Let a controller's clock be wrong, and two devices speak for it."""
    ahead = (runtime.now() + timedelta(seconds=90)).isoformat()
    await sends(client, scene, [], sent_at=ahead)
    async with runtime.database.write() as tx:
        detail = {"by": "boots"}
        await clones.found(
            tx, runtime.wakeups, scene.controller_id, detail=detail, at=runtime.now()
        )


async def closes(client: httpx.AsyncClient, runtime: Runtime, kind: AlertKind) -> None:
    """Let somebody close an alert by hand."""
    chief, found = await the_chief(runtime), (await alerts(runtime))[kind]
    done = await client.post(f"/v1/admin/alerts/{found.id}/close", headers=chief.headers)
    assert done.status_code == 200, done.text


async def test_a_silence_that_somebody_closed_opens_again_only_by_another(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    clock.advance(76)
    await looks(runtime)
    await closes(client, runtime, AlertKind.CONTROLLER_SILENT)
    clock.advance(15)
    await looks(runtime)
    assert await alerts(runtime) == {}
    await is_heard(runtime, clock, scene, minutes=1)
    clock.advance(76)
    await looks(runtime)
    assert (await alerts(runtime))[AlertKind.CONTROLLER_SILENT].count == 1


async def test_what_a_contact_tells_late_neither_ends_nor_begins_a_holding_of_now(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    """T25."""
    scene = await a_scene(runtime)

    async def tells(seq: int, type: str, *, mono_ms: int) -> bool:
        event = an_event(seq, runtime, type, door=str(scene.door.id), mono_ms=mono_ms)
        await sends(client, scene, [event], mono_ms=3_600_000)
        return AlertKind.DOOR_HELD in await alerts(runtime)

    assert await tells(3, "door_held", mono_ms=3_000_000)
    assert await tells(2, "door_closed", mono_ms=2_000_000)
    assert not await tells(4, "door_closed", mono_ms=3_500_000)
    assert not await tells(1, "door_held", mono_ms=1_000_000)
    assert [row.effect for row in await rows(runtime, JournalEntry) if row.seq == 1] == ["over"]


BACK_AT = "2026-11-23T21:00:00+08:00"
"""What a box without a battery clock shows when it starts after a power cut: the last it kept."""


def of_last_night(
    seq: int, type: str, scene: Scene, *, noted: datetime | None = None, minute: int = 5
) -> dict[str, Any]:
    """Say what a boot that a power cut ended had seen, by a wall clock that then went back."""
    event = {
        "event_id": f"e{seq}",
        "seq": seq,
        "type": type,
        "boot_id": "a",
        "door": str(scene.door.id),
        "occurred_at": f"2026-11-23T21:{minute:02}:00+08:00",
        "mono_ms": 77_000 + minute * 60_000,
    }
    if noted is not None:
        event |= {"server_time": noted.isoformat(), "error_ms": 620}
    return event


async def test_what_happened_before_a_power_cut_stands_at_the_time_the_box_knew_then(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    """R17: the wall clock stopped for ten hours, and nobody knows how long the box was off."""
    scene = await a_scene(runtime)
    happened = runtime.now()
    clock.advance(10.5 * 3600)
    events = [of_last_night(1, "note", scene, noted=happened), of_last_night(2, "note", scene)]
    await sends(client, scene, events, boot_id="b", mono_ms=60_000, sent_at=BACK_AT)
    known, unknown = sorted(await rows(runtime, JournalEntry), key=lambda row: row.seq)
    assert (known.corrected_at, known.error_ms, known.quality) == (happened, 620, Quality.NOTED)
    assert (unknown.error_ms, unknown.quality) == (None, Quality.WALL)
    assert (known.late, unknown.late) == (True, True)


async def test_what_happened_at_an_unknown_time_is_about_no_pulse_of_now(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    """Law 11: by the wall clock alone the door would have opened just as he pulses."""
    scene = await a_scene(runtime, staffed_hours=None)
    await with_contact(runtime, scene)
    clock.advance(10.5 * 3600 - 2)
    await sends(client, scene, [])  # Its link is back.
    before = await pulses(client, runtime, scene)
    clock.advance(2)
    events = [of_last_night(1, "door_opened", scene), of_last_night(2, "door_forced", scene)]
    await sends(client, scene, events, boot_id="b", mono_ms=60_000, sent_at=BACK_AT)
    opened = next(row for row in await rows(runtime, JournalEntry) if row.seq == 1)
    assert (opened.corrected_at, opened.effect) == (runtime.now(), "unmatched")
    assert await state_of(client, scene, before) == "executed"
    clock.advance(60)
    after = await pulses(client, runtime, scene, "k2")
    assert await state_of(client, scene, after) == "executed"
    assert await rows(runtime, Visit) == []
    # Somebody should look, and is told that it is no news of now.
    assert (await alerts(runtime))[AlertKind.DOOR_FORCED].late


async def test_a_closing_at_an_unknown_time_ends_no_holding_that_was_told_after_it(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime, staffed_hours=None)

    async def tells(*events: dict[str, Any]) -> bool:
        clock.advance(60)
        await sends(client, scene, [*events], boot_id="b", mono_ms=600_000, sent_at=BACK_AT)
        return AlertKind.DOOR_HELD in await alerts(runtime)

    door = str(scene.door.id)
    held = an_event(9, runtime, "door_held", door=door, mono_ms=599_000, boot_id="b")
    assert await tells(held)
    assert await tells(of_last_night(2, "door_closed", scene, minute=30))
    assert await tells(of_last_night(1, "door_held", scene, minute=40))
    late = {row.seq: row.effect for row in await rows(runtime, JournalEntry)}
    assert late == {9: "alert:door_held", 2: "closed", 1: "over"}
    assert not await tells(of_last_night(10, "door_closed", scene, minute=1))


async def test_a_door_held_while_its_station_is_free_alarms_nobody(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    """Staffed stations let their doors stand open all day; what held then is what was recorded."""
    scene = await a_scene(runtime)

    async def tells(seq: int, *, ago_s: int = 0) -> tuple[str, bool]:
        door, mono_ms = str(scene.door.id), 10_000_000
        event = an_event(seq, runtime, "door_held", door=door, mono_ms=mono_ms - ago_s * 1000)
        assert statuses(await sends(client, scene, [event], mono_ms=mono_ms)) == ["accepted"]
        (effect,) = [row.effect for row in await rows(runtime, JournalEntry) if row.seq == seq]
        return effect, AlertKind.DOOR_HELD in await alerts(runtime)

    clock.advance(10 * 3600)  # A quarter to ten in the morning: staffed.
    assert await tells(1) == ("free", False)
    clock.advance(600)
    chief, path = await the_chief(runtime), f"/v1/admin/stations/{scene.station.id}"
    amended = await client.patch(path, json={"staffed_hours": None}, headers=chief.headers)
    assert amended.status_code == 200, amended.text
    clock.advance(60)
    assert await tells(2, ago_s=300) == ("free", False)
    assert await tells(3) == ("alert:door_held", True)


async def test_the_config_names_the_facilities_that_events_speak_of(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    """Else nobody could tell a box what to name."""
    scene, chief = await a_scene(runtime), await the_chief(runtime)
    path = "/v1/admin/facilities"

    async def config() -> tuple[str, Any]:
        answer = await client.get("/v1/controller/config", headers=scene.controller_headers)
        return answer.json()["version"], answer.json()["facilities"]

    empty, none = await config()
    microwave = {"station": str(scene.station.id), "kind": "microwave", "name": "微波炉"}
    added = await client.post(path, json=microwave | {"quantity": 1}, headers=chief.headers)
    facility = added.json()["id"]
    version, (named,) = await config()
    assert named == {"id": facility, "kind": "microwave", "name": "微波炉"}
    used = an_event(1, runtime, "facility_use", facility=named["id"], duration_s=60)
    assert (await sends(client, scene, [used]))["results"][0]["status"] == "accepted"
    await client.patch(f"{path}/{facility}", json={"name": "蒸箱"}, headers=chief.headers)
    renamed, (named,) = await config()
    assert named["name"] == "蒸箱"
    await client.post(f"{path}/{facility}/retire", headers=chief.headers)
    gone, after = await config()
    assert (none, after) == ([], [])
    assert len({empty, version, renamed, gone}) == 4


async def test_facilities_report_themselves_and_old_news_changes_nothing(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    async with runtime.database.write() as tx:
        oven = await a_facility(tx, scene.station, at=runtime.now())
    clock.advance(3600)

    def told(seq: int, minutes_ago: int, **more: Any) -> dict[str, Any]:
        at = (runtime.now() - timedelta(minutes=minutes_ago)).isoformat()
        return an_event(seq, runtime, **more) | {"occurred_at": at, "facility": str(oven.id)}

    sent_at = runtime.now().isoformat()
    news = [
        told(1, 10, type="facility_status", status="out_of_order"),
        told(2, 20, type="facility_status", status="degraded"),
        told(3, 30, type="facility_use", duration_s=120),
        told(4, 25, type="facility_use", quantity=1.5),
    ]
    await sends(client, scene, news, sent_at=sent_at)
    await sends(client, scene, news, sent_at=sent_at)
    (facility,) = await rows(runtime, Facility)
    assert facility.status is FacilityStatus.OUT_OF_ORDER
    uses = sorted(await rows(runtime, FacilityUse), key=lambda use: use.begun_at)
    assert [float(use.quantity or 0) for use in uses] == [0, 1.5]
    assert uses[0].ended_at - uses[0].begun_at == timedelta(minutes=2)


async def test_a_clock_that_runs_off_is_noticed_and_forgiven_with_a_margin(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)
    for skew_s, is_open in ((29, False), (31, True), (15, True), (-11, True), (9, False)):
        sent_at = (runtime.now() + timedelta(seconds=skew_s)).isoformat()
        await sends(client, scene, [], sent_at=sent_at)
        assert (AlertKind.CLOCK_SKEW in await alerts(runtime)) is is_open, skew_s


async def test_what_is_no_batch_is_refused_whole_and_a_retired_controller_too(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)
    good = {"boot_id": "b", "epoch": 1, "events": []}
    for bad in (
        {"events": []},
        good | {"events": {}},
        good | {"epoch": -1},
        good | {"epoch": "1"},
        good | {"events": [1] * 501},
        good | {"sent_at": "noon"},
    ):
        answer = await client.post(
            "/v1/controller/events", json=bad, headers=scene.controller_headers
        )
        assert answer.status_code == 422, bad
    big = good | {"events": [{"x": "y" * 300_000}]}
    answer = await client.post("/v1/controller/events", json=big, headers=scene.controller_headers)
    assert answer.status_code == 413
    nobody = await client.post(
        "/v1/controller/events", json=good, headers={"Authorization": "Bearer x"}
    )
    assert nobody.status_code == 401


async def test_silence_and_its_end_are_noticed(runtime: Runtime, clock: Clock) -> None:
    scene = await a_scene(runtime)
    await looks(runtime)
    assert await alerts(runtime) == {}
    last_heard: datetime = runtime.now()
    clock.advance(76)
    await looks(runtime)
    await looks(runtime)
    found = (await alerts(runtime))[AlertKind.CONTROLLER_SILENT]
    assert (found.count, found.opened_at) == (1, last_heard + timedelta(seconds=75))
    await is_heard(runtime, clock, scene, minutes=4)
    clock.advance(58)
    await looks(runtime)
    assert AlertKind.CONTROLLER_SILENT in await alerts(runtime)
    clock.advance(2)
    await looks(runtime)
    assert await alerts(runtime) == {}


async def test_a_link_that_drops_every_other_minute_is_one_alert(
    runtime: Runtime, clock: Clock
) -> None:
    scene = await a_scene(runtime)
    for _ in range(4):
        clock.advance(90)
        await looks(runtime)
        await is_heard(runtime, clock, scene, minutes=2)
        await looks(runtime)
    found = await rows(runtime, Alert)
    assert [(alert.kind, alert.count) for alert in found] == [(AlertKind.CONTROLLER_SILENT, 4)]
    assert found[0].closed_at is None


async def looks(runtime: Runtime) -> None:
    """Look for silent controllers, as the job does."""
    async with runtime.database.write() as tx:
        await watch.silence(tx, after=timedelta(seconds=75), at=runtime.now())


async def is_heard(runtime: Runtime, clock: Clock, scene: Scene, *, minutes: int) -> None:
    """Hear a controller now, and once a minute for so long."""
    for minute in range(minutes + 1):
        clock.advance(60 if minute else 0)
        runtime.controllers.heard(scene.controller_id, runtime.now())
        await runtime.controllers.write_heard(at=runtime.now())


async def test_a_server_that_was_away_itself_calls_nobody_silent_before_it_has_listened(
    client: httpx.AsyncClient, runtime: Runtime, clock: Clock
) -> None:
    """Law 6: after an outage of ours the whole city would raise an alert at once."""
    scene = await a_scene(runtime)
    job = jobs.find("watch-doors")
    assert job is not None
    async with runtime.database.write() as tx:  # The process is new, and what it reads is old.
        controller = await tx.get_one(Controller, scene.controller_id)
        controller.seen_at = runtime.now() - timedelta(hours=1)
    await jobs.run_once(runtime, job)
    assert await alerts(runtime) == {}
    await runtime.controllers.write_heard(at=runtime.now())
    for _ in range(5):
        await jobs.run_once(runtime, job)
        assert await alerts(runtime) == {}
        clock.advance(15)
        await runtime.controllers.write_heard(at=runtime.now())
    await jobs.run_once(runtime, job)
    assert (await alerts(runtime))[AlertKind.CONTROLLER_SILENT].subject == (
        f"controller:{scene.controller_id}"
    )


async def test_a_database_that_was_away_makes_nobody_silent_who_was_heard_meanwhile(
    runtime: Runtime, clock: Clock
) -> None:
    """Nothing could be written down; the process is as old as can be."""
    scene = await a_scene(runtime)
    job = jobs.find("watch-doors")
    assert job is not None
    for _ in range(10):
        clock.advance(15)
        runtime.controllers.heard(scene.controller_id, runtime.now())
        await runtime.controllers.write_heard(at=runtime.now())
    clock.advance(120)
    runtime.controllers.heard(scene.controller_id, runtime.now())
    await jobs.run_once(runtime, job)  # Before what was heard is written.
    assert await alerts(runtime) == {}
    await runtime.controllers.write_heard(at=runtime.now())
    await jobs.run_once(runtime, job)
    assert await alerts(runtime) == {}


async def test_what_was_wrong_with_a_controller_is_over_when_it_is_replaced(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene, chief = await a_scene(runtime), await the_chief(runtime)
    ahead = (runtime.now() + timedelta(seconds=90)).isoformat()
    await sends(client, scene, [an_event(1, runtime, text="a")], sent_at=ahead)
    await sends(client, scene, [an_event(1, runtime, text="b")])
    assert {AlertKind.CLONE, AlertKind.CLOCK_SKEW} <= (await alerts(runtime)).keys()
    path = f"/v1/admin/controllers/{scene.controller_id}/retire"
    assert (await client.post(path, headers=chief.headers)).status_code == 200
    assert (await alerts(runtime)).keys() == {AlertKind.QUARANTINE}


async def test_what_no_database_holds_is_kept_as_well_as_it_can_be(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene = await a_scene(runtime)
    deep: Any = "end"
    for _ in range(40):
        deep = [deep]
    events = [
        an_event(1, runtime, text="a\x00b"),
        an_event(2, runtime, text="half \ud800", number=10**400),
        an_event(3, runtime, text=deep),
        an_event(4, runtime, type="no\x00"),
        "\x00",
    ]
    body = json.dumps({"boot_id": "b", "epoch": 1, "events": [*events, {"x": float("nan")}]})
    answer = await client.post(
        "/v1/controller/events",
        content=body,
        headers=scene.controller_headers | {"Content-Type": "application/json"},
    )
    assert answer.status_code == 200, answer.text
    assert statuses(answer.json()) == ["accepted"] * 3 + ["quarantined"] * 3
    assert (await rows(runtime, JournalEntry))[0].body["text"] == "a\u2400b"


async def test_an_upload_that_finds_no_place_is_put_off_and_loses_nothing(
    runtime: Runtime, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = await a_scene(runtime)
    event = an_event(1, runtime)
    monkeypatch.setattr(line, "WAIT_S", 0)
    places = line.EMBEDDED_UPLOADS if runtime.database.is_embedded else line.UPLOADS
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(places):
            await stack.enter_async_context(runtime.uploads.place())
        answer = await client.post(
            "/v1/controller/events",
            json={"boot_id": "b", "epoch": 1, "events": [event]},
            headers=scene.controller_headers,
        )
    assert (answer.status_code, answer.json()["code"]) == (503, "server_busy")
    assert answer.headers["Retry-After"] == str(line.LEAST_S)
    assert await rows(runtime, JournalEntry) == []
    assert statuses(await sends(client, scene, [event])) == ["accepted"]
