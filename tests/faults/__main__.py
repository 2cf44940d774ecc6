"""Try the promises: python -m tests.faults [--full] [--bugs] [--only R04] [--seed N].

Each trial is a round with a seed; one that finds a violation prints the command that replays it.
"""

import argparse
import multiprocessing
import random
import sys
from concurrent.futures import ProcessPoolExecutor

from tests.faults.promise import DatabaseKind, Trial
from tests.faults.record import PAGE, Row, renewed, table
from tests.faults.rounds import out, trials, tried

SHORT_ON_POSTGRESQL = ("R03", "R09", "R10")
"""Which trials a short round tries on PostgreSQL too; a full one tries all that run there."""


def main() -> int:
    """Run what was asked for, print the table; 1 if a promise broke or a bug was missed."""
    every = trials()
    promises, named = [one.promise for one in every], [bug for one in every for bug in one.bugs]
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument(
        "--full", action="store_true", help="the promises' whole numbers, kept in docs/promises.md"
    )
    parser.add_argument("--bugs", action="store_true", help="the seeded bugs too")
    parser.add_argument(
        "--bug", nargs="+", metavar="BUG", choices=named, help="nothing but these seeded bugs"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="R04", choices=promises, help="nothing but these promises"
    )
    parser.add_argument("--database", choices=("sqlite", "postgresql"))
    parser.add_argument("--seed", type=int, help="replay a round")
    parser.add_argument(
        "--jobs", type=int, help="so many rounds side by side: 2, or 1 of full ones"
    )
    asked = parser.parse_args()
    seed = asked.seed if asked.seed is not None else random.randrange(10**6)
    rounds = [
        # A seeded bug shows in a short round.
        (trial, database, bug, seed, asked.full and bug is None)
        for trial in every
        if not asked.only or trial.promise in asked.only
        for database, bug in _rounds(trial, asked)
    ]
    rows: list[Row] = []
    jobs = asked.jobs or (1 if asked.full else 2)
    # Most of a short round is waiting; each has a process of its own.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for row in pool.map(tried, *zip(*rounds, strict=True)):
            rows.append(row)
            if asked.full:
                before = PAGE.read_text("utf-8") if PAGE.exists() else ""
                PAGE.write_text(renewed(before, [row], every), encoding="utf-8")
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
    seeded = [(trial.databases[0], bug) for bug in trial.bugs if trial.databases[0] in databases]
    if asked.bug:
        return [one for one in seeded if one[1] in asked.bug]
    plain: list[tuple[DatabaseKind, str | None]] = [(database, None) for database in databases]
    return [*plain, *seeded] if asked.bugs or asked.full else plain


if __name__ == "__main__":
    sys.exit(main())
