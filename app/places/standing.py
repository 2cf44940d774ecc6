"""The rules as they stand in the rows: a station's hours, what replaces them, the calendar."""

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.places.rules import Calendar, Change, Hours, StationRules, parse_hours
from app.places.tables import CalendarDay, ModeChange


@lru_cache(maxsize=4096)
def _hours(text: str) -> Hours:
    return parse_hours(json.loads(text))


def _parsed(hours: dict[str, Any] | None) -> Hours | None:
    return None if hours is None else _hours(json.dumps(hours, sort_keys=True))


class RulesOf(Protocol):
    """A row with a station's hours: the entity, or the columns of a join."""

    timezone: Any
    staffed_hours: Any
    access_hours: Any


def station_rules(station: RulesOf, changes: Sequence[Any]) -> StationRules:
    """Turn rows into what the mode function takes; `changes` are rows of mode changes."""
    return StationRules(
        timezone=station.timezone,
        staffed=_parsed(station.staffed_hours),
        access=_parsed(station.access_hours),
        changes=tuple(map(change_of, changes)),
    )


def change_of(row: Any) -> Change:
    """Turn a row of a mode change into what the mode function takes."""
    return Change(
        kind=row.kind,
        tier=row.tier,
        from_at=row.from_at,
        until_at=row.until_at,
        created_at=row.created_at,
    )


async def list_changes(
    tx: AsyncSession,
    station_ids: Sequence[uuid.UUID],
    *,
    at: datetime,
    horizon: timedelta = timedelta(days=14),
) -> Mapping[uuid.UUID, Sequence[ModeChange]]:
    """Give the exceptions and overrides that touch `[at, at + horizon)`, by station."""
    found: dict[uuid.UUID, list[ModeChange]] = {}
    rows = await tx.scalars(
        sa.select(ModeChange).where(
            ModeChange.station_id.in_(station_ids),
            ModeChange.retired_at.is_(None),
            ModeChange.until_at > at,
            ModeChange.from_at < at + horizon,
        )
    )
    for change in rows:
        found.setdefault(change.station_id, []).append(change)
    return found


async def read_calendar(tx: AsyncSession) -> Calendar:
    """Give the calendar as this transaction sees it."""
    rows = await tx.execute(sa.select(CalendarDay.day, CalendarDay.day_class))
    days = {row.day: row.day_class for row in rows}
    return Calendar(days, frozenset(day.year for day in days))
