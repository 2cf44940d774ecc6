"""Levels, the instant at which a visit counts, and what an arrival does to a worker's visits."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.visits.rules import (
    Continues,
    Ending,
    Level,
    Opens,
    Parts,
    Stay,
    arrive,
    counts_at,
    ending,
    level,
    renewed,
)

HERE, THERE = uuid.UUID(int=1), uuid.UUID(int=2)
T0 = datetime(2026, 11, 23, 15, 40, tzinfo=UTC)
HOUR = timedelta(hours=1)


def minute(number: int) -> datetime:
    return T0 + timedelta(minutes=number)


@pytest.mark.parametrize(
    ("inside", "capacity", "expected"),
    [
        (0, 20, Level.EMPTY),
        (1, 1, Level.EMPTY),
        (1, 2, Level.EMPTY),
        (2, 2, Level.FULL),
        (4, 20, Level.EMPTY),
        (5, 20, Level.FEW),
        (11, 20, Level.FEW),
        (12, 20, Level.MANY),
        (17, 20, Level.MANY),
        (18, 20, Level.FULL),
        (40, 20, Level.FULL),
        (3, 0, None),
    ],
)
def test_the_public_sees_a_level(inside: int, capacity: int, expected: Level | None) -> None:
    assert level(inside, capacity) is expected


def test_levels_are_the_words_of_the_contract() -> None:
    assert [each.value for each in Level] == ["空闲", "较少", "较多", "已满"]


@given(capacity=st.integers(1, 500))
def test_one_person_alone_looks_like_nobody(capacity: int) -> None:
    assert level(0, capacity) is level(1, capacity)


@given(inside=st.integers(0, 600), capacity=st.integers(1, 500))
def test_more_people_never_look_emptier(inside: int, capacity: int) -> None:
    order = list(Level)
    now, later = level(inside, capacity), level(inside + 1, capacity)
    assert now is not None
    assert later is not None
    assert order.index(now) <= order.index(later)


@pytest.mark.parametrize(
    ("at", "ended_at", "expected"),
    [
        (minute(-1), None, False),
        (minute(0), None, True),
        (minute(59), None, True),
        (minute(60), None, False),
        (minute(9), minute(10), True),
        (minute(10), minute(10), False),
    ],
)
def test_a_visit_counts_from_its_start_until_before_its_end(
    at: datetime, ended_at: datetime | None, expected: bool
) -> None:
    counted = counts_at(at, started_at=T0, ended_at=ended_at, stay_until=minute(60))
    assert counted is expected


def test_a_renewal_never_shortens() -> None:
    assert renewed(minute(60), minute(30), HOUR) == minute(90)
    assert renewed(minute(60), minute(-30), HOUR) == minute(60)


def test_what_was_over_by_itself_ends_at_its_own_instant() -> None:
    assert ending(minute(60), minute(59)) == Ending(minute(59), imputed=False)
    assert ending(minute(60), minute(60)) == Ending(minute(60), imputed=True)
    assert ending(minute(60), minute(300)) == Ending(minute(60), imputed=True)


def a_stay(
    station: uuid.UUID, start: int, *, until: int | None = None, ended: int | None = None
) -> Stay:
    stay_until = minute(start + 60 if until is None else until)
    ended_at = None if ended is None else minute(ended)
    heard_at = max(minute(start), stay_until - HOUR)
    return Stay(uuid.uuid4(), station, minute(start), stay_until, ended_at, heard_at)


def arriving(at: int, *his: Stay) -> tuple[object, dict[uuid.UUID, Ending], bool]:
    found = arrive(his, station_id=HERE, at=minute(at), max_stay=HOUR)
    return found.becomes, dict(found.ends), found.re_entry


def test_nobody_yet_opens_a_visit() -> None:
    assert arriving(0) == (Opens(minute(60), None), {}, False)


def test_inside_already_goes_on_renewed() -> None:
    visit = a_stay(HERE, 0)
    becomes, ends, _ = arriving(59, visit)
    assert becomes == Continues(visit.id, False, minute(119), is_open=True)
    assert ends == {}


def test_at_its_cut_off_a_visit_is_over_and_a_new_one_begins() -> None:
    visit = a_stay(HERE, 0)
    becomes, ends, re_entry = arriving(60, visit)
    assert becomes == Opens(minute(120), None)
    assert ends == {visit.id: Ending(minute(60), imputed=True)}
    assert re_entry


def test_an_arrival_elsewhere_ends_the_old_visit() -> None:
    visit = a_stay(THERE, 0)
    becomes, ends, _ = arriving(20, visit)
    assert becomes == Opens(minute(80), None)
    assert ends == {visit.id: Ending(minute(20), imputed=False)}


@pytest.mark.parametrize(("left", "expected"), [(20, True), (11, True), (10, False)])
def test_coming_back_within_ten_minutes_is_a_re_entry(left: int, expected: bool) -> None:
    assert arriving(20, a_stay(HERE, 0, ended=left))[2] is expected
    assert arriving(20, a_stay(THERE, 0, ended=left))[2] is False


def test_late_evidence_of_a_visit_before_the_one_elsewhere_is_over_already() -> None:
    visit = a_stay(THERE, 30)
    assert arriving(10, visit)[0] == Opens(minute(70), Ending(minute(30), imputed=False))
    assert arriving(10, visit)[1] == {}
    assert arriving(-90, visit)[0] == Opens(minute(-30), Ending(minute(-30), imputed=True))


def test_late_evidence_of_the_beginning_moves_the_beginning() -> None:
    visit = a_stay(HERE, 30)
    assert arriving(10, visit)[0] == Continues(visit.id, True, minute(90), is_open=True)
    # An hour before, that visit would have been over when this one began.
    assert arriving(-30, visit)[0] == Opens(minute(30), Ending(minute(30), imputed=True))


def test_late_evidence_within_a_visit_that_is_over_changes_nothing() -> None:
    visit = a_stay(HERE, 0, ended=50)
    becomes, ends, _ = arriving(30, visit)
    assert isinstance(becomes, Continues)
    assert (becomes.visit_id, becomes.sooner, becomes.is_open) == (visit.id, False, False)
    assert ends == {}


def test_late_evidence_cuts_a_visit_elsewhere_that_is_over() -> None:
    visit = a_stay(THERE, 0, ended=50)
    becomes, ends, _ = arriving(30, visit)
    assert ends == {visit.id: Ending(minute(30), imputed=False)}
    assert becomes == Opens(minute(90), None)


@pytest.mark.parametrize("ended", [None, 50])
def test_late_evidence_between_two_words_from_elsewhere_parts_that_visit(ended: int | None) -> None:
    """He came THERE at 0, was HERE at 20, and was heard of THERE again at 40."""
    visit = a_stay(THERE, 0, until=100, ended=ended)
    found = arrive([visit], station_id=HERE, at=minute(20), max_stay=HOUR)
    assert found.ends == ()
    assert found.becomes == Opens(minute(80), Ending(minute(40), imputed=False))
    assert found.parts == Parts(visit.id, minute(20), minute(40))
    # What comes after he was last heard of ends the visit as ever.
    assert arriving(45, visit)[1] == {visit.id: Ending(minute(45), imputed=False)}
