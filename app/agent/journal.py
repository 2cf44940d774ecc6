"""The agent's journal: numbered events on the disk, uploaded until the server has each of them.

SQLite keeps it, synced at every event, so that a power cut loses nothing that was recorded. When it
is full the oldest give way, and an `overflow` event says exactly which numbers were lost. A journal
that is gone or damaged begins a new epoch.

A disk that refuses to open it (full, worn out, read-only) says nothing of the journal: its file
stays as it is, and this boot writes in memory. What is written there has no numbers yet, so that
none comes twice, and is not uploaded: only the disk can hold it until the server does. As soon as
the disk takes writes it moves into the file, is numbered there, and told. Until then no pass opens
without the server, for nobody could remember it over a power cut.
"""

import asyncio
import contextlib
import json
import logging
import math
import sqlite3
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from app.agent.enrolment import FILE as IDENTITY
from app.agent.link import Link
from app.agent.pace import Backoff, Pace
from app.agent.server import CredentialRefused, Server, ServerAway, body
from app.agent.state import StateFolder

logger = logging.getLogger(__name__)

CAPACITY = 50_000
"""Events kept for a server that is away (promise R15)."""

AT_ONCE = 500
"""Events in one upload; the server takes no more."""

USED_KEPT_S = 86_400.0
"""How long a pass that was shown is remembered, in seconds; it was good for a minute."""

DROPPED = 100
"""So many of the oldest give way at a time when it is full."""


EPOCH_FILE = "epoch.json"

GREATEST_EPOCH = 2**31 - 1
"""The server takes no greater one."""

SINCE = datetime(2020, 1, 1, tzinfo=UTC)

DRAWN = (1_000_000, 2_000_000)
"""Above what a box counts in its life, below the minutes from `SINCE` to any right time."""


UNREADABLE = "error code="
"""So the check of a journal speaks of a page that the disk did not give, which is no damage."""

MOST_UNWRITTEN = 1_000
"""So many events that the disk refuses stay in memory; then the oldest of them are lost."""

TABLES = (
    "CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY, event TEXT)",
    "CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, value INTEGER)",
    "CREATE TABLE IF NOT EXISTS used (jti TEXT PRIMARY KEY, until REAL, act TEXT)",
)
"""What a journal's file holds."""


class Journal:
    """The events of one controller that the server may not have yet."""

    FILE = "journal.db"

    def __init__(
        self,
        state: StateFolder,
        *,
        boot_id: str,
        pace: Pace,
        link: Link,
        capacity: int = CAPACITY,
    ) -> None:
        self._boot_id = boot_id
        self._pace = pace
        self._link = link
        self._capacity = capacity
        self._state = state
        self.news = asyncio.Event()
        """Set while something waits for the server."""
        self._unfinished: dict[str, dict[str, Any]] = {}
        """Acts whose end the disk refused, by pass; it is asked again before each upload."""
        self._unwritten: deque[dict[str, Any]] = deque(maxlen=MOST_UNWRITTEN)
        """Events that the disk refused, oldest first; it is asked again with the next, and before
        each upload."""
        self.is_refused = False
        """Whether the disk refused the journal's file, and all stands in memory."""
        try:
            self.epoch, self._db, self.remembers = self._open(state)
        except (sqlite3.OperationalError, OSError) as error:
            logger.error("journal refused by the disk, in memory until it is taken why=%s", error)
            self.epoch, self._db, self.remembers = 0, _in_memory(), False
            self.is_refused = True
        self.held = self._counted()
        """How many events the server may not have. Counted once: among tens of thousands that
        would be the dearest part of writing one more down."""
        self._recover()
        if self.held:
            self.news.set()

    def _open(self, state: StateFolder) -> tuple[int, sqlite3.Connection, bool]:
        return _opened(state, self._pace)

    def record(self, type: str, **fields: Any) -> int:
        """Write one event down; it is on the disk when this returns. Gives its number.

        What the disk refuses waits in memory until the disk takes it: it has no number yet, but 0.
        """
        if len(self._unwritten) == MOST_UNWRITTEN:
            logger.error("event lost type=%s", self._unwritten[0]["type"])
        self._unwritten.append(self._event(type, fields))
        self.news.set()
        try:
            return self._write_all()
        except sqlite3.Error as error:
            logger.error("event not kept yet type=%s why=%s", type, error)
            return 0

    def _write_all(self) -> int:
        """Write down what waits in memory; gives the last number."""
        seq = 0
        with self._writing():
            for event in self._unwritten:
                if self.held >= self._capacity:
                    self._give_way()
                seq = self._insert(event)
        self._unwritten.clear()
        return seq

    def is_used(self, jti: str) -> bool:
        """Whether a pass was shown to us before."""
        row = self._db.execute("SELECT 1 FROM used WHERE jti = ?", (jti,)).fetchone()
        return row is not None

    def use(self, jti: str, expires_at: datetime) -> bool:
        """Remember that a pass was shown, on the disk; says whether it is the first time."""
        with self._writing():
            return self._use(jti, expires_at, None)

    def begin(self, jti: str, expires_at: datetime, type: str, **fields: Any) -> bool:
        """Use a pass up for an act that follows at once, and that `finish` records.

        Both are one write on the disk before the act: a power cut in between burns the pass, and
        the next boot records the act as interrupted. Says False, and writes nothing, if the pass
        was used before.
        """
        if self.is_refused:
            raise sqlite3.OperationalError("the journal is in memory")
        with self._writing():
            return self._use(jti, expires_at, self._event(type, fields | {"jti": jti}))

    def finish(self, jti: str, **changes: Any) -> None:
        """Record the act that was begun; what the disk refuses, as soon as it takes it."""
        self._unfinished[jti] = changes
        self.news.set()
        try:
            self._finish_all()
        except sqlite3.Error as error:
            logger.error("act not recorded yet why=%s", error)

    def _finish_all(self) -> None:
        with self._writing():
            for jti, changes in self._unfinished.items():
                self._finish(jti, changes)
        self._unfinished.clear()

    def _use(self, jti: str, expires_at: datetime, act: dict[str, Any] | None) -> bool:
        self._db.execute("DELETE FROM used WHERE act IS NULL AND until < ?", (self._pace.wall(),))
        # By our own clock, which may be off: kept for a day beyond what the pass says.
        until = max(self._pace.wall(), expires_at.timestamp()) + USED_KEPT_S
        done = self._db.execute(
            "INSERT OR IGNORE INTO used VALUES (?, ?, ?)",
            (jti, until, None if act is None else json.dumps(act)),
        )
        return done.rowcount == 1

    def _finish(self, jti: str, changes: dict[str, Any]) -> None:
        act = "SELECT CAST(act AS BLOB) FROM used WHERE jti = ?"
        row = self._db.execute(act, (jti,)).fetchone()
        if row is None or row[0] is None:
            return
        if self.held >= self._capacity:
            self._give_way()
        begun = _object(row[0]) or self._event("note", {"what": "act_unreadable", "jti": jti})
        self._insert(begun | changes)
        self._db.execute("UPDATE used SET act = NULL WHERE jti = ?", (jti,))

    def _recover(self) -> None:
        """Record what an earlier boot began and could not finish."""
        for (jti,) in self._db.execute("SELECT jti FROM used WHERE act IS NOT NULL").fetchall():
            self.finish(jti, interrupted=True)

    def waiting(self, limit: int = AT_ONCE) -> list[dict[str, Any]]:
        """Give the oldest events that the server may not have; says first what was lost.

        So it is of an event that the disk gives back as something else: it would hold up the rest.
        """
        if self.is_refused:
            self._move_to_file()
        self._finish_all()
        self._write_all()
        with self._writing():
            self._report_lost()
        found = self._oldest(limit)
        unreadable = [seq for seq, event in found if event is None]
        if unreadable:
            logger.error("events cannot be read numbers=%s", unreadable)
            with self._writing():
                for seq in unreadable:
                    self._delete("seq = ?", seq)
                    self._add("overflow", {"first_seq": seq, "last_seq": seq})
            found = self._oldest(limit)
        return [event for _, event in found if event is not None]

    def _oldest(self, limit: int) -> list[tuple[int, dict[str, Any] | None]]:
        """Give numbers with their events; None where the disk gives something else."""
        # As bytes: what is no text any more would stop the whole row of them.
        rows = self._db.execute(
            "SELECT seq, CAST(event AS BLOB) FROM events ORDER BY seq LIMIT ?", (limit,)
        )
        read = [(seq, _object(line)) for seq, line in rows]
        return [(seq, event if event and event.get("seq") == seq else None) for seq, event in read]

    def settle(self, numbers: Iterable[int]) -> None:
        """Forget what the server holds: taken in, known before, or in quarantine."""
        with self._writing():
            for number in numbers:
                self._delete("seq = ?", number)
        # Asked of the disk, not of the count: news of nothing would keep the upload busy for ever.
        if self._db.execute("SELECT 1 FROM events LIMIT 1").fetchone() is None:
            self.held = 0
            if self._kept("lost_first") is None and not (self._unfinished or self._unwritten):
                self.news.clear()

    def clocks(self) -> dict[str, Any]:
        """Say what our clocks show now, for the server to place the events on its own."""
        clocks = {"sent_at": self._wall(), "mono_ms": int(self._pace.monotonic() * 1000)}
        sync = self._link.sync()
        return clocks | ({"sync": sync} if sync else {})

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _wall(self) -> str:
        return datetime.fromtimestamp(self._pace.wall(), UTC).isoformat()

    def _add(self, type: str, fields: dict[str, Any]) -> int:
        return self._insert(self._event(type, fields))

    def _event(self, type: str, fields: dict[str, Any]) -> dict[str, Any]:
        return {
            **fields,
            **self._noted(),
            "event_id": uuid.uuid4().hex,
            "type": type,
            "boot_id": self._boot_id,
            "occurred_at": self._wall(),
            "mono_ms": int(self._pace.monotonic() * 1000),
        }

    def _noted(self) -> dict[str, Any]:
        """Say what we know of the server's time: after a power cut no clock of ours tells it."""
        known = self._link.now()
        if known is None:
            return {}
        # Rounded up: a bound that is told too small is none.
        error_ms = math.ceil(known.error / timedelta(milliseconds=1))
        return {"server_time": known.at.isoformat(), "error_ms": error_ms}

    def _insert(self, event: dict[str, Any]) -> int:
        seq = (self._kept("last_seq") or 0) + 1
        line = json.dumps(event | {"seq": seq})
        self._db.execute("INSERT INTO events VALUES (?, ?)", (seq, line))
        self.held += 1
        self._keep("last_seq", seq)
        return seq

    def _move_to_file(self) -> None:
        """Go on in the file that the disk refused; raises what it says when it still does."""
        memory, held = self._db, self.held
        try:
            epoch, db, remembers = self._open(self._state)
        except OSError as error:
            raise sqlite3.OperationalError(str(error)) from error
        events = memory.execute("SELECT event FROM events ORDER BY seq").fetchall()
        used = memory.execute("SELECT jti, until, act FROM used").fetchall()
        self._db = db
        try:
            self.held = self._counted()
            self._recover()
            with self._writing():
                for (event,) in events:
                    if self.held >= self._capacity:
                        self._give_way()
                    self._insert(json.loads(event))
                db.executemany("INSERT OR REPLACE INTO used VALUES (?, ?, ?)", used)
        except BaseException:
            self._db, self.held = memory, held
            db.close()
            raise
        self.epoch, self.remembers, self.is_refused = epoch, remembers, False
        memory.close()
        logger.warning("journal taken by the disk events=%d", len(events))

    def _give_way(self) -> None:
        """Drop the oldest and remember which; what they said of losses is remembered too."""
        if self.is_refused:
            raise sqlite3.OperationalError("the memory is full too")
        number = min(DROPPED, self._capacity)
        rows = self._oldest(number)
        firsts = [seq for seq, _ in rows]
        firsts += [
            event["first_seq"] for _, event in rows if event and event.get("type") == "overflow"
        ]
        known = self._kept("lost_first")
        self._keep("lost_first", min(firsts) if known is None else min(known, *firsts))
        self._keep("lost_last", rows[-1][0])
        self._delete("seq <= ?", rows[-1][0])
        logger.warning("journal full lost_through=%d", rows[-1][0])

    def _report_lost(self) -> None:
        first, last = self._kept("lost_first"), self._kept("lost_last")
        if first is None or last is None:
            return
        self._add("overflow", {"first_seq": first, "last_seq": last})
        self._db.execute("DELETE FROM kept WHERE name IN ('lost_first', 'lost_last')")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Open a transaction; one that fails takes what it counted back."""
        before = self.held
        try:
            with self._db:
                yield
        except BaseException:
            self.held = before
            raise

    def _delete(self, which: str, number: int) -> None:
        self.held -= self._db.execute(f"DELETE FROM events WHERE {which}", (number,)).rowcount

    def _counted(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM events").fetchone()
        return int(count)

    def _kept(self, name: str) -> int | None:
        row = self._db.execute("SELECT value FROM kept WHERE name = ?", (name,)).fetchone()
        return None if row is None else int(row[0])

    def _keep(self, name: str, value: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (name, value))


def _opened(state: StateFolder, pace: Pace) -> tuple[int, sqlite3.Connection, bool]:
    """Open the journal, or begin a new epoch where there is none that can be read.

    The epoch stands beside the journal and in it, so that one damaged file takes neither. The last
    says whether it remembers earlier boots. Raises OperationalError or OSError when the disk
    refuses: that is no damage, and leaves the file alone.
    """
    path = state.path / Journal.FILE
    # Whoever is enrolled had a journal: it is written before the first request.
    is_new = not any((state.path / name).exists() for name in (path.name, EPOCH_FILE, IDENTITY))
    beside = _beside(state)
    db = _sound(path) if path.exists() else None
    inside, has_numbers = _inside(db) if db is not None else (None, False)
    known = inside or beside
    # A greater one beside: a later journal gave numbers already, this is an old copy.
    # One that says nothing and numbered nothing was begun, and no further; or cut to nothing, and
    # the numbers of its epoch may be given.
    is_sound = inside is not None or has_numbers
    if db is not None and is_sound and known is not None and known >= (beside or 0):
        _write_down(state, db, known, inside=inside, beside=beside)
        return known, db, True
    if db is not None:
        db.close()
    epoch = (beside or 0) + 1 if beside or is_new else _unheard_of(pace)
    # The number first: an epoch that was counted twice could give one number to two events.
    state.write(EPOCH_FILE, {"epoch": epoch})
    if path.exists():
        logger.error("journal cannot be used inside=%s beside=%s", inside, beside)
        # Kept beside, for whoever wants to know what it held.
        path.replace(path.with_suffix(f".epoch-{known or 'unknown'}.damaged"))
    for rest in (path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        rest.unlink(missing_ok=True)
    db = _connected(str(path))
    _write_down(state, db, epoch, inside=None, beside=epoch)
    return epoch, db, False


def _beside(state: StateFolder) -> int | None:
    """Read the epoch that stands beside the journal; None when it cannot be known."""
    kept = state.read(EPOCH_FILE).get("epoch")
    return kept if isinstance(kept, int) and 0 < kept < GREATEST_EPOCH else None


def _sound(path: Path) -> sqlite3.Connection | None:
    """Open a journal that is there; None when it is damaged."""
    try:
        return _connected(str(path))
    except sqlite3.OperationalError:
        raise  # The disk refuses, and may not the next time.
    except sqlite3.DatabaseError as error:
        logger.error("journal unreadable why=%s", error)
        return None


def _inside(db: sqlite3.Connection) -> tuple[int | None, bool]:
    """Read the epoch that a journal says it is of, and whether it gave a number to any event.

    None: it was made before they said so, or its making ended too early.
    """
    kept = dict(db.execute("SELECT name, value FROM kept"))
    epoch = kept.get("epoch")
    return None if epoch is None else int(epoch), "last_seq" in kept


def _write_down(
    state: StateFolder,
    db: sqlite3.Connection,
    epoch: int,
    *,
    inside: int | None,
    beside: int | None,
) -> None:
    """Write the epoch where it does not stand yet; a disk that refuses may do so the next time."""
    if inside != epoch:
        with contextlib.suppress(sqlite3.OperationalError), db:
            db.execute("INSERT OR REPLACE INTO kept VALUES ('epoch', ?)", (epoch,))
    if beside != epoch:
        state.write_if_possible(EPOCH_FILE, {"epoch": epoch})


def _unheard_of(pace: Pace) -> int:
    """Give an epoch that none before can have had, when nobody knows the last one.

    Minutes since 2020: epochs are counted one by one, and this grows faster. A box that woke with
    a clock from before that draws one that lies between.
    """
    minutes = int(pace.wall() - SINCE.timestamp()) // 60
    return minutes if DRAWN[1] < minutes <= GREATEST_EPOCH else pace.dice.randrange(*DRAWN)


def _object(line: bytes) -> dict[str, Any] | None:
    """Read one JSON object; None where the disk gave something else."""
    try:
        read = json.loads(line)
    except ValueError:
        return None
    return read if isinstance(read, dict) else None


def _connected(path: str) -> sqlite3.Connection:
    Path(path).touch(mode=0o600)  # Its owner's alone, as the rest of the folder.
    db = sqlite3.connect(path)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        with db:
            for table in TABLES:
                db.execute(table)
        (found,) = db.execute("PRAGMA quick_check").fetchone()
        if UNREADABLE in found and f"{UNREADABLE}{sqlite3.SQLITE_CORRUPT}" not in found:
            raise sqlite3.OperationalError(found)
        if found != "ok":
            raise sqlite3.DatabaseError(found)
    except BaseException:
        db.close()
        raise
    return db


def _in_memory() -> sqlite3.Connection:
    db = sqlite3.connect(":memory:")
    for table in TABLES:
        db.execute(table)
    return db


async def upload(
    journal: Journal, server: Server, *, boot_id: str, pace: Pace, refused_pause_s: float
) -> None:
    """Upload what waits, batch by batch, for as long as the agent lives."""
    backoff = Backoff(pace, first_s=1, most_s=30)
    limit = AT_ONCE
    while True:
        await journal.news.wait()
        try:
            events = journal.waiting(limit)
            settled = await _send(journal, server, events, boot_id=boot_id) if events else []
            journal.settle(settled)
        except _TooLarge:
            limit = max(1, limit // 2)
            continue
        except ServerAway as away:
            await pace.sleep(backoff.next(away.retry_after_s))
        except CredentialRefused:
            await pace.sleep(refused_pause_s)
        except sqlite3.Error as error:
            # Our own disk refuses; what it holds is sent again, and the server takes it once.
            logger.error("journal not written why=%s", error)
            await pace.sleep(backoff.next())
        else:
            limit = AT_ONCE
            if settled:
                backoff.reset()
            elif events:
                # It answers and holds nothing: without a pause this would be a busy loop.
                await pace.sleep(backoff.next())


class _TooLarge(Exception):
    """The batch is too large for the server."""


async def _send(
    journal: Journal, server: Server, events: list[dict[str, Any]], *, boot_id: str
) -> list[int]:
    """Send one batch; gives the numbers that the server holds now."""
    batch = {"boot_id": boot_id, "epoch": journal.epoch, "events": events, **journal.clocks()}
    response = await server.call("POST", "/v1/controller/events", json=batch)
    if response.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE and len(events) > 1:
        raise _TooLarge
    if response.status_code != httpx.codes.OK:
        # A server that knows no journal, or one event it can never read: later, then.
        raise ServerAway(f"events answered {response.status_code}")
    results = body(response).get("results")
    found = results if isinstance(results, list) else []
    held = ("accepted", "duplicate", "quarantined")
    sent = {event["seq"] for event in events}
    quarantined = [r for r in found if isinstance(r, dict) and r.get("status") == "quarantined"]
    for result in quarantined:
        logger.warning("event in quarantine seq=%s why=%s", result.get("seq"), result.get("reason"))
    return [
        result["seq"]
        for result in found
        if isinstance(result, dict)
        and result.get("status") in held
        and isinstance(result.get("seq"), int)
        and result["seq"] in sent  # What was not sent is not held, whatever an answer says.
    ]
