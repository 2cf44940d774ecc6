"""Simulated workers: they sign in, scan, use things and leave, over loopback, in their own time."""

import asyncio
import json
import logging
import random
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from app.clock import monotonic, utc_now
from app.db.engine import Database
from app.demo import city
from app.doors import registry
from app.doors.keys import KeyRing
from app.doors.tokens import TokenKind
from app.main import kek_of
from app.people.tables import Occupation
from app.places.tables import Station
from app.settings import Settings
from app.vault import Vault

log = logging.getLogger(__name__)

SIMULATED = "+8619900"
"""The numbers of simulated workers begin so; real ones are not given out in this range's zeros."""

PEOPLE = 8
PAUSE_S = (15.0, 40.0)
STAY_S = (30.0, 180.0)


def is_simulated(phone: str) -> bool:
    """Whether a number belongs to the crowd."""
    return phone.startswith(SIMULATED)


def messages_in(outbox: Path) -> list[dict[str, Any]]:
    """Read the messages that the file sender wrote."""
    try:
        lines = outbox.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


class Crowd:
    """A handful of simulated workers."""

    def __init__(
        self, address: str, http: httpx.AsyncClient, settings: Settings, rng: random.Random
    ) -> None:
        self._address = address
        self._http = http
        self._settings = settings
        self._rng = rng

    async def doors_of(self, stations: Sequence[Station]) -> Sequence[str]:
        """Give the posters of these stations' doors, but for the one that people are shown."""
        codes = {station.code for station in stations} - {city.OPEN_DOOR}
        database = Database(self._settings.effective_database_url)
        ring = KeyRing(Vault(kek_of(self._settings)))
        try:
            async with database.read() as tx:
                await ring.load(tx)
                doors = await city.doors_with_access(tx)
        finally:
            await database.dispose()
        key = ring.signing(TokenKind.POSTER)
        return [
            registry.poster_token(key, door)
            for place, door in doors
            if place.code in codes and not door.has_display
        ]

    async def live(self, posters: Sequence[str]) -> None:
        """Let them come and go until cancelled; what goes wrong is logged and goes on."""
        if not posters:
            return
        async with asyncio.TaskGroup() as group:
            for number in range(PEOPLE):
                group.create_task(self._worker(number, posters))

    async def _worker(self, number: int, posters: Sequence[str]) -> None:
        phone = f"{SIMULATED}{number:06d}"
        headers: dict[str, str] | None = None
        # Each keeps to one door: nobody travels across the city in half a minute.
        poster = posters[number % len(posters)]
        while True:
            await asyncio.sleep(self._rng.uniform(*PAUSE_S) * (1 + number / 2))
            try:
                headers = headers or await self._sign_in(phone, poster)
                await self._visit(headers, poster)
            except (httpx.HTTPError, KeyError, ValueError) as error:
                log.info("simulated worker gave up error=%s", type(error).__name__)
                headers = None

    async def _sign_in(self, phone: str, poster: str) -> dict[str, str]:
        asked = await self._post("/v1/auth/otp", {"phone": phone, "token": poster})
        code = await self._code(phone)
        session = await self._post(
            "/v1/auth/otp/verify",
            {
                "challenge_id": asked["challenge_id"],
                "code": code,
                "occupation": self._rng.choice(list(Occupation)).value,
                "consent": {"version": "2026-12"},
            },
        )
        return {"Authorization": f"Bearer {session['access_token']}"}

    async def _code(self, phone: str) -> str:
        """Wait for the newest code in the outbox."""
        outbox: Path = self._settings.data_dir / "outbox.jsonl"
        until = monotonic() + 10
        began = utc_now().isoformat()
        while monotonic() < until:
            await asyncio.sleep(0.3)
            for message in reversed(await asyncio.to_thread(messages_in, outbox)):
                # A little slack: it may have gone out before we began to look.
                if message["phone"] == phone and message["sent_at"][:16] >= began[:16]:
                    return str(message["code"])
        raise ValueError("no code came")

    async def _visit(self, headers: dict[str, str], poster: str) -> None:
        key = {"Idempotency-Key": secrets.token_hex(16)}
        scan = await self._post("/v1/scans", {"token": poster}, headers | key)
        for _ in range(10):
            if scan["state"] not in ("pending", "claimed"):
                break
            answer = await self._http.get(
                f"{self._address}/v1/scans/{scan['id']}",
                params={"wait": 5, "seen": scan["state"]},
                headers=headers,
                timeout=20,
            )
            scan = answer.raise_for_status().json()
        if scan["visit_id"] is None:
            return
        await self._use_something(headers, scan["station"]["code"])
        await asyncio.sleep(self._rng.uniform(*STAY_S))
        if self._rng.random() < 0.7:  # Some forget to say that they left.
            await self._post(f"/v1/visits/{scan['visit_id']}/leave", None, headers)

    async def _use_something(self, headers: dict[str, str], code: str) -> None:
        answer = await self._http.get(f"{self._address}/v1/stations/{code}", timeout=10)
        things = answer.raise_for_status().json()["facilities"]
        if not things:
            return
        thing = self._rng.choice(things)
        key = {"Idempotency-Key": secrets.token_hex(16)}
        use = await self._post(f"/v1/facilities/{thing['id']}/uses", {}, headers | key)
        await asyncio.sleep(self._rng.uniform(5, 20))
        await self._post(f"/v1/facility-uses/{use['id']}/end", None, headers)

    async def _post(
        self, path: str, body: dict[str, Any] | None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        answer = await self._http.post(
            f"{self._address}{path}", json=body, headers=headers, timeout=20
        )
        found: dict[str, Any] = answer.raise_for_status().json()
        return found
