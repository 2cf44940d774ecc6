"""What is known of a local day of many stations: how they stood, read for the pure arithmetic."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.doors import outages
from app.doors.outages import Heard
from app.places import held, spells
from app.places.spells import Spell
from app.places.tables import Station
from app.reports.rules.counters import QUARTERS, C, F, facility
from app.reports.rules.day import ms_of, quarter_edges
from app.reports.rules.health import Day, Device, Hour, Thing, hours_of

_MS = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def read_days(
    tx: AsyncSession,
    station_ids: Sequence[uuid.UUID],
    day: date,
    *,
    silence: timedelta,
    at: datetime,
) -> Mapping[uuid.UUID, Day]:
    """Read a local day of some stations, as of an instant; six statements, however many there are.

    `silence` is how long a controller may be silent.
    """
    stations = (
        await tx.execute(
            sa.select(Station.id, Station.timezone, Station.created_at, Station.retired_at).where(
                Station.id.in_(station_ids)
            )
        )
    ).all()
    if not stations:
        return {}
    edges = {row.id: quarter_edges(row.timezone, day)[::QUARTERS] for row in stations}
    from_at = _EPOCH + min(hours[0] for hours in edges.values()) * _MS
    until_at = _EPOCH + max(hours[-1] for hours in edges.values()) * _MS
    modes = await held.windows(tx, station_ids, from_day=day, to_day=day + timedelta(days=1))
    heard = await outages.heard(tx, station_ids, from_at=from_at, until_at=until_at)
    things = await spells.spells(tx, station_ids, from_at=from_at, until_at=until_at)
    # An outage that ended on this day may have begun long before.
    begun = [one for many in heard.values() for device in many for one, _ in device.outages]
    deaf = await outages.deaf_times(tx, from_at=min([from_at, *begun]), until_at=at)
    return {
        row.id: Day(
            edges=edges[row.id],
            now_ms=ms_of(at),
            life=(ms_of(row.created_at), _ms(row.retired_at)),
            silence_ms=silence // _MS,
            held=modes.get(row.id, ()),
            devices=[_device(one) for one in heard.get(row.id, ())],
            deaf=[(ms_of(begins), ms_of(ends)) for begins, ends in deaf],
            things=[_thing(one) for one in things.get(row.id, ())],
        )
        for row in stations
    }


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
        ms_of(spell.since_at),
    )


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


def counted(day: Day) -> Mapping[int, dict[int, int]]:
    """Count a day's health by the hour, as the counters of rollups."""
    return {number: _counts(hour) for number, hour in enumerate(hours_of(day))}


def _counts(hour: Hour) -> dict[int, int]:
    found = {int(key): getattr(hour, name) for key, name in _OF_AN_HOUR}
    for kind, standing in hour.facilities.items():
        found |= {facility(kind, key): getattr(standing, name) for key, name in _OF_A_KIND}
    return {key: value for key, value in found.items() if value}
