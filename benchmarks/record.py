"""What was measured, as lines of a table, and the document that keeps it.

`docs/benchmarks.md` has one section for each group of benchmarks, with its own date and machine: a
group that is measured anew replaces its own section and leaves the others alone.
"""

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"

INTRODUCTION = """# Benchmarks

Written by `make bench`, one section for each group; `make bench GROUPS="polls journal"` measures
those anew and leaves the others as they are. Machines are noisy: believe ratios within one run, not
single figures. Server, PostgreSQL 18 and load generator share the machine.
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table."""

    what: str
    measured: str
    goal: str = ""


def machine() -> str:
    """Describe where this was measured."""
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB, "
        f"Python {platform.python_version()}, {platform.system()}"
    )


def show(title: str, lines: Iterable[Line], console: Console) -> None:
    """Print a group's table."""
    table = Table("what", "measured", "goal", title=title)
    for line in lines:
        table.add_row(line.what, line.measured, line.goal)
    console.print(table)


def section(about: str, lines: Sequence[Line], *, on: date, where: str) -> str:
    """Write what stands under a group's heading."""
    rows = "\n".join(f"| {line.what} | {line.measured} | {line.goal} |" for line in lines)
    return (
        f"Measured on {on:%Y-%m-%d}, on {where}.\n\n{about.strip()}\n\n"
        f"| what | measured | goal |\n|---|---|---|\n{rows}\n"
    )


def sections(document: str) -> dict[str, str]:
    """Give a document's sections by their headings."""
    found = {}
    for part in ("\n" + document).split("\n## ")[1:]:
        title, _, text = part.partition("\n")
        found[title.strip()] = text.strip("\n") + "\n"
    return found


def keep(titles: Sequence[str], new: Mapping[str, str]) -> None:
    """Write the document: what is new, and the sections that are left, in the order of titles."""
    document = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else ""
    held = sections(document) | dict(new)
    parts = [f"## {title}\n\n{held[title]}" for title in titles if title in held]
    DOCUMENT.write_text("\n".join([INTRODUCTION, *parts]), encoding="utf-8")
