"""Excel: typed cells, no formula, and clear about what is not known."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import openpyxl
import pytest

from app.doors.rules import Reason
from app.places.tables import FacilityKind
from app.reports import comparing
from app.reports.asked import COLUMNS, Report
from app.reports.catalogue import field_of, is_share
from app.reports.ranking import Ranked
from app.reports.scope import PeriodInvalid
from app.reports.workbook import Workbook

SHANGHAI = ZoneInfo("Asia/Shanghai")


def written(
    folder: Path,
    columns: tuple[str, ...],
    *rows: tuple[Any, ...],
    figure: Ranked | None = None,
) -> Any:
    path = folder / "report.xlsx"
    shares = {name for name in columns if is_share(name, figure)}
    book = Workbook(path, columns, shares=shares, zone=SHANGHAI)
    for row in rows:
        book.add([[value] for value in row])
    book.finish([("报表 report", "=visits")])
    return openpyxl.load_workbook(path)


def test_figures_are_figures_and_times_are_local(tmp_path: Path) -> None:
    columns = ("name", "day", "visits", "offhours_share", "avg_occupancy", "seen_at", "online")
    at = datetime(2026, 11, 23, 15, 40, tzinfo=UTC)
    row = ("解放碑", date(2026, 11, 23), 7, 0.625, 1.5, at, True)
    sheet = written(tmp_path, columns, row)["报表"]
    cells = sheet[2]
    assert [cell.value for cell in cells] == [
        "解放碑",
        datetime(2026, 11, 23),  # noqa: DTZ001  # Excel knows no zones.
        7,
        0.625,
        1.5,
        datetime(2026, 11, 23, 23, 40),  # noqa: DTZ001
        True,
    ]
    assert [cell.data_type for cell in cells] == ["s", "d", "n", "n", "n", "d", "b"]
    assert cells[3].number_format == "0.00%"
    assert cells[4].number_format == "#,##0.0###", "no bare point behind a whole number"
    assert sheet.freeze_panes == "A2"
    assert sheet.auto_filter.ref == "A1:G2"


def plain(name: str) -> str:
    """Of the period before, and of the days that are over, the same figure."""
    return name.removeprefix("before_").removesuffix("_before").removesuffix("_over")


def seen(cell: Any) -> str:
    """Show a share as Excel does."""
    assert cell.number_format.endswith("%"), cell.number_format
    decimals = cell.number_format.partition(".")[2].count("0")
    return f"{cell.value:.{decimals}%}"


@pytest.mark.parametrize("report", list(Report))
def test_every_share_is_a_percentage_and_less_than_all_never_reads_as_all(
    tmp_path: Path, report: Report
) -> None:
    names = COLUMNS[report]
    names += tuple(comparing.columns_of(report) if report.value in comparing.FIGURES else ())
    shares = [
        name
        for name in names
        if name.endswith("_change")
        or (plain(name) in COLUMNS[report] and field_of(report.value, plain(name)).unit == "share")
    ]
    rows = [tuple(each if name in shares else None for name in names) for each in (0.9999, 0.0001)]
    ones = tuple(None if name == "by_reason" else 1 for name in names)
    sheet = written(tmp_path, names, *rows, ones)["报表"]
    for cells, wanted in ((sheet[2], "99.99%"), (sheet[3], "0.01%")):
        assert [seen(cell) for cell in cells if cell.value is not None] == [wanted] * len(shares)
    whole = [cell.number_format for cell in sheet[4] if cell.value is not None]
    assert whole.count("0.00%") == len(shares)
    assert set(whole) <= {"0.00%", "#,##0"}


@pytest.mark.parametrize("figure", list(Ranked))
def test_what_is_ranked_by_a_share_is_shown_as_one(tmp_path: Path, figure: Ranked) -> None:
    sheet = written(tmp_path, ("figure", "value"), (figure, 0.9987), figure=figure)["报表"]
    counted = {
        Ranked.VISITS,
        Ranked.OUT_OF_HOURS_VISITS,
        Ranked.VISITS_PER_SEAT,
        Ranked.UNMET_DEMAND,
        Ranked.NIGHT_UPLIFT,
        Ranked.AVG_OCCUPANCY,
    }
    if figure in counted:
        assert sheet["B2"].number_format == "#,##0.0###"
    else:
        assert seen(sheet["B2"]) == "99.87%"


def test_zero_and_no_data_do_not_look_alike(tmp_path: Path) -> None:
    sheet = written(tmp_path, ("visits", "persons"), (0, None))["报表"]
    assert [cell.value for cell in sheet[2]] == [0, None]


@pytest.mark.parametrize("evil", ["=1+1", "+1", "-1+2", "@SUM(A1)", "{=1}", "http://a.b"])
def test_a_text_is_a_text(tmp_path: Path, evil: str) -> None:
    book = written(tmp_path, ("name",), (evil,))
    cell = book["报表"]["A2"]
    assert (cell.value, cell.data_type, cell.hyperlink) == (evil, "s", None)
    assert book["说明"]["B1"].data_type == "s"


def test_every_reason_has_its_column(tmp_path: Path) -> None:
    columns = ("kind", "by_reason")
    rows = ((FacilityKind.WATER, {"lockdown": 2}), (FacilityKind.WATER, None))
    sheet = written(tmp_path, columns, *rows)["报表"]
    titles = [cell.value for cell in sheet[1]]
    assert len(titles) == len(Reason)
    at = titles.index("拒绝原因 (by_reason.lockdown)")
    assert [sheet.cell(row, at + 1).value for row in (2, 3)] == [2, None]
    assert sheet["A2"].value == "water"


def test_a_report_without_rows_is_a_header(tmp_path: Path) -> None:
    sheet = written(tmp_path, ("name", "visits"))["报表"]
    assert sheet.max_row == 1


def test_what_a_sheet_does_not_hold_is_refused_and_not_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.reports.workbook.MOST_ROWS", 3)
    book = Workbook(tmp_path / "report.xlsx", ("name", "visits"), shares=(), zone=SHANGHAI)
    book.add([["甲", "乙"], [1, 2]])
    with pytest.raises(PeriodInvalid, match="a sheet of Excel holds 3 rows"):
        book.add([["丙", "丁"], [3, 4]])
    book.close()
