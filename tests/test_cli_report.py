"""Reports by command: the figures of the API, whole files, and how far it is."""

import asyncio
import csv
import io
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import openpyxl
import pytest
from rich.console import Console

from app.cli.progress import EVERY_S, shown
from app.db.engine import Database, embedded_url
from app.db.types import new_id
from app.doors.rules import Outcome, Reason
from app.doors.tables import Scan
from app.reports.rules import Grain
from app.reports.tables import RollupDue
from tests.conftest import Clock
from tests.test_cli import yizhan

DAYS = ("--from", "2026-11-18", "--to", "2026-11-20")


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of three stations with two days of history."""
    folder = tmp_path_factory.mktemp("city") / "var"
    assert yizhan(folder, "migrate").returncode == 0
    made = yizhan(folder, "generate", "--stations", "3", "--days", "2", "--until", "2026-11-20")
    assert made.returncode == 0, made.stderr
    assert yizhan(folder, "job", "run", "roll-up").returncode == 0
    return folder


def rows_of(text: str) -> list[dict[str, str]]:
    lines = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    return [
        {title.rpartition("(")[2].rstrip(")"): cell for title, cell in row.items()} for row in lines
    ]


def test_one_report_says_the_same_in_every_format(city: Path, tmp_path: Path) -> None:
    words = ("report", "--report", "visits", *DAYS, "--bucket", "day")
    printed = yizhan(city, *words)
    assert printed.returncode == 0, printed.stderr
    assert "wrote 6 rows" in printed.stderr
    told = [(row["station"], row["day"], int(row["visits"])) for row in rows_of(printed.stdout)]
    assert len(told) == 6
    assert sum(visits for _, _, visits in told) > 0

    answer = json.loads(yizhan(city, *words, "--format", "json").stdout)
    assert [(row["station"], row["day"], row["visits"]) for row in answer["rows"]] == told
    assert (answer["from"], answer["to"], answer["bucket"]) == ("2026-11-18", "2026-11-20", "day")

    file = tmp_path / "visits.xlsx"
    saved = yizhan(city, *words, "--format", "xlsx", "--out", str(file))
    assert (saved.returncode, f"wrote 6 rows to {file}" in saved.stdout) == (0, True)
    sheet = openpyxl.load_workbook(file)["报表"]
    at = [cell.value for cell in sheet[1]].index("人次 (visits)")
    assert [row[at].value for row in sheet.iter_rows(min_row=2)] == [one[2] for one in told]


async def disturbed(folder: Path) -> None:
    """Have a day that is due to be counted anew, and a forged code."""
    database = Database(embedded_url(folder / "yizhan.db"), pool_size=1)
    at = datetime(2026, 11, 18, 4, tzinfo=UTC)
    async with database.write() as tx:
        due = {"place_id": new_id(), "grain": Grain.DAY, "from_day": at.date()}
        tx.add(RollupDue(**due, depth=0, token=new_id()))
        forged = {"outcome": Outcome.REFUSED, "reason": Reason.TOKEN_INVALID, "party_size": 1}
        tx.add(Scan(id=new_id(), **forged, scanned_at=at, changed_at=at))
    await database.dispose()


def test_what_a_table_cannot_say_is_said_beside_it(city: Path, tmp_path: Path) -> None:
    folder = tmp_path / "var"
    shutil.copytree(city, folder)
    words = ("report", "--report", "access", *DAYS)
    final = yizhan(folder, *words)
    answer = json.loads(yizhan(folder, *words, "--format", "json").stdout)
    counted_at = datetime.fromisoformat(answer["rolled_up_to"]).replace(microsecond=0)

    def counted(lines: list[str]) -> datetime:
        (line,) = [line for line in lines if line.startswith("rolled_up_to: ")]
        return datetime.fromisoformat(line.removeprefix("rolled_up_to: "))

    said = final.stderr.splitlines()
    assert "completeness: 2 of 2 days are over, 2 of them counted" in said
    assert counted(said) == counted_at
    assert "counted anew" not in final.stderr
    nowhere = answer["refused_without_station"].get("token_invalid", 0)

    asyncio.run(disturbed(folder))
    file = tmp_path / "access.csv"
    saved = yizhan(folder, *words, "--out", str(file))
    said = saved.stdout.splitlines()
    assert said[0] == f"wrote 3 rows to {file}"
    assert "completeness: 2 of 2 days are over, 2 of them counted" in said
    assert counted(said) == counted_at
    assert "recounting: some days are being counted anew, figures may still change" in said
    assert f"refused_without_station.token_invalid: {nowhere + 1:,}" in said
    text = file.read_text("utf-8")
    assert text == final.stdout, "one table, the same as before"


def test_a_report_may_be_of_one_branch_or_one_station(city: Path) -> None:
    by_unit = yizhan(city, "report", "--report", "visits", *DAYS, "--by", "all").stdout
    everything = int(rows_of(by_unit)[0]["visits"])
    stations = rows_of(yizhan(city, "report", "--report", "visits", *DAYS).stdout)
    assert sum(int(row["visits"]) for row in stations) == everything
    one = stations[0]
    narrow = yizhan(city, "report", "--report", "visits", *DAYS, "--station", one["station"])
    assert rows_of(narrow.stdout) == [one]
    whole = yizhan(city, "report", "--report", "visits", *DAYS, "--unit", "1", "--by", "all")
    assert whole.returncode == 0, whole.stderr
    assert rows_of(whole.stdout)[0]["visits"] == str(everything)
    ranked = rows_of(yizhan(city, "report", "--report", "ranking", *DAYS).stdout)
    assert {row["figure"] for row in ranked} == {"visits"}


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--report", "visits", "--from", "2026-11-20", "--to", "2026-11-18"), 1, "to must come"),
        (("--report", "visits", *DAYS, "--unit", "nowhere"), 1, "0 units are called nowhere"),
        (("--report", "visits", *DAYS, "--station", "X"), 1, "no station has the code X"),
        (("--report", "controllers", *DAYS, "--bucket", "day"), 1, "one row per station"),
        (("--report", "visits", *DAYS, "--figure", "visits"), 1, "only the ranking"),
        (("--report", "controllers", *DAYS, "--compare", "before"), 1, "can be compared"),
        (("--report", "weather", *DAYS), 2, "weather"),
        (("--report", "visits", "--from", "1999-01-01", "--to", "2026-11-18"), 2, "2000 and 2100"),
    ],
)
def test_what_cannot_be_reported_is_refused_and_leaves_the_file_as_it_was(
    city: Path, tmp_path: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    file = tmp_path / "report.csv"
    file.write_text("the month before")
    refused = yizhan(city, "report", *words, "--out", str(file))
    assert (refused.returncode, says in refused.stderr) == (code, True), refused.stderr
    assert file.read_text() == "the month before"
    assert list(tmp_path.iterdir()) == [file]


def test_a_workbook_needs_a_file(city: Path) -> None:
    refused = yizhan(city, "report", "--report", "visits", *DAYS, "--format", "xlsx")
    assert (refused.returncode, "--out FILE" in refused.stderr) == (2, True)


def test_one_station_has_its_sheet(city: Path, tmp_path: Path) -> None:
    listed = rows_of(yizhan(city, "report", "--report", "visits", *DAYS).stdout)
    code = listed[1]["station"]
    words = ("export", "sheets", "--month", "2026-11", str(tmp_path / "sheets"), "--station", code)
    made = yizhan(city, *words)
    assert (made.returncode, "wrote 1 sheets" in made.stdout) == (0, True), made.stderr
    assert [file.name for file in (tmp_path / "sheets").iterdir()] == [f"{code}-2026-11.pdf"]
    # Of months before there was any station there is nothing to print.
    none = yizhan(city, "export", "sheets", "--month", "2020-01", str(tmp_path / "none"))
    assert (none.returncode, "wrote 0 sheets" in none.stdout) == (0, True), none.stderr


@pytest.mark.parametrize("month", ["0001-01", "9999-12"])
def test_a_month_that_no_sheet_can_have_is_refused_in_one_line(
    city: Path, tmp_path: Path, month: str
) -> None:
    refused = yizhan(city, "export", "sheets", "--month", month, str(tmp_path / "sheets"))
    said = "refused: the month must lie between 2000 and 2100"
    assert (refused.returncode, refused.stderr.splitlines()) == (1, [said])
    assert list(tmp_path.iterdir()) == []


def test_progress_is_a_bar_on_a_terminal_and_elsewhere_a_line_now_and_then(clock: Clock) -> None:
    def said(*, is_terminal: bool) -> str:
        text = io.StringIO()
        console = Console(file=text, force_terminal=is_terminal, width=80)
        with shown("visits", 4, console=console, monotonic=clock.monotonic) as step:
            for _ in range(4):
                clock.advance(EVERY_S / 2)
                step()
        return text.getvalue()

    assert said(is_terminal=False).splitlines() == ["visits: 2 of 4 parts", "visits: 4 of 4 parts"]
    bar = said(is_terminal=True)
    assert "100%" in bar
    assert "of 4 parts" not in bar
