"""The files of vectors, written the same way in every run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.vectors import claims, journal, modes, tokens

FOLDER = Path(__file__).parent.parent.parent / "docs" / "vectors"

FILES: dict[str, Callable[[], dict[str, Any]]] = {
    "tokens.json": tokens.vectors,
    "claims.json": claims.vectors,
    "modes.json": modes.vectors,
    "journal.json": journal.vectors,
}


def text_of(name: str) -> str:
    """Write one file: ASCII, so that an odd character is seen."""
    return json.dumps(FILES[name](), indent=1, ensure_ascii=True) + "\n"


def read(name: str) -> dict[str, Any]:
    """Read one file as a device's tests would."""
    found: dict[str, Any] = json.loads((FOLDER / name).read_text("ascii"))
    return found
