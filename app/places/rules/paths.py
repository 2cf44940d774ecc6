"""Paths of union units: numbers from the root, such as `50.107.7`."""

from collections.abc import Mapping


def child_path(parent: str | None, number: int) -> str:
    """Name the place of a unit below its parent; None as parent makes a root.

    `number` is the unit's number among its parent's children, from 1; raises `ValueError` below.
    """
    if number < 1:
        raise ValueError(f"units are numbered from 1, not {number}")
    return str(number) if parent is None else f"{parent}.{number}"


def under_bounds(path: str) -> tuple[str, str]:
    """Give the range `[low, high)` that holds the paths of all descendants, and of nothing else.

    Holds where strings are ordered by their bytes (C collation): `/` follows `.` directly. The
    unit itself is not within.
    """
    return f"{path}.", f"{path}/"


def is_within(path: str, ancestor: str) -> bool:
    """Say whether a unit is the ancestor itself or one of its descendants."""
    return path == ancestor or path.startswith(f"{ancestor}.")


def inherited(path: str, said: Mapping[str, int]) -> int | None:
    """Give what the nearest unit says, the unit itself or one above it; None when none does."""
    while True:
        if path in said:
            return said[path]
        path, dot, _ = path.rpartition(".")
        if not dot:
            return None
