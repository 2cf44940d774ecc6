"""How login codes leave the house."""

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from app.people.sms import FileSender, HttpSender, SmsFailed

pytestmark = pytest.mark.anyio


async def test_the_file_sender_appends_a_line_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "var" / "outbox.jsonl"
    sender = FileSender(path, lambda: datetime(2026, 11, 23, 15, 40, tzinfo=UTC))
    await sender.send("+8613812341234", "验证码 123456", "123456")
    await sender.send("+8613812341235", "验证码 654321", "654321")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert lines[0] == {
        "phone": "+8613812341234",
        "text": "验证码 123456",
        "code": "123456",
        "sent_at": "2026-11-23T15:40:00+00:00",
    }
    assert [line["code"] for line in lines] == ["123456", "654321"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_the_http_sender_posts_phone_and_text_with_its_token() -> None:
    seen: list[httpx.Request] = []

    def gateway(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(202)

    sender = HttpSender("https://sms.example/send", "t0k3n", httpx.MockTransport(gateway))
    await sender.send("+8613812341234", "验证码 123456", "123456")
    (request,) = seen
    assert request.headers["Authorization"] == "Bearer t0k3n"
    assert json.loads(request.content) == {"phone": "+8613812341234", "text": "验证码 123456"}


@pytest.mark.parametrize("status", [302, 400, 500])
async def test_any_answer_but_a_good_one_is_a_failure(status: int) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status))
    sender = HttpSender("https://sms.example/send", "", transport)
    with pytest.raises(SmsFailed):
        await sender.send("+8613812341234", "text", "123456")


async def test_a_gateway_that_cannot_be_reached_is_a_failure() -> None:
    def gateway(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectTimeout("no answer", request=request)

    sender = HttpSender("https://sms.example/send", "", httpx.MockTransport(gateway))
    with pytest.raises(SmsFailed):
        await sender.send("+8613812341234", "text", "123456")
