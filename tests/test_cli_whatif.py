"""What-if by command: the answers of the API as a table or JSON, and what is said beside them."""

import csv
import json
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from tests.test_cli import yizhan
from tests.test_cli_report import rows_of

DAYS = ("--from", "2026-11-18", "--to", "2026-11-20")

CLOSED: dict[str, Any] = {
    "staffed_hours": None,
    "access_hours": None,
    "ignore": ["exception", "override", "staff_absent"],
}


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of three stations with two days of history, that nobody has counted yet."""
    folder = tmp_path_factory.mktemp("city") / "var"
    assert yizhan(folder, "migrate").returncode == 0
    made = yizhan(folder, "generate", "--stations", "3", "--days", "2", "--until", "2026-11-20")
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """The file that supposes that nothing ever opened."""
    file = tmp_path / "closed.json"
    file.write_text(json.dumps(CLOSED))
    return file


def test_a_table_says_of_each_station_what_the_json_says(city: Path, closed: Path) -> None:
    words = ("what-if", *DAYS, "--change", str(closed))
    printed = yizhan(city, *words)
    assert printed.returncode == 0, printed.stderr
    answer = json.loads(yizhan(city, *words, "--format", "json").stdout)
    assert (answer["report"], answer["from"], answer["by"]) == ("what-if", "2026-11-18", "station")
    assert answer["change"] == CLOSED
    rows = rows_of(printed.stdout)
    assert len(rows) == 3
    for row, said in zip(rows, answer["rows"], strict=True):
        figures = said["figures"]
        assert (row["station"], row["name"]) == (said["station"], said["name"])
        for before_or_after in ("recorded", "replayed"):
            for outcome, count in figures[before_or_after].items():
                assert row[f"{before_or_after}_{outcome}"] == str(count)
        for name in ("newly_let_in", "newly_turned_away", "unmet_demand_before"):
            assert row[name] == str(figures[name])
        moved = {f"moved.{one['before']}.{one['after']}": one["scans"] for one in figures["moved"]}
        told = {name: int(cell) for name, cell in row.items() if name.startswith("moved.")}
        assert {name: count for name, count in told.items() if count} == moved
    turned_away = sum(int(row["newly_turned_away"]) for row in rows)
    let_in = sum(int(row["recorded_granted"]) + int(row["recorded_walk_in"]) for row in rows)
    assert turned_away == let_in > 0


def test_what_the_table_cannot_say_is_said_beside_it(
    city: Path, closed: Path, tmp_path: Path
) -> None:
    words = ("what-if", *DAYS, "--change", str(closed))
    answer = json.loads(yizhan(city, *words, "--format", "json").stdout)
    file = tmp_path / "closed.csv"
    saved = yizhan(city, *words, "--out", str(file))
    said = saved.stdout.splitlines()
    assert said[0] == f"wrote 3 rows to {file}"
    assert "completeness: 2 of 2 days are over" in said
    assert answer["known_share"] == 1.0
    unknown = answer["calendar_known"] is False
    assert any(line.startswith("calendar_known: no") for line in said) is unknown
    more = answer["without_mode"]
    assert f"scans: {answer['scans']:,}, {more:,} more without a mode" in said
    assert f"without_station: {answer['without_station']:,}" in said
    assert f"newly_turned_away: {answer['totals']['newly_turned_away']:,}" in said
    assert f"amended_since: {answer['amended_since']:,}" in said
    for each in answer["assumes"]:
        assert f"{each['code']}: {each['says']}" in said
    # The same where the change comes through a pipe, and the table goes through one.
    piped = yizhan(city, "what-if", *DAYS, "--change", "-", stdin=json.dumps(CLOSED))
    assert piped.stdout == file.read_text("utf-8")
    assert piped.stderr.splitlines()[1:] == said[1:]


def test_a_workbook_says_the_same_and_on_its_second_page_what_was_supposed(
    city: Path, closed: Path, tmp_path: Path
) -> None:
    words, file = ("what-if", *DAYS, "--change", str(closed)), tmp_path / "closed.xlsx"
    refused = yizhan(city, *words, "--format", "xlsx")
    assert (refused.returncode, "a workbook needs a file" in refused.stderr) == (2, True)
    saved = yizhan(city, *words, "--format", "xlsx", "--out", str(file))
    assert saved.stdout.splitlines()[0] == f"wrote 3 rows to {file}"
    book = openpyxl.load_workbook(file)
    table = list(csv.reader(yizhan(city, *words).stdout.removeprefix("\ufeff").splitlines()))
    cells = [list(row) for row in book["报表"].iter_rows(values_only=True)]
    assert [str(title) for title in cells[0]] == table[0]
    turned_away = table[0].index("新拒绝次数 (newly_turned_away)")
    assert [str(row[turned_away]) for row in cells[1:]] == [row[turned_away] for row in table[1:]]
    said = dict(book["说明"].iter_rows(values_only=True))
    assert json.loads(said["假设 change"]) == CLOSED
    assert said["止（不含）to"] == "2026-11-20"


def test_it_may_be_of_one_branch_or_one_station_and_have_rows_of_time(
    city: Path, closed: Path
) -> None:
    def rows(*words: str) -> list[dict[str, str]]:
        answer = yizhan(city, "what-if", *DAYS, "--change", str(closed), *words)
        assert answer.returncode == 0, answer.stderr
        return rows_of(answer.stdout)

    def moved(row: dict[str, str]) -> dict[str, str]:
        return {name: cell for name, cell in row.items() if int_of(cell)}

    stations = rows()
    narrow = rows("--station", stations[1]["station"])
    assert [moved(row) for row in narrow] == [moved(stations[1])]
    assert rows("--unit", "1") == stations
    cut = rows("--bucket", "hour_of_day")
    assert len(cut) == 3 * 24
    assert sum(int(row["newly_turned_away"]) for row in cut) == sum(
        int(row["newly_turned_away"]) for row in stations
    )
    hours = rows("--by", "hour")
    assert [row["hour"] for row in hours] == [str(hour) for hour in range(24)]
    for name in ("recorded_granted", "newly_turned_away"):
        assert sum(int(row[name]) for row in hours) == sum(int(row[name]) for row in stations)


def int_of(cell: str) -> int:
    return int(cell) if cell.isdigit() else 1


@pytest.mark.parametrize(
    ("change", "words", "code", "says"),
    [
        ('{"access_hours": {"regular": [], "holiday": []}}', (), 1, "body.change.access_hours: "),
        ('{"colour": "red"}', (), 1, "body.change.colour: "),
        ('{"capacity": 0}', (), 1, "body.change.capacity: "),
        ("capacity 12", (), 1, "is not what can be supposed"),
        ("{}", ("--from", "2026-11-21"), 1, "to must come after from"),
        ("{}", ("--station", "X"), 1, "no station has the code X"),
        ("{}", ("--format", "pdf"), 2, "pdf"),
        ("{}", ("--change", "/nowhere/change.json"), 1, "No such file"),
    ],
)
def test_what_cannot_be_supposed_is_refused_and_leaves_the_file_as_it_was(
    city: Path, tmp_path: Path, change: str, words: tuple[str, ...], code: int, says: str
) -> None:
    supposed, file = tmp_path / "change.json", tmp_path / "answer.csv"
    supposed.write_text(change)
    file.write_text("the month before")
    asked = (*DAYS, "--change", str(supposed), *words, "--out", str(file))
    refused = yizhan(city, "what-if", *asked)
    assert (refused.returncode, says in refused.stderr) == (code, True), refused.stderr
    assert file.read_text() == "the month before"
    assert sorted(tmp_path.iterdir()) == [file, supposed]
