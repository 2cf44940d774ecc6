"""Which row the stations of a unit belong to, where units are compared. Pure.

A unit's row is of the stations that it keeps itself, or of its whole branch. To compare what lies
below a place is to give one row to each unit directly below it, and one to what it keeps itself.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID


class Branch(NamedTuple):
    """What the row of a unit is about."""

    unit: UUID
    is_own: bool = False
    """Only the stations that it keeps itself; else everything below it as well."""


def branches(
    above: Mapping[UUID, UUID | None], roots: Collection[UUID] = ()
) -> Mapping[UUID, Branch]:
    """Say of each unit, given what each hangs on, to which row its own stations belong.

    Below a single root every unit directly below is a row, of several roots every root is one.
    Without any each unit is a row by itself. What lies below no root has none.
    """
    found = ((unit, _branch(_way_up(unit, above), roots)) for unit in above)
    return {unit: branch for unit, branch in found if branch is not None}


def roots_of(
    above: Mapping[UUID, UUID | None], roots: Sequence[UUID], units: Collection[UUID]
) -> Sequence[UUID]:
    """Give the roots beneath which any of some units is, in order; all, if there is none.

    These are the units on which stations hang that anything is told of. Beside a root that was made
    by mistake, and perhaps retired at once, a city would else be one row, and not its districts.
    """
    way = {step for unit in units if unit in above for step in _way_up(unit, above)}
    return [root for root in roots if root in way] or roots


def _way_up(unit: UUID, above: Mapping[UUID, UUID | None]) -> list[UUID]:
    way = [unit]
    while (parent := above[way[-1]]) is not None:
        way.append(parent)
    return way


def _branch(way: list[UUID], roots: Collection[UUID]) -> Branch | None:
    if not roots:
        return Branch(way[0], is_own=True)
    place = next((place for place, unit in enumerate(way) if unit in roots), None)
    if place is None:
        return None
    if len(roots) > 1:
        return Branch(way[place])
    return Branch(way[max(place - 1, 0)], is_own=place == 0)
