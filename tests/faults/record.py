"""The record of full rounds: `docs/promises.md`, renewed row by row.

A run of one promise takes the place of its own rows and leaves the others as they were, so that the
record can be renewed promise by promise; each row says with which seed and on which day it was run.
"""

import os
import platform
import re
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from tests.faults.promise import DatabaseKind, Trial, Verdict

PAGE = Path(__file__).parents[2] / "docs" / "promises.md"

COLUMNS = (
    "promise",
    "database",
    "tries",
    "violations",
    "seeded bug",
    "seconds",
    "seed",
    "day",
)

SEEN = 90
"""How much of what gave a bug away is told, in characters."""

ABOUT = """# Promises, and the runs that tried them

Printed by `make faults-full`, on
{machine}.

Real processes on loopback are killed, frozen, cut off, lied to and given wrong clocks; a checker
then compares what clients were told with what the database, the relay logs and the journals hold.
A row without a bug must have no violation. A row with a seeded bug must have some: it shows that
the trial can fail; it is a short round, with the first of what it saw. A promise without a row has
no full round on record yet, and so far is only tried by the short rounds of `make faults`.

`python -m tests.faults --full --only R04` renews the rows of one promise and keeps the others.
A seed chooses what is done; when the machine does it is not in its hand, so that a round with the
same seed is alike and not the same to the microsecond.
"""

ELSEWHERE = """## Promised, and shown elsewhere

- **R06** (scan to pulse) and **R11** (everybody back after a restart) are times: `make bench`
  measures them, in [benchmarks.md](benchmarks.md). No trial asserts a time but the 10 s of R05,
  R07, R16 and R18, and the 15 s of R09.
- What a controller does alone with a pass is tried by `tests/doors/test_alone.py` and
  `tests/test_alone_flow.py`.
- PostgreSQL that does not sync is refused at the start (`app/db/engine.py`, `check_durable`); R02
  watches system calls on SQLite only, since there the process itself writes.

## What remains

- A process killed is not a machine without power. R02 shows that nothing leaves over writes that
  were not synced, R14 that a failed sync ends the process; a disk that lies about its syncs is
  beyond both.
- Relays and door contacts are simulated. The relay's log is one write before the pulse: a power cut
  between the two leaves a pulse that was logged and never came, never one that came twice.
- Clocks are stepped with libfaketime for the wall only; monotonic clocks stay true, as those of a
  real machine do. A kernel whose monotonic clock runs off by more than 50 in a million is outside
  of R05 and R17.
- Every box here is our own agent or plays one. Another vendor's firmware shows the same with
  `yizhan conformance --listen`.
- Two cores and loopback: what only thousands of machines, or a lossy radio link, would bring about
  is not here.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    trial: Trial
    database: DatabaseKind
    bug: str | None
    verdict: Verdict
    seconds: float
    seed: int
    day: str

    @property
    def is_good(self) -> bool:
        """A promise held in a round that could have broken it, or a bug was found."""
        if self.bug is not None:
            return bool(self.verdict.violations) and not self.verdict.stumbled
        return not self.verdict.violations and not self.verdict.empty

    @property
    def cells(self) -> tuple[str, ...]:
        """What stands in the table, column by column."""
        tries = ", ".join(f"{number} {name}" for name, number in self.verdict.tries.items())
        bug = self.verdict.empty
        if self.bug:
            seen = _plain(self.verdict.violations[0]) if self.is_good else "NOT FOUND"
            bug = f"{self.bug}: {seen}"
        return (
            self.trial.promise,
            self.database,
            tries,
            str(len(self.verdict.violations)),
            bug,
            f"{self.seconds:.0f}",
            str(self.seed),
            self.day,
        )


def _plain(sentence: str) -> str:
    """Make a sentence fit into a cell: ids are cut to their first figures."""
    short = re.sub(r"\b([0-9a-f]{6})[0-9a-f]{2}-[0-9a-f-]{20,}", r"\1…", sentence)
    short = " ".join(short.replace("|", "/").split())
    return short if len(short) <= SEEN else short[: SEEN - 1] + "…"


def table(rows: Sequence[Row]) -> Table:
    """Lay rows out for a terminal."""
    found = Table(*COLUMNS[:-2])
    for row in rows:
        found.add_row(*row.cells[:-2])
    return found


Key = tuple[str, str, str]


def _key(cells: Sequence[str]) -> Key:
    """Tell which row this is: a promise, a database, a bug or none."""
    return cells[0], cells[1], cells[4].partition(":")[0]


def kept(text: str) -> dict[Key, tuple[str, ...]]:
    """Read the rows of an earlier page."""
    found = {}
    for line in text.splitlines():
        cells = tuple(cell.strip() for cell in line.strip().strip("|").split("|"))
        if len(cells) == len(COLUMNS) and re.fullmatch(r"R\d\d", cells[0]):
            found[_key(cells)] = cells
    return found


def renewed(text: str, rows: Sequence[Row], trials: Sequence[Trial]) -> str:
    """Write the page anew: the new rows in the place of their own, every other as it was."""
    cells = kept(text) | {_key(row.cells): row.cells for row in rows}
    order: Mapping[Key, int] = {key: nth for nth, key in enumerate(_wanted(trials))}
    listed = sorted((key for key in cells if key in order), key=order.__getitem__)
    return "\n".join(
        [
            ABOUT.format(machine=machine()),
            f"| {' | '.join(COLUMNS)} |",
            f"|{'---|' * len(COLUMNS)}",
            *(f"| {' | '.join(cells[key])} |" for key in listed),
            "",
            "## What is promised, and by what it holds",
            "",
            *(_told(trial, [cells[key] for key in listed]) for trial in trials),
            ELSEWHERE.rstrip(),
            "",
        ]
    )


def _wanted(trials: Sequence[Trial]) -> list[Key]:
    """List every row that a whole record has, in its order."""
    found: list[Key] = []
    for trial in trials:
        found += [(trial.promise, database, "") for database in trial.databases]
        found += [(trial.promise, trial.databases[0], bug) for bug in trial.bugs]
    return found


def _told(trial: Trial, rows: Sequence[Sequence[str]]) -> str:
    """Tell of one promise: the sentence, what it rests on, how to see it again."""
    own = [row for row in rows if row[0] == trial.promise and not row[4]]
    lines = [f"**{trial.promise}.** {trial.says} {trial.rests_on}"]
    lines += [
        f"`python -m tests.faults --full --only {row[0]} --database {row[1]} --seed {row[6]}`"
        for row in own
    ]
    if not own:
        lines.append("No full round is on record.")
    return "\n".join((lines[0], "", *(f"- {line}" for line in lines[1:]), ""))


def machine() -> str:
    """Describe what this runs on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{platform.system()} {platform.machine()} with {cores} cores shared with other work, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, PostgreSQL 18"
    )
