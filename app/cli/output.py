"""Where a command writes: to standard output, or to a file that is whole or was not touched."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import typer
from rich.console import Console

from app.cli.shell import err, out

CALENDAR_UNKNOWN = (
    "calendar_known: no, holidays of a year are not imported, days are as their weekdays"
)
"""What is said of rows where it matters which days are holidays."""


def need_folder(file: Path | None) -> None:
    """Refuse a file whose folder is not there, before anything is computed for it."""
    if file is not None and not file.absolute().parent.is_dir():
        err.print(f"refused: there is no folder {file.absolute().parent}")
        raise typer.Exit(2)


def beside(file: Path | None) -> Console:
    """Give where progress is shown: nowhere while a terminal shows what is written itself."""
    return Console(quiet=True) if file is None and out.is_terminal else err


@contextmanager
def sink(into: Path | None) -> Iterator[BinaryIO]:
    """Open what is written to."""
    if into is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with into.open("wb") as file:
        yield file


@contextmanager
def whole(file: Path | None) -> Iterator[Path | None]:
    """Say where to write, so that a file of this name is whole or was not touched."""
    if file is None or (file.exists() and not file.is_file()):
        yield file
        return
    part = file.with_name(f"{file.name}.part")
    try:
        yield part
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
