"""What a trial of a promise is given, and what it gives back."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

DatabaseKind = Literal["sqlite", "postgresql"]


@dataclass(frozen=True, slots=True)
class Round:
    """One run of one trial; the same round does the same again, as far as processes can."""

    seed: int
    full: bool
    """Whether to take the whole numbers of the promise, or a share that fits into CI."""
    database: DatabaseKind
    folder: Path
    """Empty, and the trial's own."""
    bug: str | None = None
    """The seeded bug that the started processes carry (see `bugs`)."""


@dataclass(slots=True)
class Verdict:
    """What a round showed."""

    tries: Mapping[str, int]
    """What was done, in numbers: {"commands": 2000, "kills": 37}."""
    violations: list[str] = field(default_factory=list)
    """What broke the promise, a sentence each."""
    empty: str = ""
    """Why the round shows nothing, such as that no relay ever pulsed; then another is run."""
    stumbled: bool = False
    """Whether the trial itself ended with an error: that finds no bug."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A promise, with the run that tries it and the bugs that it must find."""

    promise: str
    """Its number, such as R01."""
    says: str
    """The promise in one sentence."""
    rests_on: str
    """By what it holds, with the names of files, and what the trial does not show."""
    run: Callable[[Round], Awaitable[Verdict]]
    databases: tuple[DatabaseKind, ...]
    bugs: tuple[str, ...]
    """Seeded bugs, each of which must turn the verdict red."""
