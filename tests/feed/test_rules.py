"""For which time of the clock the feed is built: the same periods in all processes."""

from datetime import UTC, datetime, timedelta

import pytest

from app.feed.rules import FeedFile, Part, files_of, holds, left_s, part_of, period_of

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_every_file_is_built_with_one_part() -> None:
    assert files_of(Part.LIVE) | files_of(Part.STANDING) == set(FeedFile)
    for part in Part:
        assert {part_of(name) for name in files_of(part)} == {part}


@pytest.mark.parametrize(
    ("part", "seconds", "began"),
    [
        (Part.LIVE, 0, 0),
        (Part.LIVE, 59.999, 0),
        (Part.LIVE, 60, 60),
        (Part.STANDING, 299.999, 0),
        (Part.STANDING, 300, 300),
    ],
)
def test_periods_begin_at_full_minutes_whoever_looks(
    part: Part, seconds: float, began: float
) -> None:
    assert period_of(part, after(seconds)) == after(began)


@pytest.mark.parametrize(
    ("seconds", "is_sent"),
    [(-60.001, False), (-60, True), (-2, True), (0, True), (59.999, True), (60, False)],
)
def test_what_was_built_is_sent_in_its_period_and_by_who_is_a_little_behind(
    seconds: float, is_sent: bool
) -> None:
    assert holds(Part.LIVE, NOON, after(seconds)) is is_sent


@pytest.mark.parametrize(
    ("seconds", "left"),
    [(-30, 60), (0, 60), (0.001, 59), (58.5, 1), (59.001, 0), (60, 0), (600, 0)],
)
def test_a_cache_is_told_what_is_left_of_the_period(seconds: float, left: int) -> None:
    assert left_s(Part.LIVE, NOON, after(seconds)) == left
