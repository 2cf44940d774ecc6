"""Sparse vectors of counters: as bytes in a row, summed by numpy, many rows at a time.

An entry is a key (4 bytes) and a value (8 bytes, signed), little-endian, in order of keys. In a
vector by hour the key's upper half is the hour.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from app.reports.rules.counters import ALL_DAY, HOURS, QUARTERS, C

ENTRY = np.dtype([("key", "<u4"), ("value", "<i8")])
HOUR = 1 << 16
"""The weight of the hour in a key: its upper half."""

Ints = npt.NDArray[np.int64]
Ranges = Sequence[tuple[int, int]]


def packed(counts: Mapping[int, int]) -> bytes:
    """Write counters down."""
    keys = sorted(counts)
    entries = np.empty(len(keys), ENTRY)
    entries["key"] = keys
    entries["value"] = [counts[key] for key in keys]
    return entries.tobytes()


def packed_hours(hours: Mapping[int, Mapping[int, int]]) -> bytes:
    """Write the counters of each hour down."""
    return packed(
        {
            hour * HOUR + key: value
            for hour, counts in hours.items()
            for key, value in counts.items()
        }
    )


def hours_in(data: bytes) -> Sequence[int]:
    """Give the hours of a vector by hour in which anything is."""
    found: Sequence[int] = np.unique(np.frombuffer(data, ENTRY)["key"] // HOUR).tolist()
    return found


def unpacked(data: bytes) -> dict[int, int]:
    """Read counters."""
    entries = np.frombuffer(data, ENTRY)
    return dict(zip(entries["key"].tolist(), entries["value"].tolist(), strict=True))


class Table:
    """Sums of vectors: one line for each counter that was asked for, with all groups in it.

    A report looks at a counter of all groups at once, so these lie side by side.
    """

    def __init__(self, groups: int, keys: Ints, sums: Ints) -> None:
        """Take a line of sums for each key; keys in order."""
        self._columns = {key: number for number, key in enumerate(keys.tolist())}
        self._sums = sums
        self._groups = groups

    def __getitem__(self, key: int) -> Ints:
        """Give one counter of every group."""
        number = self._columns.get(int(key))
        if number is None:
            return np.zeros(self._groups, np.int64)
        found: Ints = self._sums[number]
        return found

    def between(self, low: int, high: int) -> tuple[list[int], Ints]:
        """Give the counters `[low, high)` that occur, in order, and a line of sums for each."""
        keys = [key for key in self._columns if low <= key < high]
        first = self._columns[keys[0]] if keys else 0
        return keys, self._sums[first : first + len(keys)]

    def apart(self, others: "Table", count: int, place: int, *, size: int) -> "Table":
        """Put beside `count` parts of each group the rest of it, at a place among them.

        Groups are of `size` lines here; there, each part of a group is.
        """
        keys = list(self._columns)
        each = [others[key].reshape(-1, count, size) for key in keys]
        sums = [
            np.insert(parts, place, whole.reshape(-1, size) - parts.sum(axis=1), axis=1).ravel()
            for whole, parts in zip(self._sums, each, strict=True)
        ]
        groups = self._groups * (count + 1)
        table = np.stack(sums) if sums else np.empty((0, groups), np.int64)
        return Table(groups, np.array(keys, np.int64), table)


def summed(vectors: Sequence[bytes], groups: Sequence[int], count: int, ranges: Ranges) -> Table:
    """Sum vectors by group, of the counters in some ranges `[low, high)`; exact integers."""
    return _table(_asked(vectors, groups, ranges), count)


def summed_hours(
    vectors: Sequence[bytes], groups: Sequence[int], count: int, ranges: Ranges
) -> Table:
    """Sum vectors by group and hour: line `group * HOURS + hour`."""
    return _table(_asked(vectors, groups, ranges, by_hour=True), count * HOURS)


class _Asked(NamedTuple):
    """The entries that are asked for."""

    key: Ints
    """Of the counter alone."""
    line: Ints
    value: Ints


def _asked(
    vectors: Sequence[bytes], groups: Sequence[int], ranges: Ranges, *, by_hour: bool = False
) -> _Asked:
    """Pick some counters of vectors, each of a group; of all the others nothing is made."""
    data = b"".join(vectors)
    halves = np.frombuffer(data, "<u2").reshape(-1, ENTRY.itemsize // 2)
    wanted = np.zeros(HOUR, bool)
    for low, high in ranges:
        wanted[low:high] = True
    places = np.flatnonzero(wanted[halves[:, 0]])
    line = np.repeat(np.asarray(groups, np.int64), _lengths(vectors))[places]
    if by_hour:
        line = line * HOURS + halves[places, 1]
    value = np.frombuffer(data, ENTRY)["value"][places]
    return _Asked(halves[places, 0].astype(np.int64), line, value)


def _table(asked: _Asked, count: int) -> Table:
    if not len(asked.key):
        return Table(count, np.empty(0, np.int64), np.empty((0, count), np.int64))
    # Counters have small numbers: which occur, are rows of marks.
    seen = np.zeros(int(asked.key.max()) + 1, bool)
    seen[asked.key] = True
    names = np.flatnonzero(seen)
    place = np.cumsum(seen) - 1
    sums = np.zeros(count * len(names), np.int64)
    np.add.at(sums, place[asked.key] * count + asked.line, asked.value)
    return Table(count, names, sums.reshape(len(names), count))


@dataclass(frozen=True, slots=True)
class Lines:
    """Counters of many vectors, not yet written down: by line and key, each once."""

    line: Ints
    entries: Any

    @classmethod
    def by_hour(cls, hours: Sequence[Mapping[int, Mapping[int, int]]]) -> "Lines":
        """Take the counters of each hour."""
        asked: list[int] = []
        values: list[int] = []
        for line, counts in enumerate(hours):
            for hour, some in counts.items():
                base = line << 32 | hour * HOUR
                asked += [base + key for key in some]
                values += some.values()
        return cls._of(np.array(asked, np.int64), np.array(values, np.int64))

    @classmethod
    def _of(cls, asked: Ints, values: Ints) -> "Lines":
        order = np.argsort(asked, kind="stable")
        asked, values = asked[order], values[order]
        first = np.flatnonzero(np.diff(asked, prepend=-1))
        entries = np.empty(len(first), ENTRY)
        entries["key"] = asked[first] & 0xFFFFFFFF
        entries["value"] = np.add.reduceat(values, first) if len(first) else values
        return cls(asked[first] >> 32, entries)

    def whole(self) -> "Lines":
        """Sum the hours up; the quarters and what does not add are theirs alone."""
        key = self.entries["key"].astype(np.int64) % HOUR
        kept = ((key < C.QUARTER) | (key >= C.QUARTER + QUARTERS)) & (key != C.MOST)
        return self._of(self.line[kept] << 32 | key[kept], self.entries["value"][kept])

    def added(self, vectors: Sequence[bytes]) -> Sequence[bytes]:
        """Add the counters to vectors, to each its own line."""
        entries = np.frombuffer(b"".join(vectors), ENTRY)
        counts = _lengths(vectors)
        there = np.repeat(np.arange(len(vectors)), counts) << 32 | entries["key"]
        asked = self.line << 32 | self.entries["key"]
        place = np.searchsorted(there, asked)
        is_there = np.zeros(len(asked), bool)
        within = place < len(there)
        is_there[within] = there[place[within]] == asked[within]
        entries = entries.copy()
        entries["value"][place[is_there]] += self.entries["value"][is_there]
        entries = np.insert(entries, place[~is_there], self.entries[~is_there])
        counts = counts + np.bincount(self.line[~is_there], minlength=len(vectors))
        data, ends = entries.tobytes(), (np.cumsum(counts) * ENTRY.itemsize).tolist()
        return [data[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)]


def _lengths(vectors: Sequence[bytes]) -> Ints:
    return np.fromiter((len(one) for one in vectors), np.int64, len(vectors)) // ENTRY.itemsize


def merged(vectors: Sequence[bytes]) -> bytes:
    """Sum vectors into one."""
    if len(vectors) == 1:
        return vectors[0]
    entries = np.frombuffer(b"".join(vectors), ENTRY)
    order = np.argsort(entries["key"], kind="stable")
    keys, values = entries["key"][order], entries["value"][order]
    if not len(keys):
        return b""
    first = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    found = np.empty(len(first), ENTRY)
    found["key"] = keys[first]
    found["value"] = np.add.reduceat(values, first)
    return found.tobytes()


def merged_hours(vectors: Sequence[bytes]) -> bytes:
    """Sum vectors by hour into one, but for what does not add."""
    entries = np.frombuffer(b"".join(vectors), ENTRY)
    return merged([entries[entries["key"] % HOUR != C.MOST].tobytes(), b""])


def greatest(vectors: Sequence[bytes], groups: Sequence[int], count: int, key: int) -> Ints:
    """Give the greatest value of a counter by group and hour: line `group * HOURS + hour`."""
    asked = _asked(vectors, groups, [(key, key + 1)], by_hour=True)
    found = np.zeros(count * HOURS, np.int64)
    np.maximum.at(found, asked.line, asked.value)
    return found


def parted(data: bytes, key: int) -> tuple[bytes, bytes]:
    """Cut a vector in two: the counters below a key, and those from it on."""
    place = int(np.searchsorted(np.frombuffer(data, ENTRY)["key"], key)) * ENTRY.itemsize
    return data[:place], data[place:]


def peak_quarter(hours: bytes) -> tuple[float, int | None]:
    """Give the greatest mean of a quarter hour in a vector by hour, and which of the day it is."""
    entries = np.frombuffer(hours, ENTRY)
    hour, key = np.divmod(entries["key"].astype(np.int64), HOUR)
    is_quarter = (key >= C.QUARTER) & (key < C.QUARTER + QUARTERS) & (hour < ALL_DAY)
    if not is_quarter.any():
        return 0.0, None
    values = entries["value"][is_quarter]
    best = int(values.argmax())
    quarters = hour[is_quarter] * QUARTERS + key[is_quarter] - C.QUARTER
    return round(float(values[best]) / 900_000, 4), int(quarters[best])
