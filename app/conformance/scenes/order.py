"""The examination: every scene in its order, and what must hold throughout."""

import json
from collections.abc import Sequence

from app.conformance.examination import Examination, Scene, text_of
from app.conformance.rules import (
    RULES,
    Verdict,
    numbers_fault,
    unchanged_fault,
)
from app.conformance.scenes.doors import acks, claims, deadline, later, opening, outages
from app.conformance.scenes.journal import NO_EVENTS, journal, reboot
from app.conformance.scenes.link import (
    config_trouble,
    configs,
    credential,
    enrolment,
    odd_polls,
    unknown_fields,
    wrong_clock,
)
from app.conformance.stage import Stage, noted_fault, result_of, sync_fault, what_is_wrong

# The whole of it

SHOWN = 300
"""So much of an event that cannot be taken is shown, in letters."""


async def whole(ex: Examination) -> None:
    """Judge what holds in every scene."""
    stage = ex.stage
    if not stage.seen:
        return
    ex.judge("always.valid", _malformed(stage))
    often = stage.overlaps
    ex.judge("always.one_poll", f"{often} times two polls waited at once" if often else "")
    ex.judge("always.granted", _ungranted(stage))
    ex.judge("always.nonce", _nonces(stage))
    sent = stage.sent_events()
    if sent:
        ex.judge("always.numbers", numbers_fault(stage.sent_numbers()))
        ex.judge("always.unchanged", unchanged_fault(sent))
    else:
        ex.not_seen("always.numbers", NO_EVENTS)
        ex.not_seen("always.unchanged", NO_EVENTS)
    if sent or stage.untaken:
        ex.judge("always.taken", _untaken(stage))
    else:
        ex.not_seen("always.taken", NO_EVENTS)
    if ex.wire is None:
        ex.not_seen("always.wire", "nothing watches the relay; give --wire FILE")
        return
    # What watches the relay may add its line when the pulse is over.
    await ex.released()
    pulses = len(ex.wire.read_bytes().splitlines()) if ex.wire.exists() else 0
    pulses -= ex.wire_before
    told = sum(1 for command in stage.commands if stage.executed(command))
    fault = f"the wire saw {pulses} pulses and {told} commands were told to be executed"
    ex.judge("always.wire", "" if pulses == told else fault)


def _malformed(stage: Stage) -> str:
    for one in stage.seen:
        refused = what_is_wrong(one.wrong) if one.wrong is not None else ""
        wrong = refused or sync_fault(one) or noted_fault(one)
        if wrong:
            return f"{one.request.method} {one.request.path}: {wrong}"
    return ""


def _untaken(stage: Stage) -> str:
    if not stage.untaken:
        return ""
    first = stage.untaken[0]
    event = json.dumps(first.body)
    shown = event if len(event) <= SHOWN else event[:SHOWN] + "..."
    return f"{len(stage.untaken)} times an event was put into quarantine: {first.why}, {shown}"


def _ungranted(stage: Stage) -> str:
    for ack in stage.of("ack"):
        if result_of(ack) != "executed" or ack.command is None:
            continue
        boots = {
            text_of(one, "boot_id")
            for one in stage.of("claim", command=ack.command)
            if one.granted and one.at <= ack.at
        }
        if text_of(ack, "boot_id") not in boots:
            return f"command {ack.command} was executed and never granted to that boot"
    return ""


def _nonces(stage: Stage) -> str:
    of_command: dict[tuple[str | None, str], str] = {}
    of_nonce: dict[str, str | None] = {}
    for claim in stage.of("claim"):
        nonce = text_of(claim, "nonce")
        first = of_command.setdefault((claim.command, text_of(claim, "boot_id")), nonce)
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
    Scene("trouble", ("config.trouble", "config.hangs", "config.kept"), config_trouble),
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
    await whole(ex)
    _close(ex, [name for name in RULES if name.startswith("always.")])
    return [ex.verdicts[name] for name in RULES if name in ex.verdicts]


def _close(ex: Examination, rules: Sequence[str]) -> None:
    """Give the verdicts on these rules; what has none was not seen."""
    for name in rules:
        if name not in ex.verdicts:
            ex.not_seen(name, "the device never came so far")
        ex.told(ex.verdicts[name])
