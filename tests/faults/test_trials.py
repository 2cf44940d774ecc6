"""The harness itself: every trial can fail, and every seeded bug belongs to one."""

from tests.faults.__main__ import trials
from tests.faults.bugs import BUGS


def test_every_trial_has_a_bug_it_must_find_and_every_bug_a_trial() -> None:
    named = {bug for trial in trials() for bug in trial.bugs}
    assert all(trial.bugs for trial in trials())
    assert named == set(BUGS)


def test_the_promises_of_the_field_are_all_tried() -> None:
    assert [trial.promise for trial in trials()] == [
        *("R01", "R02", "R03", "R04", "R05", "R07", "R08", "R09", "R10", "R14"),
    ]


def test_those_that_must_hold_on_postgresql_are_tried_there() -> None:
    there = {trial.promise for trial in trials() if "postgresql" in trial.databases}
    assert there >= {"R01", "R03", "R04", "R05", "R08", "R09", "R10"}
