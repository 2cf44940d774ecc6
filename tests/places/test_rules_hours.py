"""Hours as JSON: what is read, what is refused and in which words, and the way back."""

from typing import Any

import pytest
from hypothesis import given, settings

from app.places.rules import Hours, Span, hours_to_json, is_timezone, parse_hours
from tests.places.test_rules import HOURS


def regular(*rows: tuple[int, str, str]) -> dict[str, Any]:
    """Hours JSON with these weekly rows."""
    return {
        "regular": [
            {"weekday": weekday, "opens": opens, "closes": closes}
            for weekday, opens, closes in rows
        ],
        "public_holiday": None,
        "makeup_workday": None,
    }


def special(day: str, *rows: tuple[str, str]) -> dict[str, Any]:
    """Hours JSON with these rows of a special day."""
    return regular() | {day: [{"opens": opens, "closes": closes} for opens, closes in rows]}


@pytest.mark.parametrize(
    ("opens", "closes", "span"),
    [
        ("08:00", "18:00", Span(480, 1080)),
        ("00:00", "24:00", Span(0, 1440)),
        ("18:00", "24:00", Span(1080, 1440)),
        ("18:00", "00:00", Span(1080, 1440)),
        ("22:00", "06:00", Span(1320, 1800)),
        ("23:59", "23:58", Span(1439, 2878)),
        ("00:00", "00:01", Span(0, 1)),
    ],
)
def test_times_of_a_row(opens: str, closes: str, span: Span) -> None:
    assert parse_hours(regular((3, opens, closes))).regular[2] == (span,)
    for day in ("public_holiday", "makeup_workday"):
        assert getattr(parse_hours(special(day, (opens, closes))), day) == (span,)


def test_rows_come_in_any_order_and_may_touch_and_reach_into_the_next_day() -> None:
    hours = parse_hours(
        regular(
            (2, "00:00", "08:00"),
            (1, "20:00", "06:00"),
            (1, "12:00", "18:00"),
            (1, "08:00", "12:00"),
        )
    )
    assert hours.regular[0] == (Span(480, 720), Span(720, 1080), Span(1200, 1800))
    assert hours.regular[1] == (Span(0, 480),)
    assert hours.regular[2:] == ((),) * 5


def test_null_and_empty_list_are_not_the_same() -> None:
    assert parse_hours(regular()).public_holiday is None
    assert parse_hours({"regular": []}).makeup_workday is None
    assert parse_hours(special("public_holiday")).public_holiday == ()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (regular((0, "08:00", "18:00")), "08:00-18:00: weekday is 0, but must be 1"),
        (regular((8, "08:00", "18:00")), "weekday is 8, but must be 1 (Monday) to 7 (Sunday)"),
        (regular((True, "08:00", "18:00")), "weekday is True"),
        (regular(("1", "08:00", "18:00")), "weekday is '1'"),  # type: ignore[arg-type]
        (regular((1, "8:00", "18:00")), "Monday: opens is '8:00'"),
        (regular((1, "08:00", "25:00")), "Monday: closes is '25:00'"),
        (regular((1, "08:00", "18:60")), "Monday: closes is '18:60'"),
        (regular((1, "08:00", "24:01")), "Monday: closes is '24:01'"),
        (regular((1, "08:00", "18:00\n")), "Monday: closes is"),
        (regular((1, "08:00", "１８:00")), "Monday: closes is"),
        (regular((1, "24:00", "08:00")), "opens is '24:00', but must be a time from 00:00 to"),
        (regular((1, 480, "18:00")), "Monday: opens is 480"),  # type: ignore[arg-type]
        (
            regular((3, "11:00", "14:00"), (3, "08:00", "12:00")),
            "Wednesday: 11:00-14:00 overlaps 08:00-12:00.",
        ),
        (
            regular((3, "08:00", "12:00"), (3, "08:00", "12:00")),
            "Wednesday: 08:00-12:00 overlaps 08:00-12:00.",
        ),
        (
            regular((3, "22:00", "06:00"), (3, "23:00", "24:00")),
            "Wednesday: 23:00-24:00 overlaps 22:00-06:00.",
        ),
        (
            special("public_holiday", ("08:00", "12:00"), ("11:59", "13:00")),
            "public_holiday: 11:59-13:00 overlaps 08:00-12:00.",
        ),
        (special("makeup_workday", ("08:00", "8")), "makeup_workday: closes is '8'"),
        ({}, "hours has no regular."),
        ([], "hours must be an object."),
        (regular() | {"sunday": []}, "hours has an unknown field 'sunday'."),
        ({"regular": "08:00"}, "regular must be a list of windows."),
        ({"regular": ["08:00"]}, "a row of regular must be an object."),
        ({"regular": [{"weekday": 1, "opens": "08:00"}]}, "a row of regular has no closes."),
        (regular() | {"public_holiday": {}}, "public_holiday must be a list of windows."),
        (regular() | {"makeup_workday": [[]]}, "a row of makeup_workday must be an object."),
    ],
)
def test_bad_hours_are_refused_in_words_that_name_the_place(data: Any, words: str) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        parse_hours(data)
    assert words in str(refusal.value)


def test_equal_times_are_a_whole_day_that_belongs_to_the_day_it_starts() -> None:
    sunday = parse_hours(regular((7, "08:00", "08:00"))).regular[6]
    assert sunday == (Span(480, 1920),)
    assert parse_hours(regular((7, "00:00", "00:00"))).regular[6] == (Span(0, 1440),)


@settings(max_examples=100, deadline=None)
@given(HOURS)
def test_hours_come_back_from_json_as_they_went(hours: Hours) -> None:
    assert parse_hours(hours_to_json(hours)) == hours


def test_json_is_the_contract_s() -> None:
    data = {
        "regular": [
            {"weekday": 1, "opens": "08:30", "closes": "12:00"},
            {"weekday": 1, "opens": "14:00", "closes": "24:00"},
            {"weekday": 7, "opens": "22:00", "closes": "06:00"},
        ],
        "public_holiday": [],
        "makeup_workday": [{"opens": "00:00", "closes": "24:00"}],
    }
    assert hours_to_json(parse_hours(data)) == data


@pytest.mark.parametrize(
    ("opens", "closes"), [(480, 480), (480, 470), (-1, 5), (1440, 1500), (480, 1921), (0, 1441)]
)
def test_span_that_no_row_can_say_is_refused(opens: int, closes: int) -> None:
    with pytest.raises(ValueError, match="no window of a day"):
        Span(opens, closes)


def test_week_has_seven_days() -> None:
    with pytest.raises(ValueError, match="seven days, not 6"):
        Hours(((),) * 6)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("Asia/Shanghai", True),
        ("UTC", True),
        ("Asia/Chongqing", True),
        ("Asia/Atlantis", False),
        ("Asia", False),
        ("", False),
        ("../etc/passwd", False),
        ("/etc/passwd", False),
        ("a\0b", False),
        ("\ud800", False),
        ("A" * 5000, False),
    ],
)
def test_timezone_is_an_iana_name(name: str, known: bool) -> None:
    assert is_timezone(name) is known
