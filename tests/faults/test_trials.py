"""The harness itself: every trial can fail, and every seeded bug belongs to one."""

import json
import signal
import sys
import time
from pathlib import Path

from tests.faults.bugs import BUGS
from tests.faults.nursery import Nursery
from tests.faults.promise import DatabaseKind, Verdict
from tests.faults.record import Row, kept, renewed
from tests.faults.rounds import trials


def test_every_trial_has_a_bug_it_must_find_and_every_bug_a_trial() -> None:
    named = {bug for trial in trials() for bug in trial.bugs}
    assert all(trial.bugs for trial in trials())
    assert named == set(BUGS)


def test_the_promises_of_the_field_are_all_tried() -> None:
    assert [trial.promise for trial in trials()] == [
        *(
            "R01",
            "R02",
            "R03",
            "R04",
            "R05",
            "R07",
            "R08",
            "R09",
            "R10",
            "R14",
            "R15",
            "R16",
            "R17",
            "R18",
        ),
    ]


def test_those_that_must_hold_on_postgresql_are_tried_there() -> None:
    there = {trial.promise for trial in trials() if "postgresql" in trial.databases}
    assert there >= {"R01", "R03", "R04", "R05", "R08", "R09", "R10"}


def a_row(database: DatabaseKind, *, tries: int, bug: str | None = None) -> Row:
    found = ["a scan is gone | for good"] if bug else []
    verdict = Verdict({"kills": tries}, found)
    return Row(trials()[0], database, bug, verdict, 3.0, 7, "2026-11-25")


def test_a_run_of_one_promise_renews_its_own_rows_and_keeps_the_others() -> None:
    every = trials()
    first = [a_row("sqlite", tries=1), a_row("postgresql", tries=2)]
    page = renewed("", [*first, a_row("sqlite", tries=3, bug=every[0].bugs[0])], every)
    again = renewed(page, [a_row("sqlite", tries=9)], every)
    assert [cells[1:3] for cells in kept(again).values()] == [
        ("sqlite", "9 kills"),
        ("postgresql", "2 kills"),
        ("sqlite", "3 kills"),
    ]
    assert "| R01 | sqlite | 9 kills | 0 |  | 3 | 7 | 2026-11-25 |" in again.splitlines()


def test_a_bug_is_found_by_a_judgement_and_not_by_a_stumble() -> None:
    row = a_row("sqlite", tries=1, bug="ack_before_commit")
    assert row.is_good
    row.verdict.stumbled = True
    assert not row.is_good
    assert row.cells[4] == "ack_before_commit: NOT FOUND"


def test_a_forked_process_is_there_to_be_killed_and_tells_how_it_ended(tmp_path: Path) -> None:
    nursery = Nursery.open(
        [sys.executable, "-m", "tests.faults.watched", "nursery"],
        tmp_path / "exits",
        log=tmp_path / "log",
    )
    try:
        lives = nursery.spring(["agents", "/nowhere"], log=tmp_path / "a", environment={})
        assert lives.wait(60) == 1
        assert "FileNotFoundError" in (tmp_path / "a").read_text()
        boxes = tmp_path / "boxes.json"
        boxes.write_text(
            json.dumps([{"state": str(tmp_path / "box"), "url": "http://127.0.0.1:9"}])
        )
        (tmp_path / "box").mkdir()
        (tmp_path / "box" / "identity.json").write_text(
            json.dumps({"credential": "nobody", "credential_at": time.time()})
        )
        killed = nursery.spring(["agents", str(boxes)], log=tmp_path / "b", environment={})
        killed.kill()
        assert killed.wait(60) == -signal.SIGKILL
    finally:
        nursery.close()
