"""Identifiers and marks for whole arrays: in time order, by seed, never by a step per row."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


def new_ids(rng: np.random.Generator, instants: NDArray[np.int64]) -> NDArray[Any]:
    """Make an id for each instant (UUID version 7, RFC 9562), in the order of the instants."""
    raw = np.empty((len(instants), 2), ">u8")
    random = rng.integers(0, 1 << 63, (2, len(instants)), dtype=np.uint64)
    millis = (instants // 1000).astype(np.uint64)
    raw[:, 0] = millis << np.uint64(16) | np.uint64(0x7000) | random[0] & np.uint64(0x0FFF)
    raw[:, 1] = np.uint64(1 << 63) | random[1] >> np.uint64(1)
    return raw.view("V16").reshape(-1)


def mixed(values: Words) -> Words:
    """Scatter numbers (SplitMix64): equal ones alike, others without any order."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)


def marks(seed: int, *parts: NDArray[np.int64]) -> NDArray[Any]:
    """Give 16 bytes that are the same wherever the parts are the same."""
    low = np.full(len(parts[0]), seed, np.uint64)
    for part in parts:
        low = mixed(low ^ part.astype(np.uint64))
    both = np.stack([low, mixed(low ^ np.uint64(0xA5A5))], axis=1)
    return both.view("V16").reshape(-1)


def hexed(values: Words) -> NDArray[Any]:
    """Write numbers as 16 hexadecimal digits."""
    raw = values.astype(">u8").view(np.uint8).reshape(len(values), 8)
    digits = np.empty((len(values), 16), np.uint8)
    digits[:, 0::2], digits[:, 1::2] = _HEX[raw >> 4], _HEX[raw & 15]
    return digits.view("S16").reshape(-1)
