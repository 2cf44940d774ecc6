"""The files of the public feed: sent from memory, built once a period, the same by all processes.

Two parts: what stands (names, places, hours, regions) and what holds now (modes, levels,
facilities, closings). Of all processes the first that is asked for a part in a period builds it,
and the others take what it wrote down (`editions.py`); whoever asks meanwhile waits. What did not
change keeps its `last_updated` and its tag, so that who holds it is told just that.
"""

import asyncio
import gzip
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from app.clock import Now
from app.db.engine import Database
from app.doors.desk import ControllerDesk
from app.feed import editions
from app.feed.documents import (
    Document,
    live_documents,
    read_live,
    read_standing,
    rfc3339,
    standing_documents,
)
from app.feed.editions import Built, Edition
from app.feed.rules import TTL_S, FeedFile, Part, left_s, part_of, period_of
from app.places.calendar import CalendarCache
from app.usual import live

log = logging.getLogger(__name__)

VERSION = "3.0"

PATIENCE_S = 2.0
"""Nobody waits longer than this, in seconds, for what was built to be written down."""


@dataclass(frozen=True, slots=True)
class Given:
    """A file, and for how long it is the newest."""

    built: Built
    max_age_s: int


class Feed:
    """The files in this process's memory."""

    def __init__(
        self,
        database: Database,
        calendar: CalendarCache,
        controllers: ControllerDesk,
        now: Now,
        public_url: str,
    ) -> None:
        self._database = database
        self._calendar = calendar
        self._controllers = controllers
        self._now = now
        """Asked again by whoever waited: by then another period may have begun."""
        self._public_url = public_url
        self._kept: dict[Part, Edition] = {}
        self._turning = {part: asyncio.Lock() for part in Part}
        self._writing: dict[Part, asyncio.Task[Edition]] = {}

    async def file(self, name: FeedFile) -> Given:
        """Give a file; without SQL unless a period began."""
        part = part_of(name)
        kept = self._current(part)
        if kept is None:
            async with self._turning[part]:
                # Who held the lock before has turned the page, unless that failed.
                kept = self._current(part) or await self._next(part)
        # The time again: building took some.
        return Given(kept.files[name], left_s(part, kept.from_at, self._now()))

    def _current(self, part: Part) -> Edition | None:
        kept = self._kept.get(part)
        return kept if kept is not None and kept.serves(self._now()) else None

    async def _next(self, part: Part) -> Edition:
        at = self._now()
        stands = await editions.read(self._database, part)
        if stands is not None and stands.serves(at):
            self._kept[part] = stands
            return stands
        # What we hold is newer than what stands if it could not be written down.
        known = [one for one in (stands, self._kept.get(part)) if one is not None]
        before = max(known, key=lambda one: one.from_at, default=None)
        new = await self._build(part, before, at)
        self._kept[part] = await self._share(new, over=stands)
        return self._kept[part]

    async def _build(self, part: Part, before: Edition | None, at: datetime) -> Edition:
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
        return await asyncio.to_thread(_written, part, documents, before, at)

    async def _share(self, new: Edition, *, over: Edition | None) -> Edition:
        """Give what is sent in this period: the new edition, or that of who was first.

        In a task of its own, that nobody's going away ends. While one of them waits for the
        database, no other is begun, and what was built is sent all the same.
        """
        writing = self._writing.get(new.part)
        if writing is not None and not writing.done():
            return new
        writing = asyncio.create_task(self._write(new, over))
        self._writing[new.part] = writing
        done, _ = await asyncio.wait({writing}, timeout=PATIENCE_S)
        return writing.result() if done else new

    async def _write(self, new: Edition, over: Edition | None) -> Edition:
        try:
            async with self._database.write() as tx:
                if await editions.replace(tx, new, over=over):
                    return new
            stands = await editions.read(self._database, new.part)
        except Exception as error:
            log.warning("feed not shared part=%s error=%s", new.part, type(error).__name__)
            return new
        return stands if stands is not None and stands.serves(new.from_at) else new


def _written(
    part: Part, documents: Mapping[FeedFile, Document], before: Edition | None, at: datetime
) -> Edition:
    files = {}
    for name, document in documents.items():
        said = {"ttl": TTL_S[part], "version": VERSION, "data": document}
        text = json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()
        etag = f'"{hashlib.sha256(text).hexdigest()[:16]}"'
        last = None if before is None else before.files.get(name)
        if last is not None and last.etag == etag:
            files[name] = last
            continue
        plain = f'{{"last_updated":"{rfc3339(at)}",'.encode() + text[1:]
        zipped = gzip.compress(plain, compresslevel=5, mtime=0)
        files[name] = Built(plain, zipped, etag, at)
    return Edition(part, period_of(part, at), files)
