"""What the fuzzer's own process loads: it signs in as whom a path is for."""

import json
import os
from typing import Any

import schemathesis

TOKENS: dict[str, str] = json.loads(os.environ.get("FUZZ_TOKENS", "{}"))


@schemathesis.auth(refresh_interval=None)
class Bearer:
    """Gives each path the bearer it is for."""

    def get(self, case: schemathesis.Case, _context: Any) -> str:
        """Choose the token."""
        starts = (start for start in TOKENS if case.path.startswith(start))
        return TOKENS[next(starts, "/v1")]

    def set(self, case: schemathesis.Case, data: str, _context: Any) -> None:
        """Put it into the request."""
        case.headers["Authorization"] = f"Bearer {data}"
