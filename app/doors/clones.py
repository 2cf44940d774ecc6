"""Clones: one credential that speaks from two devices (threat T18).

Both histories are kept; the controller is frozen, so that no door of the station opens by a command
until somebody has looked, and an alert says so.
"""

import uuid
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.alerts import book
from app.alerts.book import Evidence
from app.alerts.rules import AlertKind
from app.db.wakeups import LocalWakeups
from app.doors.tables import Controller

RETURNS = 2
"""So often must each of two boots speak again after another took over.

A packet of a dead boot that comes late makes that boot return once, and the living one after it.
"""
WITHIN = timedelta(minutes=10)
REMEMBERED = 8
"""Boots of one controller."""


def last_of(boots: Mapping[str, Any] | None) -> str | None:
    """Say which boot spoke last; None when nobody has since somebody looked."""
    return boots["heard"][-1] if boots else None


def spoken(
    boots: Mapping[str, Any] | None, boot_id: str, *, at: datetime
) -> tuple[dict[str, Any], bool]:
    """Give the boots after another one spoke, and whether two of them have been taking turns."""
    heard = list(boots["heard"]) if boots else []
    returned = list(boots["returned"]) if boots else []
    returned = [one for one in returned if at - datetime.fromisoformat(one[1]) < WITHIN]
    if boot_id in heard:
        heard.remove(boot_id)
        returned.append([boot_id, at.isoformat()])
    often = Counter(boot for boot, _ in returned)
    take_turns = sum(times >= RETURNS for times in often.values()) >= 2
    return {"heard": [*heard, boot_id][-REMEMBERED:], "returned": returned}, take_turns


async def speaks(
    tx: AsyncSession,
    wakeups: LocalWakeups,
    controller_id: uuid.UUID,
    boot_id: str,
    *,
    at: datetime,
) -> None:
    """Note that another boot spoke than the last; freeze the controller if two take turns.

    In its row, where every process sees it: the two may speak to different ones.
    """
    row = (
        await tx.execute(
            sa.select(Controller.boots)
            .where(Controller.id == controller_id, Controller.frozen_at.is_(None))
            .with_for_update(key_share=True)
        )
    ).one_or_none()
    if row is None or last_of(row.boots) == boot_id:
        return
    boots, take_turns = spoken(row.boots, boot_id, at=at)
    await tx.execute(
        sa.update(Controller).where(Controller.id == controller_id).values(boots=boots)
    )
    if take_turns:
        await found(tx, wakeups, controller_id, detail={"by": "boots"}, at=at)


async def found(
    tx: AsyncSession,
    wakeups: LocalWakeups,
    controller_id: uuid.UUID,
    *,
    detail: Mapping[str, Any],
    at: datetime,
) -> None:
    """Freeze the controller and open the alert."""
    station_id = await tx.scalar(
        sa.update(Controller)
        .where(Controller.id == controller_id)
        .values(frozen_at=sa.func.coalesce(Controller.frozen_at, at), changed_at=at)
        .returning(Controller.station_id)
    )
    evidence = Evidence(AlertKind.CLONE, f"controller:{controller_id}", station_id, at, detail)
    await book.note(tx, evidence, at=at)
    await wakeups.wake(tx, f"controller:{controller_id}")


async def thaw(tx: AsyncSession, controller: Controller, *, at: datetime) -> None:
    """Let a frozen controller work again: somebody has looked."""
    controller.frozen_at, controller.boots = None, None
    controller.changed_at = at
    await book.settle(tx, AlertKind.CLONE, f"controller:{controller.id}", at=at)
