"""What the agent keeps on disk survives torn writes."""

import os
from pathlib import Path
from typing import Any

import pytest

from app.agent.state import Result, Results, StateFolder

pytestmark = pytest.mark.anyio

ONE = Result("k1", "b1", "executed", 12)
TWO = Result("k2", "b1", "failed", None, "relay")


async def test_unsettled_results_are_there_again(tmp_path: Path) -> None:
    results = Results(StateFolder(tmp_path))
    results.add(ONE)
    results.add(TWO)
    results.settle(ONE)
    again = Results(StateFolder(tmp_path))
    assert again.unacked() == [TWO]
    assert again.waiting.is_set()


async def test_a_line_torn_by_a_power_cut_harms_no_other(tmp_path: Path) -> None:
    Results(StateFolder(tmp_path)).add(ONE)
    with (tmp_path / "results.jsonl").open("ab") as file:
        file.write(b'{"command": "k9", "boo')
    after = Results(StateFolder(tmp_path))
    after.add(TWO)
    assert Results(StateFolder(tmp_path)).unacked() == [ONE, TWO]


async def test_the_file_of_settled_results_does_not_grow_for_ever(tmp_path: Path) -> None:
    results = Results(StateFolder(tmp_path))
    for number in range(1_000):
        result = Result(f"k{number}", "b1", "executed", 12)
        results.add(result)
        results.settle(result)
    assert (tmp_path / "results.jsonl").stat().st_size < 70_000


async def test_an_unreadable_file_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{torn")
    (tmp_path / "clock.json").mkdir()
    assert StateFolder(tmp_path).read("config.json") == {}
    assert StateFolder(tmp_path).read("clock.json") == {}


async def test_a_line_that_the_disk_took_half_of_takes_no_other_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def takes_half(file: int, content: bytes) -> int:
        return write(file, content[:40])

    three = Result("k3", "b1", "executed", 300)
    results = Results(StateFolder(tmp_path))
    results.add(ONE)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", takes_half)
        results.add(TWO)
    results.add(three)
    assert Results(StateFolder(tmp_path)).unacked() == [ONE, TWO, three]


async def test_results_that_wait_on_a_full_disk_are_kept_and_the_next_line_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    Results(StateFolder(tmp_path)).add(ONE)
    with (tmp_path / "results.jsonl").open("ab") as file:
        file.write(b'{"command": "k9", "boo')
    with monkeypatch.context() as patch:
        patch.setattr(StateFolder, "replace", is_full)
        results = Results(StateFolder(tmp_path))
        assert results.unacked() == [ONE]
    results.add(TWO)
    assert Results(StateFolder(tmp_path)).unacked() == [ONE, TWO]
