"""Two real server processes on one PostgreSQL: one wakes a poll at the other; both say the same."""

import asyncio
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.doors.registry import poster_token
from app.doors.tokens import TokenKind
from app.runtime import Runtime
from app.settings import Settings
from tests.support.postgres import PostgresServer
from tests.support.server import free_port, prepared
from tests.support.worlds import Scene, a_scene

pytestmark = pytest.mark.postgres

ROOT = Path(__file__).parent.parent


@contextmanager
def a_server(settings: Settings, port: int) -> Iterator[str]:
    """Start `yizhan serve` as a process of its own; stop it by its id."""
    path = settings.data_dir / f"server-{port}.log"
    with path.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "serve", "--port", str(port)],
            cwd=ROOT,
            env={
                **os.environ,
                "YIZHAN_DATABASE_URL": settings.database_url,
                "YIZHAN_DATA_DIR": str(settings.data_dir),
            },
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 30
        while True:
            try:
                if httpx.get(f"{address}/readyz", timeout=1).status_code == 200:
                    break
            except httpx.HTTPError:
                assert process.poll() is None, path.read_text()
            assert time.monotonic() < until
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        assert process.wait(timeout=15) in (0, -15)


@pytest.fixture
def settings(tmp_path: Path, postgres: PostgresServer) -> Iterator[Settings]:
    name = f"two_{secrets.token_hex(4)}"
    postgres.create_database(name)
    yield Settings(data_dir=tmp_path, database_url=postgres.url(name))
    postgres.drop_database(name)


async def build(held: Runtime) -> tuple[Scene, str]:
    scene = await a_scene(held, staffed_hours=None)
    return scene, poster_token(held.keys.signing(TokenKind.POSTER), scene.door)


def test_a_scan_at_one_process_wakes_a_controller_at_the_other(settings: Settings) -> None:
    scene, poster = prepared(settings, build)
    with a_server(settings, free_port()) as first, a_server(settings, free_port()) as second:
        asyncio.run(the_story(first, second, scene, poster))


def test_both_send_the_same_feed(settings: Settings) -> None:
    prepared(settings, build)
    path = "/v1/feed/station_status.json"
    with a_server(settings, free_port()) as first, a_server(settings, free_port()) as second:
        here = httpx.get(f"{first}{path}")
        assert here.status_code == 200
        time.sleep(1.1)  # `last_updated` is in whole seconds.
        assert httpx.get(f"{second}{path}").content == here.content


async def the_story(first: str, second: str, scene: Scene, poster: str) -> None:
    async with (
        httpx.AsyncClient(base_url=first, timeout=20) as worker_side,
        httpx.AsyncClient(base_url=second, timeout=40) as door_side,
    ):
        await asyncio.sleep(0.5)
        waiting = asyncio.create_task(
            door_side.get(
                "/v1/controller/commands", params={"wait": 20}, headers=scene.controller_headers
            )
        )
        await asyncio.sleep(0.5)
        assert not waiting.done()
        scan = await worker_side.post(
            "/v1/scans",
            json={"token": poster},
            headers={**scene.worker.headers, "Idempotency-Key": "k"},
        )
        assert scan.json()["outcome"] == "granted", scan.text
        # The one-second look would find it too: the bell must be quicker than that.
        poll = await asyncio.wait_for(waiting, timeout=0.8)
        (command,) = poll.json()["commands"]

        # And back: the phone, at the first process, hears what the door did at the second.
        watching = asyncio.create_task(
            worker_side.get(
                f"/v1/scans/{scan.json()['id']}",
                params={"wait": 15, "seen": "pending"},
                headers=scene.worker.headers,
            )
        )
        await asyncio.sleep(0.2)
        claim = await door_side.post(
            f"/v1/controller/commands/{command['id']}/claim",
            json={"boot_id": "b", "nonce": "n"},
            headers=scene.controller_headers,
        )
        assert claim.status_code == 200, claim.text
        seen = await asyncio.wait_for(watching, timeout=2)
        assert seen.json()["state"] == "claimed"
        ack = await worker_side.post(
            f"/v1/controller/commands/{command['id']}/ack",
            json={"boot_id": "b", "result": "executed", "pulse_after_claim_ms": 50},
            headers=scene.controller_headers,
        )
        assert ack.status_code == 200
