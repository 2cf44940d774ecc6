"""Seeded bugs of the controller's side: at the door, and where the server speaks to it.

Each is entered under its name with `bug`, and imports what it patches when it is called: an agent's
process need not know the server.
"""

from typing import Any

from tests.faults.bugs import bug


@bug
def claim_without_state_check() -> None:
    """The server grants every claim of a live command, whoever had it before (R04)."""
    import sqlalchemy as sa

    from app.doors import commands
    from app.doors.rules import CommandState
    from app.doors.tables import Command

    async def claim(
        tx: Any, controller_id: Any, command_id: Any, wanted: Any, *, clock: Any, now: Any, **_: Any
    ) -> Any:
        row = (
            await tx.execute(
                sa.update(Command)
                .where(
                    Command.id == command_id,
                    Command.controller_id == controller_id,
                    clock.live(Command.expires_at, Command.expires_mono),
                )
                .values(
                    state=CommandState.CLAIMED,
                    claimed_at=now(),
                    boot_id=wanted.boot_id,
                    nonce=wanted.nonce,
                )
                .returning(*commands._grant_columns(clock))
            )
        ).one_or_none()
        return commands._grant(row, clock) if row else commands.CommandExpired()

    vars(commands)["claim"] = claim


@bug
def forgets_what_it_pulsed() -> None:
    """The agent remembers nothing of this boot, and claims with one nonce for all (R04)."""
    from app.agent import commands

    class Always:
        """One nonce for ever."""

        @staticmethod
        def token_urlsafe(size: int) -> str:
            return "n" * size

    def take(self: Any, command: str) -> bool:
        return True

    vars(commands)["secrets"] = Always
    commands.Commands.take = take  # type: ignore[method-assign]


@bug
def ttl_from_wall_clock() -> None:
    """Both sides count a command's time on the wall clock (R05); see `ttl_from_the_answer` too."""
    import time
    from datetime import timedelta

    from app.agent import loop
    from app.agent.pace import Pace
    from app.clock import utc_now
    from app.db import clock

    def deadline(self: Any, seen: Any, *, since: float, seconds: float) -> Any:
        return clock.Deadline(utc_now() + timedelta(seconds=seconds), None)

    def live(self: Any, expires_at: Any, expires_mono: Any) -> Any:
        return expires_at > self.now()

    def left_ms(self: Any, deadline: Any, now: Any) -> int:
        return max(0, int((deadline.expires_at - utc_now()) / timedelta(milliseconds=1)))

    vars(loop)["Pace"] = lambda: Pace(monotonic=time.time)
    for kind in (clock.ProcessClock, clock.DatabaseClock):
        kind.deadline = deadline  # type: ignore[method-assign]
        kind.live = live  # type: ignore[method-assign]
        kind.left_ms = left_ms  # type: ignore[method-assign]


@bug
def ttl_from_the_answer() -> None:
    """The agent counts a grant's time from when its answer came, not from the claim (R05)."""
    from app.agent import commands

    read = commands._grant

    def grant(command: str, answer: Any, *, sent_at: float) -> Any:
        import time

        return read(command, answer, sent_at=time.clock_gettime(time.CLOCK_BOOTTIME))

    vars(commands)["_grant"] = grant


@bug
def unlock_in_shadow() -> None:
    """An unlock is a state that a controller catches up with (R07).

    The server tells of what was never claimed, however old; the agent pulses without a claim.
    """
    import asyncio

    import sqlalchemy as sa

    from app.agent.commands import Commands
    from app.agent.relay import Pulse
    from app.doors import lookout

    class Forever:
        """A clock by which no deadline passes."""

        def live(self, *_: Any) -> Any:
            return sa.true()

    build = lookout._outlook_query
    query = build.__wrapped__(Forever())
    vars(lookout)["_outlook_query"] = lambda clock: query

    async def carry_out(self: Any, command: str, *, told_at: float) -> None:
        await asyncio.sleep(0)
        self._relay.pulse(Pulse(command, "whichever", 3000))

    Commands.carry_out = carry_out  # type: ignore[method-assign]


@bug
def opens_when_back() -> None:
    """The agent greets the returned server with a pulse of its door (R07)."""
    from app.agent.loop import Agent
    from app.agent.relay import Pulse

    begin, settle = Agent.__init__, Agent._poll
    relays: dict[int, Any] = {}

    def init(self: Any, *args: Any, relay: Any, **more: Any) -> None:
        begin(self, *args, relay=relay, **more)
        relays[id(self)] = relay

    async def poll(self: Any, tasks: Any) -> float:
        was_away = self._server._away
        pause_s = await settle(self, tasks)
        if was_away:
            relays[id(self)].pulse(Pulse("greeting", "whichever", 3000))
        return pause_s

    Agent.__init__ = init  # type: ignore[method-assign]
    Agent._poll = poll  # type: ignore[method-assign]


@bug
def silent_overflow() -> None:
    """A full journal drops its oldest events and never says so (R15)."""
    from app.agent.journal import Journal

    def report_lost(self: Any) -> None:
        self._db.execute("DELETE FROM kept WHERE name IN ('lost_first', 'lost_last')")

    Journal._report_lost = report_lost  # type: ignore[method-assign]


@bug
def clamp_occupancy() -> None:
    """A counter beside the visits, kept by comings and goings, and never below 0 (R08)."""
    from app.visits import occupancy, presence

    inside: dict[Any, int] = {}
    open_visit, leave = presence.open_visit, presence.leave

    async def opens(tx: Any, arrival: Any, **more: Any) -> Any:
        inside[arrival.station_id] = inside.get(arrival.station_id, 0) + arrival.party_size
        return await open_visit(tx, arrival, **more)

    async def leaves(tx: Any, visit_id: Any, owner_key: Any, **more: Any) -> Any:
        visit = await leave(tx, visit_id, owner_key, **more)
        inside[visit.station_id] = max(0, inside.get(visit.station_id, 0) - visit.party_size)
        return visit

    async def by_station(tx: Any, station_ids: Any, *, at: Any) -> Any:
        return {station_id: inside.get(station_id, 0) for station_id in station_ids}

    vars(presence).update(open_visit=opens, leave=leaves)
    vars(occupancy)["inside_by_station"] = by_station


@bug
def visit_begins_when_told() -> None:
    """A visit begins when word of it arrives, so that the last word wins (R08)."""
    from app.visits import presence

    open_visit = presence.open_visit

    async def opens(tx: Any, arrival: Any, *, started_at: Any, at: Any = None) -> Any:
        return await open_visit(tx, arrival, started_at=at or started_at, at=at)

    vars(presence)["open_visit"] = opens
