"""The link to the server: whether it is heard, and what time it is there.

The server's time is learnt only from its answers to our credential, and counted on by the monotonic
clock (T21). While the server is silent the controller works alone; neither change ever pulses a
relay.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx

from app.agent.pace import Pace
from app.agent.state import StateFolder
from app.doors.rules.alone import clock_error

FILE = "clock.json"

SILENCE_S = 75.0
"""Nothing heard for so long, in seconds: the controller works alone (the server's own figure)."""

KEPT_EVERY_S = 600.0
"""How often the heard time is written down for the next boot, in seconds."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One answer that said what time it was."""

    server_time: datetime
    mono: float
    """The monotonic clock when the answer was there."""
    round_trip: timedelta


@dataclass(frozen=True, slots=True)
class Estimate:
    """The server's time, as well as we know: within `error` of `at`."""

    at: datetime
    error: timedelta


class Link:
    """What one controller knows of its server in this boot."""

    def __init__(self, state: StateFolder, pace: Pace, *, has_rtc: bool = False) -> None:
        self._state = state
        self._pace = pace
        self._boot_mono = pace.monotonic()
        self._last_mono = self._boot_mono
        self._best: Heard | None = None
        self._kept = state.read(FILE) if has_rtc else {}
        self._kept_mono: float | None = None
        self.silence_s = SILENCE_S
        self._was_alone = False

    def sent(self) -> float:
        """Note when a request goes out, on the monotonic clock."""
        return self._pace.monotonic()

    def heard(self, response: httpx.Response, sent_at: float) -> None:
        """Take an answer in: one that says what time it is at the server comes from there."""
        now = self._pace.monotonic()
        said = instant(response.headers.get("Server-Time"))
        if said is None:
            return  # Somebody in between, such as a portal's page: not our server.
        self._last_mono = now
        heard = Heard(said, now, timedelta(seconds=max(0.0, now - sent_at)))
        known = self._best
        if known is not None and self._contradict(heard, known, now):
            # One was told while the server's clock was wrong: what it says now counts, and what
            # was kept for the next boot is wrong too.
            known = self._kept_mono = None
        if known is None or self._error(heard, now) <= self._error(known, now):
            self._best = heard
        self._keep(now)

    @property
    def alone(self) -> bool:
        """Whether the server has been silent for too long."""
        return self._pace.monotonic() - self._last_mono >= self.silence_s

    def turned(self) -> bool | None:
        """Say once when this changes: True, now alone; False, heard again; else None."""
        if self.alone == self._was_alone:
            return None
        self._was_alone = not self._was_alone
        return self._was_alone

    def now(self) -> Estimate | None:
        """Give the server's time; None when nobody can know it."""
        now = self._pace.monotonic()
        if self._best is not None:
            return self._by(self._best, now)
        return self._by_own_clock()

    def heard_ago(self) -> timedelta | None:
        """Say how long ago the server was last heard, over reboots if we have a clock for it."""
        if self._best is not None:
            return timedelta(seconds=self._pace.monotonic() - self._last_mono)
        estimate, last = self._by_own_clock(), instant(self._kept.get("server_time"))
        return estimate.at - last if estimate and last else None

    def boot_at(self) -> Estimate | None:
        """Give the server's time at the start of this boot."""
        estimate = self.now()
        if estimate is None:
            return None
        since = timedelta(seconds=self._pace.monotonic() - self._boot_mono)
        return Estimate(estimate.at - since, estimate.error)

    def sync(self) -> dict[str, object] | None:
        """Give the instant that both sides knew, for the journal's corrected times."""
        if self._best is None:
            return None
        # The server counts half the round trip on from its own time, at our clock then.
        return {
            "server_time": self._best.server_time.isoformat(),
            "mono_ms": int(self._best.mono * 1000),
            "rtt_ms": min(int(self._best.round_trip / timedelta(milliseconds=1)), 600_000),
        }

    @classmethod
    def _by(cls, heard: Heard, now: float) -> Estimate:
        since = timedelta(seconds=now - heard.mono)
        at = heard.server_time + heard.round_trip / 2 + since
        return Estimate(at, cls._error(heard, now))

    @classmethod
    def _contradict(cls, one: Heard, other: Heard, now: float) -> bool:
        """Whether two answers cannot both be of a clock that was right."""
        a, b = cls._by(one, now), cls._by(other, now)
        return abs(a.at - b.at) > a.error + b.error

    @staticmethod
    def _error(heard: Heard, now: float) -> timedelta:
        return clock_error(timedelta(seconds=now - heard.mono), heard.round_trip)

    def _by_own_clock(self) -> Estimate | None:
        """Go on from what an earlier boot heard; for boxes with a clock that runs on a battery."""
        server_time = instant(self._kept.get("server_time"))
        wall, round_trip = self._kept.get("wall"), self._kept.get("round_trip_s")
        if server_time is None or not isinstance(wall, float) or not isinstance(round_trip, float):
            return None
        since = timedelta(seconds=self._pace.wall() - wall)
        if since < timedelta(0):
            return None  # Somebody set it back, or the battery is empty.
        # What was kept is an estimate already: half the trip is in it, and is its error.
        return Estimate(server_time + since, clock_error(since, timedelta(seconds=round_trip)))

    def _keep(self, now: float) -> None:
        if self._kept_mono is not None and now - self._kept_mono < KEPT_EVERY_S:
            return
        assert self._best is not None
        self._kept_mono = now
        # Our wall clock beside the server's time, both as of now.
        estimate = self.now()
        assert estimate is not None
        kept = {
            "server_time": estimate.at.isoformat(),
            "wall": float(self._pace.wall()),
            "round_trip_s": 2 * estimate.error.total_seconds(),
        }
        self._state.write_if_possible(FILE, kept)


def instant(said: object) -> datetime | None:
    """Read a time with its offset; None for anything else, and for a year that nobody lives in."""
    if not isinstance(said, str):
        return None
    try:
        found = datetime.fromisoformat(said)
    except ValueError:
        return None
    # Near the first and the last year of all, sums with a time would leave the calendar.
    is_ours = found.tzinfo is not None and 1970 <= found.year <= 2100
    return found.astimezone(UTC) if is_ours else None
