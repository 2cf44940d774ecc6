"""The public feed of all stations, in the manner of GBFS 3.0: files kept in memory, built seldom.

Two parts: what stands (names, places, hours, regions) and what holds now (modes, levels,
facilities, closings). A part is built at most once per `ttl` in a process, by the first who asks
for it then; whoever asks meanwhile waits for that one. What did not change keeps its `last_updated`
and its tag, so that who holds it is told just that.

No head count is in it, and no number of places either: of a small station, level and places
together would tell how many persons are inside (law 15). Where nobody knows how full a station is,
it has no level (law 16).
"""

import asyncio
import gzip
import hashlib
import json
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Monotonic
from app.db.engine import Database
from app.doors.desk import ControllerDesk
from app.places import districts
from app.places.calendar import CalendarCache
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

VERSION = "3.0"
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


class FeedFile(StrEnum):
    """The files of the feed."""

    GBFS = "gbfs"
    SYSTEM_INFORMATION = "system_information"
    STATION_INFORMATION = "station_information"
    STATION_STATUS = "station_status"
    SYSTEM_REGIONS = "system_regions"
    SYSTEM_ALERTS = "system_alerts"


class Part(StrEnum):
    """What is built at one time."""

    STANDING = "standing"
    LIVE = "live"


TTL_S = {Part.STANDING: 300, Part.LIVE: 60}
"""For how many seconds a part is not built again."""

LIVE_FILES = frozenset({FeedFile.STATION_STATUS, FeedFile.SYSTEM_ALERTS})


def part_of(name: FeedFile) -> Part:
    """Say with what a file is built."""
    return Part.LIVE if name in LIVE_FILES else Part.STANDING


Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Built:
    """A file, ready to be sent."""

    plain: bytes
    zipped: bytes
    etag: str
    """Of what it says, not of when it was said."""
    updated_at: datetime
    """When it last began to say something else."""
    ttl_s: int


@dataclass(frozen=True, slots=True)
class _Kept:
    files: Mapping[FeedFile, Built]
    built: float
    """The monotonic instant."""


class Feed:
    """The files in this process's memory."""

    def __init__(
        self,
        database: Database,
        calendar: CalendarCache,
        controllers: ControllerDesk,
        monotonic: Monotonic,
        public_url: str,
    ) -> None:
        self._database = database
        self._calendar = calendar
        self._controllers = controllers
        self._monotonic = monotonic
        self._public_url = public_url
        self._kept: dict[Part, _Kept] = {}
        self._building = {part: asyncio.Lock() for part in Part}

    async def file(self, name: FeedFile, *, at: datetime) -> Built:
        """Give a file; without SQL unless it is time to build."""
        part = part_of(name)
        kept = self._fresh(part)
        if kept is None:
            async with self._building[part]:
                # Who held the lock before has built it, unless that failed.
                kept = self._fresh(part) or await self._build(part, at)
        return kept.files[name]

    def _fresh(self, part: Part) -> _Kept | None:
        kept = self._kept.get(part)
        if kept is None or self._monotonic() - kept.built >= TTL_S[part]:
            return None
        return kept

    async def _build(self, part: Part, at: datetime) -> _Kept:
        began = self._monotonic()
        calendar = (await self._calendar.fresh(self._database)).current
        async with self._database.read() as tx:
            if part is Part.STANDING:
                standing = await read_standing(tx)
            else:
                silence = self._controllers.silence
                seen = await read_live(tx, calendar, silence=silence, at=at)
        if part is Part.STANDING:
            documents = await asyncio.to_thread(standing_documents, standing, self._public_url)
        else:
            heard = live.heard_by_station(seen.signs, self._controllers, at=at)
            documents = await asyncio.to_thread(live_documents, seen, heard, calendar, at)
        before = self._kept.get(part)
        files = await asyncio.to_thread(_written, documents, before, TTL_S[part], at)
        self._kept[part] = _Kept(files, began)
        return self._kept[part]


def _written(
    documents: Mapping[FeedFile, Document], before: _Kept | None, ttl_s: int, at: datetime
) -> Mapping[FeedFile, Built]:
    found = {}
    for name, document in documents.items():
        data = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        last = before.files[name] if before is not None else None
        if last is not None and last.etag == etag:
            found[name] = last
            continue
        head = {"last_updated": rfc3339(at), "ttl": ttl_s, "version": VERSION}
        plain = json.dumps(head, separators=(",", ":")).encode()[:-1] + b',"data":' + data + b"}"
        zipped = gzip.compress(plain, compresslevel=5, mtime=0)
        found[name] = Built(plain, zipped, etag, at, ttl_s)
    return found


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
