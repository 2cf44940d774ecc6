"""A report as an Excel workbook: typed cells, a frozen header, and a page that says what it is.

Numbers are numbers, shares are percentages, times are local times, and a text is a text whatever it
begins with. It is written row by row, so that its length costs disk and not memory.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from app.reports.export import spread_titles, spread_values

if TYPE_CHECKING:
    from xlsxwriter.worksheet import Worksheet

MOST_ROWS = 1_048_575
"""What one sheet of Excel holds besides its header."""

WIDTHS: Mapping[str, int] = {"name": 32, "unit": 38, "day": 12, "seen_at": 20, "peak_at": 20}
"""Widths of columns in characters; any other is as wide as its title needs."""


def write_workbook(
    path: Path,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    about: Sequence[tuple[str, str]],
    *,
    zone: ZoneInfo,
) -> None:
    """Write the rows below a header, and on a second sheet what they are.

    None is an empty cell, and zero is 0 (law 16). Times are shown in `zone`; Excel knows none.
    """
    import xlsxwriter  # Here: a server that nobody asks for a workbook does without.

    options = {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    with xlsxwriter.Workbook(path, options) as book:
        sheet = book.add_worksheet("报表")
        head = book.add_format({"bold": True, "text_wrap": True, "valign": "top", "bottom": 1})
        formats = {
            "share": book.add_format({"num_format": "0.0%"}),
            "day": book.add_format({"num_format": "yyyy-mm-dd"}),
            "time": book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"}),
            "number": book.add_format({"num_format": "#,##0.##"}),
            "count": book.add_format({"num_format": "#,##0"}),
        }
        titles = [title for column in columns for title in spread_titles(column)]
        names = [column for column in columns for _ in spread_titles(column)]
        for index, (name, title) in enumerate(zip(names, titles, strict=True)):
            sheet.set_column(index, index, WIDTHS.get(name, max(10, min(18, len(title)))))
        for index, title in enumerate(titles):
            sheet.write_string(0, index, title, head)
        sheet.freeze_panes(1, 0)
        last = 0
        for last, row in enumerate(rows, 1):
            index = 0
            for column, value in zip(columns, row, strict=True):
                for cell in spread_values(column, value):
                    _write(sheet, last, index, column, cell, formats, zone)
                    index += 1
        sheet.autofilter(0, 0, last, len(titles) - 1)
        page = book.add_worksheet("说明")
        page.set_column(0, 0, 20)
        page.set_column(1, 1, 70)
        for number, (title, text) in enumerate(about):
            page.write_string(number, 0, title, head)
            page.write_string(number, 1, text)


def _write(
    sheet: "Worksheet",
    row: int,
    index: int,
    column: str,
    value: Any,
    formats: Mapping[str, Any],
    zone: ZoneInfo,
) -> None:
    match value:
        case None | "":
            return
        case bool():
            sheet.write_boolean(row, index, value)
        case datetime():
            local = value.astimezone(zone).replace(tzinfo=None)
            sheet.write_datetime(row, index, local, formats["time"])
        case date():
            sheet.write_datetime(row, index, value, formats["day"])
        case int():
            sheet.write_number(row, index, value, formats["count"])
        case float():
            kind = "share" if is_share(column) else "number"
            sheet.write_number(row, index, value, formats[kind])
        case Enum():
            sheet.write_string(row, index, str(value.value))
        case _:
            sheet.write_string(row, index, str(value))


def is_share(column: str) -> bool:
    """Whether a column's figures are parts of one."""
    return column.endswith(("_share", "_rate", "_utilization", "_change", "percentile"))
