"""The scenes: what is done to the device, and what is made of its answer."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from app.conformance.rules import (
    RULES,
    Outcome,
    Verdict,
    alike,
    gaps,
    most_within,
    numbers_fault,
    same_event,
    unchanged_fault,
)
from app.conformance.stage import Command, Seen, Stage, Twist, Usual, problem, result_of
from app.conformance.wire import Answer

PATIENCE_S = 90.0
"""How long a device may take to come back, in seconds: silence for 75 s counts as offline."""

PERSON_S = 600.0
"""How long a person may take to do what was asked, in seconds."""

OUTAGE_S = 30.0
MOST_IN_OUTAGE = 25
"""Polls in an outage: random pauses that grow from 2 s to 10 s make about ten."""

PORTAL = "<!doctype html><title>Wi-Fi</title><p>Please accept our terms."


class Operator(Protocol):
    """The person beside the device."""

    async def enter(self, code: str) -> None:
        """Type address and code into the device."""

    async def reboot(self) -> bool:
        """Cut the device's power, and give it back; says whether somebody said that he did."""

    async def move_door(self) -> None:
        """Open and close the door, or make the device record something in another way."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A part of the examination, with the rules it judges."""

    name: str
    rules: Sequence[str]
    play: "Callable[[Examination], Awaitable[None]]"


@dataclass
class Examination:
    """One device before the played server."""

    stage: Stage
    operator: Operator
    wire: Path | None = None
    """A file to which something that watches the relay adds a line at each pulse."""
    wire_before: int = 0
    """Lines that stood there before."""
    told: Callable[[Verdict], None] = lambda verdict: None
    """Hears each verdict once, as soon as it is final."""
    begins: Callable[[Scene], None] = lambda scene: None
    verdicts: dict[str, Verdict] = field(default_factory=dict)

    def passed(self, name: str) -> None:
        """Note that a rule was kept."""
        self._note(Verdict(RULES[name], Outcome.PASS))

    def failed(self, name: str, why: str) -> None:
        """Note what the device did wrong."""
        self._note(Verdict(RULES[name], Outcome.FAIL, why))

    def not_seen(self, name: str, why: str) -> None:
        """Note why a rule could not be judged."""
        self._note(Verdict(RULES[name], Outcome.NOT_SEEN, why))

    def judge(self, name: str, fault: str) -> None:
        """Note a rule as failed if there is a fault, else as passed."""
        if fault:
            self.failed(name, fault)
        else:
            self.passed(name)

    def _note(self, verdict: Verdict) -> None:
        before = self.verdicts.get(verdict.rule.name)
        if before is None or before.outcome is not Outcome.FAIL:
            self.verdicts[verdict.rule.name] = verdict

    # What most scenes need

    async def calm(self) -> bool:
        """Wait until the device polls as in quiet times."""
        self.stage.untwist()
        return bool(await self.stage.until(lambda: self.stage.is_polled, within_s=PATIENCE_S))

    async def settled(self, command: Command, *, within_s: float = 15.0) -> Seen | None:
        """Wait for the ack of a command; None when none came."""
        found = await self.stage.until(
            lambda: self.stage.of("ack", command=command.id), within_s=within_s
        )
        return found[-1] if found else None

    async def opens(self, *twists: Twist, life_s: float = 10.0) -> tuple[Command, str]:
        """Tell of a command and wait for its result; gives a fault when it is not executed."""
        self.stage.once("claim", *twists)
        command = self.stage.tell(life_s=life_s)
        ack = await self.settled(command)
        command.shown = False
        if ack is None:
            claimed = self.stage.of("claim", command=command.id)
            return command, (
                "the command was claimed and no ack came" if claimed else "nothing was claimed"
            )
        if result_of(ack) != "executed":
            detail = ack.body.get("detail") if isinstance(ack.body, dict) else None
            return command, f"the ack says {result_of(ack)!r} ({detail}) in place of executed"
        return command, ""


def lost(of: Twist | None = None) -> Twist:
    """Do as usual, and cut the connection in place of the answer."""

    async def twist(seen: Seen, usual: Usual) -> Answer:
        answer = await (of(seen, usual) if of else usual())
        return replace(answer, lost=True)

    return twist


def says(answer: Answer) -> Twist:
    """Answer this, and do nothing else."""

    async def twist(seen: Seen, usual: Usual) -> Answer:
        return answer

    return twist


def stalled(seconds: float) -> Twist:
    """Do as usual, and hold the answer back."""

    async def twist(seen: Seen, usual: Usual) -> Answer:
        answer = await usual()
        await asyncio.sleep(seconds)
        return answer

    return twist


def trickling(seconds: float) -> Twist:
    """Do as usual, and let the answer come byte by byte."""

    async def twist(seen: Seen, usual: Usual) -> Answer:
        return replace(await usual(), over_s=seconds)

    return twist


def changed(**fields: Any) -> Twist:
    """Do as usual, and change fields of a good answer."""

    async def twist(seen: Seen, usual: Usual) -> Answer:
        answer = await usual()
        good = answer.status < 300 and isinstance(answer.json, dict)
        return replace(answer, json=answer.json | fields) if good else answer

    return twist


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
    ex.judge("enrol.asks", "" if status == 201 else f"the request is malformed: {_wrong(first)}")
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


def _wrong(seen: Seen) -> str:
    """Say what a malformed request got wrong."""
    answer = seen.answer.json if seen.answer and isinstance(seen.answer.json, dict) else {}
    found = [f"{'.'.join(one['loc'])}: {one['message']}" for one in answer.get("errors", [])]
    return "; ".join(found) or str(answer.get("code", "no answer"))


async def configs(ex: Examination) -> None:
    """Give a config, change it, and let polls name one that is not there."""
    stage = ex.stage

    async def is_named() -> bool:
        def named() -> bool:
            polls = stage.of("poll")
            return bool(polls) and polls[-1].request.query.get("config_version") == stage.version

        return await stage.until(named, within_s=PATIENCE_S)

    named = await is_named()
    fetched = stage.of("config")
    fault = "" if named else "no poll named the version of the config"
    ex.judge("config.fetched", fault if fetched else "the config was never fetched")
    mark = stage.mark()
    stage.change_config()
    named = await is_named()
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
    boots = {polls[-1].request.query.get("boot_id")} if polls else set()
    boots |= {_field(one, "boot_id") for one in (*claims, ack)}
    shown = ", ".join(sorted(map(str, boots)))
    ex.judge("opening.boot", "" if len(boots) == 1 and None not in boots else f"there are {shown}")
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
        return f"the ack says {result!r} ({_field(ack, 'detail')}) in place of executed"
    grants = [one for one in stage.of("claim", command=command.id) if one.granted]
    if not grants:
        return "the ack says executed and nothing was granted"
    assert grants[-1].answer is not None
    ttl_ms, after_ms = grants[-1].answer.json["ttl_ms"], _field(ack, "pulse_after_claim_ms")
    if after_ms is None:
        return "the ack has no pulse_after_claim_ms, so that nobody knows when the relay pulsed"
    if not isinstance(after_ms, int) or after_ms >= ttl_ms:
        return f"the relay pulsed {after_ms} ms after the claim, with ttl_ms {ttl_ms}"
    return ""


def _field(seen: Seen, name: str) -> Any:
    return seen.body.get(name) if isinstance(seen.body, dict) else None


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
            after_ms = _field(ack, "pulse_after_claim_ms")
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
    after_ms = _field(stage.executed(command.id)[0], "pulse_after_claim_ms")
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
        who = {(_field(one, "boot_id"), _field(one, "nonce")) for one in sent}
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
            lambda s=status: _answered(stage, s),  # type: ignore[misc]
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


def _answered(stage: Stage, status: int) -> Seen | None:
    """Give the last poll that was answered so."""
    for one in reversed(stage.of("poll")):
        if one.answer is not None and one.answer.status == status and one.ended_at is not None:
            return one
    return None


async def credential(ex: Examination) -> None:
    """Refuse the credential once."""
    stage = ex.stage
    stage.once("poll", says(problem(401, "credential_refused")))
    stage.change_config()
    told = await stage.until(lambda: _answered(stage, 401), within_s=PATIENCE_S)
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
    """Give the events of an upload by number."""
    events = _field(upload, "events")
    return {
        event["seq"]: event
        for event in (events if isinstance(events, list) else [])
        if isinstance(event, dict) and isinstance(event.get("seq"), int)
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


NO_EVENTS = "the device recorded no event"


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
            return [one for one in stage.of("events", since=since) if _status(one) == 413]

        large = await stage.until(refused, within_s=PATIENCE_S)
        if not large:
            ex.not_seen("journal.parted", "never more than one event waited")
            return
        first = min(_numbers(large[0]))
        taken = await stage.until(
            lambda: any(
                _status(one) == 200 and first in _numbers(one) for one in stage.after(large[0])
            ),
            within_s=PATIENCE_S,
        )
        fault = f"number {first} never came alone within {PATIENCE_S:.0f} s"
        ex.judge("journal.parted", "" if taken else fault)


def _status(seen: Seen) -> int | None:
    return seen.answer.status if seen.answer else None


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
                    one for one in stage.executed(command.id, since=rebooted) if _status(one) == 200
                ],
                within_s=PATIENCE_S,
            )
            wrong = late and _field(late[0], "boot_id") != old
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
    nonces = {_field(one, "nonce") for one in before}
    for one in claims:
        if _field(one, "boot_id") == old:
            return "it was claimed with the boot_id of the boot before"
        if _field(one, "nonce") in nonces:
            return "it was claimed with the nonce of the boot before"
    new = [
        one for one in stage.executed(command.id, since=rebooted) if _field(one, "boot_id") != old
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


# The whole of it


def whole(ex: Examination) -> None:
    """Judge what holds in every scene."""
    stage = ex.stage
    if not stage.seen:
        return
    bad = [one for one in stage.seen if _status(one) == 422]
    ex.judge("always.valid", f"{bad[0].request.path}: {_wrong(bad[0])}" if bad else "")
    often = stage.overlaps
    ex.judge("always.one_poll", f"{often} times two polls waited at once" if often else "")
    ex.judge("always.granted", _ungranted(stage))
    ex.judge("always.nonce", _nonces(stage))
    sent = stage.sent_events()
    if sent:
        ex.judge("always.numbers", numbers_fault(sent))
        ex.judge("always.unchanged", unchanged_fault(sent))
    else:
        ex.not_seen("always.numbers", NO_EVENTS)
        ex.not_seen("always.unchanged", NO_EVENTS)
    if ex.wire is None:
        ex.not_seen("always.wire", "nothing watches the relay; give --wire FILE")
        return
    pulses = len(ex.wire.read_bytes().splitlines()) if ex.wire.exists() else 0
    pulses -= ex.wire_before
    told = sum(1 for command in stage.commands if stage.executed(command))
    fault = f"the wire saw {pulses} pulses and {told} commands were told to be executed"
    ex.judge("always.wire", "" if pulses == told else fault)


def _ungranted(stage: Stage) -> str:
    for ack in stage.of("ack"):
        if result_of(ack) != "executed" or ack.command is None:
            continue
        boots = {
            _field(one, "boot_id")
            for one in stage.of("claim", command=ack.command)
            if one.granted and one.at <= ack.at
        }
        if _field(ack, "boot_id") not in boots:
            return f"command {ack.command} was executed and never granted to that boot"
    return ""


def _nonces(stage: Stage) -> str:
    of_command: dict[tuple[Any, Any], Any] = {}
    of_nonce: dict[Any, str | None] = {}
    for claim in stage.of("claim"):
        nonce = _field(claim, "nonce")
        first = of_command.setdefault((claim.command, _field(claim, "boot_id")), nonce)
        if first != nonce:
            return f"command {claim.command} was claimed with two nonces in one boot"
        if of_nonce.setdefault(nonce, claim.command) != claim.command:
            return f"nonce {nonce} was used for two commands"
    return ""


SCENES = (
    Scene("enrolment", ("enrol.asks", "enrol.repeats", "enrol.bearer"), enrolment),
    Scene("config", ("config.fetched", "config.changes", "config.stale"), configs),
    Scene("opening", ("opening.claims", "opening.acks", "opening.boot", "opening.once"), opening),
    Scene(
        "deadline",
        ("deadline.stalled", "deadline.trickled", "deadline.over", "deadline.counts"),
        deadline,
    ),
    Scene(
        "claims",
        ("claim.repeats", "claim.trouble", "claim.refused", "claim.portal", "claim.kind"),
        claims,
    ),
    Scene("acks", ("ack.repeats", "ack.trouble", "ack.final"), acks),
    Scene(
        "outages",
        ("outage.returns", "outage.backs_off", "outage.jitter", "outage.opens_after"),
        outages,
    ),
    Scene("later", ("later.503", "later.429"), later),
    Scene("credential", ("credential.patient", "credential.recovers"), credential),
    Scene("unknown", ("unknown.ignored",), unknown_fields),
    Scene("clock", ("clock.wrong",), wrong_clock),
    Scene("polls", ("poll.pause", "poll.portal", "poll.trickled"), odd_polls),
    Scene(
        "journal",
        (
            "journal.repeats",
            "journal.trouble",
            "journal.unsaid",
            "journal.pace",
            "journal.quarantine",
            "journal.parted",
        ),
        journal,
    ),
    Scene(
        "reboot",
        ("reboot.boot", "reboot.once", "reboot.ack", "reboot.journal", "reboot.numbers"),
        reboot,
    ),
)
"""In this order; the first comes always."""


async def examine(ex: Examination, scenes: Sequence[Scene] = SCENES) -> list[Verdict]:
    """Play scenes, the enrolment first; gives a verdict on each rule of theirs.

    A rule that a scene could not come to is not seen.
    """
    for scene in [SCENES[0], *(scene for scene in scenes if scene is not SCENES[0])]:
        ex.begins(scene)
        if scene is SCENES[0] or await ex.calm():
            await scene.play(ex)
        ex.stage.untwist()
        _close(ex, scene.rules)
    whole(ex)
    _close(ex, [name for name in RULES if name.startswith("always.")])
    return [ex.verdicts[name] for name in RULES if name in ex.verdicts]


def _close(ex: Examination, rules: Sequence[str]) -> None:
    """Give the verdicts on these rules; what has none was not seen."""
    for name in rules:
        if name not in ex.verdicts:
            ex.not_seen(name, "the device never came so far")
        ex.told(ex.verdicts[name])
