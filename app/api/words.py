"""Sentences for people: one for every reason and language."""

from datetime import datetime
from enum import StrEnum

from app.doors.rules import Reason


class Language(StrEnum):
    """A language we speak."""

    ZH = "zh"
    EN = "en"


REASONS: dict[Reason, dict[Language, str]] = {
    Reason.OK: {
        Language.ZH: "门马上打开，请推门。",
        Language.EN: "The door is about to open; please push.",
    },
    Reason.TOKEN_INVALID: {
        Language.ZH: "这不是驿站的门码，请扫描门上的二维码。",
        Language.EN: "This is not a station's door code; please scan the code on the door.",
    },
    Reason.TOKEN_EXPIRED: {
        Language.ZH: "这个二维码已过期，请重新扫描门上的码。",
        Language.EN: "This code has expired; please scan the code on the door again.",
    },
    Reason.TOKEN_REVOKED: {
        Language.ZH: "这张门码已作废，请扫描门上新的二维码，并告诉工作人员。",
        Language.EN: "This poster is no longer valid; please scan the new one and tell the staff.",
    },
    Reason.WRONG_KIND: {
        Language.ZH: "这个码不能用来开这扇门，请扫描门上的二维码。",
        Language.EN: "This kind of code does not open this door; please scan the code on the door.",
    },
    Reason.WORKER_BLOCKED: {
        Language.ZH: "您的账号已停用，请联系所属工会。",
        Language.EN: "Your account is blocked; please contact your union.",
    },
    Reason.STATION_CLOSED: {
        Language.ZH: "驿站现在不开放。",
        Language.EN: "The station is closed now.",
    },
    Reason.STAFF_ONLY: {
        Language.ZH: "驿站现在只供工作人员进入。",
        Language.EN: "Only staff may enter the station now.",
    },
    Reason.LOCKDOWN: {
        Language.ZH: "驿站因紧急情况暂时关闭。",
        Language.EN: "The station is closed because of an emergency.",
    },
    Reason.EVACUATION: {
        Language.ZH: "驿站正在疏散，请不要进入。",
        Language.EN: "The station is being evacuated; please do not enter.",
    },
    Reason.STATION_FULL: {
        Language.ZH: "驿站已满，请稍后再来或去附近的驿站。",
        Language.EN: "The station is full; please come later or go to one nearby.",
    },
    Reason.CONTROLLER_OFFLINE: {
        Language.ZH: "这扇门的设备没有联网，现在打不开。",
        Language.EN: "The door's device is offline, so the door cannot open now.",
    },
    Reason.DOOR_RETIRED: {
        Language.ZH: "这扇门已停用。",
        Language.EN: "This door is no longer in use.",
    },
    Reason.RATE_LIMITED: {
        Language.ZH: "您扫码太频繁，请过一会儿再试。",
        Language.EN: "You have scanned too often; please try again in a while.",
    },
    Reason.IMPOSSIBLE_TRAVEL: {
        Language.ZH: "您刚在很远的驿站开过门，请在门前重新扫码。",
        Language.EN: "You have just opened a door far away; please scan while at the door.",
    },
    Reason.DISPLAY_REQUIRED: {
        Language.ZH: "请扫描门边屏幕上的动态码。",
        Language.EN: "Please scan the changing code on the screen at the door.",
    },
    Reason.PRESENCE_REQUIRED: {
        Language.ZH: "请先按一下门边的按钮，再扫码。",
        Language.EN: "Please press the button at the door first, then scan.",
    },
}
"""What a worker reads; a test checks that every reason has its words in every language."""

WALK_IN = {
    Language.ZH: "欢迎，门开着，请进。",
    Language.EN: "Welcome; the door is open, come in.",
}
"""In staffed hours."""


WORKS_AGAIN = {
    Language.ZH: "{time}后可以再试。",
    Language.EN: "Please try again after {time}.",
}
"""Added to a refusal that ends at a known time."""

ENDS_BY_ITSELF = frozenset(
    {Reason.STATION_CLOSED, Reason.STAFF_ONLY, Reason.LOCKDOWN, Reason.EVACUATION}
)
"""Refusals that the station's mode explains: `until` says when it changes."""


def sentence(
    reason: Reason, lang: Language, *, walk_in: bool = False, until: datetime | None = None
) -> str:
    """Say in one plain sentence what a scan came to; `until` is in the station's zone."""
    if walk_in:
        return WALK_IN[lang]
    said = REASONS[reason][lang]
    if reason in ENDS_BY_ITSELF and until is not None:
        moment = f"{until.month}月{until.day}日{until:%H:%M}"
        if lang is Language.EN:
            moment = f"{until:%H:%M} on {until:%d %B}"
        said += (
            WORKS_AGAIN[lang].format(time=moment)
            if lang is Language.ZH
            else (" " + WORKS_AGAIN[lang].format(time=moment))
        )
    return said


def preferred_language(accept_language: str | None) -> Language:
    """Read an Accept-Language header (RFC 9110, 12.5.4); Chinese when nothing fits better."""
    best, best_weight = Language.ZH, 0.0
    for part in (accept_language or "")[:200].split(","):
        tag, _, parameters = part.strip().partition(";")
        weight = 1.0
        name, _, value = parameters.strip().partition("=")
        if name == "q":
            try:
                weight = float(value)
            except ValueError:
                continue
        primary = tag.strip().lower().partition("-")[0]
        if primary in (Language.ZH, Language.EN) and weight > best_weight:
            best, best_weight = Language(primary), weight
    return best
