"""One transaction at a time, where no single row stands for what is changed."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession


async def alone(tx: AsyncSession, what: str) -> None:
    """Wait for every other transaction that said the same, and be awaited until this one ends.

    To be said before anything is read: the next one sees what this one did. On SQLite a transaction
    that writes is alone already.
    """
    if tx.get_bind().dialect.name == "sqlite":
        return
    await tx.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(what, 0))))
