"""Pages of a list: after which row the next one begins."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import Invalid

T = TypeVar("T")


class CursorInvalid(Invalid):
    """This cursor was not given out by this list."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page of a list is asked for."""

    limit: int
    """How many rows at most, 1 to 200."""

    cursor: str | None = None
    """Where the last page ended, as that page's `next` said."""


@dataclass(frozen=True, slots=True)
class PageOf(Generic[T]):
    """Some rows of a list."""

    rows: Sequence[T]
    next: str | None
    """The cursor of the next page; None when this is the last."""


async def page(
    tx: AsyncSession,
    query: sa.Select[T],
    *,
    by: Sequence[Any],
    request: PageRequest,
    newest_first: bool = False,
) -> PageOf[T]:
    """Read one page of entities, ordered by the columns `by`, whose values together are unique.

    Raises CursorInvalid when the cursor is not one of this list's.
    """
    ordered = _after(query, by, request, newest_first=newest_first)
    return _cut(list((await tx.scalars(ordered)).all()), by, request)


async def page_of_lines(
    tx: AsyncSession, query: sa.Select[Any], *, by: Sequence[Any], request: PageRequest
) -> PageOf[Any]:
    """Read one page of lines of several columns, likewise; `by` are among these, by their names.

    Raises CursorInvalid.
    """
    return _cut((await tx.execute(_after(query, by, request))).all(), by, request)


def _after(
    query: sa.Select[T], by: Sequence[Any], request: PageRequest, *, newest_first: bool = False
) -> sa.Select[T]:
    """Select what follows the cursor: one more than a page has."""
    key = sa.tuple_(*by)
    if request.cursor is not None:
        after = sa.tuple_(*_decode(request.cursor, by))
        query = query.where(key < after if newest_first else key > after)
    order = [column.desc() if newest_first else column.asc() for column in by]
    return query.order_by(*order).limit(request.limit + 1)


def _cut(rows: Sequence[T], by: Sequence[Any], request: PageRequest) -> PageOf[T]:
    if len(rows) <= request.limit:
        return PageOf(rows, None)
    rows = rows[: request.limit]
    return PageOf(rows, _encode([getattr(rows[-1], column.key) for column in by]))


def page_of(
    rows: Sequence[T], request: PageRequest, *, key: Callable[[T], tuple[float, str]]
) -> PageOf[T]:
    """Cut a page from rows in memory, ordered by `key`; raises CursorInvalid."""
    if request.cursor is not None:
        after = _measure(request.cursor)
        rows = [row for row in rows if key(row) > after]
    shown = rows[: request.limit]
    more = len(rows) > request.limit
    return PageOf(shown, _encode(key(shown[-1])) if more else None)


def _measure(cursor: str) -> tuple[float, str]:
    try:
        raw = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        measure, name = json.loads(raw)
        return float(measure), str(name)
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise CursorInvalid from error


def _encode(values: Sequence[Any]) -> str:
    text = json.dumps([str(value) for value in values])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str, by: Sequence[Any]) -> list[Any]:
    try:
        raw = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        texts = json.loads(raw)
        if not isinstance(texts, list) or len(texts) != len(by):
            raise CursorInvalid
        return [
            sa.literal(_parse(column, text), column.type)
            for column, text in zip(by, texts, strict=True)
        ]
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise CursorInvalid from error


def _parse(column: Any, text: Any) -> Any:
    kind = column.type.python_type
    if not isinstance(text, str) or "\x00" in text:
        raise CursorInvalid
    value = kind.fromisoformat(text) if hasattr(kind, "fromisoformat") else kind(text)
    if isinstance(value, datetime) and (value.tzinfo is None or not 1970 <= value.year < 9999):
        raise CursorInvalid
    return value
