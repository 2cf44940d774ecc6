"""Try the promises: python -m tests.faults [--full] [--bugs] [--only R04] [--seed N].

Each trial is a round with a seed; one that finds a violation prints the command that replays it.
"""

import argparse
import asyncio
import importlib
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from tests.faults.promise import DatabaseKind, Round, Trial, Verdict
from tests.faults.record import PAGE, Row, renewed, table

SHORT_ON_POSTGRESQL = ("R03", "R09", "R10")
"""Which trials a short round tries on PostgreSQL too; a full one tries all that run there."""

ROUNDS = 3
"""How often a round that shows nothing, as on a machine with no time for it, is run again."""

out = Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def trials() -> Sequence[Trial]:
    """Find every trial of this folder."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("r[0-9][0-9].py"))
    return [importlib.import_module(f"tests.faults.{name}").TRIAL for name in names]


def main() -> int:
    """Run what was asked for, print the table; 1 if a promise broke or a bug was missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument(
        "--full", action="store_true", help="the promises' whole numbers, kept in docs/promises.md"
    )
    parser.add_argument("--bugs", action="store_true", help="the seeded bugs too")
    parser.add_argument("--only", nargs="+", help="some promises, such as R04 R05")
    parser.add_argument("--database", choices=("sqlite", "postgresql"))
    parser.add_argument("--seed", type=int, help="replay a round")
    asked = parser.parse_args()
    seed = asked.seed if asked.seed is not None else random.randrange(10**6)
    every = trials()
    rows: list[Row] = []
    for trial in every:
        if asked.only and trial.promise not in asked.only:
            continue
        for database, bug in _rounds(trial, asked):
            # A seeded bug shows in a short round; it need not fit into CI's time.
            full = asked.full and bug is None
            rows.append(tried(trial, database, bug, seed, full=full))
            if asked.full:
                before = PAGE.read_text("utf-8") if PAGE.exists() else ""
                PAGE.write_text(renewed(before, rows[-1:], every), encoding="utf-8")
    out.print(table(rows))
    if asked.full:
        out.print(f"wrote {PAGE.relative_to(PAGE.parents[1])}")
    return 0 if all(row.is_good for row in rows) else 1


def _rounds(trial: Trial, asked: argparse.Namespace) -> list[tuple[DatabaseKind, str | None]]:
    """List what a trial is run on, and with which bug."""
    databases = [
        database
        for database in trial.databases
        if (not asked.database or database == asked.database)
        and (
            asked.full
            or asked.only
            or asked.database
            or database == "sqlite"
            or trial.promise in SHORT_ON_POSTGRESQL
        )
    ]
    found: list[tuple[DatabaseKind, str | None]] = [(database, None) for database in databases]
    if (asked.bugs or asked.full) and trial.databases[0] in databases:
        found += [(trial.databases[0], bug) for bug in trial.bugs]
    return found


def tried(trial: Trial, database: DatabaseKind, bug: str | None, seed: int, *, full: bool) -> Row:
    """Run one round in a folder of its own, and another where one shows nothing.

    A trial that itself ended with an error is a failure, but finds no bug.
    """
    for attempt in range(ROUNDS):
        row = _tried(trial, database, bug, seed + attempt, full=full)
        silent = row.verdict.empty and not row.verdict.violations
        if not silent and not (bug and row.verdict.stumbled):
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
        ended = f"the trial ended with {type(error).__name__}: {error}"[:200]
        verdict = Verdict({}, [ended], stumbled=True)
    seconds, day = time.monotonic() - begun, f"{datetime.now(UTC):%Y-%m-%d}"
    row = Row(trial, database, bug, verdict, seconds, seed, day)
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


if __name__ == "__main__":
    sys.exit(main())
