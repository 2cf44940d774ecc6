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


class BootWatch:
    """Which boots of each controller this process heard, and whether they take turns."""

    def __init__(self) -> None:
        self._boots: dict[uuid.UUID, list[str]] = {}
        self._returns: dict[uuid.UUID, list[tuple[str, datetime]]] = {}

    def speaks(self, controller_id: uuid.UUID, boot_id: str, *, at: datetime) -> bool:
        """Note that a boot spoke; tells whether two boots have been taking turns."""
        boots = self._boots.setdefault(controller_id, [])
        if boots and boots[-1] == boot_id:
            return False
        came_back = boot_id in boots
        if came_back:
            boots.remove(boot_id)
        boots.append(boot_id)
        del boots[:-8]
        if not came_back:
            return False
        before = self._returns.get(controller_id, [])
        returns = [one for one in before if at - one[1] < WITHIN] + [(boot_id, at)]
        self._returns[controller_id] = returns
        often = Counter(boot for boot, _ in returns)
        return sum(times >= RETURNS for times in often.values()) >= 2

    def forget(self, controller_id: uuid.UUID) -> None:
        """Begin anew: somebody has looked."""
        self._boots.pop(controller_id, None)
        self._returns.pop(controller_id, None)


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
    controller.frozen_at = None
    controller.changed_at = at
    await book.settle(tx, AlertKind.CLONE, f"controller:{controller.id}", at=at)
