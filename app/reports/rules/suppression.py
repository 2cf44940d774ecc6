"""Which cells of a table split by a personal attribute are hidden, so that nobody is found. Pure.

A cell (a place, a whole month, a group of workers such as riders) with fewer than `k` distinct
workers is hidden, nought included (metrics 50). A hidden cell is of no use if it can be worked out,
and sums are published: of every row over all groups, and of every group at the places above. So
other cells are hidden with it, from the root of the tree of places down:

- What is hidden at a place is hidden at every place below it.
- What a row's, or a column's, published cells leave over stands for `k` workers again, or for the
  whole row or column, which is published anyway.
- Every hidden cell has another in its row with which it can be exchanged, one up and one down,
  without changing anything that is published: at a second row of the table that hides both, or
  further away, through what the places above hide. Cells between which this is possible are
  *bound*. Only a hidden cell that is bound to no other in its row could be worked out.

What this protects, and what not:

- Of two questions about different times (a month, and the month with the next) the difference is a
  sum of months that are answered by themselves. Each month is one such table, and only whole months
  that are over are published, so there is no period with one day more.
- Of two questions about different places (a unit, and the unit without a station) likewise: places
  are those of the tree, and what a unit keeps itself is one of its rows.
- What is worked out is meant exactly, by sums. That no count is below nought gives bounds.
- Late facts change a month that was published, and a station may move to another unit: who keeps
  the answer from before has a difference that no table of one instant can hide.
- Numbers of distinct workers do not add, and are shown where the visits are: two months and both
  together tell how many of a group came in both.
"""

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

K = 5
"""Distinct workers behind a cell that administrators see."""
K_PUBLIC = 10
"""The same, for everybody."""

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Crowds = Sequence[int]
"""Distinct workers of a row, group by group."""


@dataclass(frozen=True, slots=True)
class Row:
    """What is hidden in one row."""

    hidden: frozenset[int]
    """Places of its hidden groups."""
    bound: Sequence[frozenset[int]]
    """The same, in sets whose cells can be exchanged without changing what is published of places
    that are not below this one."""


Place = TypeVar("Place", bound=Hashable)


def hidden_below(
    root: Place,
    tree: Mapping[Place, Sequence[Place]],
    crowds: Mapping[Place, Crowds],
    *,
    k: int,
) -> Mapping[Place, frozenset[int]]:
    """Say what is hidden at a place and at those below it that the tree names.

    Places without any visit must be left out: everybody knows that their cells are nought.
    """
    rows = {root: top(crowds[root], k=k)}
    due = [root]
    while due:
        place = due.pop()
        below = tree.get(place)
        if not below:
            continue
        table = rows_below(rows[place], [crowds[one] for one in below], k=k)
        rows |= dict(zip(below, table, strict=True))
        due += below
    return {place: row.hidden for place, row in rows.items()}


def top(crowds: Crowds, *, k: int) -> Row:
    """Hide cells of a list of which nothing but its own sum is published."""
    hidden = {group for group, crowd in enumerate(crowds) if crowd < k}
    while hidden and len(hidden) < len(crowds):
        if len(hidden) > 1 and sum(crowds[group] for group in hidden) >= k:
            break
        hidden.add(_smallest(crowds, hidden))
    return Row(frozenset(hidden), [frozenset(hidden)] if hidden else [])


def rows_below(above: Row, table: Sequence[Crowds], *, k: int) -> Sequence[Row]:
    """Hide cells of the rows whose sum is the row above, with both margins published."""
    if len(table) == 1:
        return [above]
    cells = _Table(above, table, k)
    while cells.hide_more():
        pass
    masks = cells.masks()
    rows = {  # Of thousands, most are alike.
        mask: Row(frozenset(_groups(mask)), [frozenset(_groups(one)) for one in bound])
        for mask, bound in cells.bound(masks).items()
    }
    return [rows[mask] for mask in masks]


def _smallest(crowds: Sequence[int], but: set[int]) -> int:
    return min((crowd, group) for group, crowd in enumerate(crowds) if group not in but)[1]


def _fill(crowds: Ints, hidden: Bools, k: int) -> bool:
    """Hide more of each line of which what is hidden stands for less than k; gives whether any."""
    count = hidden.sum(axis=1)
    is_due = (count > 0) & (count < hidden.shape[1]) & ((crowds * hidden).sum(axis=1) < k)
    for line in np.flatnonzero(is_due).tolist():
        of = crowds[line].tolist()
        some = set(np.flatnonzero(hidden[line]).tolist())
        while len(some) < len(of) and sum(of[cell] for cell in some) < k:
            some.add(_smallest(of, some))
        hidden[line, list(some)] = True
    return bool(is_due.any())


class _Change(NamedTuple):
    """Cells that would bind another, and how many workers they stand for."""

    cost: int
    cells: tuple[tuple[int, int], ...]


class _Table:
    """Rows times groups, while more and more of them are hidden."""

    def __init__(self, above: Row, crowds: Sequence[Crowds], k: int) -> None:
        self.above, self.k = above, k
        self.crowds = np.array(crowds, np.int64)
        self.hidden = self.crowds < k
        self.hidden[:, list(above.hidden)] = True
        self._is_published = ~np.isin(np.arange(self.crowds.shape[1]), list(above.hidden))
        self._bits = 1 << np.arange(self.crowds.shape[1])

    def masks(self) -> list[int]:
        """Give what is hidden in each row, a bit for each group."""
        found: list[int] = (self.hidden @ self._bits).tolist()
        return found

    def hide_more(self) -> bool:
        """Hide what is still missing in one respect; gives whether anything was."""
        return self._fill_rows() or self._fill_columns() or self._bind()

    def _fill_rows(self) -> bool:
        """Let what a row's published cells leave over stand for k workers."""
        return _fill(self.crowds, self.hidden, self.k)

    def _fill_columns(self) -> bool:
        """The same for columns, where the row above is published."""
        of = self._is_published
        hidden = self.hidden.T[of]
        is_found = _fill(self.crowds.T[of], hidden, self.k)
        self.hidden.T[of] = hidden
        return is_found

    def bound(self, masks: Sequence[int]) -> Mapping[int, Sequence[int]]:
        """Give for each kind of row its hidden groups, in parts that all the other rows bind."""
        counts = Counter(masks)
        further = [_mask(groups) for groups in self.above.bound]
        others = _joined_but_one(further, list(counts))
        found: dict[int, Sequence[int]] = {}
        for (mask, times), joined in zip(counts.items(), others, strict=True):
            if times > 1:
                found[mask] = [mask] if mask else []
                continue
            parts = [mask & other for other in joined if mask & other]
            alone = [1 << g for g in _groups(mask) if not any(part >> g & 1 for part in parts)]
            found[mask] = parts + alone
        return found

    def _bind(self) -> bool:
        """Bind the first hidden cell that is bound to no other, as cheaply as can be."""
        masks = self.masks()
        bound = self.bound(masks)
        for row, mask in enumerate(masks):
            for part in bound[mask]:
                if part.bit_count() == 1:
                    group = _groups(part)[0]
                    for place, other in self._cheapest(masks, row, group).cells:
                        self.hidden[place, other] = True
                    return True
        return False

    def _cheapest(self, masks: Sequence[int], row: int, group: int) -> _Change:
        """Find what else to hide: a second cell in the row, and what binds the two elsewhere."""
        others = {mask for number, mask in enumerate(masks) if number != row}
        joined = _joined([*others, *(_mask(groups) for groups in self.above.bound)])
        costs = np.where(self.hidden, 0, self.crowds)
        pairs = costs + costs[:, [group]]
        pairs[row] = np.iinfo(np.int64).max
        cheapest = pairs.argmin(axis=0).tolist()
        changes = []
        for second in range(self.crowds.shape[1]):
            if second == group:
                continue
            mine = self._cost([(row, second)])
            both = 1 << group | 1 << second
            if any(mask & both == both for mask in joined):
                changes.append(mine)
                continue
            other = self._cost([(cheapest[second], group), (cheapest[second], second)])
            changes.append(_Change(mine.cost + other.cost, mine.cells + other.cells))
        return min(changes)

    def _cost(self, cells: Sequence[tuple[int, int]]) -> _Change:
        new = tuple(cell for cell in cells if not self.hidden[cell])
        return _Change(sum(int(self.crowds[cell]) for cell in new), new)


def _mask(groups: Collection[int]) -> int:
    mask = 0
    for group in groups:
        mask |= 1 << group
    return mask


def _groups(mask: int) -> Sequence[int]:
    return [group for group in range(mask.bit_length()) if mask >> group & 1]


def _joined(masks: Iterable[int]) -> list[int]:
    """Put masks together that share a group, directly or by others."""
    found: list[int] = []
    for mask in masks:
        found = _with(found, mask)
    return found


def _with(joined: list[int], mask: int) -> list[int]:
    """Put one more mask to those that are put together; what it touches stands last."""
    if not mask:
        return joined
    apart = [other for other in joined if not other & mask]
    for other in joined:
        if other & mask:
            mask |= other
    return [*apart, mask]


def _joined_but_one(further: Iterable[int], masks: Sequence[int]) -> list[list[int]]:
    """Put them together for each mask: all the others, and what is always with them."""
    before = list(accumulate(masks, _with, initial=_joined(further)))
    none: list[int] = []
    after = list(accumulate(reversed(masks), _after, initial=none))[::-1]
    return [reduce(_with, last, first) for first, last in zip(before[:-1], after[1:], strict=True)]


def _after(later: list[int], mask: int) -> list[int]:
    """Put a mask to those that come after it; what it touches stands where its last one stood."""
    touched = [number for number, other in enumerate(later) if other & mask]
    if not mask or not touched:
        return [mask, *later] if mask else later
    joined = later.copy()
    for number in touched:
        mask |= joined[number]
    joined[touched[-1]] = mask
    return [one for number, one in enumerate(joined) if number not in touched[:-1]]
