"""The command line as a stranger uses it: clear words, the right exit codes."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from app.db.lock import WriterLock

ROOT = Path(__file__).parent.parent
CALENDAR = ROOT / "app" / "data" / "calendar_cn.csv"


def yizhan(
    data_dir: Path, *words: str, stdin: str = "", **settings: str
) -> "subprocess.CompletedProcess[str]":
    """Run the command in a data folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("YIZHAN_")}
    return subprocess.run(
        [sys.executable, "-m", "app", *words],
        cwd=ROOT,
        env=kept | {"YIZHAN_DATA_DIR": str(data_dir), "COLUMNS": "200"} | settings,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    made = yizhan(tmp_path / "var", "migrate")
    assert made.returncode == 0, made.stderr
    return tmp_path / "var"


def test_without_words_it_says_what_there_is(tmp_path: Path) -> None:
    told = yizhan(tmp_path)
    for word in (
        "serve",
        "migrate",
        "demo",
        "agent",
        "conformance",
        "admin",
        "key",
        "import",
        "export",
        "job",
    ):
        assert word in told.stdout


def test_an_unmigrated_database_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    refused = yizhan(tmp_path / "var", "key", "list")
    assert refused.returncode == 1
    assert "run: yizhan migrate" in refused.stderr


def test_an_administrator_is_created_once(data_dir: Path) -> None:
    words = ("admin", "create", "--username", "li", "--role", "city_admin", "--password-stdin")
    made = yizhan(data_dir, *words, stdin="correct horse battery\n")
    assert made.returncode == 0, made.stderr
    assert "created city_admin li" in made.stdout
    again = yizhan(data_dir, *words, stdin="correct horse battery\n")
    assert again.returncode == 1
    assert "has this name already" in again.stderr
    short = yizhan(data_dir, *words, stdin="short\n")
    assert short.returncode == 1
    assert "at least 12 characters" in short.stderr


def test_keys_are_listed_and_rotated(data_dir: Path) -> None:
    rotated = yizhan(data_dir, "key", "rotate", "--kind", "poster")
    assert rotated.returncode == 0, rotated.stderr
    assert "of kind poster is active" in rotated.stdout
    listed = yizhan(data_dir, "key", "list")
    assert "retiring" in listed.stdout
    published = yizhan(data_dir, "key", "rotate", "--kind", "pass")
    assert "is pending" in published.stdout
    too_soon = yizhan(data_dir, "key", "rotate", "--kind", "pass")
    assert too_soon.returncode == 1
    assert "may sign from" in too_soon.stderr


def test_files_come_in_and_go_out(data_dir: Path, tmp_path: Path) -> None:
    calendar = yizhan(data_dir, "import", "calendar", str(CALENDAR))
    assert calendar.returncode == 0, calendar.stderr
    assert "days" in calendar.stdout
    out = tmp_path / "stations.csv"
    assert yizhan(data_dir, "export", "stations", str(out)).returncode == 0
    header = out.read_text("utf-8-sig").splitlines()[0]
    assert header.startswith("code,name,unit,")
    bad = tmp_path / "bad.csv"
    bad.write_text(header + "\n" + ",".join(["x"] * len(header.split(","))) + "\n", "utf-8")
    refused = yizhan(data_dir, "import", "stations", str(bad))
    assert refused.returncode == 1
    assert "row" in refused.stderr
    sheets = yizhan(data_dir, "export", "sheets", "--month", "2026-13", str(tmp_path / "sheets"))
    assert (sheets.returncode, "2026-10" in sheets.stderr) == (1, True)
    none = yizhan(data_dir, "export", "sheets", "--month", "2026-10", str(tmp_path / "sheets"))
    assert (none.returncode, "wrote 0 sheets" in none.stdout) == (0, True)


def test_jobs_run_by_hand(data_dir: Path) -> None:
    assert yizhan(data_dir, "job", "run", "sweep-visits").returncode == 0
    unknown = yizhan(data_dir, "job", "run", "nothing")
    assert unknown.returncode == 2
    assert "there are" in unknown.stderr


def test_beside_a_writer_a_writing_command_says_so(data_dir: Path) -> None:
    with WriterLock(data_dir):
        busy = yizhan(data_dir, "job", "run", "retain")
    assert busy.returncode == 75
    assert "already writes" in busy.stderr


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "SECRET_KEK is missing"),
        ({"YIZHAN_SECRET_KEK": "A" * 43 + "="}, "example"),
        ({"YIZHAN_SECRET_KEK": "c2hvcnQ="}, "32 bytes"),
    ],
)
def test_production_refuses_unsafe_settings(
    tmp_path: Path, settings: dict[str, str], words: str
) -> None:
    refused = yizhan(tmp_path, "serve", YIZHAN_ENVIRONMENT="production", **settings)
    assert refused.returncode == 78
    assert words in refused.stderr


def test_several_workers_need_postgresql(data_dir: Path) -> None:
    refused = yizhan(data_dir, "serve", "--workers", "2")
    assert refused.returncode == 2
    assert "exactly one process" in refused.stderr


def test_an_agent_without_code_says_what_it_needs(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    refused = yizhan(tmp_path, "agent", "--server", "http://127.0.0.1:9", "--state-dir", state)
    assert refused.returncode == 1
    assert "refused:" in refused.stderr
    unknown = yizhan(tmp_path, "agent", "--server", "http://127.0.0.1:9", "--relay", "steam")
    assert unknown.returncode == 2


@pytest.mark.skipif(find_spec("gpiozero") is not None, reason="here is what is to be missing")
def test_a_refusal_is_printed_to_be_copied_brackets_and_all(tmp_path: Path) -> None:
    words = ("agent", "--server", "http://127.0.0.1:1", "--relay", "gpio")
    refused = yizhan(tmp_path, *words, COLUMNS="40")
    assert refused.returncode == 1
    assert "pip install 'yizhan[gpio]'" in refused.stderr


@pytest.mark.parametrize("command", ["agent", "fleet"])
def test_an_address_that_is_none_is_refused_and_not_waited_for(
    tmp_path: Path, command: str
) -> None:
    refused = yizhan(tmp_path, command, "--server", "127.0.0.1:8000", "--state-dir", str(tmp_path))
    assert (refused.returncode, "http://" in refused.stderr) == (2, True)


def test_a_key_is_retired_in_an_emergency_only_once_another_signs(data_dir: Path) -> None:
    kid = yizhan(data_dir, "key", "rotate", "--kind", "poster").stdout.split()[1]
    assert yizhan(data_dir, "key", "retire", kid, "--emergency").returncode == 1
    assert yizhan(data_dir, "key", "rotate", "--kind", "poster").returncode == 0
    assert yizhan(data_dir, "key", "retire", kid).returncode == 1
    gone = yizhan(data_dir, "key", "retire", kid, "--emergency")
    assert (gone.returncode, gone.stdout.strip()) == (0, f"key {kid} is retired")


def test_districts_come_with_it_and_a_bad_file_changes_nothing(
    data_dir: Path, tmp_path: Path
) -> None:
    assert "imported 39 districts" in yizhan(data_dir, "import", "districts").stdout
    bad = tmp_path / "bad.csv"
    bad.write_text(
        "adcode,name,kind,valid_from,valid_to,successors,note\n"
        "500001,甲,district,2020-01-01,2019-01-01,,\n"
    )
    refused = yizhan(data_dir, "import", "districts", str(bad))
    assert refused.returncode == 1
    assert "row 2: valid_to must come after valid_from" in refused.stderr


def test_an_empty_database_gets_units_and_then_stations_that_name_them(
    data_dir: Path, tmp_path: Path
) -> None:
    units, stations = tmp_path / "units.csv", tmp_path / "stations.csv"
    units.write_text("unit,kind\n市总工会,city\n市总工会/渝中区总工会,district\n", "utf-8")
    assert "2 created" in yizhan(data_dir, "import", "units", str(units)).stdout
    assert yizhan(data_dir, "export", "stations", str(stations)).returncode == 0
    row = (
        "A1,解放碑驿站,市总工会/渝中区总工会,,民族路 1 号,29.5583,106.5772,20,union_built,"
        "Asia/Shanghai,1-7 08:00-18:00,1-7 00:00-24:00,60,no,,正门\n"
    )
    stations.write_text(stations.read_text("utf-8-sig") + row, "utf-8")
    done = yizhan(data_dir, "import", "stations", str(stations))
    assert done.returncode == 0, done.stderr
    assert "1 created" in done.stdout
    units.write_text("unit,kind\n甲/乙,district\n", "utf-8")
    refused = yizhan(data_dir, "import", "units", str(units))
    assert (refused.returncode, "row 2" in refused.stderr) == (1, True)


def test_a_city_is_generated_into_an_empty_database_once(data_dir: Path) -> None:
    words = ("generate", "--stations", "3", "--days", "2", "--until", "2026-11-20")
    made = yizhan(data_dir, *words)
    assert made.returncode == 0, made.stderr
    assert "made " in made.stdout
    assert "visits a second" in made.stdout
    assert "yizhan admin create" in made.stdout
    again = yizhan(data_dir, *words)
    assert again.returncode == 1
    assert "refused: there are workers in the database" in again.stderr
