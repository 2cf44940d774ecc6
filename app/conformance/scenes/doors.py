"""Scenes at the door: opening, deadlines, claims, acknowledgements, outages."""

import asyncio
import json

from app.conformance.examination import (
    MOST_IN_OUTAGE,
    OUTAGE_S,
    PATIENCE_S,
    PORTAL,
    Examination,
    answered,
    changed,
    field_of,
    lost,
    says,
    stalled,
    text_of,
    trickling,
)
from app.conformance.rules import (
    alike,
    gaps,
)
from app.conformance.stage import Command, Seen, Stage, problem, result_of
from app.conformance.wire import Answer

# Opening


async def opening(ex: Examination) -> None:
    """Open the door as on any night, and tell of the command some times too often."""
    stage = ex.stage
    command = stage.tell()
    command.repeats = 4
    told_at = stage.monotonic()
    claims = await stage.until(lambda: stage.of("claim", command=command.id), within_s=5)
    if not claims:
        ex.failed("opening.claims", "no claim came within 5 s")
    else:
        took_s = claims[0].at - told_at
        ex.judge("opening.claims", f"the claim came after {took_s:.1f} s" if took_s > 3 else "")
    ack = await ex.settled(command)
    if ack is None:
        ex.failed("opening.acks", "no ack came")
        return
    ex.judge("opening.acks", _execution_fault(stage, command, ack))
    polls = stage.of("poll")
    boots = {json.dumps(one.request.query.get("boot_id")) for one in polls[-1:]}
    boots |= {text_of(one, "boot_id") for one in (*claims, ack)}
    shown = ", ".join(sorted(boots))
    fault = f"there are {shown}" if len(boots) != 1 or "null" in boots else ""
    ex.judge("opening.boot", fault)
    await stage.until(lambda: command.repeats <= 0, within_s=20)
    await asyncio.sleep(3)
    executed = [one for one in stage.executed(command.id) if _was_answered(one)]
    fault = f"{len(executed)} acks say executed, each answered" if len(executed) > 1 else ""
    settled = [one for one in stage.of("ack", command=command.id) if _was_answered(one)]
    if settled and stage.of("claim", since=stage.seen.index(settled[0]), command=command.id):
        fault = "it was claimed again after its result was told and answered"
    if command.repeats == 4:
        ex.not_seen("opening.once", "no poll came that could tell of it again")
    else:
        ex.judge("opening.once", fault)


def _execution_fault(stage: Stage, command: Command, ack: Seen) -> str:
    """Say what is wrong with an ack of a command that could be executed; else nothing."""
    result = result_of(ack)
    if result != "executed":
        return f"the ack says {result!r} ({field_of(ack, 'detail')!r}) in place of executed"
    grants = [one for one in stage.of("claim", command=command.id) if one.granted]
    if not grants:
        return "the ack says executed and nothing was granted"
    assert grants[-1].answer is not None
    ttl_ms, after_ms = grants[-1].answer.json["ttl_ms"], field_of(ack, "pulse_after_claim_ms")
    if after_ms is None:
        return "the ack has no pulse_after_claim_ms, so that nobody knows when the relay pulsed"
    if not isinstance(after_ms, int) or after_ms >= ttl_ms:
        return f"the relay pulsed {after_ms} ms after the claim, with ttl_ms {ttl_ms}"
    return ""


def _was_answered(seen: Seen) -> bool:
    """Whether the device heard a 2xx."""
    return seen.answer is not None and not seen.answer.lost and seen.answer.status < 300


# The deadline


async def deadline(ex: Examination) -> None:
    """Let grants come late in four ways."""
    stage = ex.stage
    for name, twist, life_s, what in (
        ("deadline.stalled", stalled(2.0), 1.5, "0.5 s before the grant came"),
        ("deadline.trickled", trickling(2.2), 1.5, "before the whole grant was there"),
        ("deadline.over", changed(ttl_ms=0), 10.0, "before it began"),
    ):
        if not await ex.calm():
            return
        stage.once("claim", twist)
        command = stage.tell(life_s=life_s)
        ack = await ex.settled(command, within_s=8)
        command.shown = False
        claims = stage.of("claim", command=command.id)
        if not claims:
            ex.not_seen(name, "no claim came")
        elif ack is not None and result_of(ack) == "executed":
            after_ms = field_of(ack, "pulse_after_claim_ms")
            ex.failed(
                name,
                f"the ack says executed, {after_ms} ms after the claim; the time was over {what}",
            )
        else:
            ex.passed(name)
    if not await ex.calm():
        return
    command, fault = await ex.opens(stalled(2.0))
    claims = [one for one in stage.of("claim", command=command.id) if one.granted]
    if fault or not claims:
        ex.failed("deadline.counts", fault or "no grant was waited for")
        return
    took_ms = ((claims[-1].ended_at or 0.0) - claims[-1].at) * 1000
    after_ms = field_of(stage.executed(command.id)[0], "pulse_after_claim_ms")
    early = not isinstance(after_ms, int) or after_ms < took_ms - 100
    fault = f"pulse_after_claim_ms is {after_ms}, and the answer alone took {took_ms:.0f} ms"
    ex.judge("deadline.counts", fault if early else "")


# Claims and acks that go wrong


async def claims(ex: Examination) -> None:
    """Lose grants, refuse claims, answer as somebody else."""
    stage = ex.stage
    trouble = (
        says(problem(500, "internal_error")),
        says(Answer(503, json={"code": "database_unavailable"}, headers={"Retry-After": "1"})),
    )
    for name, twists in (("claim.repeats", (lost(),)), ("claim.trouble", trouble)):
        if not await ex.calm():
            return
        command, fault = await ex.opens(*twists)
        sent = stage.of("claim", command=command.id)
        who = {(text_of(one, "boot_id"), text_of(one, "nonce")) for one in sent}
        if sent and len(sent) <= len(twists):
            fault = "the claim did not come again"
        elif len(who) > 1:
            fault = "the claim came again with another nonce or boot_id"
        ex.judge(name, fault)
    await _refused_claims(ex)
    if not await ex.calm():
        return
    stage.once("claim", says(Answer(text=PORTAL)))
    command = stage.tell()
    ack = await ex.settled(command, within_s=12)
    command.shown = False
    granted = [one for one in stage.of("claim", command=command.id) if one.granted]
    executed = ack is not None and result_of(ack) == "executed"
    if not stage.of("claim", command=command.id):
        ex.not_seen("claim.portal", "no claim came")
    else:
        fault = "the ack says executed and only a web page had come"
        ex.judge("claim.portal", fault if executed and not granted else "")
    if not await ex.calm():
        return
    stage.once("claim", changed(kind="sing"))
    command = stage.tell()
    ack = await ex.settled(command, within_s=8)
    command.shown = False
    if not stage.of("claim", command=command.id):
        ex.not_seen("claim.kind", "no claim came")
    else:
        executed = ack is not None and result_of(ack) == "executed"
        ex.judge("claim.kind", "the ack says executed" if executed else "")


async def _refused_claims(ex: Examination) -> None:
    stage = ex.stage
    for status, code in (
        (404, "command_not_found"),
        (409, "claimed_by_another"),
        (410, "command_expired"),
        (410, "command_settled"),
        (410, "command_refused"),
    ):
        if not await ex.calm():
            return
        refusal = says(problem(status, code))
        stage.once("claim", refusal, refusal, refusal)
        command = stage.tell()
        sent = await stage.until(lambda c=command: stage.of("claim", command=c.id), within_s=5)  # type: ignore[misc]
        command.shown = False
        if not sent:
            ex.not_seen("claim.refused", f"no claim came that could meet {status} {code}")
            continue
        await asyncio.sleep(3)
        if stage.executed(command.id):
            ex.failed("claim.refused", f"after {status} {code} the ack says executed")
        elif len(stage.of("claim", command=command.id)) > 1:
            ex.failed("claim.refused", f"after {status} {code} the claim came again")
        else:
            ex.passed("claim.refused")


async def acks(ex: Examination) -> None:
    """Lose answers to acks, and refuse one."""
    stage = ex.stage
    for name, twist in (
        ("ack.repeats", lost()),
        ("ack.trouble", says(problem(500, "internal_error"))),
    ):
        if not await ex.calm():
            return
        stage.once("ack", twist)
        command, fault = await ex.opens()
        if fault:
            ex.not_seen(name, fault)
            continue
        sent = await stage.until(
            lambda c=command: stage.of("ack", command=c.id)[1:],  # type: ignore[misc]
            within_s=PATIENCE_S,
        )
        first = stage.of("ack", command=command.id)[0]
        if not sent:
            ex.failed(name, f"it did not come again within {PATIENCE_S:.0f} s")
        else:
            ex.judge(name, "" if sent[0].body == first.body else "it came again changed")
    if not await ex.calm():
        return
    conflict = says(problem(409, "ack_conflict"))
    stage.once("ack", conflict, conflict, conflict)
    command, fault = await ex.opens()
    if fault:
        ex.not_seen("ack.final", fault)
        return
    await asyncio.sleep(20)
    count = len(stage.of("ack", command=command.id))
    ex.judge("ack.final", f"it was sent {count} times" if count > 1 else "")


# The server away


async def outages(ex: Examination) -> None:
    """Be away twice, in two ways, and come back."""
    stage = ex.stage
    pauses: list[list[float]] = []
    counts: list[int] = []
    away = (says(problem(500, "internal_error")), lost(says(Answer(204))))
    for twist in away:
        if not await ex.calm():
            ex.failed("outage.returns", "the device did not poll any more")
            return
        with stage.standing("poll", twist):
            began = stage.mark()
            stage.change_config()  # Ends the poll that waits.
            await asyncio.sleep(OUTAGE_S)
        times = [one.at for one in stage.of("poll", since=began)]
        counts.append(len(times))
        pauses.append(gaps(times)[:4])
    back = await ex.calm()
    fault = "" if back and min(counts) else "the device stopped polling"
    ex.judge("outage.returns", fault)
    worst = max(counts)
    often = worst > MOST_IN_OUTAGE
    ex.judge("outage.backs_off", f"{worst} polls came in {OUTAGE_S:.0f} s" if often else "")
    if min(len(one) for one in pauses) < 2:
        ex.not_seen("outage.jitter", "too few polls came to compare their pauses")
    else:
        shown = ", ".join(f"{pause:.1f}" for pause in pauses[0])
        same = alike(*pauses)
        ex.judge("outage.jitter", f"each time the pauses were {shown} s" if same else "")
    _, fault = await ex.opens()
    ex.judge("outage.opens_after", fault)


async def later(ex: Examination) -> None:
    """Name a time to come back."""
    stage = ex.stage
    for name, status, seconds in (("later.503", 503, 8), ("later.429", 429, 6)):
        if not await ex.calm():
            return
        busy = Answer(status, json={"code": "later"}, headers={"Retry-After": str(seconds)})
        stage.once("poll", says(busy))
        stage.change_config()  # The poll that waits ends; the next one is told to come later.
        told = await stage.until(
            lambda s=status: answered(stage, s),  # type: ignore[misc]
            within_s=PATIENCE_S,
        )
        if told is None:
            ex.not_seen(name, "no poll came")
            continue
        after = await stage.until(
            lambda t=told: stage.after(t),  # type: ignore[misc]
            within_s=PATIENCE_S,
        )
        if not after:
            ex.failed(name, f"no poll came within {PATIENCE_S:.0f} s")
            continue
        pause_s = after[0].at - (told.ended_at or told.at)
        ex.judge(name, f"it came after {pause_s:.1f} s" if pause_s < seconds - 0.2 else "")
