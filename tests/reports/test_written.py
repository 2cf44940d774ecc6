"""Rows as JSON, a column at a time, say what each row by itself would."""

import json
from datetime import UTC, date, datetime

import pytest
from pydantic_core import to_json

from app.places.tables import FacilityKind
from app.reports.written import rows_as_json

COLUMNS = ("station", "name", "when", "kind", "n", "share", "hidden", "by", "hundred", "never")
ROWS = [
    ("S1", 'a","b', date(2026, 1, 1), FacilityKind.WATER, 1, 0.5, True, {"full": 2}, 7, None),
    ("S2", 'c\\', datetime(2026, 1, 1, tzinfo=UTC), FacilityKind.WATER, None, None, False, {}, 8,
     None),
    ("S3", "一, 二", None, FacilityKind.WATER, 3, 1e-05, True, None, 9, None),
]  # fmt: skip


def test_rows_are_written_as_objects_would_be() -> None:
    expected = to_json([dict(zip(COLUMNS, row, strict=True)) for row in ROWS])
    assert rows_as_json(COLUMNS, list(zip(*ROWS, strict=True))) == expected


@pytest.mark.parametrize(
    "names",
    [
        ['甲",', "乙", "丙"],
        ["甲,乙", "丙", '","'],
        [",", None],
        [",", None, "a"],
        ["a\\", '"', "b"],
        ["[", "{", "a"],
        ["a", "b", None],
    ],
)
def test_no_text_can_break_the_rows_apart(names: list[str | None]) -> None:
    found = rows_as_json(["name", "n"], [names, list(range(len(names)))])
    assert json.loads(found) == [{"name": name, "n": n} for n, name in enumerate(names)]


def test_what_is_no_number_is_null() -> None:
    assert rows_as_json(["n"], [[float("nan"), 1.0]]) == b'[{"n":null},{"n":1.0}]'


def test_no_rows_are_an_empty_array() -> None:
    assert rows_as_json(COLUMNS, []) == b"[]"


def test_rows_that_are_all_the_same_are_still_rows() -> None:
    found = rows_as_json(["a", "b"], [[None] * 2, ["%"] * 2])
    assert json.loads(found) == [{"a": None, "b": "%"}] * 2
