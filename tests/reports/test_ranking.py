"""Where a station stands among its peers: by a plain count of who has less."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.reports import queries
from app.reports.catalogue import SAYS, field_of
from app.reports.queries import REPORTS
from app.reports.ranking import FIGURES, Ranked, ranking
from app.reports.rows import RankingRow
from app.reports.rules import By
from app.reports.rules.ranking import FEWEST_PEERS, band, fair, standings
from app.runtime import Runtime
from tests.reports.test_queries import told
from tests.reports.test_source import worth

station = st.tuples(st.sampled_from("ab"), st.none() | st.integers(0, 6).map(float))
stations = st.lists(station, max_size=9) | st.lists(station, min_size=25, max_size=30)
"""Few of them, and enough to have peers."""


@given(stations)
def test_a_percentile_is_the_share_of_the_peers_that_have_less_with_ties_by_half(
    found: list[tuple[str, float | None]],
) -> None:
    groups, values = [group for group, _ in found], [value for _, value in found]
    for number, standing in enumerate(standings(groups, values)):
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
    known = [1.0, 0.95, 0.5, 0.5, 0.0]
    assert fair(["a", "a", "a", "b", "c"], known) == [True, True, False, True, False]


@pytest.mark.parametrize("figure", [each for each in Ranked if each is not Ranked.VISITS_PER_SEAT])
def test_a_ranked_share_is_of_what_and_by_what_its_report_says(figure: Ranked) -> None:
    one = FIGURES[figure]
    kind: Any = SAYS[one.report][0]
    # Later fields are less, so that no difference of neighbours is below nought.
    row = kind._make(1_000 - 7 * place for place in range(len(kind._fields)))
    says = field_of(one.report, figure.value)
    parts = one.parts({name: [value, None] for name, value in row._asdict().items()}, [20, 20])
    wanted = worth(says.denominator, row._asdict()) if says.denominator else None
    assert parts.value == [getattr(row, figure.value), None]
    upper = worth(says.numerator or figure.value, row._asdict())
    assert parts.numerator == [pytest.approx(upper, abs=5e-4), None]
    assert parts.denominator == [wanted and pytest.approx(wanted, abs=5e-4), None]


@pytest.mark.anyio
async def test_stations_are_ranked_by_what_the_whole_report_says_of_them(runtime: Runtime) -> None:
    async with told(runtime, 0, rounds=0) as one:
        scope = one.scope(By.STATION)
        for figure in Ranked:
            rows: Sequence[Any] = await queries.rows(one.tx, scope, REPORTS[FIGURES[figure].report])
            said = {row.station: row for row in rows}
            columns = await ranking(one.tx, scope, figure)
            ranked = list(map(RankingRow._make, zip(*columns, strict=True)))
            assert {row.station for row in ranked} == set(said)
            assert ranked == sorted(ranked, key=lambda row: (row.peer_group, row.station))
            for row in ranked:
                whole = said[row.station]
                assert (row.name, row.known_share) == (whole.name, whole.known_share)
                if figure is not Ranked.VISITS_PER_SEAT:
                    assert row.value == getattr(whole, figure.value)
                elif row.capacity:
                    assert row.value == round(whole.visits / row.capacity, 4)
