"""The files of the public feed, kept in memory, built seldom.

Two parts: what stands (names, places, hours, regions) and what holds now (modes, levels,
facilities, closings). A part is built at most once per `ttl` in a process, by the first who asks
for it then; whoever asks meanwhile waits for that one. What did not change keeps its `last_updated`
and its tag, so that who holds it is told just that.
"""

import asyncio
import gzip
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from app.clock import Monotonic
from app.db.engine import Database
from app.doors.desk import ControllerDesk
from app.feed.documents import (
    Document,
    live_documents,
    read_live,
    read_standing,
    rfc3339,
    standing_documents,
)
from app.feed.rules import TTL_S, FeedFile, Part, part_of
from app.places.calendar import CalendarCache
from app.usual import live

VERSION = "3.0"


@dataclass(frozen=True, slots=True)
class Built:
    """A file, ready to be sent."""

    plain: bytes
    zipped: bytes
    etag: str
    """Of what it says, not of when it was said."""
    updated_at: datetime
    """When it last began to say something else."""
    ttl_s: int


@dataclass(frozen=True, slots=True)
class _Kept:
    files: Mapping[FeedFile, Built]
    built: float
    """The monotonic instant."""


class Feed:
    """The files in this process's memory."""

    def __init__(
        self,
        database: Database,
        calendar: CalendarCache,
        controllers: ControllerDesk,
        monotonic: Monotonic,
        public_url: str,
    ) -> None:
        self._database = database
        self._calendar = calendar
        self._controllers = controllers
        self._monotonic = monotonic
        self._public_url = public_url
        self._kept: dict[Part, _Kept] = {}
        self._building = {part: asyncio.Lock() for part in Part}

    async def file(self, name: FeedFile, *, at: datetime) -> Built:
        """Give a file; without SQL unless it is time to build."""
        part = part_of(name)
        kept = self._fresh(part)
        if kept is None:
            async with self._building[part]:
                # Who held the lock before has built it, unless that failed.
                kept = self._fresh(part) or await self._build(part, at)
        return kept.files[name]

    def _fresh(self, part: Part) -> _Kept | None:
        kept = self._kept.get(part)
        if kept is None or self._monotonic() - kept.built >= TTL_S[part]:
            return None
        return kept

    async def _build(self, part: Part, at: datetime) -> _Kept:
        began = self._monotonic()
        calendar = (await self._calendar.fresh(self._database)).current
        async with self._database.read() as tx:
            if part is Part.STANDING:
                standing = await read_standing(tx)
            else:
                silence = self._controllers.silence
                seen = await read_live(tx, calendar, silence=silence, at=at)
        if part is Part.STANDING:
            documents = await asyncio.to_thread(standing_documents, standing, self._public_url)
        else:
            heard = live.heard_by_station(seen.signs, self._controllers, at=at)
            documents = await asyncio.to_thread(live_documents, seen, heard, calendar, at)
        before = self._kept.get(part)
        files = await asyncio.to_thread(_written, documents, before, TTL_S[part], at)
        self._kept[part] = _Kept(files, began)
        return self._kept[part]


def _written(
    documents: Mapping[FeedFile, Document], before: _Kept | None, ttl_s: int, at: datetime
) -> Mapping[FeedFile, Built]:
    found = {}
    for name, document in documents.items():
        data = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        last = before.files[name] if before is not None else None
        if last is not None and last.etag == etag:
            found[name] = last
            continue
        head = {"last_updated": rfc3339(at), "ttl": ttl_s, "version": VERSION}
        plain = json.dumps(head, separators=(",", ":")).encode()[:-1] + b',"data":' + data + b"}"
        zipped = gzip.compress(plain, compresslevel=5, mtime=0)
        found[name] = Built(plain, zipped, etag, at, ttl_s)
    return found
