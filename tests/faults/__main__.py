"""Try the promises: python -m tests.faults [--full] [--bugs] [--only R04] [--seed N].

Each trial is a round with a seed; one that finds a violation prints the command that replays it.
"""

import argparse
import asyncio
import importlib
import os
import platform
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.faults.promise import DatabaseKind, Round, Trial, Verdict

PAGE = Path(__file__).parents[2] / "docs" / "promises.md"
SHORT_ON_POSTGRESQL = ("R03", "R09", "R10")
"""Which trials a short round tries on PostgreSQL too; a full one tries all that run there."""

ROUNDS = 3
"""How often a round that shows nothing, as on a machine with no time for it, is run again."""

out = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    trial: Trial
    database: DatabaseKind
    bug: str | None
    verdict: Verdict
    seconds: float

    @property
    def is_good(self) -> bool:
        """A promise held in a round that could have broken it, or a bug was found."""
        if self.bug is not None:
            return bool(self.verdict.violations)
        return not self.verdict.violations and not self.verdict.empty


def trials() -> Sequence[Trial]:
    """Find every trial of this folder."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("r[0-9][0-9].py"))
    return [importlib.import_module(f"tests.faults.{name}").TRIAL for name in names]


def main() -> int:
    """Run what was asked for, print the table; 1 if a promise broke or a bug was missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--full", action="store_true", help="the promises' whole numbers")
    parser.add_argument("--bugs", action="store_true", help="the seeded bugs too")
    parser.add_argument("--only", help="one promise, such as R04")
    parser.add_argument("--database", choices=("sqlite", "postgresql"))
    parser.add_argument("--seed", type=int, help="replay a round")
    asked = parser.parse_args()
    seed = asked.seed if asked.seed is not None else random.randrange(10**6)
    rows: list[Row] = []
    for trial in trials():
        if asked.only and trial.promise != asked.only:
            continue
        for database in trial.databases:
            if asked.database and database != asked.database:
                continue
            short = database == "sqlite" or trial.promise in SHORT_ON_POSTGRESQL
            if short or asked.full or asked.only or asked.database:
                rows.append(tried(trial, database, None, seed, full=asked.full))
        if asked.bugs or asked.full:
            rows.extend(
                tried(trial, trial.databases[0], bug, seed, full=False) for bug in trial.bugs
            )
    out.print(table(rows))
    if asked.full and not asked.only:
        PAGE.write_text(page(rows, seed), encoding="utf-8")
        out.print(f"wrote {PAGE.relative_to(PAGE.parents[1])}")
    return 0 if all(row.is_good for row in rows) else 1


def tried(trial: Trial, database: DatabaseKind, bug: str | None, seed: int, *, full: bool) -> Row:
    """Run one round in a folder of its own, and another where one shows nothing."""
    for attempt in range(ROUNDS):
        row = _tried(trial, database, bug, seed + attempt, full=full)
        if not row.verdict.empty:
            break
    return row


def _tried(trial: Trial, database: DatabaseKind, bug: str | None, seed: int, *, full: bool) -> Row:
    folder = Path(tempfile.mkdtemp(prefix="yizhan-faults-"))
    begun = time.monotonic()
    out.print(f"{trial.promise} {database}{f' with {bug}' if bug else ''} seed={seed} ...")
    try:
        round = Round(seed=seed, full=full, database=database, folder=folder, bug=bug)
        verdict = asyncio.run(trial.run(round))
    except Exception as error:
        if bug is None:
            out.print(traceback.format_exc(), markup=False)
        verdict = Verdict({}, [f"the trial ended with {type(error).__name__}: {error}"[:200]])
    row = Row(trial, database, bug, verdict, time.monotonic() - begun)
    if row.is_good:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        again = f"python -m tests.faults --only {trial.promise} --database {database} --seed {seed}"
        again += " --full" if full else ""
        for violation in verdict.violations:
            out.print(f"  {violation}")
        if verdict.empty:
            out.print(f"  {verdict.empty}: this round shows nothing")
        missed = f"  the bug {bug} was not found" if bug else f"  again: {again}"
        out.print(f"{missed}; kept: {folder}", soft_wrap=True)
    return row


def table(rows: Sequence[Row]) -> Table:
    """Lay the rows out."""
    found = Table("promise", "database")
    for name in ("tries", "violations", "seeded bug", "seconds"):
        found.add_column(name, overflow="fold")
    for row in rows:
        found.add_row(*_cells(row))
    return found


def _cells(row: Row) -> tuple[str, ...]:
    tries = ", ".join(f"{number} {name}" for name, number in row.verdict.tries.items())
    bug = row.verdict.empty
    if row.bug:
        bug = f"{row.bug}: {'found' if row.verdict.violations else 'NOT FOUND'}"
    return (
        row.trial.promise,
        row.database,
        tries,
        str(len(row.verdict.violations)),
        bug,
        f"{row.seconds:.0f}",
    )


def page(rows: Sequence[Row], seed: int) -> str:
    """Write the record of a full round."""
    cores = len(os.sched_getaffinity(0))
    machine = f"{platform.machine()}, {cores} cores, Python {platform.python_version()}"
    lines = [
        "# Promises, and the runs that tried them",
        "",
        f"Printed by `make faults-full` (seed {seed}) on {platform.system()}, {machine}.",
        "A row with a seeded bug must have violations: it shows that the trial can fail.",
        "",
        "| promise | database | tries | violations | seeded bug | seconds |",
        "|---|---|---|---|---|---|",
        *(f"| {' | '.join(_cells(row))} |" for row in rows),
        "",
        *(
            f"- **{trial.promise}** {trial.says}"
            for trial in {r.trial.promise: r.trial for r in rows}.values()
        ),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
