"""Rounds: each in a folder of its own, with what it printed should it break a promise."""

import asyncio
import importlib
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
from tests.faults.record import Row

ROUNDS = 3
"""How often a round that shows nothing, as on a machine with no time for it, is run again."""

out = Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def trials() -> Sequence[Trial]:
    """Find every trial of this folder."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("r[0-9][0-9].py"))
    return [importlib.import_module(f"tests.faults.{name}").TRIAL for name in names]


def tried(trial: Trial, database: DatabaseKind, bug: str | None, seed: int, full: bool) -> Row:
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
