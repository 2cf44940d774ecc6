"""When a controller should poll again: the server chooses, and never the same for all. Pure."""

LONGEST_PAUSE_MS = 60_000
"""A controller takes no longer pause from us (docs/controller-protocol.md)."""

STOP_SPREAD_MS = 5_000
"""Over so long the polls come back that a process ended because it stops; half of what a command
lives, so that the next process can still tell of it in time."""


def next_poll_ms(pause_ms: int, *, stopping: bool, share: float) -> int:
    """Choose a pause around the usual one; `share` is drawn anew from 0 to 1 for each answer.

    Without the spread, whoever lost a process in the same moment would ask the next one in the same
    moment, and ever after in step.
    """
    pause = pause_ms * (0.5 + share)
    if stopping:
        pause += STOP_SPREAD_MS * share
    return min(int(pause), LONGEST_PAUSE_MS)
