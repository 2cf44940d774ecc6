"""The pure rules of the journal: corrected times, gaps, and what a contact proves."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.doors.rules.journal import (
    MAX_SEQ,
    Corrected,
    EventType,
    Noted,
    OpenInterval,
    Quality,
    Range,
    Sending,
    Sync,
    Told,
    Unusable,
    Why,
    advanced,
    corrected,
    gaps,
    is_late,
    opened_by,
    read_event,
)

NOW = datetime(2026, 11, 23, 15, 40, tzinfo=UTC)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def an_event(**changes: Any) -> dict[str, Any]:
    return {
        "event_id": "e1",
        "seq": 1,
        "type": "note",
        "occurred_at": "2026-11-23T15:39:00Z",
    } | changes


@given(
    age_s=st.integers(0, 72 * 3600),
    drift_ppm=st.integers(-20, 20),
    wall_off_s=st.integers(-(10**8), 10**8),
    rtt_ms=st.integers(0, 2_000),
    up_ms=st.integers(0, 30_000),
)
def test_a_synced_time_is_right_within_its_bound_whatever_the_wall_clock_says(
    age_s: int, drift_ppm: int, wall_off_s: int, rtt_ms: int, up_ms: int
) -> None:
    """R17: the truth lies within the bound, and the bound is small."""
    happened = NOW
    heard = NOW - seconds(60)  # When the server's time was heard, a minute before.
    rate = 1 + drift_ppm / 1_000_000
    heard_mono = 5_000
    mono = heard_mono + round(60_000 * rate)
    received_at = happened + seconds(age_s) + timedelta(milliseconds=up_ms)
    # The server read its clock somewhere within the round trip that ended at `heard`.
    server_time = heard - timedelta(milliseconds=rtt_ms)
    sending = Sending("b", received_at, sync=Sync(server_time, heard_mono, rtt_ms))
    found = corrected(happened + seconds(wall_off_s), mono, "b", sending)
    assert found.quality is Quality.SYNCED
    assert found.error is not None
    assert abs(found.at - happened) <= found.error + timedelta(milliseconds=1)
    assert found.error <= seconds(2)


@given(age_s=st.integers(0, 72 * 3600), drift_ppm=st.integers(-20, 20))
def test_without_a_sync_the_time_since_the_event_decides(age_s: int, drift_ppm: int) -> None:
    happened, received_at = NOW, NOW + seconds(age_s)
    sent_mono = round(age_s * 1000 * (1 + drift_ppm / 1_000_000)) + 7_000
    sending = Sending("b", received_at, sent_mono_ms=sent_mono)
    found = corrected(NOW - timedelta(days=400), 7_000, "b", sending)
    assert found.quality is Quality.SENT
    assert found.error is not None
    assert abs(found.at - happened) <= found.error
    assert abs(found.at - happened) <= seconds(10)


def test_an_event_of_an_earlier_boot_goes_by_the_wall_clock_and_nobody_knows_how_well() -> None:
    off = timedelta(hours=3)
    sending = Sending("b2", NOW, sent_at=NOW + off, sent_mono_ms=100)
    found = corrected(NOW - seconds(5) + off, 99_000_000, "b1", sending)
    assert found == Corrected(NOW - seconds(5), None, Quality.WALL)
    assert is_late(found, NOW)
    # In the boot that sends its wall clock is the same one; it may only have been set.
    same = corrected(NOW - seconds(5) + off, None, "b2", sending)
    assert (same.error is None, is_late(same, NOW)) == (False, False)


@given(off_s=st.integers(1, 3 * 86_400), wall_back_s=st.integers(-3 * 86_400, 86_400 * 20_000))
def test_an_event_of_an_earlier_boot_goes_by_what_its_box_noted(
    off_s: int, wall_back_s: int
) -> None:
    """R17: the box was off for a while, and its wall clock stopped, went back or was set."""
    noted = Noted(NOW + timedelta(milliseconds=400), timedelta(milliseconds=600))
    received_at = NOW + seconds(off_s)
    wall = received_at - seconds(wall_back_s)
    sending = Sending("b2", received_at, sent_at=wall, sent_mono_ms=100)
    found = corrected(NOW, 99_000_000, "b1", sending, noted)
    assert found == Corrected(noted.server_time, noted.error, Quality.NOTED)
    assert is_late(found, received_at) is (off_s > 60)


def test_in_the_boot_that_sends_its_monotonic_clock_is_better_than_what_was_noted() -> None:
    noted = Noted(NOW, seconds(9))
    sending = Sending("b", NOW, sent_mono_ms=5_000)
    assert corrected(NOW, 1_000, "b", sending, noted).quality is Quality.SENT
    assert corrected(NOW, None, "b", sending, noted).quality is Quality.NOTED


def test_what_was_noted_of_a_time_to_come_is_not_believed() -> None:
    """Our clock was an hour ahead when the box heard it (R18)."""
    noted = Noted(NOW + timedelta(hours=1), timedelta(milliseconds=600))
    sending = Sending("b2", NOW, sent_at=NOW)
    found = corrected(NOW - seconds(300), 1, "b1", sending, noted)
    assert found == Corrected(NOW - seconds(300), None, Quality.WALL)
    within = Noted(NOW + seconds(9), seconds(9))
    assert corrected(NOW, 1, "b1", sending, within) == Corrected(NOW, seconds(9), Quality.NOTED)


@pytest.mark.parametrize("hours", [1, -1])
def test_a_sync_that_was_heard_while_our_clock_was_wrong_is_left_out_of_account(hours: int) -> None:
    """R18: it puts the upload itself an hour from where we received it."""
    heard = Sync(NOW - timedelta(minutes=10) + timedelta(hours=hours), 0, 60)
    sending = Sending("b", NOW, sent_mono_ms=600_000, sync=heard)
    found = corrected(NOW, 570_000, "b", sending)
    assert (found.at, found.quality) == (NOW - seconds(30), Quality.SENT)


@pytest.mark.parametrize(
    ("under_way_s", "rtt_ms", "since_s", "quality"),
    [
        (0, 60, 600, Quality.SYNCED),
        (9.9, 60, 600, Quality.SYNCED),  # A slow link: the sync is right, the receipt is late.
        (11, 60, 600, Quality.SENT),
        (-0.5, 60, 600, Quality.SYNCED),
        (-1, 60, 600, Quality.SENT),
        (-12, 25_000, 600, Quality.SYNCED),  # It was on the end of a poll.
        (-12, 60, 3 * 86_400, Quality.SYNCED),  # Its crystal may have run off so far.
    ],
)
def test_a_sync_that_may_be_right_counts(
    under_way_s: float, rtt_ms: int, since_s: int, quality: Quality
) -> None:
    half = timedelta(milliseconds=rtt_ms) / 2
    heard = Sync(NOW - half - seconds(since_s) - timedelta(seconds=under_way_s), 0, rtt_ms)
    sending = Sending("b", NOW, sent_mono_ms=since_s * 1000, sync=heard)
    assert corrected(NOW, since_s * 1000, "b", sending).quality is quality


@pytest.mark.parametrize(
    ("said", "noted"),
    [
        ({"server_time": NOW.isoformat(), "error_ms": 620}, True),
        ({"server_time": NOW.isoformat()}, False),
        ({"error_ms": 620}, False),
        ({"server_time": NOW.isoformat(), "error_ms": -1}, False),
        ({"server_time": NOW.isoformat(), "error_ms": 86_400_001}, False),
        ({"server_time": NOW.isoformat(), "error_ms": 0.5}, False),
        ({"server_time": NOW.isoformat(), "error_ms": True}, False),
        ({"server_time": "2026-11-23T23:40:00", "error_ms": 620}, False),
        ({"server_time": "noon", "error_ms": 620}, False),
        ({"server_time": {}, "error_ms": []}, False),
    ],
)
def test_what_a_box_noted_of_our_time_is_read_or_left_out(
    said: dict[str, Any], noted: bool
) -> None:
    event = {"event_id": "e", "seq": 1, "type": "note", "occurred_at": NOW.isoformat()}
    found = read_event(event | said, "b")
    assert isinstance(found, Told)
    assert found.noted == (Noted(NOW, timedelta(milliseconds=620)) if noted else None)


def test_nothing_happened_after_it_was_received() -> None:
    sending = Sending("b", NOW, sent_mono_ms=1_000)
    found = corrected(NOW, 61_000, "b", sending)
    assert found.at == NOW
    assert found.error is not None
    assert found.error >= seconds(60)


@pytest.mark.parametrize(
    ("mono_ms", "clocks", "quality"),
    [
        (MAX_SEQ, {"sent_mono_ms": 0, "sync": Sync(NOW, 0, 10)}, Quality.WALL),
        (0, {"sent_mono_ms": MAX_SEQ, "sync": Sync(NOW, MAX_SEQ, 10)}, Quality.WALL),
        (0, {"sent_mono_ms": 5, "sync": Sync(NOW, MAX_SEQ, 10)}, Quality.SENT),
        (None, {"sent_at": datetime.max.replace(tzinfo=UTC)}, Quality.UNKNOWN),
        (None, {"sent_at": datetime.min.replace(tzinfo=UTC)}, Quality.WALL),
    ],
)
def test_a_clock_that_is_off_by_ages_gives_way_to_the_next(
    mono_ms: int | None, clocks: dict[str, Any], quality: Quality
) -> None:
    sending = Sending("b", NOW, **({"sent_at": NOW} | clocks))
    found = corrected(NOW - seconds(5), mono_ms, "b", sending)
    assert found.quality is quality
    assert found.at <= NOW


def test_a_time_nobody_can_place_says_so_and_counts_as_late() -> None:
    found = corrected(NOW - seconds(1), None, "b", Sending("b", NOW))
    assert (found.quality, found.error) == (Quality.UNKNOWN, None)
    assert is_late(found, NOW)
    soon = corrected(NOW, 0, "b", Sending("b", NOW, sent_mono_ms=60_000))
    assert not is_late(soon, NOW)
    assert is_late(corrected(NOW, 0, "b", Sending("b", NOW, sent_mono_ms=60_001)), NOW)


ranges = st.builds(
    lambda first, length: Range(first, first + length), st.integers(1, 40), st.integers(0, 8)
)


@given(taken=st.sets(st.integers(1, 50)), lost=st.lists(ranges, max_size=4))
def test_the_cursor_and_the_gaps_say_together_what_is_missing(
    taken: set[int], lost: list[Range]
) -> None:
    known = taken | {n for gone in lost for n in range(gone.first, gone.last + 1)}
    expected = 0
    while expected + 1 in known:
        expected += 1
    through = advanced(0, sorted(taken), lost)
    assert through == expected
    beyond = sorted(n for n in taken if n > through)
    missing = {n for gap in gaps(through, beyond, lost) for n in range(gap.first, gap.last + 1)}
    top = max(beyond, default=through)
    assert missing == {n for n in range(through + 1, top) if n not in known}


@pytest.mark.parametrize(
    ("pulse", "intervals", "opened"),
    [
        (0, [(3, 9)], 3),
        (0, [(15, 20)], 15),
        (0, [(15.001, 20)], None),
        (0, [(-60, None)], 0),  # Open already.
        (0, [(-60, -1)], None),
        (0, [(-60, 0)], None),
        (0, [(-60, 5), (7, 9)], 0),
        (0, [], None),
    ],
)
def test_a_contact_proves_a_pulse_within_its_window(
    pulse: float, intervals: list[tuple[float, float | None]], opened: float | None
) -> None:
    times = [
        OpenInterval(NOW + seconds(a), None if b is None else NOW + seconds(b))
        for a, b in intervals
    ]
    found = opened_by(NOW + seconds(pulse), times)
    assert found == (None if opened is None else NOW + seconds(opened))


@pytest.mark.parametrize(
    ("pulse", "opened"), [(-3, None), (0, 0), (5, 5), (20, None)], ids=["before", "as", "in", "out"]
)
def test_a_door_that_was_found_open_proves_no_pulse_before_that(
    pulse: float, opened: float | None
) -> None:
    found = [OpenInterval(NOW, NOW + seconds(20), found_open=True)]
    proof = opened_by(NOW + seconds(pulse), found)
    assert proof == (None if opened is None else NOW + seconds(opened))


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (7, Why.NOT_AN_OBJECT),
        (None, Why.NOT_AN_OBJECT),
        (an_event(seq="1"), Why.BAD_NUMBER),
        (an_event(seq=0), Why.BAD_NUMBER),
        (an_event(seq=True), Why.BAD_NUMBER),
        (an_event(seq=2**53), Why.BAD_NUMBER),
        (an_event(event_id=""), Why.BAD_EVENT_ID),
        (an_event(event_id="a b"), Why.BAD_EVENT_ID),
        (an_event(event_id="x" * 129), Why.BAD_EVENT_ID),
        (an_event(boot_id=5), Why.BAD_BOOT_ID),
        (an_event(type="explosion"), Why.UNKNOWN_TYPE),
        (an_event(type=None), Why.UNKNOWN_TYPE),
        (an_event(type=["note"]), Why.UNKNOWN_TYPE),
        (an_event(type={"is": "note"}), Why.UNKNOWN_TYPE),
        (an_event(occurred_at="yesterday"), Why.BAD_TIME),
        (an_event(occurred_at="2026-11-23T15:39:00"), Why.BAD_TIME),
        (an_event(occurred_at=0), Why.BAD_TIME),
        (an_event(mono_ms=-1), Why.BAD_FIELD),
        (an_event(type="people_in", count=-1), Why.BAD_FIELD),
        (an_event(type="overflow", first_seq=5, last_seq=4), Why.BAD_FIELD),
        (an_event(type="overflow", first_seq=1, last_seq=an_event()["seq"]), Why.BAD_FIELD),
        (an_event(type="door_opened", door="d", at_start="yes"), Why.BAD_FIELD),
        (an_event(type="facility_status", status="shiny"), Why.BAD_FIELD),
        (an_event(type="facility_use", quantity="2"), Why.BAD_FIELD),
    ],
)
def test_what_cannot_be_used_is_named(raw: Any, why: Why) -> None:
    found = read_event(raw, "b")
    assert isinstance(found, Unusable)
    assert found.why is why
    assert found.body is raw


@given(
    raw=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["seq", "event_id", "type", "occurred_at", "boot_id", "door", "x"]),
                inner,
                max_size=6,
            )
        ),
        max_leaves=8,
    )
)
def test_reading_never_raises(raw: Any) -> None:
    read_event(raw, "b")


def test_a_lost_clock_that_was_put_back_still_says_a_time() -> None:
    found = read_event(an_event(occurred_at="1969-12-31T23:46:44+00:00"), "b")
    assert isinstance(found, Told)


def test_a_good_event_is_read() -> None:
    found = read_event(an_event(type="door_opened", door="d", mono_ms=5), "b")
    assert isinstance(found, Told)
    assert (found.type, found.boot_id, found.door) == (EventType.DOOR_OPENED, "b", "d")
