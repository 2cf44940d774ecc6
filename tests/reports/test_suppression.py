"""Small cells: whoever knows all that is published cannot work out any that is hidden."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from app.reports.rules.suppression import _joined, _joined_but_one, hidden_below, top

GROUPS = 4
Key = tuple[int, ...]
"""A place: the steps that lead to it from the root, which is ()."""
Visits = Mapping[tuple[Key, int], Sequence[int]]
"""Of a leaf and a group: whose visits they were."""


class World(NamedTuple):
    tree: dict[Key, list[Key]]
    crowds: dict[Key, list[int]]
    leaves: list[Key]
    hidden: Mapping[Key, frozenset[int]]


def world(visits: Visits, k: int) -> World:
    leaves = sorted({leaf for leaf, _ in visits})
    places = sorted({leaf[:depth] for leaf in leaves for depth in range(len(leaf) + 1)} | {()})
    tree: dict[Key, list[Key]] = {place: [] for place in places}
    for place in places:
        if place:
            tree[place[:-1]].append(place)
    crowds = {
        place: [
            len({worker for leaf in under(leaves, place) for worker in visits.get((leaf, g), ())})
            for g in range(GROUPS)
        ]
        for place in places
    }
    return World(tree, crowds, leaves, hidden_below((), tree, crowds, k=k))


def under(leaves: Sequence[Key], place: Key) -> list[Key]:
    return [leaf for leaf in leaves if leaf[: len(place)] == place]


def equation(leaves: Sequence[Key], place: Key, groups: Sequence[int]) -> list[Fraction]:
    """The sum over the leaves of a place, as a line of coefficients."""
    below = set(under(leaves, place))
    return [Fraction(leaf in below and g in groups) for leaf in leaves for g in range(GROUPS)]


class Solver:
    """Knows some sums exactly; says which others follow."""

    def __init__(self, known: Sequence[list[Fraction]]) -> None:
        self.lines: dict[int, list[Fraction]] = {}
        for line in known:
            rest = self.reduced(line)
            pivot = next((n for n, value in enumerate(rest) if value), None)
            if pivot is not None:
                self.lines[pivot] = [value / rest[pivot] for value in rest]

    def reduced(self, line: list[Fraction]) -> list[Fraction]:
        for pivot in sorted(self.lines):
            if factor := line[pivot]:
                line = [a - factor * b for a, b in zip(line, self.lines[pivot], strict=True)]
        return line

    def follows(self, line: list[Fraction]) -> bool:
        return not any(self.reduced(line))


def solver(known: World) -> Solver:
    everything = list(range(GROUPS))
    lines = [equation(known.leaves, place, everything) for place in known.tree]
    for place, hidden in known.hidden.items():
        lines += [equation(known.leaves, place, [g]) for g in everything if g not in hidden]
    return Solver(lines)


leaves = st.tuples(st.integers(0, 2), st.integers(0, 2)) | st.tuples(st.integers(3, 4))
cells = st.tuples(leaves, st.integers(0, GROUPS - 1))
workers = st.lists(st.integers(0, 9), min_size=1, max_size=14)
some_visits = st.dictionaries(cells, workers, min_size=1, max_size=20)
few_visits = st.dictionaries(cells, workers, min_size=1, max_size=10)


@settings(deadline=None)
@given(some_visits, st.sampled_from([2, 3, 5]))
def test_no_hidden_cell_follows_from_what_is_published(visits: Visits, k: int) -> None:
    made = world(visits, k)
    knows = solver(made)
    for place, crowds in made.crowds.items():
        for group, crowd in enumerate(crowds):
            if crowd < k:
                assert group in made.hidden[place]
            if group in made.hidden[place]:
                assert not knows.follows(equation(made.leaves, place, [group])), (place, group)


@settings(deadline=None)
@given(some_visits, st.sampled_from([2, 3, 5]))
def test_what_is_left_over_in_a_row_is_no_small_cell_either(visits: Visits, k: int) -> None:
    made = world(visits, k)
    for place, hidden in made.hidden.items():
        if 0 < len(hidden) < GROUPS:
            assert sum(made.crowds[place][group] for group in hidden) >= k


@settings(deadline=None)
@given(few_visits, few_visits)
def test_two_questions_about_two_periods_tell_no_hidden_cell_of_the_months_between(
    first: Visits, second: Visits
) -> None:
    """January, February, and both together: where both are shown, so is the sum."""
    months = world(first, 3), world(second, 3)

    def line(number: int, place: Key, groups: Sequence[int]) -> list[Fraction]:
        return [
            value if month == number else Fraction()
            for month, made in enumerate(months)
            for value in equation(made.leaves, place, groups)
        ]

    known = []
    for place in months[0].hidden.keys() | months[1].hidden.keys():
        shown = [set(range(GROUPS)) - month.hidden.get(place, frozenset()) for month in months]
        totals = [line(number, place, range(GROUPS)) for number in (0, 1)]
        cells = [[line(number, place, [g]) for g in shown[number]] for number in (0, 1)]
        both = [
            [a + b for a, b in zip(line(0, place, [g]), line(1, place, [g]), strict=True)]
            for g in shown[0] & shown[1]
        ]
        known += [*totals, *cells[0], *cells[1], *both]
    knows = Solver(known)
    for number, month in enumerate(months):
        for place, hidden in month.hidden.items():
            for group in hidden:
                assert not knows.follows(line(number, place, [group]))


def test_a_list_hides_a_second_cell_where_one_alone_would_follow_from_the_sum() -> None:
    assert top([9, 8, 3, 20], k=5).hidden == {1, 2}
    assert top([9, 8, 3, 1], k=5).hidden == {1, 2, 3}
    assert top([9, 8, 3, 2], k=5).hidden == {2, 3}
    assert top([9, 8, 7, 20], k=5).hidden == set()
    assert top([0, 0, 1, 2], k=5).hidden == {0, 1, 2, 3}


def test_a_table_hides_the_fewest_workers_with_a_small_cell() -> None:
    """The small cell takes three others with it: two rows and two columns."""
    crowds = {"all": [37, 40, 60], "a": [3, 20, 30], "b": [14, 8, 15], "c": [20, 12, 15]}
    hidden = hidden_below("all", {"all": ["a", "b", "c"]}, crowds, k=5)
    assert hidden == {"all": set(), "a": {0, 1}, "b": {0, 1}, "c": set()}


def test_what_is_hidden_above_is_hidden_below() -> None:
    crowds = {"all": [4, 4, 30], "a": [4, 1, 20], "b": [0, 4, 15]}
    hidden = hidden_below("all", {"all": ["a", "b"]}, crowds, k=5)
    assert hidden["all"] == {0, 1}
    assert hidden["a"] >= {0, 1} <= hidden["b"]


bits = st.sets(st.integers(0, 6), max_size=2)
masks = st.lists(bits.map(lambda groups: sum(1 << group for group in groups)), max_size=12)


@given(masks, masks)
def test_masks_are_joined_without_each_one(further: list[int], some: list[int]) -> None:
    each = [_joined([*further, *some[:n], *some[n + 1 :]]) for n in range(len(some))]
    assert _joined_but_one(further, some) == each
