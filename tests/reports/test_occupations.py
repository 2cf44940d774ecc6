"""Visits by occupation of random histories: a plain recount, and nothing that follows from it."""

from collections.abc import Iterator, Sequence
from datetime import date
from fractions import Fraction
from itertools import cycle
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa

from app.people.tables import Occupation
from app.places.rules import CITY_ZONE, local_day
from app.places.tables import Station, Unit
from app.reports import occupations
from app.reports.rows import OccupationsRow
from app.reports.rules import Bucket, By, Period
from app.runtime import Runtime
from tests.reports import oracle
from tests.reports.oracle import Row
from tests.reports.test_queries import SEEDS, THIRDS, Beneath, Told, told
from tests.reports.test_suppression import Solver

pytestmark = pytest.mark.anyio

OCTOBER = Period(date(2026, 10, 1), date(2026, 11, 1))
PERIODS = (
    OCTOBER,
    Period(date(2026, 9, 1), date(2026, 11, 1)),
    Period(date(2026, 9, 1), date(2026, 12, 1)),
)
"""A month, two, and three of which the last is not over."""
GROUPS = ("not_said", *(each.value for each in Occupation))
PLACES = (By.STATION, By.UNIT, By.BRANCH, By.ALL)
CUTS = [
    *(
        (period, by, bucket)
        for period in PERIODS
        for by in PLACES
        for bucket in (None, Bucket.MONTH)
    ),
    (PERIODS[2], By.MONTH, None),
]
FEWEST = 2
"""Of four workers; of five, nothing would be shown."""


class Cell(NamedTuple):
    """A row of the report, and the stations and days that it is about."""

    told: OccupationsRow
    of: Row


async def asked_places(one: Told) -> Sequence[Beneath]:
    """Give the whole city, and a district with its street."""
    near, _, street = one.story.units
    everything = list(await one.tx.scalars(sa.select(Unit)))
    found = []
    for root, units in ((one.story.above[0].id, everything), (near.id, [near, street])):
        raw = await oracle.read_raw(one.tx, units, one.at, one.raw.told)
        stations = sa.select(Station.id).where(Station.unit_id.in_([unit.id for unit in units]))
        whole = vars(one) | {"raw": raw, "tables": {}}
        found.append(Beneath(**whole, root=root, stations=stations))
    return found


async def cells(one: Beneath, period: Period, by: By, bucket: Bucket | None) -> Sequence[Cell]:
    """Ask the report; beside each row say what it is about."""
    scope = one.scope(by, bucket, period)
    made = await occupations.rows_of(one.tx, scope, is_at_once=True)
    columns = await occupations.columns(one.tx, made)
    rows = list(map(OccupationsRow._make, zip(*columns, strict=True)))
    pieces = [piece for piece in one.rows(scope) for _ in GROUPS]
    return [Cell(*each) for each in zip(rows, pieces, strict=True)]


def visits_of(row: Row, group: str | None) -> list[Any]:
    """Give the visits of a group; None: of all of them."""
    mine = [visit for visit in row.of(row.raw.visits) if not visit.re_entry]
    return [
        visit
        for visit in mine
        if group is None or (visit.occupation.value if visit.occupation else "not_said") == group
    ]


def wanted(row: Row, group: str) -> dict[str, Any]:
    mine, came, silent = (visits_of(row, each) for each in (group, None, "not_said"))
    said = len(came) - len(silent)
    return {
        "visits": len(mine),
        "persons": sum(visit.party_size for visit in mine),
        "unique_workers": len(crowd(row, group)),
        "all_visits": len(came),
        "visits_share": oracle.share(len(mine), len(came)),
        "told_visits": said,
        "occupation_share": oracle.share(len(mine), said) if group != "not_said" else None,
    }


def crowd(row: Row, group: str) -> set[int]:
    """Give the distinct workers of a group."""
    numbers = {row.raw.number_of(visit) for visit in visits_of(row, group)}
    return {number for number in numbers if number is not None}


@pytest.mark.parametrize("seed", SEEDS)
async def test_visits_by_occupation_equal_a_plain_recount(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """With nothing hidden, of a city and of a district, in every way that they can be cut."""
    monkeypatch.setattr(occupations, "K", 0)
    seen = 0
    async with told(runtime, seed) as one:
        today = local_day(one.at, CITY_ZONE)
        for place in await asked_places(one):
            for period, by, bucket in CUTS[seed % THIRDS :: THIRDS]:
                told_cells = await cells(place, period, by, bucket)
                for (row, piece), group in zip(told_cells, cycle(GROUPS), strict=False):
                    found = row._asdict()
                    values = wanted(piece, group)
                    is_over = piece.days[-1] < today.replace(day=1)
                    if not (is_over and piece.is_told):
                        values = dict.fromkeys(values)
                    values |= {"occupation": group, "suppressed": False, "k": 0}
                    values |= {"known_share": piece.known_share, "day": piece.day}
                    values |= {key: piece.name[key] for key in ("station", "unit", "is_own")}
                    said = {name: found[name] for name in values}
                    assert said == values, (period, by, bucket, piece.name, group)
                    seen += bool(row.visits)
    assert seen > 30


@pytest.mark.parametrize("seed", SEEDS)
async def test_few_are_hidden_and_do_not_follow_from_all_that_is_told(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whoever asks about the city and about its district, in every way, works out nobody."""
    monkeypatch.setattr(occupations, "K", FEWEST)
    told_cells: list[Cell] = []
    async with told(runtime, seed) as one:
        for place in await asked_places(one):
            for by in PLACES:
                told_cells += await cells(place, OCTOBER, by, None)
    stations = sorted(
        {station.id for _, piece in told_cells for station in piece.stations}, key=str
    )
    knows = Solver(list(lines_of(told_cells, stations)))
    hidden = 0
    for row, piece in told_cells:
        if row.suppressed:
            mine = line(stations, piece, [row.occupation])
            assert not knows.follows(mine), (piece.name, row.occupation)
            assert (row.visits, row.persons, row.unique_workers) == (None, None, None)
            hidden += 1
        elif row.visits is not None:
            values = wanted(piece, row.occupation)
            assert (row.visits, row.persons) == (values["visits"], values["persons"])
            assert len(crowd(piece, row.occupation)) >= FEWEST or not row.all_visits
    assert hidden > 10


def lines_of(told_cells: Sequence[Cell], stations: Sequence[Any]) -> Iterator[list[Fraction]]:
    """Give the sums that are published."""
    for row, piece in told_cells:
        if row.all_visits is not None:
            yield line(stations, piece, GROUPS)
        if row.told_visits is not None:
            yield line(stations, piece, GROUPS[1:])
        if row.visits is not None:
            yield line(stations, piece, [row.occupation])


def line(stations: Sequence[Any], piece: Row, groups: Sequence[str]) -> list[Fraction]:
    return [Fraction(id in piece.ids and group in groups) for id in stations for group in GROUPS]
