"""Columns of a report from sums: exact shares and means, and None where nothing is known."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Column = Sequence[Any]

PLACES = 10_000
"""Shares have four decimals."""
_MOST = 2**63 // (4 * PLACES)
"""What 64 bits can still hold, times twice that."""


def shown(values: npt.NDArray[Any], is_known: Bools) -> Column:
    """Give values as they are, and None where they are not known."""
    if is_known.all():
        return values.tolist()  # type: ignore[no-any-return]  # numpy says Any.
    found = values.astype(object)
    found[~is_known] = None
    return found.tolist()  # type: ignore[no-any-return]


def rounded(part: Ints, whole: Ints, places: int = PLACES) -> npt.NDArray[np.float64]:
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
    found[(part > 0) & (found == 0)] = 1 / PLACES
    found[(part < whole) & (found == 1)] = 1 - 1 / PLACES
    found[part >= whole] = 1.0
    found[whole <= 0] = 0.0
    return found


def hours(milliseconds: Ints, is_known: Bools) -> Column:
    """Give durations in hours, to three decimals."""
    return shown((milliseconds + 1_800) // 3_600 / 1_000, is_known)


def means(sums: Ints, counts: Ints, unit: int, digits: int, is_known: Bools) -> Column:
    """Give the mean of values that are kept in parts of a unit."""
    return shown(rounded(sums, counts * unit, 10**digits), is_known & (counts > 0))
