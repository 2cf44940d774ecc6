"""What a trial starts: the server with an observer, many agents in one process, or a lonely one.

    FAULT_BUG=name FAULT_READS=file python -m tests.faults.watched serve --port 1234
    FAULT_BUG=name python -m tests.faults.watched agents boxes.json
    FAULT_BUG=name python -m tests.faults.watched isolated life.json
    FAULT_BUG=name python -m tests.faults.watched nursery exits

The observer writes down when each scan and each remote unlock had been read, on the system's
monotonic clock, beside the product and not from its own figures. The process dies with the trial
that started it, however that one ends.
"""

import asyncio
import ctypes
import importlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from tests.faults import bugs, isolated, nursery

OBSERVED = ("/v1/scans", "/unlock")
"""Requests with these ends make commands."""

KEY = b"idempotency-key"


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent is gone (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def observe(log: Path) -> None:
    """Put an observer around the server's edge."""
    from app import main
    from app.api.edge import Edge

    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    class Observed(Edge):
        """Notes the instant at which a request had been read, before anybody else sees it."""

        @override
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http" or not scope["path"].endswith(OBSERVED):
                await super().__call__(scope, receive, send)
                return
            key = dict(scope["headers"]).get(KEY, b"").decode()

            async def noted() -> Any:
                message = await receive()
                if message["type"] == "http.request" and not message.get("more_body"):
                    # Not synced: a freeze that fell between here and the edge's own look at its
                    # clock would be called the product's fault.
                    line = {"key": key, "read_ns": time.monotonic_ns()}
                    os.write(file, json.dumps(line).encode() + b"\n")
                return message

            await super().__call__(scope, noted, send)

    vars(main)["Edge"] = Observed


def slow_down(seconds: float) -> None:
    """Let each upload take longer while it holds its transaction, as on a slow disk."""
    from app.doors import journal

    real = journal.take_in

    async def take_in(*arguments: Any, **details: Any) -> Any:
        taken = await real(*arguments, **details)
        await asyncio.sleep(seconds)  # The transaction has begun, and is not yet committed.
        return taken

    vars(journal)["take_in"] = take_in


async def run_boxes(boxes: list[dict[str, str]]) -> None:
    """Run agents until the process is told to stop."""
    from app.agent import loop
    from app.agent.contact import SimulatedDoor
    from app.agent.pace import Pace
    from app.agent.relay import Pulse, SimulatedRelay

    boots: dict[Any, str] = {}
    commands = loop.Commands

    def noted(server: Any, openings: Any, *rest: Any, boot_id: str, **more: Any) -> Any:
        boots[vars(openings)["_relay"]] = boot_id
        return commands(server, openings, *rest, boot_id=boot_id, **more)

    vars(loop)["Commands"] = noted

    class BootRelay(SimulatedRelay):
        """Writes down in which boot it pulsed."""

        door: SimulatedDoor

        @override
        def line(self, pulse: Pulse) -> dict[str, Any]:
            return super().line(pulse) | {"boot_id": boots[self.door]}

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

    async def one(box: dict[str, str]) -> None:
        state = Path(box["state"])
        relay = BootRelay(state / "relay.jsonl")
        relay.door = door = SimulatedDoor(relay, Pace())
        await loop.run_agent(
            server_url=box["url"],
            state_dir=state,
            code=None,
            relay=door,
            contact=door,
            serial=state.name,
            firmware="faults",
            stop=stop,
        )

    await asyncio.gather(*(one(box) for box in boxes))


def begin(arguments: Sequence[str]) -> None:
    """Do what the arguments say: serve, or be agents, or one that is alone."""
    sys.argv = ["watched", *arguments]
    if arguments[0] == "isolated":
        isolated.main(Path(arguments[1]))
        return
    if arguments[0] == "agents":
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s"
        )
        logging.getLogger("httpx").setLevel(logging.WARNING)
        asyncio.run(run_boxes(json.loads(Path(arguments[1]).read_text())))
        return
    if reads := os.environ.get("FAULT_READS"):
        observe(Path(reads))
    if slow_s := float(os.environ.get("FAULT_SLOW_UPLOAD_S") or 0):
        slow_down(slow_s)
    from app.cli import app

    app()


def main() -> None:
    """Put the bug in, then start what was asked for, or be ready to."""
    die_with_parent()
    if bug := os.environ.get("FAULT_BUG"):
        bugs.BUGS[bug]()
    if sys.argv[1] == "nursery":
        for name in ("app.cli", "app.main", "app.agent.loop", "app.agent.contact"):
            importlib.import_module(name)
        nursery.serve(begin, die_with_parent)
    else:
        begin(sys.argv[1:])


if __name__ == "__main__":
    main()
