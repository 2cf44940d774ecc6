"""Claims and their deadlines: when a relay may pulse, and when it must not."""

from typing import Any


def _try(
    sent_ms: int,
    *,
    answered_ms: int | None = None,
    ttl_ms: int | None = None,
    status: int = 200,
    code: str | None = None,
    ready_ms: int | None = None,
) -> dict[str, Any]:
    """One sending of a claim, its answer, and when the relay could be energised after it.

    `answered_ms` None: no answer came.
    """
    attempt: dict[str, Any] = {"sent_at_ms": sent_ms, "answered_at_ms": answered_ms}
    if answered_ms is None:
        return attempt
    attempt["status"] = status
    if code:
        attempt["code"] = code
    if status == 200:
        attempt["ttl_ms"] = ttl_ms
        attempt["relay_ready_at_ms"] = answered_ms if ready_ms is None else ready_ms
    return attempt


def _told(
    command: str,
    tries: list[dict[str, Any]],
    *,
    result: str | None,
    after_ms: int | None = None,
    told_ms: int = 0,
) -> dict[str, Any]:
    """One telling of a command in a poll; `result` None: nothing is claimed or nothing granted."""
    expect: dict[str, Any] = {"pulse": result == "executed", "ack": result}
    if after_ms is not None:
        expect["pulse_after_claim_ms"] = after_ms
    return {"command": command, "told_at_ms": told_ms, "claims": tries, "expect": expect}


def _one(name: str, *tries: dict[str, Any], result: str | None, after_ms: int | None = None) -> Any:
    return {"name": name, "boots": [[_told("k1", list(tries), result=result, after_ms=after_ms)]]}


def _executed(command: str, *, told_ms: int = 0) -> dict[str, Any]:
    tries = [_try(told_ms, answered_ms=told_ms + 50, ttl_ms=9_000)]
    return _told(command, tries, result="executed", after_ms=50, told_ms=told_ms)


def _not_again(command: str, *, told_ms: int) -> dict[str, Any]:
    return _told(command, [], result=None, told_ms=told_ms)


def vectors() -> dict[str, Any]:
    """Give the whole file."""
    return {
        "about": (
            "What a device does when a poll tells it of a command. Times are milliseconds on its"
            " monotonic clock. `boots`: one list for each boot, in order, of the tellings in it."
            " `claims` are the sendings of the claim, in order; answered_at_ms null: no answer"
            " came. A device chooses itself when to repeat a claim; here it is given. An empty"
            " list: the device must not claim. `expect`: whether the relay pulses, the result of"
            " the ack (null: no ack), and its pulse_after_claim_ms. Within one telling every claim"
            " carries the same boot_id and nonce; no two tellings share a nonce."
        ),
        "vectors": [
            _one("at once", _try(0, answered_ms=50, ttl_ms=9_500), result="executed", after_ms=50),
            _one(
                "a slow answer within the time",
                _try(0, answered_ms=2_900, ttl_ms=3_000),
                result="executed",
                after_ms=2_900,
            ),
            _one(
                "the last millisecond",
                _try(0, answered_ms=100, ttl_ms=2_000, ready_ms=1_999),
                result="executed",
                after_ms=1_999,
            ),
            _one(
                "the deadline itself is too late",
                _try(0, answered_ms=2_000, ttl_ms=2_000),
                result="refused",
            ),
            _one(
                "a millisecond past the deadline",
                _try(0, answered_ms=2_001, ttl_ms=2_000),
                result="refused",
            ),
            _one(
                "the time counts from the sending, not from the answer",
                _try(0, answered_ms=2_500, ttl_ms=2_400),
                result="refused",
            ),
            _one(
                "an answer in time, and a relay that is ready too late",
                _try(0, answered_ms=100, ttl_ms=1_000, ready_ms=1_000),
                result="refused",
            ),
            _one(
                "more time than a command ever has, from a clock that went back: it has 10 s",
                _try(0, answered_ms=50, ttl_ms=3_600_000, ready_ms=9_999),
                result="executed",
                after_ms=9_999,
            ),
            _one(
                "more time than a command ever has, and 10 s are over",
                _try(0, answered_ms=50, ttl_ms=3_600_000, ready_ms=10_000),
                result="refused",
            ),
            _one("no time left", _try(0, answered_ms=10, ttl_ms=0), result="refused"),
            _one(
                "frozen for an hour between sending and answer",
                _try(0, answered_ms=3_600_000, ttl_ms=9_000),
                result="refused",
            ),
            _one(
                "the first answer lost, the second in time: it counts from the second sending",
                _try(0),
                _try(3_500, answered_ms=4_000, ttl_ms=6_000),
                result="executed",
                after_ms=500,
            ),
            _one(
                "the first answer lost, the second too late",
                _try(0),
                _try(3_500, answered_ms=6_500, ttl_ms=3_000),
                result="refused",
            ),
            _one("no answer within 10 s", _try(0), _try(3_500), _try(7_000), result=None),
            _one(
                "a server in trouble, then a grant",
                _try(0, answered_ms=10, status=503, code="database_unavailable"),
                _try(600, answered_ms=700, ttl_ms=9_000),
                result="executed",
                after_ms=100,
            ),
            *(
                _one(
                    f"{status} {code}",
                    _try(0, answered_ms=10, status=status, code=code),
                    result=None,
                )
                for status, code in (
                    (404, "command_not_found"),
                    (409, "claimed_by_another"),
                    (410, "command_expired"),
                    (410, "command_settled"),
                    (410, "command_refused"),
                    (422, "request_invalid"),
                )
            ),
            {
                "name": "told twice in one boot: pulsed once",
                "boots": [[_executed("k1"), _not_again("k1", told_ms=200)]],
            },
            {
                "name": "told again an hour later in the same boot",
                "boots": [[_executed("k1"), _not_again("k1", told_ms=3_600_000)]],
            },
            {
                "name": "refused once, told again",
                "boots": [
                    [
                        _told("k1", [_try(0, answered_ms=2_000, ttl_ms=2_000)], result="refused"),
                        _not_again("k1", told_ms=2_100),
                    ]
                ],
            },
            {
                "name": "two commands one after another",
                "boots": [[_executed("k1"), _executed("k2", told_ms=1_000)]],
            },
            {
                "name": "told again after a reboot: the server says no to the new boot",
                "boots": [
                    [_executed("k1")],
                    [
                        _told(
                            "k1",
                            [_try(0, answered_ms=50, status=410, code="command_settled")],
                            result=None,
                        )
                    ],
                ],
            },
            {
                "name": "claimed, the answer lost, rebooted: the grant belongs to the old boot",
                "boots": [
                    [_told("k1", [_try(0), _try(3_500), _try(7_000)], result=None)],
                    [
                        _told(
                            "k1",
                            [_try(0, answered_ms=50, status=409, code="claimed_by_another")],
                            result=None,
                        )
                    ],
                ],
            },
        ],
    }
