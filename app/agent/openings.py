"""Which openings of a door are explained: what is explained by nothing was forced.

By a pulse of our relay, or by somebody who leaves. A contact alone cannot tell one who leaves from
one who breaks in, so nothing is said of a door without an exit contact.
"""

from app.agent.contact import ExitContact
from app.agent.pace import Pace
from app.agent.relay import Pulse, Relay

EXPLAINS_S = 15.0
"""So long after a pulse, or after somebody asked to leave, an opening comes of that, in seconds."""

LAG_S = 1.0
"""So much later than the door its exit contact may speak, in seconds."""


class Openings:
    """A relay that remembers until when an opening of each door is explained."""

    def __init__(self, relay: Relay, exits: ExitContact | None, pace: Pace) -> None:
        self._relay = relay
        self._exits = exits
        self._pace = pace
        self._until: dict[str, float] = {}
        # A pulse of the boot before may still let somebody in.
        self._at_first = pace.monotonic() + EXPLAINS_S
        if exits is not None:
            exits.watch(self._leaves)

    def pulse(self, pulse: Pulse) -> None:
        """See `Relay`; it explains openings even if it failed, for it may have moved."""
        try:
            self._relay.pulse(pulse)
        finally:
            self._explains(pulse.door, max(EXPLAINS_S, pulse.pulse_ms / 1000))

    def close(self) -> None:
        """See `Relay`."""
        self._relay.close()

    def are_watched(self, door: str) -> bool:
        """Whether an opening of this door can be told from somebody's leaving."""
        return self._exits is not None and self._exits.is_used(door) is not None

    async def was_forced(self, door: str, *, opened_at: float) -> bool:
        """Say whether a door that opened just now was forced; waits for its exit contact."""
        await self._pace.sleep(LAG_S)
        if self._exits is None or self._exits.is_used(door):
            return False
        return opened_at > self._until.get(door, self._at_first)

    def _leaves(self, door: str) -> None:
        self._explains(door, EXPLAINS_S)

    def _explains(self, door: str, for_s: float) -> None:
        until = self._pace.monotonic() + for_s
        self._until[door] = max(until, self._until.get(door, self._at_first))
