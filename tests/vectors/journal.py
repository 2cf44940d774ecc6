"""Batches of events and their answers: numbers, gaps, losses, epochs, conflicts, clocks."""

from datetime import UTC, datetime, timedelta
from typing import Any

AT = datetime(2026, 11, 23, 15, 40, tzinfo=UTC)
OLD = AT - timedelta(minutes=10)


def _event(seq: Any, type: Any = "note", **more: Any) -> dict[str, Any]:
    """Write an event; a value of `...` leaves the name out."""
    event = {
        "event_id": f"e{seq}",
        "seq": seq,
        "type": type,
        "boot_id": "b",
        "occurred_at": OLD.isoformat(),
    } | more
    return {name: value for name, value in event.items() if value is not ...}


def _step(
    events: list[Any],
    answers: list[str],
    through: int,
    *,
    epoch: int = 1,
    boot: str = "b",
    then: str = "",
) -> dict[str, Any]:
    """One batch and its answer; an answer is a status, with a reason after a colon."""
    results = []
    for event, answer in zip(events, answers, strict=True):
        status, _, reason = answer.partition(":")
        known = event if isinstance(event, dict) else {}
        seq, name = known.get("seq"), known.get("event_id")
        whole = isinstance(seq, int) and not isinstance(seq, bool) and 1 <= seq < 2**53
        usable = isinstance(name, str) and 1 <= len(name) <= 128 and " " not in name
        results.append(
            {
                "event_id": name if usable else "",
                "seq": seq if whole else None,
                "status": status,
                "reason": reason or None,
            }
        )
    step: dict[str, Any] = {
        "body": {"boot_id": boot, "epoch": epoch, "events": events},
        "results": results,
        "acked_through": through,
        "forget": [result["seq"] for result in results if result["seq"] is not None],
    }
    if then:
        step["then"] = then
    return step


def _scenarios() -> list[dict[str, Any]]:
    one, two, three, four = (_event(seq) for seq in (1, 2, 3, 4))
    new = ["accepted"]
    same = ["duplicate"]
    frozen = "the controller is frozen: it is a clone, as far as anybody can tell"
    return [
        {"name": "in order", "steps": [_step([one, two], new * 2, 2), _step([three], new, 3)]},
        {
            "name": "sent again, as a whole and in part",
            "steps": [
                _step([one, two], new * 2, 2),
                _step([one, two], same * 2, 2),
                _step([two, three], [*same, *new], 3),
            ],
        },
        {
            "name": "the same twice in one batch",
            "steps": [_step([one, dict(one)], [*new, *same], 1)],
        },
        {"name": "shuffled", "steps": [_step([three, one, two], new * 3, 3)]},
        {
            "name": "a gap holds the cursor until it is filled",
            "steps": [
                _step([one, three, four], new * 3, 1),
                _step([two], new, 4),
            ],
        },
        {
            "name": "an overflow says what is lost and moves the cursor over it",
            "steps": [
                _step([one], new, 1),
                _step([_event(7)], new, 1),
                _step([_event(8, "overflow", first_seq=2, last_seq=6)], new, 8),
            ],
        },
        {
            "name": "an overflow of an overflow",
            "steps": [
                _step([_event(9, "overflow", first_seq=1, last_seq=5)], new, 5),
                _step([_event(10, "overflow", first_seq=1, last_seq=8)], new, 10),
            ],
        },
        {
            "name": "a new enrolment: the cursor begins before the least number of the first batch",
            "steps": [
                _step([_event(42), _event(41)], new * 2, 42, epoch=3),
                _step([_event(44)], new, 42, epoch=3),
                _step([_event(3, event_id="f3")], new, 0, epoch=4),
            ],
        },
        {
            "name": "a lost journal: a new epoch begins at 1",
            "steps": [
                _step([one, two], new * 2, 2),
                _step([_event(1, event_id="f1")], new, 1, epoch=2),
                _step([three], new, 3),
                _step([_event(2, event_id="f2")], new, 2, epoch=2),
            ],
        },
        {
            "name": "after a reboot, numbers go on and each event names its boot",
            "steps": [
                _step([one], new, 1),
                _step([two, _event(3, boot_id="b2")], new * 2, 3, boot="b2"),
                _step([one], same, 3, boot="b2"),
            ],
        },
        {
            "name": "the same number for another event",
            "steps": [
                _step([one], new, 1),
                _step([_event(1, event_id="other")], ["quarantined:conflict"], 1, then=frozen),
                _step([two], new, 2),
            ],
        },
        {
            "name": "the same id under another number",
            "steps": [
                _step([one], new, 1),
                _step([_event(2, event_id="e1")], ["quarantined:conflict"], 2, then=frozen),
            ],
        },
        {
            "name": "the same number and id with another content",
            "steps": [
                _step([one], new, 1),
                _step([_event(1, text="changed")], ["quarantined:conflict"], 1, then=frozen),
            ],
        },
        {
            "name": "one bad event harms no other, and the cursor passes it",
            "steps": [
                _step(
                    [one, _event(2, "dance"), three],
                    ["accepted", "quarantined:unknown_type", "accepted"],
                    3,
                ),
                _step([_event(2, "dance")], ["quarantined:unknown_type"], 3),
            ],
        },
        {
            "name": "what goes into quarantine, and why",
            "steps": [
                _step([event], [f"quarantined:{why}"], through)
                for event, why, through in (
                    (_event(1, type=...), "unknown_type", 1),
                    (_event(2, occurred_at="yesterday"), "bad_time", 2),
                    (_event(3, occurred_at="2026-11-23T23:40:00"), "bad_time", 3),
                    (_event(4, event_id=""), "bad_event_id", 4),
                    (_event(5, event_id="e 5"), "bad_event_id", 5),
                    (_event(6, boot_id=7), "bad_boot_id", 6),
                    (_event(7, mono_ms=-1), "bad_field", 7),
                    (_event(8, mono_ms="12"), "bad_field", 8),
                    (_event(9, "people_in", count=1001), "bad_field", 9),
                    (_event(10, "overflow", first_seq=5, last_seq=4), "bad_field", 10),
                    (_event(11, "door_opened", door="nobody's"), "unknown_door", 11),
                    (_event(12, "facility_status", status="sad"), "bad_field", 12),
                    (
                        _event(13, "facility_status", status="working", facility="nobody's"),
                        "unknown_facility",
                        13,
                    ),
                    (_event(0, event_id="z0"), "bad_number", 13),
                    (_event("14", event_id="z1"), "bad_number", 13),
                    (_event(True, event_id="z2"), "bad_number", 13),
                    (_event(2**53, event_id="z3"), "bad_number", 13),
                )
            ]
            + [_step(["an event"], ["quarantined:not_an_object"], 13)],
        },
        {
            "name": "fields that nobody knows are kept",
            "steps": [
                _step([_event(1, colour="red", nested={"a": [1, 2]})], new, 1),
                _step([_event(1, colour="red", nested={"a": [1, 2]})], same, 1),
            ],
        },
        {"name": "an empty batch tells the cursor", "steps": [_step([], [], 0)]},
    ]


def _answers() -> list[dict[str, Any]]:
    """Answers no server of ours gives, and what a device may forget then."""
    held = {"event_id": "e1", "seq": 1, "status": "accepted", "reason": None}
    return [
        {
            "name": "an event without a result",
            "answer": {"results": [held], "acked_through": 1},
            "forget": [1],
        },
        {
            "name": "the cursor alone forgets nothing that has no result",
            "answer": {"results": [], "acked_through": 0},
            "forget": [],
        },
        {
            "name": "a status nobody knows",
            "answer": {"results": [held | {"status": "perhaps"}], "acked_through": 0},
            "forget": [],
        },
        {"name": "no results", "answer": {"acked_through": 0}, "forget": []},
        {
            "name": "results that are none",
            "answer": {"results": ["accepted", None, 1], "acked_through": 0},
            "forget": [],
        },
        {
            "name": "a field more",
            "answer": {"results": [held | {"x": 1}], "acked_through": 1, "y": {}},
            "forget": [1],
        },
    ]


def _clock(
    name: str, event: dict[str, Any], sending: dict[str, Any], *, at: datetime, **expect: Any
) -> dict[str, Any]:
    return {
        "name": name,
        "event": {"boot_id": "b", "occurred_at": OLD.isoformat()} | event,
        "sending": {"boot_id": "b", "received_at": AT.isoformat()} | sending,
        "expect": {"at": at.isoformat()} | expect,
    }


def _clocks() -> list[dict[str, Any]]:
    def ago(seconds: float) -> datetime:
        return AT - timedelta(seconds=seconds)

    lost = {"occurred_at": "1970-01-01T00:00:09+00:00"}
    earlier = {"boot_id": "a", "mono_ms": 77_000}
    heard = {"server_time": ago(100).isoformat(), "mono_ms": 500_000, "rtt_ms": 80}
    return [
        _clock(
            "with a sync, whatever the wall clock says",
            lost | {"mono_ms": 540_000},
            {"mono_ms": 600_000, "sync": heard},
            at=ago(59.96),
            error_ms=42,
            quality="synced",
            late=False,
        ),
        _clock(
            "with a sync of an hour ago",
            lost | {"mono_ms": 500_000},
            {"sync": heard | {"server_time": ago(3600).isoformat(), "mono_ms": 0}},
            at=ago(3099.96),
            error_ms=65,
            quality="synced",
            late=True,
        ),
        _clock(
            "without a sync, by the age at sending",
            lost | {"mono_ms": 540_000},
            {"mono_ms": 600_000},
            at=ago(60),
            error_ms=503,
            quality="sent",
            late=False,
        ),
        _clock(
            "told a second later it is late",
            lost | {"mono_ms": 539_000},
            {"mono_ms": 600_000},
            at=ago(61),
            error_ms=503,
            quality="sent",
            late=True,
        ),
        _clock(
            "with a sync that puts the sending an hour after the receipt: our clock was wrong",
            lost | {"mono_ms": 540_000},
            {"mono_ms": 600_000, "sync": heard | {"server_time": ago(-3500).isoformat()}},
            at=ago(60),
            error_ms=503,
            quality="sent",
            late=False,
        ),
        _clock(
            "with a sync that puts the sending an hour before the receipt",
            lost | {"mono_ms": 540_000},
            {"mono_ms": 600_000, "sync": heard | {"server_time": ago(3700).isoformat()}},
            at=ago(60),
            error_ms=503,
            quality="sent",
            late=False,
        ),
        _clock(
            "with a sync that puts the sending 9 s before the receipt: the upload was slow",
            lost | {"mono_ms": 540_000},
            {"mono_ms": 600_000, "sync": heard | {"server_time": ago(109).isoformat()}},
            at=ago(68.96),
            error_ms=42,
            quality="synced",
            late=True,
        ),
        _clock(
            "of an earlier boot, by the time that it noted, whatever the wall clock did",
            lost | earlier | {"server_time": ago(37_800).isoformat(), "error_ms": 620},
            {"mono_ms": 60_000, "sent_at": "2026-11-23T13:01:00+00:00"},
            at=ago(37_800),
            error_ms=620,
            quality="noted",
            late=True,
        ),
        _clock(
            "of an earlier boot that ended just now",
            earlier | {"server_time": ago(30).isoformat(), "error_ms": 620},
            {"mono_ms": 9_000, "sync": heard | {"mono_ms": 0}},
            at=ago(30),
            error_ms=620,
            quality="noted",
            late=False,
        ),
        _clock(
            "of this boot, what it noted is not needed",
            {"mono_ms": 540_000, "server_time": ago(3600).isoformat(), "error_ms": 620},
            {"mono_ms": 600_000},
            at=ago(60),
            error_ms=503,
            quality="sent",
            late=False,
        ),
        _clock(
            "of an earlier boot that noted a time to come: our clock was wrong",
            earlier | {"server_time": ago(-3600).isoformat(), "error_ms": 620},
            {"mono_ms": 600_000, "sent_at": AT.isoformat()},
            at=ago(600),
            error_ms=None,
            quality="wall",
            late=True,
        ),
        _clock(
            "of an earlier boot that noted no error that can be read",
            earlier | {"server_time": ago(900).isoformat(), "error_ms": 0.62},
            {"mono_ms": 600_000, "sent_at": AT.isoformat()},
            at=ago(600),
            error_ms=None,
            quality="wall",
            late=True,
        ),
        _clock(
            "of an earlier boot that noted nothing, by a wall clock that stood still meanwhile",
            earlier | {"occurred_at": ago(9_000).isoformat()},
            {"mono_ms": 60_000, "sent_at": ago(8_970).isoformat()},
            at=ago(30),
            error_ms=None,
            quality="wall",
            late=True,
        ),
        _clock(
            "of this boot by the wall clock alone, which is three hours fast",
            {"occurred_at": ago(600 - 10_800).isoformat()},
            {"mono_ms": 600_000, "sent_at": ago(-10_800).isoformat()},
            at=ago(600),
            error_ms=530,
            quality="wall",
            late=True,
        ),
        _clock(
            "by nothing but its own word",
            {},
            {},
            at=OLD,
            error_ms=None,
            quality="unknown",
            late=True,
        ),
        _clock(
            "never after it was received",
            {"mono_ms": 660_000},
            {"mono_ms": 600_000},
            at=AT,
            error_ms=60_000,
            quality="sent",
            late=False,
        ),
    ]


def vectors() -> dict[str, Any]:
    """Give the whole file."""
    return {
        "about": (
            "`scenarios`: one controller each, newly enrolled; every step's `body` goes to"
            " POST /v1/controller/events and is answered 200 with `results` and `acked_through`;"
            " `forget` is what a device forgets on that answer. `answers`: to a batch of the events"
            " 1 and 2 the server says `answer`; a device forgets only `forget` and sends the rest"
            " again. `clocks`: where the server places an event on its own clock, within error_ms"
            " (null: unknown), and whether it is marked `late`; `server_time` and `error_ms` of an"
            " event are what its device knew of our time when it recorded it."
        ),
        "scenarios": _scenarios(),
        "answers": _answers(),
        "clocks": _clocks(),
    }
