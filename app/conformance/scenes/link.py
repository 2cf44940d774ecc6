"""Scenes of the line: enrolment, configuration, credentials, and answers that are odd."""

import asyncio
import contextlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

from app.conformance.examination import (
    PATIENCE_S,
    PERSON_S,
    PORTAL,
    Examination,
    answered,
    lost,
    says,
    stalled,
)
from app.conformance.stage import Command, Seen, Stage, Twist, Usual, problem, what_is_wrong
from app.conformance.wire import Answer

HANGING_S = 60.0
"""How long the answer to a config does not come, in seconds; a device gives up after 10 s."""


def _enlarged(value: Any) -> Any:
    """Add a field nobody knows to every object of an answer."""
    if isinstance(value, dict):
        return {name: _enlarged(inner) for name, inner in value.items()} | {
            "x_new": {"deep": [1, None, {"er": True}]}
        }
    return [_enlarged(inner) for inner in value] if isinstance(value, list) else value


async def _with_unknown_fields(seen: Seen, usual: Usual) -> Answer:
    answer = await usual()
    return replace(
        answer,
        json=None if answer.json is None else _enlarged(answer.json),
        headers={**answer.headers, "X-New": "1"},
    )


# Enrolment and config


async def enrolment(ex: Examination) -> None:
    """Type the code in, lose the first answer."""
    stage = ex.stage
    stage.once("enrol", lost())
    await ex.operator.enter(stage.code)
    tries = await stage.until(lambda: stage.of("enrol"), within_s=PERSON_S)
    if not tries:
        return
    first = tries[0]
    await stage.until(lambda: first.ended_at is not None, within_s=5)
    status = first.answer.status if first.answer else None
    if status == 401:
        ex.failed("enrol.asks", "the code is not the one that was shown")
        return
    fault = f"the request is malformed: {what_is_wrong(first.answer)}"
    ex.judge("enrol.asks", "" if status == 201 else fault)
    again = await stage.until(lambda: stage.of("enrol")[1:], within_s=PATIENCE_S)
    if not again:
        ex.failed("enrol.repeats", f"nothing came within {PATIENCE_S:.0f} s")
        return
    names = ("code", "serial", "nonce")
    bodies = [one.body if isinstance(one.body, dict) else {} for one in (first, again[0])]
    differ = [name for name in names if bodies[0].get(name) != bodies[1].get(name)]
    ex.judge("enrol.repeats", f"another {', '.join(differ)} came" if differ else "")
    called = await stage.until(
        lambda: [one for one in stage.seen if one.kind not in ("enrol", "other")],
        within_s=PATIENCE_S,
    )
    if not called:
        ex.failed("enrol.bearer", "no call came after the enrolment")
        return
    sent = called[0].request.headers.get("authorization", "nothing")
    good = sent == f"Bearer {stage.credentials[-1]}"
    ex.judge("enrol.bearer", "" if good else "Authorization did not carry the newest credential")


async def configs(ex: Examination) -> None:
    """Give a config, change it, and let polls name one that is not there."""
    stage = ex.stage
    named = await _is_named(stage)
    fetched = stage.of("config")
    fault = "" if named else "no poll named the version of the config"
    ex.judge("config.fetched", fault if fetched else "the config was never fetched")
    mark = stage.mark()
    stage.change_config()
    named = await _is_named(stage)
    fetched = stage.of("config", since=mark)
    fault = "" if named else "polls go on naming the old version"
    ex.judge("config.changes", fault if fetched else "the new config was not fetched")
    stage.polled_version = "999999"
    mark = stage.mark()
    stage.ring()
    await asyncio.sleep(10)
    stage.polled_version = None
    count = len(stage.of("poll", since=mark)) + len(stage.of("config", since=mark))
    fault = f"{count} questions came in 10 s" if count > 40 else ""
    ex.judge("config.stale", fault)


async def _is_named(stage: Stage) -> bool:
    """Wait until a poll names the version of the config; says whether one does."""

    def named() -> bool:
        polls = stage.of("poll")
        return bool(polls) and polls[-1].request.query.get("config_version") == stage.version

    return await stage.until(named, within_s=PATIENCE_S)


async def config_trouble(ex: Examination) -> None:
    """Change the config and do not give it: refuse it first, then let it wait for an answer."""
    stage, before = ex.stage, f'"{ex.stage.version}"'
    if not await _is_named(stage):
        return
    fault, again = await _without_config(ex, says(problem(503, "server_busy")))
    ex.judge("config.trouble", fault)
    if again is None:
        ex.not_seen("config.kept", "it was not fetched again")
    else:
        sent = again.request.headers.get("if-none-match", "nothing")
        ex.judge("config.kept", "" if sent == before else f"If-None-Match carried {sent}")
    if await ex.calm() and await _is_named(stage):
        fault, _ = await _without_config(ex, stalled(HANGING_S))
        ex.judge("config.hangs", fault)


async def _without_config(ex: Examination, twist: Twist) -> tuple[str, Seen | None]:
    """Say what a device did wrong while its config was not given; and how it was asked for then."""
    stage, mark = ex.stage, ex.stage.mark()
    with stage.standing("config", twist):
        stage.change_config()
        if not await stage.until(lambda: stage.of("config", since=mark), within_s=PATIENCE_S):
            return "the new config was not fetched", None
        _, fault = await ex.opens()
    mark = stage.mark()
    again = await stage.until(lambda: stage.of("config", since=mark), within_s=PATIENCE_S)
    if not again:
        return fault or f"it was not fetched again within {PATIENCE_S:.0f} s", None
    return fault, again[0]


async def credential(ex: Examination) -> None:
    """Refuse the credential once."""
    stage = ex.stage
    stage.once("poll", says(problem(401, "credential_refused")))
    stage.change_config()
    told = await stage.until(lambda: answered(stage, 401), within_s=PATIENCE_S)
    if told is None:
        return
    after = await stage.until(lambda: stage.after(told), within_s=180)
    if not after:
        ex.failed("credential.recovers", "no poll came within 180 s")
        return
    pause_s = after[0].at - (told.ended_at or told.at)
    ex.judge("credential.patient", f"it came after {pause_s:.1f} s" if pause_s < 20 else "")
    same = after[0].request.headers.get("authorization") == told.request.headers.get(
        "authorization"
    )
    fault = "" if same else "another credential was tried"
    if stage.of("enrol", since=stage.seen.index(told)):
        fault = "the device tried to enrol again with the code it had used"
    ex.judge("credential.recovers", fault)


# What a device must not mind


async def unknown_fields(ex: Examination) -> None:
    """Answer as a newer server would."""
    stage = ex.stage
    with contextlib.ExitStack() as stack:
        for kind in ("poll", "claim", "ack", "config", "events", "credential"):
            stack.enter_context(stage.standing(kind, _with_unknown_fields))
        stage.change_config()
        version = stage.version
        named = await stage.until(
            lambda: stage.of("poll")[-1].request.query.get("config_version") == version,
            within_s=PATIENCE_S,
        )
        _, fault = await ex.opens()
        ex.judge("unknown.ignored", fault if named else "the config was not taken")


async def wrong_clock(ex: Examination) -> None:
    """Answer with dates that are an hour wrong, both ways."""
    faults = []
    for hours in (1, -1):
        if not await ex.calm():
            return
        ex.stage.skew = timedelta(hours=hours)
        _, fault = await ex.opens()
        faults.append(fault and f"with {hours:+d} h {fault}")
    ex.stage.skew = timedelta(0)
    ex.judge("clock.wrong", "; ".join(filter(None, faults)))


async def odd_polls(ex: Examination) -> None:
    """Ask for a pause, answer as somebody else, never end an answer."""
    stage = ex.stage
    stage.next_poll_ms = 3_000
    command, fault = await ex.opens()
    stage.next_poll_ms = 0
    told = [one for one in stage.of("poll") if _tells(one, command)]
    after = await stage.until(lambda: stage.after(told[0]) if told else [], within_s=PATIENCE_S)
    if not told or not after:
        ex.not_seen("poll.pause", fault or "no poll came")
    else:
        pause_s = after[0].at - (told[0].ended_at or told[0].at)
        wrong = not 2.9 <= pause_s <= 30
        ex.judge("poll.pause", f"it came after {pause_s:.1f} s" if wrong else "")
    for name, twist, what in (
        ("poll.portal", says(Answer(text=PORTAL)), "the device did not poll again"),
        ("poll.trickled", _endless, "the device waits for the end of the answer"),
    ):
        if not await ex.calm():
            return
        stage.once("poll", twist)
        stage.change_config()
        twisted = await stage.until(lambda: not stage.is_due("poll"), within_s=PATIENCE_S)
        last = stage.of("poll")[-1]
        again = await stage.until(
            lambda p=last: stage.after(p),  # type: ignore[misc]
            within_s=75,
        )
        if not twisted:
            ex.not_seen(name, "no poll came")
        else:
            ex.judge(name, "" if again else f"{what}; nothing for 75 s")


def _tells(poll: Seen, command: Command) -> bool:
    answer = poll.answer.json if poll.answer and isinstance(poll.answer.json, dict) else {}
    return command.id in [one["id"] for one in answer.get("commands", [])]


async def _endless(seen: Seen, usual: Usual) -> Answer:
    return Answer(json={"commands": [], "filler": "x" * 200}, over_s=600)
