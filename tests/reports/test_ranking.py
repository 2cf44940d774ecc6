"""Where a station stands among its peers: by a plain count of who has less."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from app.places.tables import OperatingModel, Station, Unit
from app.reports import queries
from app.reports.catalogue import SAYS, field_of
from app.reports.queries import REPORTS
from app.reports.ranking import FIGURES, Ranked, ranking
from app.reports.rows import RankingRow
from app.reports.rules import By
from app.reports.rules.ranking import FEWEST_PEERS, band, fair, standings
from app.runtime import Runtime
from tests.reports import oracle
from tests.reports.test_queries import CALENDAR, LONG, SEEDS, SHORT, told
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


SILENT = ("unmet_demand", "grant_rate", "open_success_rate", "promise_rate", "controller_uptime")
"""Figures of which the silence of a controller is a part."""
SCANNED = ("visits", "visits_per_seat", "offhours_share")
"""Figures of which nobody knows much where those who come freely hardly scan."""
WANTED: Mapping[str, Callable[[oracle.Row], dict[str, Any]]] = {
    "visits": oracle.visits_of,
    "access": oracle.access_of,
    "occupancy": oracle.occupancy_of,
    "promise": oracle.promise_of,
}


def is_hardly_counted(said: Mapping[str, Any]) -> bool:
    share = said["free_mode_coverage"]
    return share is not None and share < 0.5


def size(seats: int) -> str:
    """Name a size: none, below ten, below twenty, below forty, more."""
    for most, name in ((0, "0"), (9, "1-9"), (19, "10-19"), (39, "20-39")):
        if seats <= most:
            return name
    return "40+"


@pytest.mark.anyio
@pytest.mark.parametrize("seed", SEEDS)
async def test_every_ranking_equals_a_plain_recount(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Among the stations of the whole city, of which some are not whoever asks'."""
    monkeypatch.setattr("app.reports.rules.ranking.FEWEST_PEERS", 2)
    ranks = Counter[bool]()
    async with told(runtime, seed) as one:
        # So few stations are peers only if all are kept going by the same kind of body.
        await one.tx.execute(sa.update(Station).values(operating_model=OperatingModel.UNION_BUILT))
        units = (await one.tx.scalars(sa.select(Unit))).all()
        whole = await oracle.read_raw(one.tx, units, one.at, one.raw.told)
        asked = {station.code for station in one.story.stations}
        for period in (SHORT, LONG[2]):
            scope = one.scope(By.STATION, None, period)
            ends = period.from_day, period.to_day
            table = oracle.table_of(whole, "station", None, ends, CALENDAR, scope.roots.units)
            rows = {row.stations[0].code: row for row in table}
            for figure in Ranked:
                of = {
                    code: oracle.said(row, WANTED[FIGURES[figure].report](row))
                    for code, row in rows.items()
                }
                known: dict[str, float] = {}
                values: dict[str, float | None] = {}
                groups = {code: size(row.stations[0].capacity) for code, row in rows.items()}
                for code, said in of.items():
                    seats = rows[code].stations[0].capacity
                    name = figure.value
                    values[code] = (
                        said[name]
                        if name != "visits_per_seat"
                        else None
                        if said["visits"] is None
                        else oracle.share(said["visits"], seats)
                    )
                    heard = said["reported_share"]
                    is_whole = name in SILENT or heard is None
                    known[code] = said["known_share"] * (1 if is_whole else heard)
                columns = await ranking(one.tx, scope, figure)
                found = list(map(RankingRow._make, zip(*columns, strict=True)))
                assert {row.station for row in found} == asked & set(rows)
                for row in found:
                    code = str(row.station)
                    peers = [other for other in rows if groups[other] == groups[code]]
                    enough = 0.9 * max(known[other] for other in peers)
                    others = {
                        other: values[other]
                        for other in peers
                        if known[other] > 0
                        and known[other] >= enough
                        and not (figure.value in SCANNED and is_hardly_counted(of[other]))
                    }
                    mine = others.pop(code, None)
                    less = [value for value in others.values() if value is not None]
                    percentile, rank = None, None
                    if mine is not None and len(less) >= 2:
                        points = sum((value < mine) + (value == mine) / 2 for value in less)
                        percentile = round(points / len(less), 4)
                        rank = 1 + sum(value > mine for value in less)
                    where = figure, period, code
                    assert row.peer_group == f"union_built {groups[code]}"
                    assert row.value == values[code], where
                    assert row.known_share == of[code]["known_share"], where
                    assert row.reported_share == of[code]["reported_share"], where
                    assert (row.peers, row.percentile, row.rank) == (
                        len(less),
                        percentile,
                        rank,
                    ), where
                    ranks[rank is not None] += 1
    assert ranks[True] > 20
