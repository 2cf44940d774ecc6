"""Instants of many rows, each moved on to its own, in one statement.

Rows are locked in the order of their keys: of two processes that move the same ones, neither waits
for the other while that waits for it.
"""

import uuid
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession


async def move_on(
    tx: AsyncSession, column: sa.Column[Any], to: Mapping[uuid.UUID, datetime]
) -> None:
    """Write an instant into a column of each row, by its `id`, unless a later one stands there."""
    if not to:
        return
    if tx.get_bind().dialect.name == "sqlite":
        each = [{"of": key, "to": at} for key, at in to.items()]
        await tx.execute(_one_by_one(column), each)
        return
    keys = list(to)
    await tx.execute(_all_at_once(column), {"keys": keys, "instants": [to[key] for key in keys]})


@lru_cache
def _one_by_one(column: sa.Column[Any]) -> Any:
    to = sa.bindparam("to", type_=column.type)
    return (
        sa.update(column.table)
        .where(column.table.c.id == sa.bindparam("of"), sa.or_(column.is_(None), column < to))
        .values({column.name: to})
    )


@lru_cache
def _all_at_once(column: sa.Column[Any]) -> Any:
    key, instant = sa.Uuid(), sa.DateTime(timezone=True)
    told = (
        sa.func.unnest(
            sa.bindparam("keys", type_=ARRAY(key)), sa.bindparam("instants", type_=ARRAY(instant))
        )
        .table_valued(sa.column("key", key), sa.column("instant", instant))
        .render_derived(name="told")
    )
    row = column.table.alias("row")
    held = (
        sa.select(row.c.id, told.c.instant)
        .join_from(told, row, row.c.id == told.c.key)
        .order_by(row.c.id)
        .with_for_update(key_share=True, of=row)
        .subquery("held")
    )
    earlier = sa.or_(column.is_(None), column < held.c.instant)
    return (
        sa.update(column.table)
        .where(column.table.c.id == held.c.id, earlier)
        .values({column.name: held.c.instant})
    )
