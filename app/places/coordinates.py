"""Coordinates of Chinese maps: GCJ-02 (Amap, Tencent) and BD-09 (Baidu) to WGS-84 and back.

We store WGS-84 only. China's map datum GCJ-02 moves points by up to 700 m with a published-by-use
formula; Baidu adds a turn of its own. Neither has an inverse in closed form, so we search for it:
the shift varies slowly, and every round brings the error down by about a hundred.
"""

import math
from collections.abc import Callable
from enum import StrEnum

_SEMI_MAJOR_M = 6_378_245.0
_ECCENTRICITY_SQUARED = 0.00669342162296594323
"""Krasovsky's ellipsoid of 1940, on which GCJ-02 computes."""

_SOUTH, _NORTH, _WEST, _EAST = 0.8293, 55.8271, 72.004, 137.8347
"""The box within which maps use the Chinese datum, in degrees."""

_BAIDU_TURN = math.pi * 3000 / 180

_ENOUGH_DEG = 1e-10
"""About a hundredth of a millimetre."""

_MOST_ROUNDS = 30

_Point = tuple[float, float]


class CoordinateSystem(StrEnum):
    """In which datum a client gives and wants coordinates."""

    WGS84 = "wgs84"
    GCJ02 = "gcj02"
    BD09 = "bd09"


def to_wgs84(lat: float, lon: float, system: CoordinateSystem) -> tuple[float, float]:
    """Turn coordinates of a system into WGS-84; degrees, latitude first, error below 1e-6."""
    match system:
        case CoordinateSystem.WGS84:
            return lat, lon
        case CoordinateSystem.GCJ02:
            found = _inverse(_gcj02, lat, lon)
        case CoordinateSystem.BD09:
            found = _inverse(_gcj02, *_inverse(_bd09, lat, lon))
    # Outside China the maps show WGS-84, so there is nothing to undo.
    return found if _in_china(*found) else (lat, lon)


def from_wgs84(lat: float, lon: float, system: CoordinateSystem) -> tuple[float, float]:
    """Turn WGS-84 into coordinates of a system; degrees, latitude first, same outside China."""
    if not _in_china(lat, lon):
        return lat, lon
    match system:
        case CoordinateSystem.WGS84:
            return lat, lon
        case CoordinateSystem.GCJ02:
            return _gcj02(lat, lon)
        case CoordinateSystem.BD09:
            return _bd09(*_gcj02(lat, lon))


def _in_china(lat: float, lon: float) -> bool:
    """Say whether maps of this point use the Chinese datum."""
    return _SOUTH <= lat <= _NORTH and _WEST <= lon <= _EAST


def _gcj02(lat: float, lon: float) -> _Point:
    """Move a point as GCJ-02 does."""
    x, y = lon - 105.0, lat - 35.0
    root = math.sqrt(abs(x))
    ripple = 20 * math.sin(6 * math.pi * x) + 20 * math.sin(2 * math.pi * x)
    north = -100 + 2 * x + 3 * y + 0.2 * y * y + 0.1 * x * y + 0.2 * root
    north += (ripple + 20 * math.sin(math.pi * y) + 40 * math.sin(math.pi * y / 3)) * 2 / 3
    north += (160 * math.sin(math.pi * y / 12) + 320 * math.sin(math.pi * y / 30)) * 2 / 3
    east = 300 + x + 2 * y + 0.1 * x * x + 0.1 * x * y + 0.1 * root
    east += (ripple + 20 * math.sin(math.pi * x) + 40 * math.sin(math.pi * x / 3)) * 2 / 3
    east += (150 * math.sin(math.pi * x / 12) + 300 * math.sin(math.pi * x / 30)) * 2 / 3
    phi = math.radians(lat)
    flat = 1 - _ECCENTRICITY_SQUARED * math.sin(phi) ** 2
    meridian_m = _SEMI_MAJOR_M * (1 - _ECCENTRICITY_SQUARED) / (flat * math.sqrt(flat))
    parallel_m = _SEMI_MAJOR_M / math.sqrt(flat) * math.cos(phi)
    return lat + math.degrees(north / meridian_m), lon + math.degrees(east / parallel_m)


def _bd09(lat: float, lon: float) -> _Point:
    """Move a point of GCJ-02 as Baidu does."""
    length = math.hypot(lon, lat) + 0.00002 * math.sin(lat * _BAIDU_TURN)
    angle = math.atan2(lat, lon) + 0.000003 * math.cos(lon * _BAIDU_TURN)
    return length * math.sin(angle) + 0.006, length * math.cos(angle) + 0.0065


def _inverse(shift: Callable[[float, float], _Point], lat: float, lon: float) -> _Point:
    """Find the point that a shift moves here.

    The number of rounds is bounded, so that a point far from China, where the formula means
    nothing, ends too.
    """
    from_lat, from_lon = lat, lon
    for _ in range(_MOST_ROUNDS):
        # Beyond the poles the formula has no answer; such a point is not in China anyway.
        if not (abs(from_lat) < 89 and abs(from_lon) < 360):
            return lat, lon
        got_lat, got_lon = shift(from_lat, from_lon)
        off_lat, off_lon = got_lat - lat, got_lon - lon
        from_lat, from_lon = from_lat - off_lat, from_lon - off_lon
        if max(abs(off_lat), abs(off_lon)) < _ENOUGH_DEG:
            break
    return from_lat, from_lon
