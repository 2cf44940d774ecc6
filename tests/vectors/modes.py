"""Windows of a config and instants: which mode holds."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from app.places.rules import (
    Calendar,
    Change,
    ChangeKind,
    StationRules,
    Tier,
    mode_windows,
    parse_hours,
)

ZONE = "Asia/Shanghai"
FROM = datetime(2026, 11, 23, tzinfo=ZoneInfo(ZONE))
"""A Monday."""
HORIZON = timedelta(days=14)
CALENDAR = Calendar({}, frozenset({2026}))


def _hours(*rows: tuple[int, str, str]) -> dict[str, Any]:
    regular = [{"weekday": day, "opens": opens, "closes": closes} for day, opens, closes in rows]
    return {"regular": regular, "public_holiday": None, "makeup_workday": None}


def _daily(*spans: tuple[str, str]) -> dict[str, Any]:
    return _hours(*((day, *span) for day in range(1, 8) for span in spans))


def _at(day: int, clock: str) -> datetime:
    """Name a second of a day of the horizon, 1 being its first."""
    hour, minute, second = (int(part) for part in clock.split(":"))
    return FROM + timedelta(days=day - 1, hours=hour, minutes=minute, seconds=second)


STATIONS: dict[str, dict[str, Any]] = {
    "staffed 08:00-18:00, scan all the time": {
        "staffed_hours": _daily(("08:00", "18:00")),
        "access_hours": _daily(("00:00", "24:00")),
        "changes": [],
        "asks": ["1 07:59:59", "1 08:00:00", "1 17:59:59", "1 18:00:00", "14 23:59:59"],
    },
    "split day, scan from 22:00 over midnight to 06:00": {
        "staffed_hours": _daily(("08:30", "12:00"), ("14:00", "18:30")),
        "access_hours": _daily(("22:00", "06:00")),
        "changes": [],
        "asks": [
            "1 00:00:00",
            "1 05:59:59",
            "1 06:00:00",
            "1 12:00:00",
            "1 13:59:59",
            "1 14:00:00",
            "1 21:59:59",
            "1 22:00:00",
            "1 23:59:59",
            "2 00:00:00",
            "2 05:59:59",
            "2 06:00:00",
        ],
    },
    "Mondays only, until 24:00": {
        "staffed_hours": None,
        "access_hours": _hours((1, "18:00", "24:00")),
        "changes": [],
        "asks": ["1 17:59:59", "1 18:00:00", "1 23:59:59", "2 00:00:00", "8 18:00:00"],
    },
    "lockdown within a scan window, evacuation after it, staff only": {
        "staffed_hours": None,
        "access_hours": _daily(("00:00", "24:00")),
        "changes": [
            ["lockdown", "1 12:00:00", "1 13:00:00"],
            ["evacuation", "1 12:30:00", "1 12:40:00"],
            ["staff_only", "3 00:00:00", "3 01:00:00"],
        ],
        "asks": [
            "1 11:59:59",
            "1 12:00:00",
            "1 12:29:59",
            "1 12:30:00",
            "1 12:39:59",
            "1 12:40:00",
            "1 12:59:59",
            "1 13:00:00",
            "3 00:59:59",
            "3 01:00:00",
        ],
    },
}


def _named(text: str) -> datetime:
    day, clock = text.split(" ")
    return _at(int(day), clock)


def rules_of(station: dict[str, Any]) -> StationRules:
    """Read a station of this file as the server holds it."""
    staffed, access = (
        None if station[name] is None else parse_hours(station[name])
        for name in ("staffed_hours", "access_hours")
    )
    return StationRules(
        ZONE,
        staffed,
        access,
        tuple(
            Change(
                ChangeKind(kind),
                Tier.OVERRIDE,
                datetime.fromisoformat(from_at),
                datetime.fromisoformat(until_at),
                FROM,
            )
            for kind, from_at, until_at in station["changes"]
        ),
    )


def window_at(windows: list[dict[str, str]], at: datetime) -> dict[str, str] | None:
    """Read a config as a device does: the one window with `from <= at < until`, else nothing."""
    for window in windows:
        if datetime.fromisoformat(window["from"]) <= at < datetime.fromisoformat(window["until"]):
            return window
    return None


def vectors() -> dict[str, Any]:
    """Give the whole file."""
    found = []
    for name, station in STATIONS.items():
        shown = station | {
            "changes": [
                [kind, _named(from_at).isoformat(), _named(until_at).isoformat()]
                for kind, from_at, until_at in station["changes"]
            ]
        }
        windows = [
            {
                "from": window.from_at.isoformat(),
                "until": window.until_at.isoformat(),
                "kind": window.kind.value,
                "because": window.because.value,
            }
            for window in mode_windows(rules_of(shown), CALENDAR, FROM, FROM + HORIZON)
        ]
        instants = [_named(ask) for ask in station["asks"]]
        instants += [FROM - timedelta(seconds=1), FROM + HORIZON, FROM + HORIZON * 2]
        found.append(
            {
                "name": name,
                "station": {key: shown[key] for key in shown if key != "asks"},
                "windows": windows,
                "asks": [_asked(windows, at) for at in instants],
            }
        )
    return {
        "about": (
            "`windows` is a config's. For each of `asks`: the mode that holds at an instant, by the"
            " window with from <= at < until. kind null: no window speaks (a gap, an instant before"
            " the first or past the last), so nothing is known and the device opens nothing by"
            " itself. `station` is what the server made the windows of; a device never sees it."
        ),
        "timezone": ZONE,
        "vectors": [*found, _with_a_gap()],
    }


def _asked(windows: list[dict[str, str]], at: datetime) -> dict[str, Any]:
    window = window_at(windows, at)
    # Half of them as a device may hold them: an instant is the same in every offset.
    told = at if at.second % 2 else at.astimezone(UTC)
    return {
        "at": told.isoformat(),
        "kind": window["kind"] if window else None,
        "because": window["because"] if window else None,
    }


def _with_a_gap() -> dict[str, Any]:
    """No server of ours sends it; a device that meets it must not fill it in."""
    windows = [
        {
            "from": _at(1, "00:00:00").isoformat(),
            "until": _at(1, "06:00:00").isoformat(),
            "kind": "scan",
            "because": "weekly",
        },
        {
            "from": _at(1, "07:00:00").isoformat(),
            "until": _at(1, "08:00:00").isoformat(),
            "kind": "free",
            "because": "weekly",
        },
    ]
    asks = ["1 05:59:59", "1 06:00:00", "1 06:30:00", "1 06:59:59", "1 07:00:00", "1 08:00:00"]
    return {
        "name": "a gap between two windows",
        "station": None,
        "windows": windows,
        "asks": [_asked(windows, _named(ask)) for ask in asks],
    }
