"""Paths of the union tree, distances, and the grid that finds what is near."""

import math
import random
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.places.rules import (
    MAX_RADIUS_M,
    cells_around,
    child_path,
    distance_m,
    grid_cell,
    is_within,
    under_bounds,
    walking_minutes,
)

CHONGQING = (29.563, 106.5516)


def test_paths_are_numbers_from_the_root() -> None:
    assert child_path(None, 50) == "50"
    assert child_path(child_path("50", 107), 7) == "50.107.7"


@pytest.mark.parametrize("number", [0, -1])
def test_units_are_numbered_from_one(number: int) -> None:
    with pytest.raises(ValueError, match="numbered from 1"):
        child_path("50", number)


PATHS = st.lists(st.integers(1, 120), min_size=1, max_size=4).map(
    lambda numbers: ".".join(map(str, numbers))
)


@given(PATHS, PATHS)
@example("50", "50")
@example("50.1", "50")
@example("501", "50")
@example("5", "50")
@example("50.10.2", "50.1")
def test_bounds_hold_the_descendants_and_nothing_else(path: str, ancestor: str) -> None:
    low, high = under_bounds(ancestor)
    below = path.split(".")[: len(ancestor.split("."))] == ancestor.split(".")
    assert (low <= path < high) is (below and path != ancestor)
    assert is_within(path, ancestor) is below


@pytest.mark.parametrize(
    ("one", "other", "metres"),
    [
        ((0.0, 0.0), (0.0, 1.0), 111_195.08),  # One degree of a great circle.
        ((0.0, 0.0), (1.0, 0.0), 111_195.08),
        ((90.0, 0.0), (-90.0, 77.0), math.pi * 6_371_008.8),
        ((10.0, 179.5), (10.0, -179.5), 109_505.7),  # Over the date line.
        ((36.12, -86.67), (33.94, -118.40), 2_886_448.4),  # The textbook's BNA to LAX.
    ],
)
def test_distance_is_the_great_circle(
    one: tuple[float, float], other: tuple[float, float], metres: float
) -> None:
    assert distance_m(*one, *other) == pytest.approx(metres, rel=1e-6)
    assert distance_m(*other, *one) == pytest.approx(metres, rel=1e-6)
    assert distance_m(*one, *one) == 0


@pytest.mark.parametrize(
    ("metres", "minutes"),
    [
        (0, 0),
        (0.0000001, 1),
        (1, 1),
        (61.5, 1),
        (61.6, 2),
        (800, 13),
        (800.01, 14),
        (1000, 17),
        (20_000, 325),
    ],
)
def test_walking_is_a_detour_at_eighty_metres_a_minute_rounded_up(
    metres: float, minutes: int
) -> None:
    assert walking_minutes(metres) == minutes


LATITUDES = st.floats(-90, 90)
LONGITUDES = st.floats(-180, 180)


def holds(ranges: tuple[tuple[int, int], ...], cell: int) -> bool:
    """Whether a cell lies in one of the ranges."""
    return any(low <= cell <= high for low, high in ranges)


@settings(max_examples=400, deadline=None)
@given(LATITUDES, LONGITUDES, st.floats(0, MAX_RADIUS_M), st.floats(0, 360), st.floats(0, 1))
@example(29.563, 106.5516, 20_000.0, 90.0, 1.0)
@example(29.563, 106.5516, 20_000.0, 83.0, 1.0)
@example(0.0, 180.0, 1_000.0, 90.0, 1.0)
@example(0.0, -180.0, 1_000.0, 270.0, 1.0)
@example(89.9, 10.0, 20_000.0, 0.0, 1.0)
@example(-90.0, 0.0, 0.0, 0.0, 1.0)
@example(89.82, 0.0, 20_000.0, 90.0, 1.0)
def test_cells_hold_every_point_within_the_radius(
    lat: float, lon: float, radius: float, bearing: float, part: float
) -> None:
    # Walk from the point along a great circle, by the textbook's formula.
    reach, phi, theta = radius * part / 6_371_008.8, math.radians(lat), math.radians(bearing)
    sine = math.sin(phi) * math.cos(reach) + math.cos(phi) * math.sin(reach) * math.cos(theta)
    there = math.degrees(math.asin(max(-1.0, min(1.0, sine))))
    turned = math.degrees(
        math.atan2(
            math.sin(theta) * math.sin(reach) * math.cos(phi),
            math.cos(reach) - math.sin(phi) * math.sin(math.radians(there)),
        )
    )
    ranges = cells_around(lat, lon, radius)
    assert holds(ranges, grid_cell(there, (lon + turned + 540) % 360 - 180))
    assert holds(ranges, grid_cell(lat, lon))


@given(LATITUDES, LONGITUDES)
@example(90.0, 180.0)
@example(-90.0, -180.0)
def test_cells_are_few_ranges_of_small_numbers(lat: float, lon: float) -> None:
    assert 0 <= grid_cell(lat, lon) < 2**31
    ranges = cells_around(lat, lon, MAX_RADIUS_M)
    assert len(ranges) <= 2 * 21
    for low, high in ranges:
        assert 0 <= low <= high < 9000 * 18_000
    assert all(one[1] < other[0] for one, other in pairwise(sorted(ranges)))


def test_same_meridian_has_one_number() -> None:
    assert grid_cell(10.0, 180.0) == grid_cell(10.0, -180.0)


def test_search_reads_little_more_than_what_is_near() -> None:
    ranges = cells_around(*CHONGQING, 1_000)
    cells = sum(high - low + 1 for low, high in ranges)
    assert len(ranges) <= 2
    assert cells <= 6
    ranges = cells_around(*CHONGQING, MAX_RADIUS_M)
    assert len(ranges) <= 20
    # The box of a circle is 4/pi of it; cells at its border add a little.
    covered_km2 = sum(high - low + 1 for low, high in ranges) * 2.224 * 1.934
    assert covered_km2 < math.pi * 20**2 * 4 / math.pi * 1.25


def test_search_finds_exactly_what_measuring_everything_finds() -> None:
    dice = random.Random(20)
    stations = [(29.2 + dice.random() * 0.8, 106.1 + dice.random() * 0.9) for _ in range(4000)]
    for radius in (300, 1_000, 5_000, 20_000):
        ranges = cells_around(*CHONGQING, radius)
        near = {point for point in stations if distance_m(*CHONGQING, *point) <= radius}
        found = {point for point in stations if holds(ranges, grid_cell(*point))}
        assert near <= found
        assert len(found) < len(stations)
