"""Percentiles of histograms: found when a row of sums is written, and kept with it.

They do not add. What is the sum of several rows has the sum of their histograms, and percentiles of
that. Both are found here, by the one rule: nearest rank (metrics 11), told as the least value of
the bucket that has it. So what is kept is the bucket's number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from app.reports import vectors
from app.reports.columns import Bools, Column, Ints, shown
from app.reports.rules.counters import (
    DECIDE,
    DOOR,
    DWELL,
    FACILITY,
    FACILITY_KINDS,
    HISTOGRAMS,
    PER_KIND,
    PICKUP,
    PULSE,
    REPAIR_SPREAD,
    SPREAD,
    F,
    facility,
    floor_of,
    repairs,
)

NONE = -1
"""There is no such bucket: the histogram is empty, or not of all that it should be of."""
_FLOORS = np.array([min(floor_of(bucket), 1 << 52) for bucket in range(SPREAD)], np.int64)
_KEPT = np.dtype("<i2")


class Counters(Protocol):
    """Sums of many rows: of a counter, or of those `[low, high)` that occur."""

    def __getitem__(self, key: int) -> Ints:
        """Give a counter of every row."""

    def between(self, low: int, high: int) -> tuple[list[int], Ints]:
        """Give the counters that occur, in order, and for each its sums, row by row."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A histogram and its percentiles."""

    begins: int
    length: int
    percents: Sequence[int]
    all_of: int | None = None
    """A counter of what the histogram is of; older rows have it and know no lengths."""


SPREADS: Sequence[Spread] = (
    Spread(DWELL, SPREAD, (50, 90)),
    *(Spread(begins, SPREAD, (50, 95, 99)) for begins in (PICKUP, PULSE, DOOR, DECIDE)),
    *(
        Spread(repairs(kind), REPAIR_SPREAD, (50,), facility(kind, F.REPAIRS))
        for kind in FACILITY_KINDS
    ),
)
"""All there are. Whoever changes them gives what is kept another `_FORM`: older rows are then read
by their histograms."""

REPAIRS = tuple(repairs(kind) for kind in FACILITY_KINDS)
_BY_BEGINNING = {spread.begins: spread for spread in SPREADS}
_PLACES = dict(
    zip(
        _BY_BEGINNING,
        np.cumsum([0, *(len(spread.percents) for spread in SPREADS[:-1])]).tolist(),
        strict=True,
    )
)
WIDTH = sum(len(spread.percents) for spread in SPREADS)
_FORM = (1).to_bytes(_KEPT.itemsize, "little")
"""What every row that is kept begins with."""
_ALL = [
    (HISTOGRAMS, max(spread.begins + spread.length for spread in SPREADS)),
    (FACILITY, FACILITY + PER_KIND * len(FACILITY_KINDS)),
]


def lengths(begins: Sequence[int]) -> list[tuple[int, int]]:
    """Give the counters `[low, high)` of some histograms."""
    return [(one, one + _BY_BEGINNING[one].length) for one in begins]


def beside(begins: Sequence[int]) -> list[tuple[int, int]]:
    """Give what must be known of rows beside some histograms: what these are of, and any at all."""
    totals = (_BY_BEGINNING[one].all_of for one in begins)
    found = [(total, total + 1) for total in totals if total is not None]
    return [*found, _ALL[0]] if begins else []


def buckets(counters: Counters, begins: int) -> Ints:
    """Find the percentiles of a histogram: a line for each, with the bucket of each row or NONE."""
    spread = _BY_BEGINNING[begins]
    keys, counts = counters.between(begins, begins + spread.length)
    if not keys:
        return np.full((len(spread.percents), counts.shape[1]), NONE)
    upto = np.empty_like(counts)
    upto[0] = counts[0]
    for number in range(1, len(counts)):  # A few times faster than `cumsum` down the lines.
        np.add(upto[number - 1], counts[number], out=upto[number])
    total = upto[-1]
    is_there = total > 0
    if spread.all_of is not None:
        is_there &= total == counters[spread.all_of]
    numbers = np.array(keys, np.int64) - begins
    found = []
    for percent in spread.percents:
        rank = np.maximum(1, -(-percent * total // 100))
        found.append(np.where(is_there, numbers[_first(upto, rank)], NONE))
    return np.stack(found)


def _first(upto: Ints, rank: Ints) -> Ints:
    """Find in each column the first line that comes up to its rank, else the last; by halves."""
    last, columns = len(upto) - 1, np.arange(len(rank))
    place = np.zeros(len(rank), np.int64)
    for bit in reversed(range(last.bit_length())):
        further = np.minimum(place + (1 << bit), last)
        place = np.where(upto[further - 1, columns] < rank, further, place)
    return place


def written(sums: Sequence[bytes]) -> Sequence[dict[str, bytes]]:
    """Give what is kept of whole vectors: counters, histograms by themselves, and percentiles."""
    counters = vectors.summed(sums, range(len(sums)), len(sums), _ALL)
    kept = np.empty((WIDTH, len(sums)), _KEPT)
    for begins, place in _PLACES.items():
        found = buckets(counters, begins)
        kept[place : place + len(found)] = found
    rows = kept.T.tobytes()
    length = WIDTH * _KEPT.itemsize
    return [
        {
            "counts": counts,
            "histograms": histograms,
            "percentiles": _FORM + rows[number * length : (number + 1) * length],
        }
        for number, (counts, histograms) in enumerate(
            vectors.parted(one, HISTOGRAMS) for one in sums
        )
    ]


def histograms_of(counts: bytes, histograms: bytes | None) -> bytes:
    """Give where the histograms of a row are.

    An older version writes them among the counters, at their end, and leaves what a newer one had
    written apart as it was.
    """
    last = int.from_bytes(counts[-vectors.ENTRY.itemsize :][:4], "little")
    return counts if last >= HISTOGRAMS else histograms or b""


def merged(rows: Sequence[Any]) -> bytes:
    """Sum the counters and histograms of rows."""
    counts = [row.counts for row in rows]
    apart = [histograms_of(row.counts, row.histograms) for row in rows]
    more = [one for one, own in zip(apart, counts, strict=True) if one is not own]
    return vectors.merged([*counts, *more])


def are_all_kept(kept: Sequence[bytes | None], counters: Counters) -> bool:
    """Say whether all rows keep what is told today, and none has histograms among its counters."""
    is_told = all(one is not None and one.startswith(_FORM) for one in kept)
    return is_told and not counters.between(*_ALL[0])[0]


def read(kept: Sequence[bytes], groups: Sequence[int], count: int) -> npt.NDArray[np.int16]:
    """Read what is kept of rows, each of a group: a line for each percentile of each histogram."""
    found = np.full((count, WIDTH), NONE, _KEPT)
    rows = np.frombuffer(b"".join(kept), _KEPT).reshape(-1, 1 + WIDTH)
    found[np.asarray(groups, np.int64)] = rows[:, 1:]
    return np.ascontiguousarray(found.T)


def of(kept: npt.NDArray[np.int16], begins: int) -> npt.NDArray[np.int16]:
    """Give the lines of one histogram."""
    place = _PLACES[begins]
    return kept[place : place + len(_BY_BEGINNING[begins].percents)]


def percentiles(
    buckets: npt.NDArray[np.signedinteger], is_known: Bools, *, times: int = 1
) -> Sequence[Column]:
    """Tell percentiles; the buckets count in so many `times` of what is answered."""
    return [shown(_FLOORS[line] * times, is_known & (line != NONE)) for line in buckets]
