"""A report as an Excel workbook: typed cells, a frozen header, and a page that says what it is.

Numbers are numbers, shares are percentages, times are local times, and a text is a text whatever it
begins with. It is written row by row, so that its length costs disk and not memory.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from app.reports.export import spread_titles, spread_values
from app.reports.scope import PeriodInvalid

MOST_ROWS = 1_048_575
"""What one sheet of Excel holds besides its header."""

WIDTHS: Mapping[str, int] = {"name": 32, "unit": 38, "day": 12, "seen_at": 20, "peak_at": 20}
"""Widths of columns in characters; any other is as wide as its title needs."""


def check_length(rows: int) -> None:
    """Refuse more rows than a sheet holds; raises PeriodInvalid."""
    if rows > MOST_ROWS:
        raise PeriodInvalid(
            f"a sheet of Excel holds {MOST_ROWS:,} rows: take CSV, fewer days, or pieces of "
            "time that are larger"
        )


class Workbook:
    """A workbook that is being written: a header, rows as they come, and what they are."""

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        *,
        shares: Collection[str],
        zone: ZoneInfo,
        titles_of: Callable[[str], Sequence[str]] = spread_titles,
    ) -> None:
        """Begin it; `shares` are the columns whose figures are parts of one.

        Times are shown in `zone`, for Excel knows none. `titles_of` gives the titles of a column's
        cells, as many as its values spread to.
        """
        import xlsxwriter  # Here: a server that nobody asks for a workbook does without.

        options = {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
        book = xlsxwriter.Workbook(path, options)
        self._book, self._columns, self._shares, self._zone = book, columns, shares, zone
        self._head = book.add_format(
            {"bold": True, "text_wrap": True, "valign": "top", "bottom": 1}
        )
        self._formats = {
            # All their decimals: less than all is never shown as all, nor a little as nothing.
            "share": book.add_format({"num_format": "0.00%"}),
            "day": book.add_format({"num_format": "yyyy-mm-dd"}),
            "time": book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"}),
            "number": book.add_format({"num_format": "#,##0.0###"}),
            "count": book.add_format({"num_format": "#,##0"}),
        }
        self._sheet = book.add_worksheet("报表")
        self._last = 0
        self._is_closed = False
        titles = [title for column in columns for title in titles_of(column)]
        names = [column for column in columns for _ in titles_of(column)]
        for index, (name, title) in enumerate(zip(names, titles, strict=True)):
            width = WIDTHS.get(name, max(10, min(18, len(title))))
            self._sheet.set_column(index, index, width)
        for index, title in enumerate(titles):
            self._sheet.write_string(0, index, title, self._head)
        self._sheet.freeze_panes(1, 0)
        self._width = len(titles)

    def add(self, columns: Sequence[Sequence[Any]]) -> None:
        """Write rows, given by columns, below those before.

        None is an empty cell, and zero is 0 (law 16). Raises PeriodInvalid when they are more than
        a sheet holds.
        """
        more = len(columns[0]) if columns else 0
        check_length(self._last + more)
        for row in zip(*columns, strict=True):
            self._last += 1
            index = 0
            for column, value in zip(self._columns, row, strict=True):
                for cell in spread_values(column, value):
                    self._write(index, column, cell)
                    index += 1

    def finish(self, about: Sequence[tuple[str, str]]) -> None:
        """Say on a second sheet what it is, and close it."""
        self._sheet.autofilter(0, 0, self._last, self._width - 1)
        page = self._book.add_worksheet("说明")
        page.set_column(0, 0, 20)
        page.set_column(1, 1, 70)
        for number, (title, text) in enumerate(about):
            page.write_string(number, 0, title, self._head)
            page.write_string(number, 1, text)
        self.close()

    def close(self) -> None:
        """Close its files; again does nothing. Raises OSError where it cannot be written."""
        from xlsxwriter.exceptions import FileCreateError

        if self._is_closed:
            return
        self._is_closed = True  # What failed once is not tried again.
        try:
            self._book.close()
        except FileCreateError as error:
            raise OSError(str(error)) from error

    def _write(self, index: int, column: str, value: Any) -> None:
        sheet, row, formats = self._sheet, self._last, self._formats
        match value:
            case None | "":
                return
            case bool():
                sheet.write_boolean(row, index, value)
            case datetime():
                local = value.astimezone(self._zone).replace(tzinfo=None)
                sheet.write_datetime(row, index, local, formats["time"])
            case date():
                sheet.write_datetime(row, index, value, formats["day"])
            case int() | float() if column in self._shares:
                sheet.write_number(row, index, value, formats["share"])
            case int():
                sheet.write_number(row, index, value, formats["count"])
            case float():
                sheet.write_number(row, index, value, formats["number"])
            case Enum():
                sheet.write_string(row, index, str(value.value))
            case _:
                sheet.write_string(row, index, str(value))
