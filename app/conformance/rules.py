"""What is asked of a controller, rule by rule, and how what it sent is judged. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

from app.doors.rules.journal import Range, content_hash


class Outcome(StrEnum):
    """What came of a rule."""

    PASS = "PASS"
    FAIL = "FAIL"
    NOT_SEEN = "NOT SEEN"
    """The device never came to where it could be judged."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing a controller must do."""

    name: str
    tried: str
    """What is done to the device, and what it must do then, in one sentence."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one rule."""

    rule: Rule
    outcome: Outcome
    why: str = ""
    """What the device did wrong, or why it could not be judged."""


RULES = {
    rule.name: rule
    for rule in (
        Rule("enrol.asks", "A code is typed in: the device sends code, serial, firmware, nonce."),
        Rule("enrol.repeats", "The answer is lost: the same code, serial and nonce come again."),
        Rule("enrol.bearer", "Enrolled: it calls with the newest credential as a bearer token."),
        Rule("config.fetched", "Enrolled: it fetches the config and polls name its version."),
        Rule("config.changes", "The version changes during a poll: the new config is fetched."),
        Rule("config.stale", "Polls name a version that no config has yet: no storm of questions."),
        Rule("config.trouble", "A config meets 503: doors open, and it is fetched later."),
        Rule("config.hangs", "No answer to a config comes: doors open, and it is fetched later."),
        Rule("config.kept", "A config meets 503: asked for again by the ETag of the last one."),
        Rule("opening.claims", "A poll tells of a command: it is claimed within 3 s."),
        Rule("opening.acks", "The claim is granted: executed, within ttl_ms of its sending."),
        Rule("opening.boot", "Poll, claim and ack of one boot carry one boot_id."),
        Rule("opening.once", "Polls go on telling of a claimed command: it is executed once."),
        Rule("deadline.stalled", "A grant comes after its ttl_ms: no pulse."),
        Rule("deadline.trickled", "A grant trickles in until after its ttl_ms: no pulse."),
        Rule("deadline.over", "A grant has ttl_ms 0: no pulse."),
        Rule("deadline.counts", "A grant comes late but in time: ttl_ms counts from the sending."),
        Rule("claim.repeats", "A grant is lost: the claim comes again with the same nonce."),
        Rule("claim.trouble", "A claim meets 500 and 503: it comes again with the same nonce."),
        Rule("claim.refused", "404, 409 and 410 to a claim: forgotten, nothing executed."),
        Rule("claim.portal", "A claim is answered by somebody's web page: that is no grant."),
        Rule("claim.kind", "A grant of a kind nobody knows: no pulse."),
        Rule("ack.repeats", "The answer to an ack is lost: the same ack comes again."),
        Rule("ack.trouble", "An ack meets 500: the same ack comes again."),
        Rule("ack.final", "An ack is answered 409: it is not sent again."),
        Rule("outage.returns", "Polls meet 500, then cut connections: the device keeps asking."),
        Rule("outage.backs_off", "In 30 s of outage at most 25 polls come."),
        Rule("outage.jitter", "Two outages: the pauses are not the same."),
        Rule("outage.opens_after", "After the outages a command is executed as ever."),
        Rule("later.503", "503 with Retry-After 8: no poll before that."),
        Rule("later.429", "429 with Retry-After 6: no poll before that."),
        Rule("credential.patient", "One 401: the next poll comes 20 s later or more."),
        Rule("credential.recovers", "One 401: the same credential is tried again within 3 min."),
        Rule("unknown.ignored", "Every answer has fields nobody knows: all goes on as ever."),
        Rule("clock.wrong", "Date and server_time are an hour wrong: the door opens as ever."),
        Rule("poll.pause", "next_poll_ms is 3000: the next poll comes no sooner, and soon."),
        Rule("poll.portal", "A poll is answered by somebody's web page: the device polls on."),
        Rule("poll.trickled", "A poll's answer never ends: given up within 75 s."),
        Rule("journal.repeats", "The answer to an upload is lost: the same events come again."),
        Rule("journal.trouble", "An upload meets 500 and 503: the same events come again."),
        Rule("journal.unsaid", "An answer says nothing of an event: it comes again unchanged."),
        Rule("journal.pace", "Answers hold nothing for 10 s: at most 20 uploads come."),
        Rule("journal.quarantine", "An event is in quarantine: forgotten, and later ones come."),
        Rule("journal.parted", "413 to more than one event: smaller batches come."),
        Rule("reboot.boot", "Power off and on: a new boot_id."),
        Rule("reboot.once", "A command of before is told again: a new claim, no second pulse."),
        Rule("reboot.ack", "A result not yet answered comes again with the boot that claimed."),
        Rule("reboot.journal", "Events not yet held come again unchanged."),
        Rule("reboot.numbers", "Numbers go on where they were, or in a greater epoch."),
        Rule("always.valid", "Every request has the fields and types of the protocol."),
        Rule("always.one_poll", "One poll at a time."),
        Rule("always.granted", "Nothing is executed that was not granted to that boot."),
        Rule("always.nonce", "One nonce per command and boot, and none for two commands."),
        Rule("always.taken", "Every event is one that the server can take in, not in quarantine."),
        Rule("always.numbers", "Events are numbered one by one in each epoch; losses are told."),
        Rule("always.unchanged", "One number and one event_id stand for one event for ever."),
        Rule("always.wire", "The relay pulses once for each executed command and never else."),
    )
}


def most_within(times: Sequence[float], seconds: float) -> int:
    """Say how many of these ascending times lie at most within any so many seconds."""
    return max(
        (sum(1 for later in times[i:] if later < time + seconds) for i, time in enumerate(times)),
        default=0,
    )


def gaps(times: Iterable[float]) -> list[float]:
    """Give the pauses between ascending times."""
    return [later - earlier for earlier, later in pairwise(times)]


def alike(some: Sequence[float], others: Sequence[float]) -> bool:
    """Whether two rows of pauses are the same, within a tenth, as far as both go."""
    return all(abs(a - b) <= 0.1 * max(a, b, 0.2) for a, b in zip(some, others, strict=False))


def same_event(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two events, each with its boot, are one as the real server compares them."""
    return content_hash(one) == content_hash(other)


def unchanged_fault(sent: Iterable[tuple[int, Mapping[str, Any]]]) -> str:
    """Say which number or id stood for two events, of (epoch, event) in order; else nothing."""
    numbers: dict[tuple[int, Any], Mapping[str, Any]] = {}
    names: dict[Any, tuple[int, Any]] = {}
    for epoch, event in sent:
        seq, name = event.get("seq"), event.get("event_id")
        first = numbers.setdefault((epoch, seq), event)
        if first.get("event_id") != name:
            return (
                f"number {seq} of epoch {epoch} was event {first.get('event_id')} and came again"
                f" as event {name}"
            )
        if not same_event(first, event):
            return f"event {name}, number {seq}, came again with another content"
        if names.setdefault(name, (epoch, seq)) != (epoch, seq):
            return f"event {name} had number {names[name][1]} and then number {seq}"
    return ""


def numbers_fault(told: Iterable[tuple[int, Range]]) -> str:
    """Say which numbers are missing in an epoch, of (epoch, numbers) in any order; else nothing.

    From the least seen: a device may have been enrolled elsewhere before.
    """
    held: dict[int, list[Range]] = {}
    for epoch, numbers in told:
        held.setdefault(epoch, []).append(numbers)
    for epoch, found in sorted(held.items()):
        missing = _between(found)
        if missing:
            shown = ", ".join(
                f"{one.first}" if one.first == one.last else f"{one.first} to {one.last}"
                for one in missing[:5]
            )
            return f"epoch {epoch} never brought number {shown} and no overflow told of it"
    return ""


def _between(found: Iterable[Range]) -> list[Range]:
    """Give the numbers between these ranges."""
    left: list[Range] = []
    ordered = sorted(found, key=lambda one: one.first)
    through = ordered[0].last
    for one in ordered[1:]:
        if one.first > through + 1:
            left.append(Range(through + 1, one.first - 1))
        through = max(through, one.last)
    return left
