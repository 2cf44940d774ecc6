"""The command as a vendor uses it: an address and a code, one line for each rule, an exit code."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.test_cli import ROOT, yizhan


@contextmanager
def started(folder: Path, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """Run the command beside the test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("YIZHAN_")}
    with subprocess.Popen(
        [sys.executable, "-m", "app", *words],
        cwd=ROOT,
        env=kept | {"YIZHAN_DATA_DIR": str(folder / "var"), "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def test_a_device_that_opens_as_it_should_passes(tmp_path: Path) -> None:
    state = tmp_path / "agent"
    words = ["conformance", "--listen", "--port", "0", "--scene", "opening", "--json"]
    with started(tmp_path, *words, "--wire", str(state / "relay.jsonl")) as judge:
        assert judge.stderr is not None
        assert judge.stdout is not None
        server = code = ""
        while not code:
            line = judge.stderr.readline()
            assert line, "it ended before it said its address"
            if found := re.search(r"server (\S+)  code (\S+)", line):
                server, code = found.groups()
        device = ("agent", "--server", server, "--code", code, "--state-dir", str(state))
        with started(tmp_path, *device):
            said = judge.stdout.read()
        assert judge.wait(timeout=30) == 0
    report = json.loads(said)
    assert (report["failed"], report["not_seen"]) == (0, 0)
    outcomes = {rule["rule"]: rule["outcome"] for rule in report["rules"]}
    assert outcomes["opening.acks"] == outcomes["always.wire"] == "PASS"
    assert "reboot.boot" not in outcomes


def test_what_cannot_be_done_is_refused_in_one_line(tmp_path: Path) -> None:
    silent = yizhan(tmp_path, "conformance")
    assert (silent.returncode, "say --listen" in silent.stderr) == (2, True)
    unknown = yizhan(tmp_path, "conformance", "--listen", "--port", "0", "--scene", "tango")
    assert unknown.returncode == 1
    assert "there are enrolment, config, opening" in unknown.stderr
