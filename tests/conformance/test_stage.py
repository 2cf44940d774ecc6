"""The played server refuses what the real one refuses; no device is too odd to be judged."""

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest

from app.conformance.examination import Examination
from app.conformance.rules import Outcome, Verdict, numbers_fault
from app.conformance.scenes.order import whole
from app.conformance.stage import Stage
from app.conformance.wire import Request
from app.doors.rules.journal import Range
from app.runtime import Runtime
from tests.support.worlds import a_facility, a_scene

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 23, 15, 40, tzinfo=UTC)
JSON = {"content-type": "application/json"}
COMMAND = f"/v1/controller/commands/{uuid.UUID(int=7)}"
CLAIM = {"boot_id": "b", "nonce": "n"}


class Nobody:
    """Beside these devices stands nobody."""

    async def enter(self, code: str) -> None:
        """See Operator."""

    async def reboot(self) -> bool:
        """See Operator."""
        return False

    async def move_door(self) -> None:
        """See Operator."""


def a_stage() -> Stage:
    return Stage(monotonic=lambda: 0.0, now=lambda: NOW, credentials=["right"])


async def asks(
    stage: Stage,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] = JSON,
    query: str = "",
) -> tuple[int, Any]:
    """Let a device send something; a text or bytes as they are, anything else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"authorization": "Bearer right", **headers}
    asked = dict(parse_qsl(query, keep_blank_values=True))
    answer = await stage(Request(method, path, asked, named, content))
    return answer.status, answer.json


async def judged(stage: Stage) -> dict[str, Verdict]:
    ex = Examination(stage, Nobody())
    await whole(ex)
    return ex.verdicts


@pytest.mark.parametrize(
    ("method", "path", "content", "content_type"),
    [
        ("POST", f"{COMMAND}/claim", json.dumps(CLAIM), "application/json"),
        ("POST", f"{COMMAND}/claim", json.dumps(CLAIM), "application/json; charset=utf-8"),
        ("POST", f"{COMMAND}/claim", json.dumps(CLAIM), "application/vnd.box+json"),
        ("POST", f"{COMMAND}/claim", json.dumps(CLAIM), None),
        ("POST", f"{COMMAND}/claim", json.dumps(CLAIM), "text/plain"),
        ("POST", f"{COMMAND}/claim", json.dumps(CLAIM), "application/x-www-form-urlencoded"),
        ("POST", f"{COMMAND}/claim", "{", "application/json"),
        ("POST", f"{COMMAND}/claim", "", "application/json"),
        ("POST", f"{COMMAND}/claim", "", None),
        ("POST", f"{COMMAND}/claim", "null", "application/json"),
        ("POST", f"{COMMAND}/claim", "[]", "application/json"),
        ("POST", f"{COMMAND}/claim", json.dumps(CLAIM | {"nonce": {}}), "application/json"),
        ("PUT", f"{COMMAND}/claim", json.dumps(CLAIM), "application/json"),
        ("GET", f"{COMMAND}/ack", "", None),
        ("PATCH", "/v1/controller/enrol", "{}", "application/json"),
        ("GET", "/v1/controller/credential", "", None),
        ("POST", "/v1/controller/config", "", None),
        ("POST", "/v1/controller/commands?wait=0", "", None),
        ("GET", "/v1/controller/events", "", None),
        ("GET", "/v1/controller/commands?wait=61", "", None),
        ("GET", "/v1/controller/commands?wait=soon", "", None),
        ("GET", "/v1/controller/commands?wait=0&boot_id=a%00b", "", None),
        ("GET", "/v1/controller/commands?wait=0&boot_id=", "", None),
        ("GET", "/v1/controller/commands?wait=0&config_version=a%20b", "", None),
        ("GET", f"/v1/controller/commands?wait=0&boot_id={'b' * 128}", "", None),
        ("GET", f"/v1/controller/commands?wait=0&boot_id={'b' * 129}", "", None),
    ],
)
async def test_what_is_refused_for_its_form_is_refused_as_by_the_real_server(
    client: httpx.AsyncClient,
    runtime: Runtime,
    method: str,
    path: str,
    content: str,
    content_type: str | None,
) -> None:
    scene = await a_scene(runtime)
    headers = {} if content_type is None else {"content-type": content_type}
    real = await client.request(
        method, path, content=content, headers={**scene.controller_headers, **headers}
    )
    stage = a_stage()
    bare, _, query = path.partition("?")
    status, said = await asks(stage, method, bare, content.encode(), headers, query)
    assert status == real.status_code
    assert (said or {}).get("code") == (real.json() if real.content else {}).get("code")
    verdict = (await judged(stage))["always.valid"]
    assert (verdict.outcome is Outcome.FAIL) == (status in (400, 405, 422))


def an_event(seq: int, type: str = "note", **more: Any) -> dict[str, Any]:
    return {
        "event_id": f"e{seq}",
        "seq": seq,
        "type": type,
        "occurred_at": NOW.isoformat(),
    } | more


async def test_events_are_sorted_as_by_the_real_server(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    scene, stage = await a_scene(runtime), a_stage()
    async with runtime.database.write() as tx:
        facility = await a_facility(tx, scene.station, at=runtime.now())

    def batch(door: str, facility: str) -> list[Any]:
        return [
            an_event(1, door="another"),
            an_event(2, "people_in", door=["another"]),
            an_event(3, "door_opened", door=door),
            an_event(4, "door_opened", door="another"),
            an_event(5, "door_closed"),
            an_event(6, "facility_use", facility=facility),
            an_event(7, "facility_use", facility="another"),
            an_event(8, "facility_status", status="working", door=door),
            an_event(9, "overflow", last_seq=4),
            an_event(10) | {"occurred_at": None},
            an_event(11, event_id=["e"]),
            an_event(1, door="another"),
            an_event(3, "door_opened", door=door, at_start=True),
            an_event(12, event_id="e1"),
            "not an event",
        ]

    told = {"boot_id": "b", "epoch": 1}
    real = await client.post(
        "/v1/controller/events",
        json=told | {"events": batch(str(scene.door.id), str(facility.id))},
        headers=scene.controller_headers,
    )
    _, played = await asks(
        stage,
        "POST",
        "/v1/controller/events",
        told | {"events": batch(stage.door, stage.facility)},
    )
    assert played == real.json()


@pytest.mark.parametrize(
    ("events", "rule", "why"),
    [
        ([an_event(2, "overflow", last_seq=1)], "always.taken", "bad_field"),
        ([an_event(2, "overflow", first_seq=1, last_seq=2**52)], "always.taken", "bad_field"),
        ([an_event(1, event_id=["e"])], "always.taken", "bad_event_id"),
        ([an_event(1, boot_id={"b": 1})], "always.taken", "bad_boot_id"),
        ([an_event(1), an_event(1_700_000_000_000)], "always.numbers", "2 to 1699999999999 "),
        ([an_event(1), an_event(1, text="\ud800")], "always.unchanged", "another content"),
        ([an_event(1, at_start=1), an_event(1, at_start=True)], "always.unchanged", "another"),
        (["no event"], "always.taken", "not_an_object"),
        ([an_event(1, "door_opened")], "always.taken", "unknown_door"),
    ],
)
async def test_however_odd_its_events_are_a_device_is_told_in_a_sentence(
    events: Sequence[Any], rule: str, why: str
) -> None:
    stage = a_stage()
    body = {"boot_id": "b", "epoch": 1, "events": events}
    assert (await asks(stage, "POST", "/v1/controller/events", body))[0] == 200
    verdict = (await judged(stage))[rule]
    assert verdict.outcome is Outcome.FAIL
    assert why in verdict.why
    verdict.why.encode()


async def test_an_overflow_of_any_length_is_no_gap() -> None:
    stage, last = a_stage(), 2**53 - 1
    events = [an_event(1), an_event(last, "overflow", first_seq=2, last_seq=last - 1)]
    body = {"boot_id": "b", "epoch": 1, "events": events}
    _, said = await asks(stage, "POST", "/v1/controller/events", body)
    assert said["acked_through"] == last
    found = await judged(stage)
    assert found["always.numbers"].outcome is found["always.taken"].outcome is Outcome.PASS


async def test_a_sync_that_the_server_goes_without_is_told_as_malformed() -> None:
    stage = a_stage()
    sync = {"server_time": NOW.isoformat(), "mono_ms": 1, "rtt_ms": 700_000}
    body = {"boot_id": "b", "epoch": 1, "events": [an_event(1)], "sync": sync}
    status, said = await asks(stage, "POST", "/v1/controller/events", body)
    assert (status, said["acked_through"]) == (200, 1)
    assert "rtt_ms" in (await judged(stage))["always.valid"].why


@pytest.mark.parametrize(
    ("error_ms", "outcome"), [(620, Outcome.PASS), (0.62, Outcome.FAIL), (None, Outcome.FAIL)]
)
async def test_a_time_in_an_event_that_the_server_leaves_out_is_told_as_malformed(
    error_ms: Any, outcome: Outcome
) -> None:
    stage = a_stage()
    event = an_event(1, server_time=NOW.isoformat(), error_ms=error_ms)
    body = {"boot_id": "b", "epoch": 1, "events": [event]}
    status, said = await asks(stage, "POST", "/v1/controller/events", body)
    assert (status, said["acked_through"]) == (200, 1)
    verdict = (await judged(stage))["always.valid"]
    assert verdict.outcome is outcome
    assert ("error_ms" in verdict.why) is (outcome is Outcome.FAIL)


@pytest.mark.parametrize("odd", [{"a": 1}, ["a"], None, 7])
async def test_a_nonce_or_boot_that_is_no_text_is_told_in_a_sentence(odd: Any) -> None:
    stage = a_stage()
    command = stage.tell()
    path = f"/v1/controller/commands/{command.id}"
    await asks(stage, "POST", f"{path}/claim", CLAIM)
    for body in (CLAIM | {"nonce": odd}, CLAIM | {"boot_id": odd}):
        assert (await asks(stage, "POST", f"{path}/claim", body))[0] == 422
    ack = {"boot_id": odd, "result": "executed"}
    assert (await asks(stage, "POST", f"{path}/ack", ack))[0] == 422
    found = await judged(stage)
    for rule in ("always.valid", "always.granted", "always.nonce"):
        assert found[rule].outcome is Outcome.FAIL
        assert found[rule].why


def test_numbers_are_counted_from_the_least_that_was_told() -> None:
    def one(seq: int) -> tuple[int, Range]:
        return 1, Range(seq, seq)

    assert numbers_fault([one(7), one(6), one(8), one(7)]) == ""
    assert numbers_fault([one(9), (1, Range(2, 6)), one(7), one(8)]) == ""
    assert "number 8 " in numbers_fault([one(9), (1, Range(2, 6)), one(7)])
    assert "number 7 to 8, 10 " in numbers_fault(
        [one(9), one(11), (1, Range(2, 6)), (2, Range(1, 1))]
    )
