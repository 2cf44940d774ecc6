"""Editions of the feed: what was built of a part for one period, in rows that all processes share.

Who was first in a period writes it down in place of the one that he read, by a compare-and-set on
the part's one row; who was not finds it there. Texts that did not change are not written again.
"""

import asyncio
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.engine import Database
from app.db.types import table_of
from app.db.upsert import moved, upsert
from app.feed.rules import FeedFile, Part, files_of, holds
from app.feed.tables import FeedEdition, FeedText

_EDITIONS, _TEXTS = table_of(FeedEdition), table_of(FeedText)


@dataclass(frozen=True, slots=True)
class Built:
    """A file, ready to be sent."""

    plain: bytes
    zipped: bytes
    etag: str
    """Of what it says, not of when it was said."""
    updated_at: datetime
    """When it last began to say something else."""


@dataclass(frozen=True, slots=True)
class Edition:
    """The files of a part, as they are sent in a period."""

    part: Part
    from_at: datetime
    """When the period began."""
    files: Mapping[FeedFile, Built]

    def serves(self, at: datetime) -> bool:
        """Whether this is sent at an instant; not if a version with fewer files built it."""
        return files_of(self.part) <= self.files.keys() and holds(self.part, self.from_at, at)


async def read(database: Database, part: Part) -> Edition | None:
    """Read the newest edition of a part: one statement; None when there is none yet."""
    query = (
        sa.select(
            _EDITIONS.c.from_at,
            _TEXTS.c.name,
            _TEXTS.c.zipped,
            _TEXTS.c.etag,
            _TEXTS.c.updated_at,
        )
        .join(_TEXTS, _TEXTS.c.part == _EDITIONS.c.part)
        # A newer version may have files that this one does not know.
        .where(_EDITIONS.c.part == part, _TEXTS.c.name.in_(files_of(part)))
    )
    async with database.read() as tx:
        rows = (await tx.execute(query)).all()
    return await asyncio.to_thread(_edition, part, rows) if rows else None


def _edition(part: Part, rows: Sequence[Any]) -> Edition:
    files = {
        row.name: Built(gzip.decompress(row.zipped), row.zipped, row.etag, row.updated_at)
        for row in rows
    }
    return Edition(part, rows[0].from_at, files)


async def replace(tx: AsyncSession, new: Edition, *, over: Edition | None) -> bool:
    """Write an edition down in place of the one that was read; False when that stands no more."""
    claim: Any
    if over is None:
        first = upsert(tx, _EDITIONS).values(part=new.part, from_at=new.from_at)
        claim = first.on_conflict_do_nothing()
    else:
        c = _EDITIONS.c
        stands = c.part == new.part, c.from_at == over.from_at
        claim = sa.update(_EDITIONS).where(*stands).values(from_at=new.from_at)
    # Whoever comes second waits here for the first to commit.
    if not moved(await tx.execute(claim)):
        return False
    changed = [
        {
            "name": name,
            "part": new.part,
            "etag": file.etag,
            "zipped": file.zipped,
            "updated_at": file.updated_at,
        }
        for name, file in new.files.items()
        if over is None or over.files.get(name) != file
    ]
    if changed:
        insert = upsert(tx, _TEXTS)
        values = {name: insert.excluded[name] for name in changed[0] if name != "name"}
        await tx.execute(
            insert.on_conflict_do_update(index_elements=["name"], set_=values), changed
        )
    return True
