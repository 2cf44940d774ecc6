"""What held, what was heard and what was out of order on a day, read for many stations at once."""

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.types import table_of
from app.doors import outages
from app.doors.tables import Controller, ControllerOutage
from app.places import held, spells
from app.reports.rules import health
from app.reports.rules.counters import QUARTERS, C, F, facility
from app.reports.rules.day import ms_of, quarter_edges
from app.reports.rules.health import Device, Hour, Thing

Counts = Mapping[int, Mapping[int, int]]
"""Counters by hour."""

_CONTROLLERS, _OUTAGES = table_of(Controller), table_of(ControllerOutage)


async def read_health(
    tx: AsyncSession,
    places: Mapping[uuid.UUID, Any],
    day: date,
    *,
    silence: timedelta,
    at: datetime,
) -> Mapping[uuid.UUID, Counts]:
    """Read what is known of a local day of some stations, and count it by the hour.

    `places` are stations' `timezone`, `created_at` and `retired_at`.
    """
    stations = list(places)
    edges = {id: quarter_edges(place.timezone, day) for id, place in places.items()}
    if not edges:
        return {}
    begins = _instant(min(edge[0] for edge in edges.values()))
    ends = _instant(max(edge[-1] for edge in edges.values()))
    modes = await held.windows(tx, stations, from_day=day, to_day=day + timedelta(days=1))
    devices = await _devices(tx, stations, begins, ends)
    things = await _things(tx, stations, begins, ends)
    deaf = [
        (ms_of(since), ms_of(until))
        for since, until in await outages.deaf_times(tx, from_at=begins, until_at=min(ends, at))
    ]
    found = {}
    for id, place in places.items():
        hours = health.hours_of(
            health.Day(
                edges=edges[id][::QUARTERS],
                now_ms=ms_of(at),
                life=(ms_of(place.created_at), _ms(place.retired_at)),
                silence_ms=silence // timedelta(milliseconds=1),
                held=modes.get(id, ()),
                devices=devices[id],
                deaf=deaf,
                things=things.get(id, ()),
            )
        )
        found[id] = {number: _counts(hour) for number, hour in enumerate(hours)}
    return found


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _ms(at: datetime | None) -> int | None:
    return None if at is None else ms_of(at)


async def _devices(
    tx: AsyncSession, stations: Sequence[uuid.UUID], begins: datetime, ends: datetime
) -> Mapping[uuid.UUID, list[Device]]:
    c, o = _CONTROLLERS.c, _OUTAGES.c
    silences: defaultdict[uuid.UUID, list[tuple[int, int]]] = defaultdict(list)
    rows = await tx.execute(
        sa.select(o.controller_id, o.from_at, o.until_at)
        .where(o.station_id.in_(stations), o.until_at >= begins, o.from_at < ends)
        .order_by(o.from_at)
    )
    for row in rows:
        silences[row.controller_id].append((ms_of(row.from_at), ms_of(row.until_at)))
    found: defaultdict[uuid.UUID, list[Device]] = defaultdict(list)
    for device in await tx.execute(
        sa.select(c.id, c.station_id, c.enrolled_at, c.retired_at, c.seen_at).where(
            c.station_id.in_(stations),
            c.enrolled_at < ends,
            sa.or_(c.retired_at.is_(None), c.retired_at > begins),
        )
    ):
        enrolled, retired, seen = device.enrolled_at, device.retired_at, device.seen_at
        found[device.station_id].append(
            Device(ms_of(enrolled), _ms(retired), _ms(seen), silences[device.id])
        )
    return found


async def _things(
    tx: AsyncSession, stations: Sequence[uuid.UUID], begins: datetime, ends: datetime
) -> Mapping[uuid.UUID, list[Thing]]:
    # A repair is counted where it ended: a spell that ended as the day began belongs to it too.
    just_before = begins - timedelta(microseconds=1)
    spelled = await spells.spells(tx, stations, from_at=just_before, until_at=ends)
    return {
        station: [
            Thing(
                spell.facility_id,
                spell.kind.value,
                spell.quantity,
                spell.status.value,
                ms_of(spell.from_at),
                _ms(spell.until_at),
                ms_of(spell.since_at),
            )
            for spell in found
        ]
        for station, found in spelled.items()
    }


_OF_AN_HOUR = (
    (C.PROMISED_MS, "promised_ms"),
    (C.USABLE_MS, "usable_ms"),
    (C.UNKNOWN_MS, "unknown_ms"),
    (C.STAFFED_MS, "staffed_ms"),
    (C.COMMISSIONED_MS, "commissioned_ms"),
    (C.ONLINE_MS, "online_ms"),
    (C.DEAF_MS, "deaf_ms"),
    (C.RECORDED_MS, "recorded_ms"),
    (C.OUTAGES, "outages_ended"),
    (C.OUTAGE_MS, "outage_ms"),
)

_OF_A_KIND = (
    (F.STANDING_MS, "standing_ms"),
    (F.OUT_MS, "out_ms"),
    (F.DEGRADED_MS, "degraded_ms"),
    (F.UNKNOWN_MS, "unknown_ms"),
    (F.REPAIRS, "repairs_ended"),
    (F.REPAIR_MS, "repair_ms"),
)


def _counts(hour: Hour) -> Mapping[int, int]:
    found = {int(key): getattr(hour, name) for key, name in _OF_AN_HOUR}
    for kind, standing in hour.facilities.items():
        found |= {facility(kind, key): getattr(standing, name) for key, name in _OF_A_KIND}
    return {key: value for key, value in found.items() if value}
