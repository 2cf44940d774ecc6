"""The ground: how far two points are apart, and which grid cells lie around one.

A station carries the number of its grid cell in an indexed integer column. Cells are numbered
along the parallels, so the cells of one row around a point are one range of numbers, and a search
is one `BETWEEN` per row: 20 rows at the greatest radius, whatever the number of stations.
"""

import math

EARTH_RADIUS_M = 6_371_008.8
"""Mean radius of WGS-84 in metres."""

MAX_RADIUS_M = 20_000
"""The greatest radius of a search in metres (contract)."""

DETOUR = 1.3
"""How much longer than the straight line a way on foot is in a town."""

WALKING_M_PER_MIN = 80
"""A brisk walk, 4.8 km/h."""

CELLS_PER_DEGREE = 50
"""A cell is 0.02 degrees: 2.2 km high, and 1.9 km wide at Chongqing."""

ROWS = 180 * CELLS_PER_DEGREE
COLUMNS = 360 * CELLS_PER_DEGREE

_SLACK_DEG = 1e-7
"""About a centimetre, so that rounding never loses a station at the very edge."""


def distance_m(lat1: float, lon1: float, lat2: float, lon2: float) -> float:
    """Measure the great circle between two points in metres; degrees, WGS-84."""
    phi1, phi2 = math.radians(lat1), math.radians(lat2)
    north = math.sin((phi2 - phi1) / 2) ** 2
    east = math.sin(math.radians(lon2 - lon1) / 2) ** 2
    chord = north + math.cos(phi1) * math.cos(phi2) * east
    return 2 * EARTH_RADIUS_M * math.asin(math.sqrt(min(1.0, chord)))


def walking_minutes(distance_m: float) -> int:
    """Estimate a way on foot in minutes: straight line times 1.3, at 80 m a minute, rounded up.

    So it is 0 only for no distance at all, and 13 minutes for 800 m.
    """
    # Rounding to the millimetre keeps 800 m * 1.3 / 80 from becoming 13.000000000000002.
    minutes = math.ceil(round(distance_m * DETOUR, 3) / WALKING_M_PER_MIN)
    return max(minutes, 1) if distance_m > 0 else 0


def grid_cell(lat: float, lon: float) -> int:
    """Number the grid cell of a point; degrees, WGS-84. Fits 32 bits."""
    return _row(lat) * COLUMNS + _column(lon) % COLUMNS


def cells_around(lat: float, lon: float, radius_m: float) -> tuple[tuple[int, int], ...]:
    """Give the ranges of cells, both ends included, that hold every point within a radius.

    They hold points beyond it too: measure what they find. Degrees, WGS-84; metres. Works over
    the date line (two ranges per row) and at the poles (whole rows).
    """
    reach = max(radius_m, 0.0) / EARTH_RADIUS_M
    south, north = (lat - math.degrees(reach) - _SLACK_DEG, lat + math.degrees(reach) + _SLACK_DEG)
    ranges: list[tuple[int, int]] = []
    spans = _columns(lat, lon, reach, whole=south <= -90 or north >= 90)
    for row in range(_row(south), _row(north) + 1):
        ranges += [(row * COLUMNS + first, row * COLUMNS + last) for first, last in spans]
    return tuple(ranges)


def _columns(lat: float, lon: float, reach: float, *, whole: bool) -> list[tuple[int, int]]:
    """Give the ranges of columns that hold every point within a reach (radians)."""
    everything = [(0, COLUMNS - 1)]
    if whole:
        return everything
    # No pole is within reach, so the circle touches two meridians, and this is how far they are.
    width = math.degrees(math.asin(min(1.0, math.sin(reach) / math.cos(math.radians(lat)))))
    west, east = _column(lon - width - _SLACK_DEG), _column(lon + width + _SLACK_DEG)
    if east - west >= COLUMNS - 1:
        return everything
    first, last = west % COLUMNS, east % COLUMNS
    return [(first, last)] if first <= last else [(first, COLUMNS - 1), (0, last)]


def _row(lat: float) -> int:
    """Number a row from the south pole; what lies beyond a pole counts as the pole."""
    return min(max(math.floor((lat + 90) * CELLS_PER_DEGREE), 0), ROWS - 1)


def _column(lon: float) -> int:
    """Number a column from the date line eastwards, without wrapping."""
    return math.floor((lon + 180) * CELLS_PER_DEGREE)
