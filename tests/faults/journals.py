"""Journals sent to a server that may die: what was acknowledged is written down, and checked."""

import asyncio
import contextlib
import json
import os
import random
import sqlite3
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

from app.doors.tables import JournalEntry, Scan
from tests.faults.agents import Box, House, Town

CALL_S = 30.0
"""On a busy machine a hurried client only adds to the work."""


class Oracle:
    """What clients were told, on the disk before they go on; it outlives whatever is killed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self.events: set[tuple[str, int, int, str]] = set()
        """(controller, epoch, seq, event id) of every acknowledged event."""
        self.scans: set[str] = set()

    def event(self, box: Box, epoch: int, seq: int, event_id: str) -> None:
        """An event was answered as held."""
        key = (str(box.controller), epoch, seq, event_id)
        self._note(key)
        self.events.add(key)

    def scan(self, scan_id: str) -> None:
        """A scan was answered."""
        self._note(scan_id)
        self.scans.add(scan_id)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _note(self, what: Any) -> None:
        self._file.write(json.dumps(what) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def an_event(box: Box, seq: int) -> dict[str, Any]:
    """Make a journal event whose id says its number; the same again is the same."""
    return {
        "event_id": f"e{seq}-{uuid.uuid5(box.controller, str(seq)).hex[:8]}",
        "seq": seq,
        "type": "note",
        "occurred_at": "2026-11-23T23:40:00+08:00",
        "what": f"n{seq}",
    }


async def sends(
    http: httpx.AsyncClient, box: Box, events: Sequence[dict[str, Any]], *, epoch: int = 1
) -> list[dict[str, Any]]:
    """Upload a batch; gives the results, or raises what httpx raises."""
    answer = await http.post(
        "/v1/controller/events",
        json={"boot_id": "b", "epoch": epoch, "events": list(events)},
        headers={"Authorization": f"Bearer {box.credential}"},
    )
    answer.raise_for_status()
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


@dataclass(slots=True)
class Uploader:
    """A box that uploads until it is told to stop, repeating what was not answered."""

    house: House[Town]
    box: Box
    oracle: Oracle
    dice: random.Random
    sent: int = 0
    repeats: int = 0
    answers: Counter[int] = field(default_factory=Counter)
    """How often each status came."""
    seq: int = field(default=0)

    async def run(self) -> None:
        """Upload batch after batch until cancelled."""
        async with httpx.AsyncClient(base_url=self.house.url, timeout=CALL_S) as http:
            while True:
                size = self.dice.randint(1, 20)
                events = [an_event(self.box, self.seq + n) for n in range(1, size + 1)]
                await self._until_held(http, events)
                self.seq += size
                self.sent += size

    async def _until_held(self, http: httpx.AsyncClient, events: list[dict[str, Any]]) -> None:
        while True:
            try:
                results = await sends(http, self.box, events)
            except httpx.HTTPError as error:
                if isinstance(error, httpx.HTTPStatusError):
                    self.answers[error.response.status_code] += 1
                self.repeats += 1
                await asyncio.sleep(0.02)
                continue
            self.answers[200] += 1
            for result in results:
                if result["status"] in ("accepted", "duplicate"):
                    self.oracle.event(self.box, 1, result["seq"], result["event_id"])
            return


async def scanning(
    house: House[Town],
    oracle: Oracle,
    dice: random.Random,
    answers: Counter[int] | None = None,
) -> None:
    """Let workers scan until cancelled; count the statuses if asked to."""
    async with httpx.AsyncClient(base_url=house.url, timeout=CALL_S) as http:
        while True:
            worker, box = dice.choice(house.built.workers), dice.choice(house.built.boxes)
            headers = {**worker.headers, "Idempotency-Key": f"{dice.getrandbits(64):x}"}
            with contextlib.suppress(httpx.HTTPError):
                answer = await http.post("/v1/scans", json={"token": box.poster}, headers=headers)
                if answers is not None:
                    answers[answer.status_code] += 1
                if answer.status_code in (200, 201):
                    oracle.scan(answer.json()["id"])
            await asyncio.sleep(0.01)


async def lost_or_doubled(house: House[Town], oracle: Oracle) -> list[str]:
    """Compare what was acknowledged with what the database holds."""
    rows = await house.rows(
        sa.select(
            JournalEntry.controller_id,
            JournalEntry.epoch,
            JournalEntry.seq,
            JournalEntry.event_id,
        )
    )
    held = [(str(row.controller_id), row.epoch, row.seq, row.event_id) for row in rows]
    found = [f"acknowledged and gone: {key}" for key in sorted(oracle.events - set(held))[:5]]
    if len({key[:3] for key in held}) != len(held):
        found.append("one number stands for two events")
    scans = {str(row.id) for row in await house.rows(sa.select(Scan.id))}
    found += [f"scan acknowledged and gone: {key}" for key in sorted(oracle.scans - scans)[:5]]
    return found


def integrity(house: House[Town]) -> list[str]:
    """Ask SQLite whether its file is whole (R24)."""
    if house.round.database != "sqlite":
        return []
    path = house.settings.data_dir / "yizhan.db"
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        said = db.execute("PRAGMA integrity_check").fetchone()
    return [] if said == ("ok",) else [f"integrity_check: {said}"]
