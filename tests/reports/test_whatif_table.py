"""The table of a what-if: a row's figures side by side, nothing that a spreadsheet would run."""

import csv
import io
from pathlib import Path

import openpyxl

from app.reports.export import BOM
from app.reports.whatif import Figures, Moved, Outcomes, Row, Stays, WhatIf
from app.reports.whatif_table import as_csv, as_workbook

NOTHING = Figures(Outcomes(0, 0, 0), Outcomes(0, 0, 0), 0, 0, 0, [], None, None)
LET_IN = [Moved("station_closed", "granted", 2), Moved("granted", "station_full", 1)]
NIGHT = Figures(Outcomes(3, 4, 5), Outcomes(4, 4, 4), 2, 1, 1, LET_IN, 2, 0)


def row_of(name: str, figures: Figures | None) -> Row:
    values = dict.fromkeys(Row.__slots__) | {"name": name, "figures": figures}
    return Row(**values | {"known_share": 0.0 if figures is None else 1.0})  # type: ignore[arg-type]


def found(*rows: Row) -> WhatIf:
    return WhatIf(rows, NIGHT, [], 12, 3, None, 0, None, None, Stays(0, 1), [], None, 1.0)


def read(*rows: Row) -> list[dict[str, str]]:
    text = as_csv(found(*rows)).decode()
    assert text.startswith(BOM)
    header, *lines = csv.reader(io.StringIO(text.removeprefix(BOM), newline=""))
    assert not any(title.isascii() for title in header)
    names = [title.rpartition("(")[2].rstrip(")") for title in header]
    assert len(names) == len(set(names))
    return [dict(zip(names, line, strict=True)) for line in lines]


def test_the_figures_of_a_row_stand_side_by_side() -> None:
    (row,) = read(row_of("解放碑", NIGHT))
    assert {name: cell for name, cell in row.items() if cell} == {
        "name": "解放碑",
        "known_share": "1.0",
        "recorded_granted": "3",
        "recorded_walk_in": "4",
        "recorded_refused": "5",
        "replayed_granted": "4",
        "replayed_walk_in": "4",
        "replayed_refused": "4",
        "newly_let_in": "2",
        "newly_let_in_again": "1",
        "newly_turned_away": "1",
        "unmet_demand_before": "2",
        "unmet_demand_after": "0",
        "moved.station_closed.granted": "2",
        "moved.granted.station_full": "1",
    }


def test_nothing_that_happened_is_nought_and_what_nobody_can_know_is_empty() -> None:
    quiet, unknown = read(row_of("甲", NOTHING), row_of("乙", None))
    assert (quiet["recorded_refused"], quiet["moved.station_closed.granted"]) == ("0", "0")
    assert quiet["unmet_demand_before"] == "", "beyond retention"
    assert {cell for name, cell in unknown.items() if name not in ("name", "known_share")} == {""}


def test_no_name_is_a_formula() -> None:
    (row,) = read(row_of("=1+1", NIGHT))
    assert row["name"].startswith("'")


def test_a_workbook_has_the_same_columns_with_numbers_in_them(tmp_path: Path) -> None:
    what, path = found(row_of("=1+1", NIGHT), row_of("乙", None)), tmp_path / "what-if.xlsx"
    as_workbook(what, path, [("报表 report", "what-if")])
    book = openpyxl.load_workbook(path)
    header, night, unknown = book["报表"].iter_rows(values_only=True)
    assert ",".join(str(title) for title in header) == as_csv(what).decode().splitlines()[0][1:]
    cells = dict(zip(header, night, strict=True))
    assert (cells["名称 (name)"], cells["新放行次数 (newly_let_in)"]) == ("=1+1", 2)
    assert cells["当时未满足需求 (unmet_demand_before)"] == 2
    assert set(unknown) == {None, "乙", 0}
    assert book["说明"]["B1"].value == "what-if"
    assert book["报表"]["C2"].data_type == "s"
