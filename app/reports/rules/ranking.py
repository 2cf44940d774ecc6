"""Where a station stands among its peers (metrics 47). Pure.

Peers are kept going by the same kind of body and have about as many seats; a station in a street of
offices is no measure for one at a motorway. With fewer than eight of them a place says nothing.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeVar

FEWEST_PEERS = 8
BANDS = (1, 10, 20, 40)
"""Where each size begins, in seats."""
FAIR = 0.9
"""Known for less than so much of the time that the best known peer is, a station is not ranked."""


class Standing(NamedTuple):
    """What a station is among its peers."""

    peers: int
    """Other stations of the group of which the figure is known."""
    percentile: float | None
    """The share of them that have less, ties by half; None with fewer than eight."""
    rank: int | None
    """1 has the most; equals have the same."""


Group = TypeVar("Group", bound=Hashable)


@lru_cache(maxsize=1024)
def band(seats: int) -> str:
    """Name the size of a station by its seats."""
    below = [first for first in BANDS if first <= seats]
    if not below:
        return "0"
    place = len(below)
    return f"{below[-1]}-{BANDS[place] - 1}" if place < len(BANDS) else f"{below[-1]}+"


def fair(known: Sequence[tuple[Group, float]]) -> Sequence[bool]:
    """Say which stations are known for about as long as the best known of their group."""
    best: dict[Group, float] = {}
    for group, share in known:
        best[group] = max(best.get(group, 0.0), share)
    return [share > 0 and share >= FAIR * best[group] for group, share in known]


def standings(stations: Sequence[tuple[Group, float | None]]) -> Sequence[Standing]:
    """Rank stations by a figure among the others of their group; None is not known."""
    groups: dict[Group, list[float]] = {}
    for group, value in stations:
        if value is not None:
            groups.setdefault(group, []).append(value)
    for values in groups.values():
        values.sort()
    found = []
    for group, value in stations:
        values = groups.get(group, [])
        if value is None:
            found.append(Standing(len(values), None, None))
            continue
        peers = len(values) - 1
        less = bisect_left(values, value)
        more = len(values) - bisect_right(values, value)
        is_enough = peers >= FEWEST_PEERS
        share = round((less + (peers - less - more) / 2) / peers, 4) if is_enough else None
        found.append(Standing(peers, share, more + 1 if is_enough else None))
    return found
