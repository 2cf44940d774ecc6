"""An event loop whose clock jumps to the next timer when nothing else is to be done."""

import asyncio
import selectors
from typing import Any

from typing_extensions import override

SETTLING_S = 0.002
"""Real time given to the loopback network before a jump, in seconds."""


class _Selector(selectors.DefaultSelector):
    """Waits for the network as long as it may have something to say, then lets time pass."""

    def __init__(self) -> None:
        super().__init__()
        self.passed_s = 0.0

    @override
    def select(self, timeout: float | None = None) -> Any:
        """Give what is ready; when nothing is, pass the time that was to be waited."""
        if ready := super().select(0):
            return ready
        if timeout is None:
            return super().select(None)
        if timeout > 0:
            if ready := super().select(SETTLING_S):
                return ready
            self.passed_s += timeout
        return []


class JumpingLoop(asyncio.SelectorEventLoop):
    """Hours of waiting take as long as what is done in them."""

    def __init__(self) -> None:
        self._jumping = _Selector()
        super().__init__(self._jumping)

    @override
    def time(self) -> float:
        """Say what time it is; it stands still while something is done."""
        return 1_000.0 + self._jumping.passed_s
