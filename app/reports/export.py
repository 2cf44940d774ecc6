"""Rows as CSV: with a mark so that Excel reads UTF-8, and no cell that it would run."""

import io
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import Enum
from typing import Any

from defusedcsv import csv

BOM = "\ufeff"


def csv_lines(columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> Iterator[str]:
    """Write a header and the rows; None is an empty cell, and zero is 0 (law 16)."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    text.write(BOM)
    for row in (columns, *rows):
        writer.writerow([_cell(value) for value in row])
        yield text.getvalue()
        text.seek(0)
        text.truncate()


def _cell(value: Any) -> Any:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case datetime():
            return value.isoformat()
        case Enum():
            return value.value
        case dict():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return value
