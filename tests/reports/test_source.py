"""Where figures come from: each names the counters that move it, and as many rows as it counts."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from app.db.cursors import PageRequest
from app.people.admins import Roots
from app.places.tables import FacilityKind, Station
from app.reports.catalogue import FORMULAS, SAYS, field_of
from app.reports.frame import Part, frame
from app.reports.queries import REPORTS
from app.reports.rules import By
from app.reports.rules.counters import DOOR, DWELL, PICKUP, PULSE, REASON, REASONS, C, F, facility
from app.reports.source import MADE, Made, behind, source
from app.reports.sums import Sums
from app.reports.vectors import Table
from app.runtime import Runtime
from tests.reports.test_queries import Health, told
from tests.reports.test_queries import health as health

pytestmark = pytest.mark.anyio

NAMES = {"text", "id", "date", "hour", "truth", "instant"}
"""What is measured in these is a name or a state of a row, and no figure."""
HISTOGRAMS = {DWELL: 5, PICKUP: 7, PULSE: 9, DOOR: 11}
UNITS = {"share": 1, "ratio": 1, "persons": 1, "minutes": 60, "seconds": 3_600}
"""How many of a rate's unit are one of what it was divided of, which are counts or hours."""
HOUR_MS = 3_600_000
NOT_COUNTED = {"peak_occupancy", "peak_at", "max_observed", "unique_workers"}
"""Kept beside the counters."""
COUNTED = {
    "visits": (
        "visits visits_free visits_scan visits_offline returns anonymous_visits "
        "out_of_hours_visits refused stays ended imputed_exits"
    ),
    "access": "decided granted walk_in refused claimed executed with_contact opened",
    "facilities": "uses open_uses",
}
"""Figures that are numbers of rows."""


def test_every_figure_says_where_it_comes_from() -> None:
    for report, (row, _) in SAYS.items():
        figures = {
            name
            for name in row._fields  # type: ignore[attr-defined]
            if (FORMULAS[name][1] not in NAMES and name != "weekday") or name == "peak_at"
        }
        assert set(MADE[report]) | {"known_share"} == figures, report
        if report in ("occupations", "ranking"):
            made = MADE[report].values()
            assert not any(names(one) or one.rows or one.has_sets for one in made), report


def keys_of(report: str) -> Iterator[int]:
    """Every counter that the report reads; of facilities those of one kind."""
    if report == "facilities":
        yield from (facility("water", counter) for counter in F)
    if report == "access":
        yield from (REASON + number for number in range(len(REASONS)))
    yield from (key for key in C if key < C.QUARTER or key >= C.PROMISED_MS)


def is_time(key: int) -> bool:
    kinds = {facility("water", counter) for counter in F if counter.name.endswith("_MS")}
    return key in kinds or (key in set(C) and C(key).name.endswith("_MS"))


def names(made: Made) -> set[int]:
    found = set(made.counters) | {facility("water", counter) for counter in made.kinds}
    return found | ({made.histogram} if made.histogram is not None else set())


async def test_a_figure_names_just_the_counters_that_move_it(
    runtime: Runtime, health: Health
) -> None:
    async with told(runtime, 1, health, rounds=0) as one:
        (part,) = (await frame(one.tx, one.scope(By.ALL))).parts()
    for report, made in REPORTS.items():
        values = {key: 1_000 + 97 * place for place, key in enumerate(keys_of(report))}
        values |= {key: value * 10_000_000 for key, value in values.items() if is_time(key)}
        values |= {C.PROMISED_MS: 400 * HOUR_MS, C.UNKNOWN_MS: 90 * HOUR_MS}
        values |= {C.STAFFED_MS: 100 * HOUR_MS, C.COVERED_MS: 60 * HOUR_MS}
        values |= {histogram + place: 50 for histogram, place in HISTOGRAMS.items()}
        base = figures_of(part, report, values)
        moved: defaultdict[str, set[int]] = defaultdict(set)
        for key, value in values.items():
            for other in (value * 3, value // 3, 0):
                for figure, found in figures_of(part, report, values | {key: other}).items():
                    if found != base[figure]:
                        histogram = next((h for h, p in HISTOGRAMS.items() if h + p == key), key)
                        moved[figure].add(histogram)
        for figure in MADE[report]:
            if figure not in NOT_COUNTED:
                assert moved[figure] == names(MADE[report][figure]), (report, figure)
        for figure in MADE[report]:
            says = field_of(report, figure)
            if says.numerator and says.denominator:
                divided = worth(says.numerator, base) / worth(says.denominator, base)
                assert base[figure] == pytest.approx(divided * UNITS[says.unit], rel=0.01), figure
        assert made.row is SAYS[report][0]


def worth(terms: str, figures: dict[str, Any]) -> float:
    """The worth of a sum, a difference or a quotient of figures."""
    first, *rest = terms.split()
    found = float(figures[first])
    for sign, name in zip(rest[::2], rest[1::2], strict=True):
        other = float(figures[name])
        found = {"+": found + other, "-": found - other, "/": found / other}[sign]
    return found


def figures_of(part: Part, report: str, values: dict[int, int]) -> dict[str, Any]:
    keys = sorted(values)
    table = Table(1, np.array(keys), np.array([[values[key] for key in keys]], np.int64))
    sums = Sums(1, False, table, uniques=[3], peaks=[(1.0, None)], most_inside=[2])
    standing: defaultdict[Any, Counter[FacilityKind]] = defaultdict(Counter)
    rows = list(REPORTS[report].rows(part, sums, standing))
    row = next((one for one in rows if getattr(one, "kind", None) == "water"), rows[0])
    return {figure: getattr(row, figure) for figure in MADE[report]}


@pytest.mark.parametrize("seed", range(2))
async def test_as_many_rows_stand_behind_a_figure_as_it_counts(
    runtime: Runtime, health: Health, seed: int
) -> None:
    async with told(runtime, seed, health, rounds=1) as one:
        for station in one.story.stations[:3]:
            scope = replace(
                one.scope(By.ALL),
                stations=sa.select(Station.id).where(Station.id == station.id),
                roots=Roots(stations=[station.id]),
            )
            (part,) = (await frame(one.tx, scope)).parts()
            for report, figures in COUNTED.items():
                for figure in figures.split():
                    found = await source(one.tx, part, report, figure)
                    value = found.value
                    if isinstance(value, dict):
                        value = sum(count or 0 for count in value.values())
                    if value is None:
                        continue
                    assert sum(counter.sum for counter in found.counters) == value
                    made, seen, cursor = MADE[report][figure], [], None
                    while True:
                        page = await behind(one.tx, scope, station, made, PageRequest(3, cursor))
                        seen += [row.id for row in page.rows]
                        cursor = page.next
                        if cursor is None:
                            break
                    assert len(seen) == len(set(seen)) == value, (report, figure)
                    assert bool(found.rollups) >= bool(value)
