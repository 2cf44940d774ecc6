"""The rules of the house: one order of rooms, pure rules, rows only, dialects in one place."""

import ast
import re
import sys
from pathlib import Path

import pytest

APP = Path(__file__).parent.parent / "app"

ORDER = (
    ("db", "errors", "clock", "settings", "data"),
    ("vault", "audit"),
    ("places",),
    ("people",),
    ("alerts",),
    ("visits",),
    ("doors",),
    ("reports",),
    ("usual",),
    ("feed",),
    ("privacy",),
    ("runtime",),
    ("jobs",),
    ("tables",),
    ("api",),
    ("pages",),
    ("main",),
    ("agent",),
    ("conformance",),
    ("demo",),
    ("generate",),
    ("cli",),
    ("__main__",),
)
"""A module imports from its own room and from earlier ones: a total order cannot hold a cycle."""

RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}

PURE_EXTRA = {
    "doors/tokens.py": {"jwt", "cryptography"},
    "people/phones.py": {"cryptography", "phonenumbers"},
    "places/coordinates.py": set(),
    "reports/rules/comparison.py": {"numpy"},
    "reports/rules/suppression.py": {"numpy"},
}
"""Pure modules that are not called rules, or compute with more; what they may import besides."""

IMPURE_CALL = re.compile(
    r"\basync def\b|\bdatetime\.now\(|\butcnow\(|\btime\.(time|monotonic)\(|\bos\.environ\b"
)

BANNED = {
    "utils",
    "helpers",
    "common",
    "misc",
    "constants",
    "manager",
    "base",
    "core",
    "models",
    "services",
}

MODULES = sorted(path for path in APP.rglob("*.py") if "__pycache__" not in path.parts)


def room_of(path: Path) -> str:
    first = path.relative_to(APP).parts[0]
    return first.removesuffix(".py")


def imports_of(path: Path) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports are absolute"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def named(path: Path) -> str:
    return str(path.relative_to(APP))


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_imports_only_from_its_room_and_earlier_ones(path: Path) -> None:
    if path == APP / "__init__.py":
        return
    rank = RANK[room_of(path)]
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "app" and len(parts) > 1:
            assert RANK[parts[1]] <= rank, f"{named(path)} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_rules_are_pure(path: Path) -> None:
    is_rules = path.name == "rules.py" or path.parent.name == "rules"
    extra = PURE_EXTRA.get(named(path))
    if not is_rules and extra is None:
        return
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "app":
            assert "rules" in parts, f"{named(path)} imports {name}"
        else:
            allowed = parts[0] in sys.stdlib_module_names or parts[0] in (extra or ())
            assert allowed, f"{named(path)} imports {name}"
    assert not IMPURE_CALL.search(path.read_text()), f"{named(path)} is not pure"


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_tables_hold_rows_only(path: Path) -> None:
    if path.name != "tables.py" or path.parent == APP:
        return
    text = path.read_text()
    assert "relationship(" not in text
    assert "async def" not in text


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_only_db_knows_which_database_this_is(path: Path) -> None:
    if path.is_relative_to(APP / "db") or path.is_relative_to(APP / "agent"):
        return  # The agent's journal is a file of its own, on another machine.
    for number, line in enumerate(path.read_text().splitlines(), 1):
        found = re.search(r"dialect|sqlite|postgresql", line)
        if not found:
            continue
        is_prose = line.strip().startswith(("#", '"""')) or "SQLite" in line
        is_url = 'startswith("postgresql")' in line or "postgresql+asyncpg://" in line
        assert is_prose or is_url, f"{named(path)}:{number}: {line.strip()}"


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_no_drawers(path: Path) -> None:
    assert not BANNED & {part.removesuffix(".py") for part in path.relative_to(APP).parts}


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_nobody_commits_and_nobody_reads_the_time(path: Path) -> None:
    text = path.read_text()
    if not path.is_relative_to(APP / "db"):
        assert ".commit()" not in text
    if path != APP / "clock.py" and room_of(path) not in ("agent", "demo"):
        assert not re.search(r"datetime\.now\(|utcnow\(|time\.time\(", text)


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_says_in_one_sentence_what_it_is_for(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, f"{named(path)} has no docstring"
    first = docstring.splitlines()[0]
    assert "and utilities" not in first
    assert len(first) <= 100
