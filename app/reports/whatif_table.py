"""The rows of a what-if as one table: each with its figures side by side, as CSV or a workbook.

What became of what is one column for each pair that any row has, such as
`moved.station_closed.granted`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from app.places.rules import CITY_ZONE
from app.reports.export import csv_text, csv_titled, spread_titles
from app.reports.whatif import Figures, Row, WhatIf
from app.reports.workbook import Workbook

PLACE_AND_TIME = tuple(each.name for each in fields(Row) if each.name != "figures")

TITLES: Mapping[str, str] = {
    "recorded_granted": "当时同意开门",
    "recorded_walk_in": "当时直接进入",
    "recorded_refused": "当时拒绝次数",
    "replayed_granted": "假设下同意开门",
    "replayed_walk_in": "假设下直接进入",
    "replayed_refused": "假设下拒绝次数",
    "newly_let_in": "新放行次数",
    "newly_let_in_again": "其中已在内再次扫码",
    "newly_turned_away": "新拒绝次数",
    "unmet_demand_before": "当时未满足需求",
    "unmet_demand_after": "假设下未满足需求",
}
"""What each figure's column is called in Chinese."""

_MOVED = "moved."
"""What names of columns begin with that count one answer which became another."""

Pair = tuple[str, str]


def as_csv(found: WhatIf) -> bytes:
    """Write the rows; what they do not say is to be told beside them."""
    pairs = _pairs(found)
    columns = _columns(pairs)
    titles = [title for column in columns for title in _titles_of(column)]
    return (csv_titled(titles) + csv_text(columns, _rows(found, pairs))).encode()


def as_workbook(found: WhatIf, path: Path, about: Sequence[tuple[str, str]]) -> None:
    """Write the rows as a workbook, with a page that says what they do not."""
    pairs, zone = _pairs(found), ZoneInfo(CITY_ZONE)
    book = Workbook(path, _columns(pairs), shares={"known_share"}, zone=zone, titles_of=_titles_of)
    try:
        book.add(list(zip(*_rows(found, pairs), strict=True)))
        book.finish(about)
    finally:
        book.close()


def _pairs(found: WhatIf) -> Sequence[Pair]:
    return [(one.before, one.after) for one in found.totals.moved]


def _columns(pairs: Sequence[Pair]) -> Sequence[str]:
    moved = (f"{_MOVED}{before}.{after}" for before, after in pairs)
    return [*PLACE_AND_TIME, *TITLES, *moved]


def _titles_of(column: str) -> Sequence[str]:
    """Give a column's title; `unmet_demand_before` means another thing in a report."""
    if column in TITLES:
        return [f"{TITLES[column]} ({column})"]
    if column.startswith(_MOVED):
        return [f"结果改变 ({column})"]
    return spread_titles(column)


def _rows(found: WhatIf, pairs: Sequence[Pair]) -> Iterator[Sequence[Any]]:
    for row in found.rows:
        yield [*(getattr(row, name) for name in PLACE_AND_TIME), *_figures(row.figures, pairs)]


def _figures(figures: Figures | None, pairs: Sequence[Pair]) -> Sequence[Any]:
    """Give the figures in the order of the columns; nothing where nothing is known (law 16)."""
    if figures is None:
        return [None] * (len(TITLES) + len(pairs))
    moved = {(one.before, one.after): one.scans for one in figures.moved}
    return [
        figures.recorded.granted,
        figures.recorded.walk_in,
        figures.recorded.refused,
        figures.replayed.granted,
        figures.replayed.walk_in,
        figures.replayed.refused,
        figures.newly_let_in,
        figures.newly_let_in_again,
        figures.newly_turned_away,
        figures.unmet_demand_before,
        figures.unmet_demand_after,
        *(moved.get(pair, 0) for pair in pairs),
    ]
