"""The server chooses when each controller asks again, and never the same for all."""

import pytest

from app.doors.rules.polls import LONGEST_PAUSE_MS, STOP_SPREAD_MS, next_poll_ms


@pytest.mark.parametrize(
    ("pause_ms", "stopping", "share", "found"),
    [
        (0, False, 0.9, 0),
        (4_000, False, 0.0, 2_000),
        (4_000, False, 0.5, 4_000),
        (4_000, False, 1.0, 6_000),
        (0, True, 0.0, 0),
        (0, True, 1.0, STOP_SPREAD_MS),
        (60_000, True, 1.0, LONGEST_PAUSE_MS),
    ],
)
def test_a_pause_is_spread_around_the_usual_one_and_further_when_we_stop(
    pause_ms: int, stopping: bool, share: float, found: int
) -> None:
    assert next_poll_ms(pause_ms, stopping=stopping, share=share) == found
