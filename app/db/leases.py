"""Leases: of several processes, one does the periodic work."""

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from app.db.types import Base
from app.db.upsert import moved, upsert


class Lease(Base):
    """Who may do one kind of work, and until when."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str]
    until_at: Mapped[datetime]


async def take(
    tx: AsyncSession, name: str, *, holder: str, at: datetime, duration: timedelta
) -> bool:
    """Take or renew the lease; False while another holder has it."""
    await tx.execute(
        upsert(tx, Lease)
        .values(name=name, holder=holder, until_at=at)
        .on_conflict_do_nothing(index_elements=["name"])
    )
    result = await tx.execute(
        sa.update(Lease)
        .where(Lease.name == name, sa.or_(Lease.holder == holder, Lease.until_at <= at))
        .values(holder=holder, until_at=at + duration)
    )
    return moved(result) == 1
