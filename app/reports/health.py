"""What is known of local days of many stations: how they stood, read for the pure arithmetic."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.types import table_of
from app.doors import outages
from app.doors.outages import Heard
from app.places import held, spells
from app.places.held import Recorded
from app.places.spells import Spell
from app.places.tables import Station
from app.reports.rules.counters import QUARTERS, C, F, bucket, facility, repairs
from app.reports.rules.day import ms_of, quarter_edges
from app.reports.rules.health import (
    Day,
    Device,
    Hour,
    Span,
    Thing,
    hours_of,
    of_a_day,
    plain,
    reporting,
    shifted,
)
from app.reports.vectors import packed, packed_hours

_MS = timedelta(milliseconds=1)
_MINUTE_MS = 60_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STATION = table_of(Station)


async def read_days(
    tx: AsyncSession,
    due: Mapping[uuid.UUID, Sequence[date]],
    *,
    silence: timedelta,
    at: datetime,
) -> Mapping[tuple[uuid.UUID, date], Day]:
    """Read local days of some stations, as of an instant; six statements, however many there are.

    `silence` is how long a controller may be silent.
    """
    c, ids = _STATION.c, list(due)
    stations = (
        await tx.execute(
            sa.select(c.id, c.timezone, c.created_at, c.retired_at).where(c.id.in_(ids))
        )
    ).all()
    days = [day for row in stations for day in due[row.id]]
    if not days:
        return {}
    first, last = min(days), max(days)
    zones = {row.timezone for row in stations}
    from_at = _EPOCH + min(quarter_edges(zone, first)[0] for zone in zones) * _MS
    until_at = _EPOCH + max(quarter_edges(zone, last)[-1] for zone in zones) * _MS
    recorded = await held.windows(tx, ids, from_day=first, to_day=last + timedelta(days=1))
    heard = await outages.heard(tx, ids, from_at=from_at, until_at=until_at)
    things = await spells.spells(tx, ids, from_at=from_at, until_at=until_at)
    # An outage that ended on these days may have begun long before.
    begun = [one for many in heard.values() for device in many for one, _ in device.outages]
    deaf = [
        (ms_of(begins), ms_of(ends))
        for begins, ends in await outages.deaf_times(
            tx, from_at=min([from_at, *begun]), until_at=at
        )
    ]

    nothing = Recorded([], [], [])

    def told() -> Mapping[tuple[uuid.UUID, date], Day]:
        found = {}
        for row in stations:
            modes = recorded.get(row.id, nothing)
            known = Day(
                edges=(),
                now_ms=ms_of(at),
                life=(ms_of(row.created_at), _ms(row.retired_at)),
                silence_ms=silence // _MS,
                held=modes.held,
                promised=modes.promised,
                seats=modes.seats,
                devices=[_device(one) for one in heard.get(row.id, ())],
                deaf=deaf,
                things=[_thing(one) for one in things.get(row.id, ())],
            )
            for day in due[row.id]:
                edges = quarter_edges(row.timezone, day)[::QUARTERS]
                found[row.id, day] = of_a_day(known, edges)
        return found

    return await asyncio.to_thread(told)


def _ms(at: datetime | None) -> int | None:
    return None if at is None else ms_of(at)


def _device(heard: Heard) -> Device:
    return Device(
        ms_of(heard.enrolled_at),
        _ms(heard.retired_at),
        _ms(heard.seen_at),
        [(ms_of(begins), ms_of(ends)) for begins, ends in heard.outages],
    )


def _thing(spell: Spell) -> Thing:
    return Thing(
        spell.facility_id,
        spell.kind.value,
        spell.quantity,
        spell.status.value,
        ms_of(spell.from_at),
        _ms(spell.until_at),
        _ms(spell.out_from_at),
        _ms(spell.out_until_at),
    )


_OF_AN_HOUR: Sequence[tuple[int, str]] = (
    (C.OPEN_MS, "open_ms"),
    (C.PROMISED_MS, "promised_ms"),
    (C.USABLE_MS, "usable_ms"),
    (C.UNKNOWN_MS, "unknown_ms"),
    (C.STAFFED_MS, "staffed_ms"),
    (C.COMMISSIONED_MS, "commissioned_ms"),
    (C.ONLINE_MS, "online_ms"),
    (C.DEAF_MS, "deaf_ms"),
    (C.RECORDED_MS, "recorded_ms"),
    (C.TOLD_MS, "recorded_ms"),
    (C.OUTAGES, "outages_ended"),
    (C.OUTAGE_MS, "outage_ms"),
)

_OF_A_KIND = (
    (F.STANDING_MS, "standing_ms"),
    (F.OUT_MS, "out_ms"),
    (F.DEGRADED_MS, "degraded_ms"),
    (F.UNKNOWN_MS, "unknown_ms"),
)


@dataclass(frozen=True, slots=True)
class Stood:
    """How a station stood on a day, as the counters of rollups."""

    whole: bytes
    hours: bytes
    """By the hour."""
    staffed_ms: Mapping[int, int]
    """In which hours staff held the door, and for how long."""
    reporting: Sequence[Span]
    """When it was open and somebody told of it."""


def stood(day: Day) -> Stood:
    """Count a day's health; most days are like others, on which nothing changed."""
    like = plain(day)
    if like is None:
        return _packed(day)
    found = _packed_once(like)
    return replace(found, reporting=shifted(found.reporting, day.edges[0]))


def _packed(day: Day) -> Stood:
    hours = counted(day)
    whole: dict[int, int] = {}
    for counts in hours.values():
        for key, value in counts.items():
            whole[key] = whole.get(key, 0) + value
    staffed = {hour: counts.get(C.STAFFED_MS, 0) for hour, counts in hours.items()}
    staffed_ms = {hour: ms for hour, ms in staffed.items() if ms}
    return Stood(packed(whole), packed_hours(hours), staffed_ms, reporting(day))


_packed_once = lru_cache(maxsize=2_000)(_packed)


def counted(day: Day) -> Mapping[int, dict[int, int]]:
    """Count a day's health by the hour, as the counters of rollups."""
    return {number: _counts(hour) for number, hour in enumerate(hours_of(day))}


def _counts(hour: Hour) -> dict[int, int]:
    found = {key: getattr(hour, name) for key, name in _OF_AN_HOUR}
    for kind, standing in hour.facilities.items():
        for key, name in _keys_of(kind):
            found[key] = getattr(standing, name)
        if ended := standing.repairs_ms:
            found[facility(kind, F.REPAIRS)] = len(ended)
            found[facility(kind, F.REPAIR_MS)] = sum(ended)
            found |= Counter(repairs(kind) + bucket(ms // _MINUTE_MS) for ms in ended)
    return {key: value for key, value in found.items() if value}


@cache
def _keys_of(kind: str) -> Sequence[tuple[int, str]]:
    return [(facility(kind, key), name) for key, name in _OF_A_KIND]
