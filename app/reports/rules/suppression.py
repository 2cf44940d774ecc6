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
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

K = 5
"""Distinct workers behind a cell that administrators see."""
K_PUBLIC = 10
"""The same, for everybody."""

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
    rows: dict[int, Row] = {}  # Of thousands, most are alike.
    found = []
    for hidden, bound in zip(cells.hidden, cells.bound(), strict=True):
        row = rows.get(mask := _mask(hidden))
        if row is None:
            row = rows[mask] = Row(frozenset(hidden), [frozenset(_groups(one)) for one in bound])
        found.append(row)
    return found


def _smallest(crowds: Crowds, but: set[int]) -> int:
    return min((crowd, group) for group, crowd in enumerate(crowds) if group not in but)[1]


class _Change(NamedTuple):
    """Cells that would bind another, and how many workers they stand for."""

    cost: int
    cells: tuple[tuple[int, int], ...]


class _Table:
    """Rows times groups, while more and more of them are hidden."""

    def __init__(self, above: Row, crowds: Sequence[Crowds], k: int) -> None:
        self.above, self.crowds, self.k = above, crowds, k
        self.columns = list(zip(*crowds, strict=True))
        self.hidden = [
            {group for group, crowd in enumerate(row) if crowd < k} | above.hidden for row in crowds
        ]

    def hide_more(self) -> bool:
        """Hide what is still missing in one respect; gives whether anything was."""
        return self._fill_rows() or self._fill_columns() or self._bind()

    def _fill_rows(self) -> bool:
        """Let what a row's published cells leave over stand for k workers."""
        found = False
        for crowds, hidden in zip(self.crowds, self.hidden, strict=True):
            while hidden and len(hidden) < len(crowds):
                if sum(crowds[group] for group in hidden) >= self.k:
                    break
                hidden.add(_smallest(crowds, hidden))
                found = True
        return found

    def _fill_columns(self) -> bool:
        """The same for columns, where the row above is published."""
        found = False
        for group in range(len(self.columns)):
            column = self.columns[group]
            rows = {number for number, hidden in enumerate(self.hidden) if group in hidden}
            while rows and len(rows) < len(column) and group not in self.above.hidden:
                if sum(column[row] for row in rows) >= self.k:
                    break
                row = _smallest(column, rows)
                rows.add(row)
                self.hidden[row].add(group)
                found = True
        return found

    def bound(self) -> Sequence[Sequence[int]]:
        """Give for each row its hidden groups, as masks of those bound by all the other rows."""
        masks = [_mask(hidden) for hidden in self.hidden]
        counts = Counter(masks)
        further = [_mask(groups) for groups in self.above.bound]
        found: dict[int, Sequence[int]] = {}
        for mask, times in counts.items():
            if times > 1:
                found[mask] = [mask] if mask else []
                continue
            others = _joined([*further, *(other for other in counts if other != mask)])
            parts = [mask & other for other in others if mask & other]
            alone = [1 << g for g in _groups(mask) if not any(part >> g & 1 for part in parts)]
            found[mask] = parts + alone
        return [found[mask] for mask in masks]

    def _bind(self) -> bool:
        """Bind the first hidden cell that is bound to no other, as cheaply as can be."""
        for row, bound in enumerate(self.bound()):
            for mask in bound:
                if mask.bit_count() == 1:
                    group = _groups(mask)[0]
                    for place, other in self._cheapest(row, group).cells:
                        self.hidden[place].add(other)
                    return True
        return False

    def _cheapest(self, row: int, group: int) -> _Change:
        """Find what else to hide: a second cell in the row, and what binds the two elsewhere."""
        masks = {_mask(hidden) for number, hidden in enumerate(self.hidden) if number != row}
        joined = _joined([*masks, *(_mask(groups) for groups in self.above.bound)])
        changes = []
        for second in range(len(self.crowds[row])):
            if second == group:
                continue
            mine = self._cost([(row, second)])
            both = 1 << group | 1 << second
            if any(mask & both == both for mask in joined):
                changes.append(mine)
                continue
            others = (
                self._cost([(other, group), (other, second)])
                for other in range(len(self.crowds))
                if other != row
            )
            other = min(others)
            changes.append(_Change(mine.cost + other.cost, mine.cells + other.cells))
        return min(changes)

    def _cost(self, cells: Sequence[tuple[int, int]]) -> _Change:
        new = tuple((row, group) for row, group in cells if group not in self.hidden[row])
        return _Change(sum(self.crowds[row][group] for row, group in new), new)


def _mask(groups: frozenset[int] | set[int]) -> int:
    mask = 0
    for group in groups:
        mask |= 1 << group
    return mask


def _groups(mask: int) -> Sequence[int]:
    return [group for group in range(mask.bit_length()) if mask >> group & 1]


def _joined(masks: Sequence[int]) -> Sequence[int]:
    """Put masks together that share a group, directly or by others."""
    found: list[int] = []
    for mask in masks:
        joined, apart = mask, []
        for other in found:
            if other & joined:
                joined |= other
            else:
                apart.append(other)
        found = [*apart, joined] if joined else apart
    return found
