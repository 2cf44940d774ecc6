"""The checkers themselves: each must see what it is there for, and must not see more."""

from dataclasses import replace

import pytest

from tests.faults.history import (
    End,
    Operation,
    Pulse,
    at_most_once,
    only_granted,
    set_full,
    within_bounds,
    within_deadline,
)

SECOND = 1_000_000_000


def a_pulse(command: str, at_s: float = 0) -> Pulse:
    return Pulse(command, "door", int(at_s * SECOND), "box")


def tried(value: object, begun: int = 0, end: End = "info", ended: int | None = None) -> Operation:
    return Operation("add", value, begun, end, ended)


def test_a_second_pulse_of_one_command_is_seen() -> None:
    assert at_most_once([a_pulse("a"), a_pulse("b")]) == []
    assert len(at_most_once([a_pulse("a"), a_pulse("b"), a_pulse("a", 1)])) == 1


def test_a_pulse_without_a_claim_is_seen() -> None:
    assert only_granted([a_pulse("a")], {"a": "b1"}) == []
    assert len(only_granted([a_pulse("a"), a_pulse("b")], {"a": "b1"})) == 1
    # Whoever was refused and pulsed all the same is found also where the other one did not.
    assert only_granted([replace(a_pulse("a"), boot="b1")], {"a": "b1"}) == []
    assert len(only_granted([replace(a_pulse("a"), boot="b2")], {"a": "b1"})) == 1


def test_a_pulse_is_late_only_after_ten_seconds() -> None:
    read = {"a": 5 * SECOND}
    assert within_deadline([a_pulse("a", 15)], read) == []
    assert len(within_deadline([a_pulse("a", 15.000001)], read)) == 1
    assert len(within_deadline([a_pulse("unasked")], read)) == 1


def test_of_a_set_nothing_is_lost_doubled_or_invented() -> None:
    added = [tried(1, end="ok"), tried(2), tried(3, end="fail")]
    assert set_full(added, [1]) == set_full(added, [2, 1]) == []
    assert set_full(added, [2]) == ["element 1 was acknowledged and is lost"]
    assert set_full(added, [1, 2, 2]) == ["element 2 is there 2 times"]
    assert set_full(added, [1, 3]) == ["element 3 is there, and nobody put it in"]


@pytest.mark.parametrize(
    ("says", "fits"), [(2, False), (3, True), (4, True), (5, True), (7, True), (8, False)]
)
def test_a_read_lies_within_what_may_have_happened(says: int, fits: bool) -> None:
    changes = [
        tried(5, 0, "ok", 10),  # Surely there.
        tried(2, 5),  # Nobody knows: perhaps by now, perhaps never.
        tried(-2, 15, "ok", 40),  # Just going on.
        tried(9, 31),  # Begun after the read was answered.
        tried(9, 5, "fail", 6),
    ]
    read = Operation("read", None, 20, "ok", 30, says)
    assert (within_bounds(changes, [read]) == []) is fits
