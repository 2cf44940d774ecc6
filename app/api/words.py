"""Sentences for people: one for every reason and language."""

from datetime import datetime
from enum import StrEnum

from app.doors.rules import Reason
from app.reports.whatif import Assumption
from app.usual.rules import UsualClass
from app.visits.rules import Level


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

ASSUMPTIONS: dict[Assumption, dict[Language, str]] = {
    Assumption.MODES_AS_RECORDED: {
        Language.ZH: "开放时间没有改动，每次扫码都按当时记录的门的状态判断。",
        Language.EN: "No hours were changed: every scan keeps the mode that was recorded with it.",
    },
    Assumption.HOURS_OF_TODAY: {
        Language.ZH: "没有改动的开放时间和日历按今天的设置计算；"
        "与当时记录不一致的扫码次数见 amended_since。",
        Language.EN: "Hours that are not changed, and the calendar, are taken as they stand today; "
        "amended_since counts the scans at which they say otherwise than was recorded.",
    },
    Assumption.CHANGES_AS_WRITTEN: {
        Language.ZH: "当时的临时安排和紧急状态照旧有效，从登记起到撤销止，以最后的内容为准。",
        Language.EN: "Exceptions and overrides hold from when they were made until they were "
        "withdrawn, as they were last written.",
    },
    Assumption.PLACES_AS_RECORDED: {
        Language.ZH: "容量按当时的记录计算，没有记录的时间按今天的设置计算；"
        "当时放行或因满员拒绝的扫码能证明另有容量的，以扫码为准。",
        Language.EN: "Places are those that were recorded then, and of time before they were those "
        "of today, unless a recorded grant, or a refusal of a full station, proves that there were "
        "more or fewer.",
    },
    Assumption.REASONS_STAND: {
        Language.ZH: "门码、账号、扫码频率和行程方面的拒绝原因照旧成立。",
        Language.EN: "What was wrong with a code, a worker, his pace or his way stays wrong.",
    },
    Assumption.LATER_CHECKS_PASS: {
        Language.ZH: "拒绝只记录第一个原因；其后没有检查过的条件视为符合。",
        Language.EN: "A refusal names the first reason; what was not looked at after it "
        "is taken as passed.",
    },
    Assumption.CONTROLLERS_HEARD: {
        Language.ZH: "当时没有问过门的设备的，除非记录了失联，都视为在线；"
        "没有设备的驿站视为装了设备。",
        Language.EN: "A controller that was not asked counts as heard, unless a silence of it "
        "is recorded; a station without one is taken to have one.",
    },
    Assumption.STAYS_STAND: {
        Language.ZH: "有记录的停留照记录的时长计算。",
        Language.EN: "A recorded visit keeps its recorded length.",
    },
    Assumption.STAYS_CUT: {
        Language.ZH: "有人看见离开、或到了别的驿站的停留照记录计算，其余的到新的最长停留时间为止，"
        "两者取先。",
        Language.EN: "A visit ends when somebody saw it end, or its worker came elsewhere, or when "
        "the supposed longest stay after he was last heard of is over, whichever is sooner.",
    },
    Assumption.USUAL_STAY: {
        Language.ZH: "新放行的人当即进门，停留该站这段时间内有记录的停留时长的中位数；"
        "没有的按最长停留时间。",
        Language.EN: "Whoever is newly let in enters at once, and stays for the station's median "
        "observed stay of the period, or for the longest stay where none was observed.",
    },
    Assumption.NOBODY_ACTS_OTHERWISE: {
        Language.ZH: "没有人因为改动而多来、少来或改去别的驿站；离线进门和工作人员登记的停留照旧。",
        Language.EN: "Nobody comes more often, less often or elsewhere because of the change; "
        "visits that no scan opened stay as they were.",
    },
}
"""What a what-if takes for granted."""


ON_DAYS: dict[UsualClass, dict[Language, str]] = {
    UsualClass.WORKDAY: {Language.ZH: "工作日", Language.EN: "on workdays"},
    UsualClass.WEEKEND: {Language.ZH: "周末", Language.EN: "at weekends"},
    UsualClass.PUBLIC_HOLIDAY: {Language.ZH: "节假日", Language.EN: "on public holidays"},
}
"""Of which days a sentence is."""

USUALLY: dict[Level, dict[Language, str]] = {
    Level.EMPTY: {
        Language.ZH: "{days} {hour:02d}:00 左右通常空闲。",
        Language.EN: "Usually quiet at {hour:02d}:00 {days}.",
    },
    Level.FEW: {
        Language.ZH: "{days} {hour:02d}:00 左右通常人较少。",
        Language.EN: "Usually not busy at {hour:02d}:00 {days}.",
    },
    Level.MANY: {
        Language.ZH: "{days} {hour:02d}:00 左右通常人较多。",
        Language.EN: "Usually busy at {hour:02d}:00 {days}.",
    },
    Level.FULL: {
        Language.ZH: "{days} {hour:02d}:00 左右通常已满。",
        Language.EN: "Usually full at {hour:02d}:00 {days}.",
    },
}
"""How a station usually is at an hour; a test checks that every level has its words."""


def usually(level: Level, day_class: UsualClass, hour: int, lang: Language) -> str:
    """Say how full a station usually is at an hour of such days."""
    return USUALLY[level][lang].format(days=ON_DAYS[day_class][lang], hour=hour)


TOO_LITTLE = {
    Language.ZH: "{days} {hour:02d}:00 左右的扫码记录太少，不公布。",
    Language.EN: "Too little is recorded of {hour:02d}:00 {days} to be shown.",
}
"""What is said of an hour whose level is hidden: no more than that it is. Where the door stands
open, few scan and many may sit."""


def too_little(day_class: UsualClass, hour: int, lang: Language) -> str:
    """Say that an hour of such days is hidden."""
    return TOO_LITTLE[lang].format(days=ON_DAYS[day_class][lang], hour=hour)


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
