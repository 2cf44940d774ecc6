"""How login codes leave the house: a file in development, a gateway in production."""

import asyncio
import json
import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from app.clock import Now, utc_now
from app.settings import Settings
from app.settings import SmsSender as SenderKind

if TYPE_CHECKING:
    # Loaded where a message goes out: it takes 5 MiB of every server.
    import httpx

TIMEOUT_S = 10.0


class SmsFailed(RuntimeError):
    """The message was not taken."""


class SmsSender(Protocol):
    """Sends one message; raises SmsFailed when it was not taken."""

    async def send(self, phone: str, text: str, code: str) -> None:
        """Send a text with a code in it to an E.164 number."""


class FileSender:
    """Writes each message as a JSON line `{phone, text, code, sent_at}`."""

    def __init__(self, path: Path, now: Now = utc_now) -> None:
        self._path = path
        self._now = now

    async def send(self, phone: str, text: str, code: str) -> None:
        """Append the message and sync it."""
        await asyncio.to_thread(self._append, phone, text, code, self._now())

    def _append(self, phone: str, text: str, code: str, at: datetime) -> None:
        line = {"phone": phone, "text": text, "code": code, "sent_at": at.isoformat()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(fd, "a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


class HttpSender:
    """Posts each message to a gateway as `{phone, text}`."""

    def __init__(self, url: str, token: str, transport: "httpx.AsyncBaseTransport | None" = None):
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._transport = transport

    async def send(self, phone: str, text: str, code: str) -> None:
        """Post the message; any answer but 2xx is a failure."""
        import httpx

        try:
            async with httpx.AsyncClient(
                timeout=TIMEOUT_S, transport=self._transport, follow_redirects=False
            ) as client:
                answer = await client.post(
                    self._url, json={"phone": phone, "text": text}, headers=self._headers
                )
        except httpx.HTTPError as error:
            raise SmsFailed(type(error).__name__) from error
        if not answer.is_success:
            raise SmsFailed(f"status {answer.status_code}")


def sender_for(settings: Settings, now: Now = utc_now) -> SmsSender:
    """Give the sender that the settings ask for."""
    if settings.sms_sender is SenderKind.HTTP:
        return HttpSender(settings.sms_url, settings.sms_token.get_secret_value())
    return FileSender(settings.data_dir / "outbox.jsonl", now)
