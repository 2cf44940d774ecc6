"""Scenes of the journal, and of a device that loses its power."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from app.conformance.examination import (
    PATIENCE_S,
    PERSON_S,
    Examination,
    field_of,
    lost,
    says,
    status_of,
    text_of,
)
from app.conformance.rules import (
    most_within,
    same_event,
)
from app.conformance.stage import Command, Seen, Stage, Usual, problem
from app.conformance.wire import Answer
from app.doors.rules.journal import Told

# The journal


async def journal(ex: Examination) -> None:
    """Lose answers to uploads, forget events, quarantine one, refuse large batches."""
    await _repeated_uploads(ex)
    await _held_nothing(ex)
    await _quarantined(ex)
    await _parted(ex)


async def _provoked(ex: Examination, since: int) -> Seen | None:
    """Make the device upload something; by a pulse, else by a person's hand."""
    stage = ex.stage

    def uploaded() -> list[Seen]:
        return [one for one in stage.of("events", since=since) if _numbers(one)]

    await ex.opens()
    found = await stage.until(uploaded, within_s=12)
    if not found:
        await ex.operator.move_door()
        found = await stage.until(uploaded, within_s=60)
    return found[0] if found else None


def _numbers(upload: Seen) -> dict[int, dict[str, Any]]:
    """Give the events of an upload by number, as far as they can be read."""
    return {
        read.seq: {**read.body, "boot_id": read.boot_id}
        for read in upload.events
        if isinstance(read, Told)
    }


async def _comes_again(ex: Examination, upload: Seen) -> str:
    """Wait until every event of an upload came again; gives a fault when they did not."""
    stage = ex.stage

    def again() -> dict[int, dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        for one in stage.after(upload):
            found |= _numbers(one)
        return found

    wanted = _numbers(upload)
    await stage.until(lambda: wanted.keys() <= again().keys(), within_s=PATIENCE_S)
    found = again()
    missing = sorted(wanted.keys() - found.keys())
    if missing:
        return f"number {missing[0]} did not come again within {PATIENCE_S:.0f} s"
    for seq, event in wanted.items():
        if event.get("event_id") != found[seq].get("event_id"):
            return f"number {seq} came again with another event_id"
        if not same_event(event, found[seq]):
            return f"number {seq} came again with another content"
    return ""


NO_EVENTS = "the device recorded no event that can be read"


async def _repeated_uploads(ex: Examination) -> None:
    stage = ex.stage
    trouble = (says(problem(500, "internal_error")), says(problem(503, "database_unavailable")))
    for name, twists in (("journal.repeats", (lost(),)), ("journal.trouble", trouble)):
        if not await ex.calm():
            return
        since = stage.mark()
        stage.once("events", *twists)
        upload = await _provoked(ex, since)
        if upload is None:
            ex.not_seen(name, NO_EVENTS)
        else:
            ex.judge(name, await _comes_again(ex, upload))


async def _held_nothing(ex: Examination) -> None:
    """Answer 200 without a word on any event, the cursor behind."""
    stage = ex.stage
    if not await ex.calm():
        return

    async def behind(seen: Seen, usual: Usual) -> Answer:
        first = min(_numbers(seen), default=1)
        return Answer(json={"results": [], "acked_through": first - 1})

    since = stage.mark()
    with stage.standing("events", behind):
        upload = await _provoked(ex, since)
        if upload is not None:
            await asyncio.sleep(10)
            most = most_within([one.at for one in [upload, *stage.after(upload)]], 10)
    if upload is None:
        ex.not_seen("journal.unsaid", NO_EVENTS)
        ex.not_seen("journal.pace", NO_EVENTS)
        return
    ex.judge("journal.pace", f"{most} uploads came in 10 s" if most > 20 else "")
    ex.judge("journal.unsaid", await _comes_again(ex, upload))


async def _quarantined(ex: Examination) -> None:
    stage = ex.stage
    if not await ex.calm():
        return
    put_away: list[int] = []

    async def quarantine(seen: Seen, usual: Usual) -> Answer:
        answer = await usual()
        if answer.status != 200 or not answer.json["results"]:
            return answer
        first, *rest = answer.json["results"]
        put_away.append(first["seq"])
        first = first | {"status": "quarantined", "reason": "bad_field"}
        return replace(answer, json=answer.json | {"results": [first, *rest]})

    stage.once("events", quarantine)
    upload = await _provoked(ex, stage.mark())
    if upload is None:
        ex.not_seen("journal.quarantine", NO_EVENTS)
        return
    await stage.until(lambda: upload.ended_at is not None, within_s=5)
    since = stage.mark()
    following = await _provoked(ex, since)
    await asyncio.sleep(10)
    uploads = stage.after(upload)
    again = any(seq in _numbers(one) for one in uploads for seq in put_away)
    fault = "" if following else "nothing more was uploaded after it"
    ex.judge("journal.quarantine", "it was sent again" if again else fault)


async def _parted(ex: Examination) -> None:
    """Let events gather, then take one at a time."""
    stage = ex.stage
    if not await ex.calm():
        return
    since = stage.mark()
    with stage.standing("events", says(problem(503, "database_unavailable"))):
        await _provoked(ex, since)
        await ex.opens()
        await asyncio.sleep(20)

    async def one_at_a_time(seen: Seen, usual: Usual) -> Answer:
        return problem(413, "body_too_large") if len(_numbers(seen)) > 1 else await usual()

    with stage.standing("events", one_at_a_time):

        def refused() -> list[Seen]:
            return [one for one in stage.of("events", since=since) if status_of(one) == 413]

        large = await stage.until(refused, within_s=PATIENCE_S)
        if not large:
            ex.not_seen("journal.parted", "never more than one event waited")
            return
        first = min(_numbers(large[0]))
        taken = await stage.until(
            lambda: any(
                status_of(one) == 200 and first in _numbers(one) for one in stage.after(large[0])
            ),
            within_s=PATIENCE_S,
        )
        fault = f"number {first} never came alone within {PATIENCE_S:.0f} s"
        ex.judge("journal.parted", "" if taken else fault)


# Power


async def reboot(ex: Examination) -> None:
    """Withhold answers to an ack and to uploads, and have the power cut."""
    stage = ex.stage
    old = stage.of("poll")[-1].request.query.get("boot_id")
    since = stage.mark()
    with stage.standing("events", says(problem(503, "database_unavailable"))):
        with stage.standing("ack", says(problem(500, "internal_error"))):
            command, fault = await ex.opens(life_s=3_600)
            await asyncio.sleep(8)
            # What was numbered so far; a device that was just told no has it on its disk.
            before = dict(_waiting(stage, since))
            done = await ex.operator.reboot()
            polls = await stage.until(
                lambda: _polls_of_another(stage, old),
                within_s=PATIENCE_S if done else PERSON_S,
            )
            if not polls and done:
                ex.failed("reboot.boot", "polls go on with the boot_id of before, or none come")
            if not polls:
                return
            ex.passed("reboot.boot")
            rebooted = stage.seen.index(polls[0])
            if fault:
                ex.not_seen("reboot.once", fault)
                ex.not_seen("reboot.ack", fault)
            else:
                command.repeats, command.shown = 1, True
                stage.ring()
                await asyncio.sleep(8)
                command.shown = False
                ex.judge("reboot.once", _second_life(stage, command, rebooted, old))
        if not fault:
            late = await stage.until(
                lambda: [
                    one
                    for one in stage.executed(command.id, since=rebooted)
                    if status_of(one) == 200
                ],
                within_s=PATIENCE_S,
            )
            wrong = late and field_of(late[0], "boot_id") != old
            fault = "" if late else f"it did not come within {PATIENCE_S:.0f} s"
            ex.judge("reboot.ack", "it names the boot after" if wrong else fault)
    await _journal_after(ex, before, since=rebooted)


def _waiting(stage: Stage, since: int) -> dict[tuple[int, int], dict[str, Any]]:
    """Give what was sent and not yet held, by epoch and number."""
    sent = {(epoch, event["seq"]): event for epoch, event in stage.sent_events(since)}
    return {key: event for key, event in sent.items() if key not in stage.journal}


def _polls_of_another(stage: Stage, old: str | None) -> list[Seen]:
    return [one for one in stage.of("poll") if one.request.query.get("boot_id") not in (old, None)]


def _second_life(stage: Stage, command: Command, rebooted: int, old: str | None) -> str:
    """Say what is wrong with how a new boot met a command of the boot before."""
    claims = stage.of("claim", since=rebooted, command=command.id)
    before = stage.of("claim", command=command.id)[: -len(claims) or None]
    nonces = {text_of(one, "nonce") for one in before}
    for one in claims:
        if field_of(one, "boot_id") == old:
            return "it was claimed with the boot_id of the boot before"
        if text_of(one, "nonce") in nonces:
            return "it was claimed with the nonce of the boot before"
    new = [
        one for one in stage.executed(command.id, since=rebooted) if field_of(one, "boot_id") != old
    ]
    return "it was executed again" if new else ""


async def _journal_after(
    ex: Examination, before: Mapping[tuple[int, int], dict[str, Any]], *, since: int
) -> None:
    """Look at the journal of a device that lost its power."""
    stage = ex.stage
    if not before:
        ex.not_seen("reboot.journal", NO_EVENTS + " before the power was cut")
    else:
        await stage.until(lambda: before.keys() <= stage.journal.keys(), within_s=PATIENCE_S)
        missing = sorted(before.keys() - stage.journal.keys())
        other = [
            key
            for key in before.keys() & stage.journal.keys()
            if not same_event(before[key], stage.journal[key])
        ]
        if missing:
            ex.failed("reboot.journal", f"number {missing[0][1]} never came again")
        else:
            fault = f"number {other[0][1]} came again changed" if other else ""
            ex.judge("reboot.journal", fault)
    earlier = stage.sent_events()[: -len(stage.sent_events(since)) or None]
    if not earlier:
        ex.not_seen("reboot.numbers", NO_EVENTS)
        return
    highest = max((epoch, event["seq"]) for epoch, event in earlier)
    known = {event.get("event_id") for _, event in earlier}

    def fresh() -> set[tuple[int, int]]:
        return {
            (epoch, event["seq"])
            for epoch, event in stage.sent_events(since)
            if event.get("event_id") not in known
        }

    if not fresh():
        await _provoked(ex, stage.mark())
    if not fresh():
        ex.not_seen("reboot.numbers", NO_EVENTS + " after the power came back")
        return
    epoch, seq = min(fresh())
    fault = f"number {seq} of epoch {epoch} came after number {highest[1]} of epoch {highest[0]}"
    ex.judge("reboot.numbers", "" if (epoch, seq) > highest else fault)
