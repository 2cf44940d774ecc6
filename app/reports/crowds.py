"""Sets of workers: roaring bitmaps of their random numbers, exact over any time and any stations.

They are whereabouts too: those of days live only as long as identified visits (law 15), those of
longer spans until the span is closed (`rollup.forget`).
"""

import struct
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from pyroaring import BitMap

from app.reports.columns import Ints
from app.reports.rules.counters import OCCUPATIONS

_NAMES = ("", *OCCUPATIONS)
_PART = struct.Struct("<BI")
_SIZES = struct.Struct(f"<{len(_NAMES)}I")

Crowd = Mapping[str, BitMap]
"""Workers by what they said they do; '' is who said nothing."""


def crowd_of(numbers: Mapping[str, Iterable[int]]) -> Crowd:
    """Make a crowd of workers' numbers."""
    return {name: BitMap(of) for name, of in numbers.items()}


def packed(crowd: Crowd) -> bytes:
    """Write a crowd down."""
    parts = []
    for name in sorted(crowd, key=_NAMES.index):
        if crowd[name]:
            data = crowd[name].serialize()
            parts.append(_PART.pack(_NAMES.index(name), len(data)) + data)
    return b"".join(parts)


def unpacked(data: bytes) -> Crowd:
    """Read a crowd."""
    found, at = {}, 0
    while at < len(data):
        place, length = _PART.unpack_from(data, at)
        at += _PART.size
        found[_NAMES[place]] = BitMap.deserialize(data[at : at + length])
        at += length
    return found


def sizes(crowd: Crowd) -> bytes:
    """Write down how many workers of each occupation there are."""
    return _SIZES.pack(*(len(crowd.get(name, ())) for name in _NAMES))


def sizes_of(data: Sequence[bytes]) -> Ints:
    """Read how many workers there are, a line for each: first of those who said nothing, then as in
    OCCUPATIONS."""
    return np.frombuffer(b"".join(data), "<u4").astype(np.int64).reshape(-1, len(_NAMES))


def union(crowds: Sequence[Crowd]) -> Crowd:
    """Put crowds together."""
    parts: dict[str, list[BitMap]] = {}
    for crowd in crowds:
        for name, numbers in crowd.items():
            parts.setdefault(name, []).append(numbers)
    return {name: BitMap.union(*sets) if len(sets) > 1 else sets[0] for name, sets in parts.items()}


def everybody(crowd: Crowd) -> BitMap:
    """Give the workers of a crowd, whatever they do."""
    return BitMap.union(*crowd.values()) if crowd else BitMap()


def renumber(crowd: Crowd, numbers: Mapping[int, int]) -> bool:
    """Put other numbers in the place of some; gives whether any was there."""
    found = False
    for part in crowd.values():
        for old, new in numbers.items():
            if old in part:
                part.discard(old)
                part.add(new)
                found = True
    return found
