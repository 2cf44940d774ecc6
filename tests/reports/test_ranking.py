"""Where a station stands among its peers: by a plain count of who has less."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.reports.catalogue import SAYS, field_of
from app.reports.ranking import FIGURES, Ranked
from app.reports.rules.ranking import FEWEST_PEERS, band, fair, standings
from tests.reports.test_source import worth

stations = st.lists(
    st.tuples(st.sampled_from("ab"), st.none() | st.integers(0, 6).map(float)), max_size=30
)


@given(stations)
def test_a_percentile_is_the_share_of_the_peers_that_have_less_with_ties_by_half(
    found: list[tuple[str, float | None]],
) -> None:
    for number, standing in enumerate(standings(found)):
        group, value = found[number]
        others = [
            other
            for place, (name, other) in enumerate(found)
            if place != number and name == group and other is not None
        ]
        assert standing.peers == len(others)
        if value is None or len(others) < FEWEST_PEERS:
            assert (standing.percentile, standing.rank) == (None, None)
            continue
        points = sum(1.0 if other < value else 0.5 if other == value else 0 for other in others)
        assert standing.percentile == round(points / len(others), 4)
        assert standing.rank == 1 + sum(other > value for other in others)


@pytest.mark.parametrize(
    ("seats", "name"),
    [(0, "0"), (1, "1-9"), (9, "1-9"), (10, "10-19"), (39, "20-39"), (40, "40+"), (900, "40+")],
)
def test_sizes_have_names(seats: int, name: str) -> None:
    assert band(seats) == name


def test_who_was_there_for_a_part_of_the_time_is_not_compared() -> None:
    assert fair([("a", 1.0), ("a", 0.95), ("a", 0.5), ("b", 0.5), ("c", 0.0)]) == [
        True,
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("figure", [each for each in Ranked if each is not Ranked.VISITS_PER_SEAT])
def test_a_ranked_share_is_of_what_and_by_what_its_report_says(figure: Ranked) -> None:
    one = FIGURES[figure]
    kind: Any = SAYS[one.report][0]
    # Later fields are less, so that no difference of neighbours is below nought.
    row = kind._make(1_000 - 7 * place for place in range(len(kind._fields)))
    says = field_of(one.report, figure.value)
    value, numerator, denominator = one.parts(row, 20)
    assert value == getattr(row, figure.value)
    assert numerator == worth(says.numerator or figure.value, row._asdict())
    wanted = worth(says.denominator, row._asdict()) if says.denominator else None
    assert denominator == wanted
