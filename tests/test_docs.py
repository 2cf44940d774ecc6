"""What is public is in the README: settings, reasons, problems, commands, jobs."""

import re
from pathlib import Path

import pytest
import typer

import app.main  # noqa: F401 - Declares every problem.
from app import jobs
from app.api.problems import catalogue
from app.cli import app as command_line
from app.doors.rules import Reason
from app.doors.rules.journal import EventType, Why
from app.feed.rules import TTL_S, FeedFile, part_of
from app.main import create_app
from app.places.rules import Kind
from app.settings import Settings
from app.usual.rules import Unknown

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_in_the_readme(name: str) -> None:
    assert f"`YIZHAN_{name.upper()}`" in README


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_in_the_readme(reason: Reason) -> None:
    assert f"| `{reason.value}` |" in README


@pytest.mark.parametrize("kind", list(catalogue()), ids=lambda kind: kind.code())
def test_every_problem_is_in_the_readme(kind: type) -> None:
    assert f"| `{kind.code()}` | {kind.status} | {kind.title()} |" in README  # type: ignore[attr-defined]


@pytest.mark.parametrize("job", [job.name for job in jobs.JOBS])
def test_every_job_is_in_the_readme(job: str) -> None:
    assert f"`{job}`" in README


def test_every_command_is_in_the_readme() -> None:
    group = typer.main.get_command(command_line)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", None)
        for full in [f"{name} {inner}" for inner in below] if below else [name]:
            assert f"`{full}" in README, full


def test_every_mode_is_a_word_of_the_readme() -> None:
    for kind in Kind:
        assert f"`{kind.value}`" in README


FEED = (Path(__file__).parent.parent / "docs" / "feed.md").read_text("utf-8")


@pytest.mark.parametrize("name", FeedFile)
def test_every_file_of_the_feed_is_described_with_its_ttl(name: FeedFile) -> None:
    assert f"| `GET /v1/feed/{name.value}.json` | {TTL_S[part_of(name)]} s |" in FEED


USUAL = (Path(__file__).parent.parent / "docs" / "usual.md").read_text("utf-8")


@pytest.mark.parametrize("why", Unknown)
def test_why_nobody_knows_how_full_it_is_stands_where_levels_are_described(why: Unknown) -> None:
    assert f"| `{why.value}` |" in FEED
    assert f"| `{why.value}` |" in USUAL


PROTOCOL = (Path(__file__).parent.parent / "docs" / "controller-protocol.md").read_text("utf-8")


def test_every_answer_to_a_controller_is_in_the_protocol() -> None:
    described = create_app(Settings(docs_enabled=True)).openapi()["paths"]
    routes = {path: acts for path, acts in described.items() if "/v1/controller/" in path}
    assert len(routes) >= 10
    for path, acts in routes.items():
        for method, act in acts.items():
            row = f"| `{method.upper()} {path}` |"
            assert row in PROTOCOL, row
            rows = PROTOCOL.split(row)[1].split("\n| `")[0]
            for status, answer in act["responses"].items():
                codes = re.findall(r"`([a-z_]+)`: ", answer["description"])
                assert all(f"`{code}`" in PROTOCOL for code in codes), (path, codes)
                assert codes or status in rows, (path, status)


def test_every_reason_of_quarantine_and_type_of_event_is_in_the_protocol() -> None:
    for word in (*Why, *EventType):
        assert f"`{word.value}`" in PROTOCOL
