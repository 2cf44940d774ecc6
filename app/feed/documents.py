"""What the files of the feed say: read from the rows, and written out by pure functions."""

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.feed.rules import FeedFile
from app.places import districts
from app.places.nearby import USABLE
from app.places.rules import (
    CITY_ZONE,
    Because,
    Calendar,
    ChangeKind,
    Kind,
    Mode,
    StationRules,
    Window,
    local_day,
    mode_at,
    mode_windows,
)
from app.places.standing import station_rules
from app.places.tables import Facility, ModeChange, Station
from app.usual import live
from app.usual.rules import UsualClass, class_of, held_lately, live_level, unknown_because
from app.visits import occupancy

LONGEST_CHANGE = timedelta(days=366)
"""How far back and ahead a closing is followed to its ends."""
ANNOUNCED = timedelta(days=7)
"""So long ahead a closing is announced."""
LATELY = timedelta(days=1)
"""How far back a change that is over is looked for: the longest stay that a station may have."""

AT_ONCE = 500
"""Rows read between two turns of the loop."""

CLOSING = (ChangeKind.CLOSED, ChangeKind.LOCKDOWN, ChangeKind.EVACUATION)
_ANNOUNCED_BECAUSE = (Because.EXCEPTION, Because.OVERRIDE, Because.EMERGENCY)

Document = Mapping[str, Any]


def rfc3339(at: datetime) -> str:
    """Write an instant down as the feed does: whole seconds, UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _named(zh: str, en: str | None = None) -> list[dict[str, str]]:
    found = [{"text": zh, "language": "zh"}]
    return found if en is None else [*found, {"text": en, "language": "en"}]


@dataclass(frozen=True, slots=True)
class Standing:
    """Rows that seldom change."""

    stations: Sequence[Any]
    districts: Sequence[Any]


async def read_standing(tx: AsyncSession) -> Standing:
    """Read the stations in use and all districts: two statements."""
    stations = await _rows(
        tx,
        sa.select(
            Station.code,
            Station.name,
            Station.address,
            Station.latitude,
            Station.longitude,
            Station.district,
            Station.operating_model,
            Station.timezone,
            Station.staffed_hours,
            Station.access_hours,
        )
        .where(Station.retired_at.is_(None))
        .order_by(Station.code),
    )
    return Standing(stations, await districts.list_districts(tx))


async def _rows(tx: AsyncSession, query: sa.Select[*tuple[Any, ...]]) -> list[Any]:
    """Read many rows, some at a time: between them the loop serves the doors."""
    found: list[Any] = []
    async for some in (await tx.stream(query)).partitions(AT_ONCE):
        found += some
    return found


def standing_documents(rows: Standing, public_url: str) -> Mapping[FeedFile, Document]:
    """Write out what stands."""
    feeds = [
        {"name": name.value, "url": f"{public_url}/v1/feed/{name.value}.json"}
        for name in FeedFile
        if name is not FeedFile.GBFS
    ]
    return {
        FeedFile.GBFS: {"feeds": feeds},
        FeedFile.SYSTEM_INFORMATION: {
            "system_id": "chongqing_union_stations",
            "languages": ["zh", "en"],
            "name": _named("重庆工会驿站", "Chongqing union rest stations"),
            "timezone": CITY_ZONE,
            "url": public_url,
        },
        FeedFile.STATION_INFORMATION: {
            "stations": [
                {
                    "station_id": row.code,
                    "name": _named(row.name),
                    "address": row.address,
                    "lat": row.latitude,
                    "lon": row.longitude,
                    "region_id": row.district,
                    "operating_model": row.operating_model.value,
                    "timezone": row.timezone,
                    "staffed_hours": row.staffed_hours,
                    "access_hours": row.access_hours,
                }
                for row in rows.stations
            ]
        },
        FeedFile.SYSTEM_REGIONS: {
            "regions": [
                {
                    "region_id": row.adcode,
                    "name": _named(row.name),
                    "kind": row.kind,
                    "valid_from": row.valid_from and row.valid_from.isoformat(),
                    "valid_to": row.valid_to and row.valid_to.isoformat(),
                    "successors": row.successors,
                }
                for row in rows.districts
            ]
        },
    }


@dataclass(frozen=True, slots=True)
class Live:
    """Rows that say what holds now."""

    stations: Sequence[Any]
    changes: Mapping[uuid.UUID, Sequence[Any]]
    facilities: Mapping[uuid.UUID, Sequence[Any]]
    today: Mapping[str, UsualClass]
    """Which days it is like, by time zone."""
    signs: Sequence[Any]
    """What tells of who comes."""
    inside: Mapping[uuid.UUID, int]


async def read_live(
    tx: AsyncSession, calendar: Calendar, *, silence: timedelta, at: datetime
) -> Live:
    """Read what holds at all stations in use: five statements, however many there are."""
    stations = await _rows(
        tx,
        sa.select(
            Station.id,
            Station.code,
            Station.capacity,
            Station.max_stay_min,
            Station.timezone,
            Station.staffed_hours,
            Station.access_hours,
        )
        .where(Station.retired_at.is_(None))
        .order_by(Station.code),
    )
    changes = await _rows(
        tx,
        sa.select(
            ModeChange.station_id,
            ModeChange.kind,
            ModeChange.tier,
            ModeChange.from_at,
            ModeChange.until_at,
            ModeChange.created_at,
            ModeChange.changed_at,
        ).where(
            ModeChange.retired_at.is_(None),
            ModeChange.until_at > at - LATELY,
            ModeChange.from_at < at + LONGEST_CHANGE,
        ),
    )
    facilities = await _rows(
        tx,
        sa.select(Facility.station_id, Facility.kind, Facility.name, Facility.status)
        .where(Facility.retired_at.is_(None))
        .order_by(Facility.id),
    )
    zones = {row.timezone for row in stations}
    today = {zone: class_of(local_day(at, zone), calendar) for zone in zones}
    classes = set(today.values())
    signs = live.signs(classes, silence=silence, since=at - LATELY, at=at)
    return Live(
        stations,
        _by_station(changes),
        _by_station(facilities),
        today,
        await _rows(tx, signs.where(Station.retired_at.is_(None))),
        await occupancy.inside_everywhere(tx, at=at),
    )


def _by_station(rows: Sequence[Any]) -> Mapping[uuid.UUID, Sequence[Any]]:
    found: defaultdict[uuid.UUID, list[Any]] = defaultdict(list)
    for row in rows:
        found[row.station_id].append(row)
    return found


def live_documents(
    rows: Live, heard: Mapping[uuid.UUID, bool], calendar: Calendar, at: datetime
) -> Mapping[FeedFile, Document]:
    """Write out what holds at an instant."""
    told, coverage = live.told_by_station(rows.signs), live.coverage_by_class(rows.signs)
    recorded = live.recorded_by_station(rows.signs)
    # Most stations share their hours: what holds by the same rules is worked out once.
    known: dict[tuple[StationRules, tuple[Window, ...], int], tuple[Mode, Sequence[Kind]]] = {}
    stations, alerts = [], []
    for row in rows.stations:
        changes = rows.changes.get(row.id, ())
        rules = station_rules(row, changes)
        key = rules, recorded.get(row.id, ()), row.max_stay_min
        if key not in known:
            stay = timedelta(minutes=row.max_stay_min)
            held = held_lately(key[1], rules, calendar, at, stay=stay)
            known[key] = mode_at(rules, calendar, at), held
        mode, held = known[key]
        unknown = unknown_because(
            held,
            has_told=told.get(row.id),
            coverage=coverage.get((row.id, rows.today[row.timezone])),
        )
        stations.append(
            {
                "station_id": row.code,
                "is_installed": True,
                "is_open": mode.kind in USABLE,
                # None: there is no controller that could be heard.
                "is_reporting": heard.get(row.id),
                "level": live_level(rows.inside.get(row.id, 0), row.capacity, unknown),
                # None: it is known, and a level of None says that no places are counted.
                "level_unknown_because": None if unknown is None else unknown.value,
                "mode": {
                    "kind": mode.kind.value,
                    "because": mode.because.value,
                    "until": None if mode.until is None else rfc3339(mode.until),
                    "calendar_known": mode.calendar_known,
                },
                "facilities": [
                    {"kind": one.kind.value, "name": one.name, "status": one.status.value}
                    for one in rows.facilities.get(row.id, ())
                ],
            }
        )
        coming = [change for change in changes if change.until_at > at]
        alerts += _closings(row, coming, calendar, at)
    return {
        FeedFile.STATION_STATUS: {"stations": stations},
        FeedFile.SYSTEM_ALERTS: {"alerts": alerts},
    }


def _closings(
    station: Any, changes: Sequence[Any], calendar: Calendar, at: datetime
) -> list[Document]:
    """Give the times in which a change closes a station, now and in the next days.

    As the mode function says, so that a closing that something newer lifts is none.
    """
    closing = [one for one in changes if one.kind in CLOSING and one.from_at < at + ANNOUNCED]
    if not closing:
        return []
    since = max(min(one.from_at for one in closing), at - LONGEST_CHANGE)
    until = min(max(one.until_at for one in changes), at + LONGEST_CHANGE)
    changed_at = max(one.changed_at for one in changes)
    code, rules = station.code, station_rules(station, changes)
    return [
        {
            "alert_id": f"{code}-{rfc3339(window.from_at)}",
            "type": "station_closure",
            "times": [{"start": rfc3339(window.from_at), "end": rfc3339(window.until_at)}],
            "station_ids": [code],
            "summary": _summary(window.kind, window.because),
            "last_updated": rfc3339(changed_at),
        }
        for window in mode_windows(rules, calendar, since, until)
        if window.kind in (Kind.CLOSED, Kind.EVACUATION)
        and window.because in _ANNOUNCED_BECAUSE
        and window.until_at > at
        and window.from_at < at + ANNOUNCED
    ]


def _summary(kind: Kind, because: Because) -> list[dict[str, str]]:
    if kind is Kind.EVACUATION:
        return _named("驿站正在疏散，请不要进入。", "The station is being evacuated; do not enter.")
    if because is Because.EMERGENCY:
        return _named("驿站因紧急情况关闭。", "The station is closed because of an emergency.")
    return _named("驿站临时关闭。", "The station is closed for a time.")
