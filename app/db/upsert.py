"""Insert, or leave or change what stands there: one API over both databases."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession


def upsert(tx: AsyncSession, table: Any) -> Any:
    """Begin an INSERT that knows `on_conflict_do_nothing` and `on_conflict_do_update`."""
    if tx.get_bind().dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def moved(result: sa.Result[Any]) -> int:
    """Say how many rows a statement changed."""
    count: int = result.rowcount  # type: ignore[attr-defined]  # A cursor result, always.
    return count
