"""CSV: readable by Excel, harmless in it, and clear about what is not known."""

import csv
import io
from datetime import UTC, datetime
from typing import Any

import pytest

from app.doors.rules import Reason
from app.places.tables import FacilityKind
from app.reports import rows
from app.reports.export import BOM, TITLES, csv_head, csv_text
from app.reports.ranking import Ranked

ROWS = (
    rows.VisitsRow,
    rows.AccessRow,
    rows.OccupancyRow,
    rows.PromiseRow,
    rows.FacilitiesRow,
    rows.ControllersRow,
    rows.OccupationsRow,
    rows.RankingRow,
)


def read(columns: tuple[str, ...], *rows: tuple[Any, ...]) -> list[list[str]]:
    text = csv_head(columns) + csv_text(columns, rows)
    assert text.startswith(BOM)
    assert text.count(BOM) == 1
    return list(csv.reader(io.StringIO(text.removeprefix(BOM), newline="")))


@pytest.mark.parametrize("row", ROWS)
def test_every_column_has_a_chinese_title_and_its_name(row: Any) -> None:
    (header,) = read(row._fields)
    assert len(header) == len(set(header))
    names = [title.partition(" (")[2].rstrip(")") for title in header]
    assert [name for name in names if not name.startswith("by_reason.")] == [
        name for name in row._fields if name != "by_reason"
    ]
    for title in header:
        assert not title.isascii()


def test_no_title_is_left_over() -> None:
    used = {name for row in ROWS for name in row._fields}.union(Ranked)
    assert set(TITLES) == used


def test_zero_and_no_data_do_not_look_alike() -> None:
    assert read(("visits", "persons"), (0, None))[1] == ["0", ""]


def test_every_reason_has_its_column() -> None:
    header, some, none = read(("name", "by_reason"), ("甲", {"lockdown": 2}), ("乙", None))
    reasons = [reason.value for reason in Reason if reason is not Reason.OK]
    assert header[1:] == [f"拒绝原因 (by_reason.{reason})" for reason in reasons]
    assert dict(zip(reasons, some[1:], strict=True))["lockdown"] == "2"
    assert some[1:].count("0") == len(reasons) - 1
    assert none[1:] == [""] * len(reasons)


@pytest.mark.parametrize("evil", ["=1+1", "+1", "-1+2", "@SUM(A1)", "|calc", "%0A"])
def test_no_cell_is_a_formula(evil: str) -> None:
    (cell,) = read(("name",), (evil,))[1]
    assert cell.startswith("'")


def test_names_with_commas_quotes_and_lines_come_back_whole() -> None:
    name = '渝中"解放碑",\n驿站'
    assert read(("name", "visits"), (name, 1))[1] == [name, "1"]


def test_times_enums_and_truths_are_words() -> None:
    at = datetime(2026, 11, 23, 15, 40, tzinfo=UTC)
    row = (at, FacilityKind.WATER, True, False)
    columns = ("seen_at", "kind", "online", "beyond_retention")
    assert read(columns, row)[1] == ["2026-11-23T23:40:00+08:00", "water", "yes", "no"]
