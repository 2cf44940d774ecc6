"""A controller in a thread: polls, claims and acknowledges, or keeps quiet, as a test says."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx


@dataclass
class FakeController:
    """What the box at the door does; every switch can be thrown while it runs."""

    address: str
    credential: str
    answers: bool = True
    """Whether it claims what it is told of."""
    result: str = "executed"
    acks: bool = True
    claim_gap_s: float = 0.0
    """How long it waits between the claim and the pulse."""
    pulses: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Poll until stopped."""
        headers = {"Authorization": f"Bearer {self.credential}"}
        with httpx.Client(base_url=self.address, headers=headers, timeout=10) as client:
            while not self._stop.is_set():
                try:
                    self._round(client)
                except httpx.HTTPError:
                    self._stop.wait(0.1)

    def _round(self, client: httpx.Client) -> None:
        poll = client.get("/v1/controller/commands", params={"wait": 1, "boot_id": "b"})
        if poll.status_code != 200:
            return
        if not self.answers:
            self._stop.wait(0.2)
            return
        for command in poll.json()["commands"]:
            path = f"/v1/controller/commands/{command['id']}"
            claim = client.post(f"{path}/claim", json={"boot_id": "b", "nonce": command["id"]})
            if claim.status_code != 200:
                continue
            self._stop.wait(self.claim_gap_s)
            if self.result == "executed":
                self.pulses.append(command["id"])
            if self.acks:
                client.post(f"{path}/ack", json={"boot_id": "b", "result": self.result})

    def stop(self) -> None:
        """End at the next chance."""
        self._stop.set()


@contextmanager
def a_fake_controller(address: str, credential: str) -> Iterator[FakeController]:
    """Run a controller beside the test."""
    controller = FakeController(address, credential)
    thread = threading.Thread(target=controller.run, daemon=True)
    thread.start()
    try:
        yield controller
    finally:
        controller.stop()
        thread.join(timeout=10)
