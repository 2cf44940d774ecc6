"""The OpenAPI description is true: a fuzzer that believes it finds no 5xx and no surprise."""

import json
import os
import subprocess
import sys
from pathlib import Path

from app.runtime import Runtime
from tests.conftest import make_settings
from tests.support.server import free_port, prepared, serving
from tests.support.worlds import a_scene, an_admin

ROOT = Path(__file__).parent.parent
EXAMPLES = {"sqlite": 15, "postgresql": 5}
"""Per operation and phase: the routes are the same, and `make test` has a bounded budget."""

ENDS_ITSELF = r"^/v1/(auth/logout|admin/logout|controller/credential)$"
"""Routes that would end the fuzzer's own session; tested by hand elsewhere."""


async def world(held: Runtime) -> dict[str, str]:
    scene = await a_scene(held)
    async with held.database.write() as tx:
        admin = await an_admin(tx, at=held.now())
    return {
        "/v1/admin": admin.token,
        "/v1/controller": scene.credential,
        "/v1": scene.worker.token,
    }


def fuzz(
    address: str, tokens: dict[str, str], *, examples: int
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "run",
            f"{address}/openapi.json",
            "--phases=examples,coverage,fuzzing,stateful",
            f"--max-examples={examples}",
            "--checks=all",
            # Codes, hours and periods obey rules that JSON Schema cannot say: a body that fits
            # the schema may still be refused, with a documented 422.
            "--exclude-checks=positive_data_acceptance",
            "--generation-deterministic",
            "--request-timeout=20",
            "--no-color",
            f"--exclude-path-regex={ENDS_ITSELF}",
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "FUZZ_TOKENS": json.dumps(tokens),
            "SCHEMATHESIS_HOOKS": "tests.support.fuzz_hooks",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def test_the_description_is_true(tmp_path: Path, database_url: str) -> None:
    settings = make_settings(
        tmp_path,
        database_url,
        max_wait_s=1,
        limit_scan_minute=100_000,
        limit_admin_failures=100_000,
    )
    tokens = prepared(settings, world)
    with serving(settings, free_port()) as address:
        examples = EXAMPLES[database_url.partition("+")[0]]
        found = fuzz(address, tokens, examples=examples)
    print(found.stdout[-20_000:])
    assert found.returncode == 0, found.stdout[-8_000:] + found.stderr[-2_000:]
