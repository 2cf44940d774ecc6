"""Columns of a report from sums: exact shares and means, and None where nothing is known."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from app.reports.rules.rates import SHARE_PLACES, Measure

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Column = Sequence[Any]

_MOST = 2**63 // (4 * SHARE_PLACES)
"""What 64 bits can still hold, times twice that."""


def shown(values: npt.NDArray[Any], is_known: Bools) -> Column:
    """Give values as they are, and None where they are not known."""
    if is_known.all():
        return values.tolist()  # type: ignore[no-any-return]  # numpy says Any.
    found = values.astype(object)
    found[~is_known] = None
    return found.tolist()  # type: ignore[no-any-return]


def rounded(part: Ints, whole: Ints, places: int = SHARE_PLACES) -> npt.NDArray[np.float64]:
    """Divide, to one of so many places, half up: in integers, so that no digit is by chance."""
    if max(part.max(initial=0), whole.max(initial=0)) > _MOST:
        # The milliseconds of a whole country's facilities over a year: exact, if slower.
        part, whole = part.astype(object), whole.astype(object)
    divisor = np.where(whole == 0, 1, 2 * whole)
    found = (part * (2 * places) + np.maximum(whole, 1)) // divisor
    return found.astype(np.float64) / places


def rates(part: Ints, whole: Ints, is_known: Bools) -> Column:
    """Give shares; None where there is nothing to divide by."""
    return shown(rounded(part, whole), is_known & (whole > 0))


def share(part: Ints, whole: Ints) -> npt.NDArray[np.float64]:
    """Give shares that are never 0 for something nor 1 for less than all."""
    found = rounded(part, whole)
    found[(part > 0) & (found == 0)] = 1 / SHARE_PLACES
    found[(part < whole) & (found == 1)] = 1 - 1 / SHARE_PLACES
    found[part >= whole] = 1.0
    found[whole <= 0] = 0.0
    return found


class Hours(list[float | None]):
    """Durations in hours, and what they were before they were rounded."""

    def __init__(self, milliseconds: Ints, is_known: Bools) -> None:
        super().__init__(shown((milliseconds + 1_800) // 3_600 / 1_000, is_known))
        self._milliseconds, self._is_known = milliseconds, is_known

    @property
    def milliseconds(self) -> Column:
        """The same as they were counted."""
        return shown(self._milliseconds, self._is_known)


class Withheld(list[Any]):
    """Values that are not all told, and all of them as they were counted."""

    def __init__(self, values: Ints, is_known: Bools, is_told: Bools) -> None:
        super().__init__(shown(values, is_told))
        self.counted = shown(values, is_known)


def hours(milliseconds: Ints, is_known: Bools) -> Column:
    """Give durations in hours, to three decimals."""
    return Hours(milliseconds, is_known)


def exact(column: Column) -> Column:
    """Give a column as it was before it was rounded or withheld: durations as milliseconds."""
    if isinstance(column, Withheld):
        return column.counted
    return column.milliseconds if isinstance(column, Hours) else column


def means(sums: Ints, counts: Ints, measure: Measure, is_known: Bools) -> Column:
    """Give the mean of durations, in what it is told."""
    found = rounded(sums, counts * measure.milliseconds, measure.places)
    return shown(found, is_known & (counts > 0))
