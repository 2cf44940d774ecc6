"""How far a long command has come: a bar on a terminal, elsewhere a line now and then."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

from app.clock import Monotonic

EVERY_S = 5.0
"""Two lines are at least so far apart."""


@contextmanager
def shown(
    what: str, total: int, *, console: Console, monotonic: Monotonic
) -> Iterator[Callable[[], None]]:
    """Show the progress of something in so many portions; what is given is called after each."""
    if console.is_terminal:
        with Progress(console=console) as progress:
            bar = progress.add_task(what, total=total)
            yield lambda: progress.advance(bar)
        return
    done, told_at = 0, monotonic()

    def line() -> None:
        nonlocal done, told_at
        done += 1
        if monotonic() - told_at >= EVERY_S:
            told_at = monotonic()
            console.print(f"{what}: {done} of {total} parts")

    yield line
