"""Where a station stands among its peers (metrics 47). Pure.

Peers are kept going by the same kind of body and have about as many seats; a station in a street of
offices is no measure for one at a motorway. With fewer than eight of them a place says nothing.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeVar

FEWEST_PEERS = 8
BANDS = (1, 10, 20, 40)
"""Where each size begins, in seats."""
FAIR = 0.9
"""Known for less than so much of the time that the best of its peers is, a station is not ranked.

Of what controllers tell, nothing is known of time in which they were not heard.
"""


class Standing(NamedTuple):
    """What a station is among its peers."""

    peers: int
    """Other stations of the group of which the figure is known."""
    percentile: float | None
    """The share of them that have less, ties by half; None with fewer than eight."""
    rank: int | None
    """1 has the most; equals have the same."""


Group = TypeVar("Group", bound=Hashable)


def band(seats: int) -> str:
    """Name the size of a station by its seats."""
    below = [first for first in BANDS if first <= seats]
    if not below:
        return "0"
    place = len(below)
    return f"{below[-1]}-{BANDS[place] - 1}" if place < len(BANDS) else f"{below[-1]}+"


@lru_cache(maxsize=1024)
def peer_group(model: str, seats: int) -> str:
    """Name the peers of a station by who keeps it going and by its size."""
    return f"{model} {band(seats)}"


def fair(groups: Sequence[Group], known: Sequence[float]) -> Sequence[bool]:
    """Say which stations are known for about as long as the best of their group."""
    best: dict[Group, float] = {}
    for group, share in zip(groups, known, strict=True):
        best[group] = max(best.get(group, 0.0), share)
    return [
        share > 0 and share >= FAIR * best[group]
        for group, share in zip(groups, known, strict=True)
    ]


def standings(groups: Sequence[Group], values: Sequence[float | None]) -> Sequence[Standing]:
    """Rank stations by a figure among the others of their group; None is not known."""
    found: dict[Group, list[float]] = {group: [] for group in groups}
    for group, value in zip(groups, values, strict=True):
        if value is not None:
            found[group].append(value)
    standing = {group: _by_value(some) for group, some in found.items()}
    return [standing[group][value] for group, value in zip(groups, values, strict=True)]


def _by_value(values: Sequence[float]) -> Mapping[float | None, Standing]:
    """Say what a station is that has one of a group's values, or none."""
    found: dict[float | None, Standing] = {None: Standing(len(values), None, None)}
    peers = len(values) - 1
    is_enough = peers >= FEWEST_PEERS
    less = 0
    for value, same in sorted(Counter(values).items()):
        share = round((less + (same - 1) / 2) / peers, 4) if is_enough else None
        rank = peers + 2 - less - same if is_enough else None
        found[value] = Standing(peers, share, rank)
        less += same
    return found
