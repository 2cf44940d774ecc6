"""Chinese map datums: published points, and the way back."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.places.coordinates import CoordinateSystem, from_wgs84, to_wgs84
from app.places.rules import distance_m

GCJ02, BD09, WGS84 = CoordinateSystem.GCJ02, CoordinateSystem.BD09, CoordinateSystem.WGS84


@pytest.mark.parametrize(
    ("wgs", "system", "shifted"),
    [
        # The test vectors of eviltransform: Shanghai, Shenzhen, Beijing.
        ((31.1774276, 121.5272106), GCJ02, (31.17530398364597, 121.531541859215)),
        ((22.543847, 113.912316), GCJ02, (22.540796131694766, 113.9171764808363)),
        ((39.911954, 116.377817), GCJ02, (39.91334545536069, 116.38404722455657)),
        # The test vectors of coordtransform, Beijing; the second in two steps.
        ((39.915, 116.404), GCJ02, (39.91640428150164, 116.41024449916938)),
        ((39.915, 116.404), BD09, (39.922699552216216, 116.41662724378733)),
    ],
)
def test_published_points(
    wgs: tuple[float, float], system: CoordinateSystem, shifted: tuple[float, float]
) -> None:
    assert from_wgs84(*wgs, system) == pytest.approx(shifted, abs=2e-9, rel=0)
    assert to_wgs84(*shifted, system) == pytest.approx(wgs, abs=2e-9, rel=0)


def test_baidu_s_turn_has_its_published_values() -> None:
    # coordtransform: GCJ-02 (39.915, 116.404) is BD-09 (39.92133699351021, 116.41036949371029).
    wgs = to_wgs84(39.915, 116.404, GCJ02)
    bd09 = (39.92133699351021, 116.41036949371029)
    assert from_wgs84(*wgs, BD09) == pytest.approx(bd09, abs=2e-9, rel=0)


def test_shift_at_chongqing_is_some_hundred_metres() -> None:
    here = (29.563, 106.5516)
    assert 300 < distance_m(*here, *from_wgs84(*here, GCJ02)) < 700


@pytest.mark.parametrize("system", CoordinateSystem)
@pytest.mark.parametrize(
    "point", [(51.4778, -0.0015), (39.7392, -104.9903), (90.0, 0.0), (-90.0, 180.0), (0.0, 110.0)]
)
def test_points_outside_china_stay(system: CoordinateSystem, point: tuple[float, float]) -> None:
    assert from_wgs84(*point, system) == point
    assert to_wgs84(*point, system) == point


@settings(max_examples=300, deadline=None)
@given(st.floats(1, 55.8), st.floats(72.1, 137.8), st.sampled_from(CoordinateSystem))
@example(0.829301, 72.004001, GCJ02)
@example(55.827099, 137.834699, BD09)
@example(35.0, 105.0, GCJ02)
def test_there_and_back_is_the_same_point(lat: float, lon: float, system: CoordinateSystem) -> None:
    assert to_wgs84(*from_wgs84(lat, lon, system), system) == pytest.approx(
        (lat, lon), abs=1e-8, rel=0
    )


@given(st.floats(-90, 90), st.floats(-180, 180), st.sampled_from(CoordinateSystem))
def test_every_point_on_earth_has_an_answer_nearby(
    lat: float, lon: float, system: CoordinateSystem
) -> None:
    for answer in (to_wgs84(lat, lon, system), from_wgs84(lat, lon, system)):
        assert answer == pytest.approx((lat, lon), abs=0.1, rel=0)
    assert to_wgs84(lat, lon, WGS84) == (lat, lon)
