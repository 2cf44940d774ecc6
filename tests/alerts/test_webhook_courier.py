"""Where a webhook may lead (T31): nowhere but to a listed host at a public address."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from app.alerts.webhooks import courier as module
from app.alerts.webhooks.courier import Courier, Outcome, look_up
from app.alerts.webhooks.rules import is_public
from app.clock import monotonic
from tests.support.receivers import (
    HOST,
    Canary,
    Certificates,
    Heard,
    a_canary,
    answering,
    certificates,
    receiving,
)

pytestmark = pytest.mark.anyio

PRIVATE = [
    "127.0.0.1",
    "127.9.9.9",
    "::1",
    "::ffff:127.0.0.1",
    "::127.0.0.1",
    "64:ff9b::127.0.0.1",
    "2002:7f00:1::",
    "0.0.0.0",
    "::",
    "169.254.169.254",
    "10.0.0.1",
    "10.255.255.255",
    "172.16.0.1",
    "192.168.1.1",
    "100.100.100.200",
    "fe80::1",
    "fd00::1",
    "224.0.0.1",
    "255.255.255.255",
]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("tls"), HOST)


def leading_to(*addresses: str) -> Any:
    """Resolve any name to these addresses."""

    async def resolve(_host: str, _port: int) -> list[str]:
        return list(addresses)

    return resolve


async def told(courier: Courier, url: str) -> Outcome:
    return await courier.post(url, headers={"Yizhan-Event-Id": "e"}, body=b"{}")


def a_courier(port: int, shown: Certificates, *addresses: str, **more: Any) -> Courier:
    """A courier that may go to loopback where a test says so."""
    values: dict[str, Any] = {
        "hosts": {f"{HOST}:{port}"},
        "monotonic": monotonic,
        "resolve": leading_to(*addresses),
        "trust": shown.trust,
    }
    return Courier(**(values | more))


@pytest.fixture
async def canary() -> AsyncIterator[Canary]:
    async with a_canary("127.0.0.1") as found:
        yield found


@pytest.mark.parametrize("address", PRIVATE)
async def test_a_name_that_leads_inside_is_never_connected_to(
    canary: Canary, shown: Certificates, address: str
) -> None:
    outcome = await told(
        a_courier(canary.port, shown, address), f"https://{HOST}:{canary.port}/alerts"
    )
    assert outcome.error == "the name leads to an address that is not public"
    assert canary.connections == 0


@pytest.mark.parametrize("addresses", [("8.8.8.8", "127.0.0.1"), ("127.0.0.1", "8.8.8.8")])
async def test_one_private_address_among_public_ones_spoils_the_name(
    canary: Canary, shown: Certificates, addresses: tuple[str, ...]
) -> None:
    outcome = await told(
        a_courier(canary.port, shown, *addresses), f"https://{HOST}:{canary.port}/"
    )
    assert outcome.error == "the name leads to an address that is not public"
    assert canary.connections == 0


async def test_the_canary_would_sing(canary: Canary, shown: Certificates) -> None:
    """Without the check of addresses the same call reaches it: these tests can fail."""
    courier = a_courier(canary.port, shown, "127.0.0.1", permits=lambda _: True)
    outcome = await told(courier, f"https://{HOST}:{canary.port}/")
    assert outcome.status is None
    assert canary.connections == 1


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0x7f000001",
        "2130706433",
        "0177.0.0.1",
        "127.1",
        "169.254.169.254",
        "localhost",
        "hooks.example.org@127.0.0.1",
        "hooks.example.org#@127.0.0.1",
        "hooks.example.org\\@127.0.0.1",
        "127.0.0.1.",
        "user:pass@hooks.example.org",
        "HOOKS.example.org",
    ],
)
async def test_bare_addresses_in_any_dress_are_no_hosts(
    canary: Canary, shown: Certificates, host: str
) -> None:
    authority = f"{host}:{canary.port}"
    # Even where somebody had listed it, and with the system's own resolver, which knows 0x7f000001.
    hosts = {authority, f"{HOST}:{canary.port}", host}
    courier = a_courier(canary.port, shown, hosts=hosts, resolve=look_up)
    outcome = await told(courier, f"https://{authority}/alerts")
    assert outcome.error == "this host is not listed in WEBHOOK_HOSTS"
    assert not courier.may_tell(f"https://{authority}/alerts")
    assert canary.connections == 0


@pytest.mark.parametrize("name", ["0x7f000001", "2130706433", "127.1", "localhost"])
async def test_what_the_system_makes_of_a_number_is_checked_like_any_address(name: str) -> None:
    found = await look_up(name, 443)
    assert found
    assert not any(is_public(address) for address in found)


@pytest.mark.parametrize("url", ["http://{}/", "ftp://{}/", "https://other.example.org/", "//{}/"])
async def test_only_https_to_listed_hosts(canary: Canary, shown: Certificates, url: str) -> None:
    address = url.format(f"{HOST}:{canary.port}")
    courier = a_courier(canary.port, shown, "127.0.0.1", permits=lambda _: True)
    assert (await told(courier, address)).error == "this host is not listed in WEBHOOK_HOSTS"
    nobody = a_courier(canary.port, shown, "127.0.0.1", permits=lambda _: True, hosts=frozenset())
    assert not nobody.may_tell(f"https://{HOST}:{canary.port}/")
    assert (await told(nobody, f"https://{HOST}:{canary.port}/")).status is None
    assert canary.connections == 0


async def test_a_name_that_changes_its_mind_is_asked_once(shown: Certificates) -> None:
    """Rebinding: public when it is checked, private when it is used. There is no second asking."""
    asked: list[str] = []

    async def resolve(host: str, _port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.2" if len(asked) == 1 else "127.0.0.1"]

    def permits(address: str) -> bool:
        return address == "127.0.0.2"  # Stands for a public address.

    async with (
        receiving(shown, address="127.0.0.2") as receiver,
        a_canary("127.0.0.1", receiver.port) as canary,
    ):
        courier = a_courier(receiver.port, shown, resolve=resolve, permits=permits)
        assert (await told(courier, receiver.url)).status == 204
        assert asked == [HOST]
        assert (await told(courier, receiver.url)).error is not None
        assert (canary.connections, len(receiver.heard)) == (0, 1)


async def test_the_pinned_address_hears_the_name(shown: Certificates) -> None:
    """SNI and Host carry the name; the certificate is checked against it."""
    async with receiving(shown) as receiver:
        courier = a_courier(receiver.port, shown, "127.0.0.1", permits=lambda _: True)
        outcome = await told(courier, receiver.url)
        (heard,) = receiver.heard
    assert (outcome.status, outcome.error) == (204, None)
    assert heard.line == "POST /alerts?key=k HTTP/1.1"
    assert receiver.names == [HOST]
    assert heard.headers["host"] == f"{HOST}:{receiver.port}"
    assert "cookie" not in heard.headers
    assert "authorization" not in heard.headers


async def test_a_certificate_of_another_name_or_authority_is_refused(
    shown: Certificates, tmp_path: Path
) -> None:
    other_name = certificates(tmp_path / "name", "other.example.org")
    for served, trusted in ((other_name, other_name), (other_name, shown), (shown, other_name)):
        async with receiving(served) as receiver:
            courier = a_courier(receiver.port, trusted, "127.0.0.1", permits=lambda _: True)
            outcome = await told(courier, receiver.url)
            assert outcome.status is None
            assert outcome.error is not None
            assert "CERTIFICATE_VERIFY_FAILED" in outcome.error
            assert receiver.heard == []


def test_without_a_test_the_public_authorities_are_trusted_and_names_checked(
    shown: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(shown.authority))
    module.public_trust.cache_clear()
    context = module.public_trust()
    module.public_trust.cache_clear()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.cert_store_stats()["x509_ca"] > 50
    assert Courier(frozenset(), monotonic).trust is module.public_trust
    assert Courier(frozenset(), monotonic).permits is is_public


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(canary: Canary, shown: Certificates, status: int) -> None:
    async def elsewhere(_heard: Heard) -> bytes:
        return answering(status, b"", f"Location: https://127.0.0.1:{canary.port}/")

    async with receiving(shown, answer=elsewhere) as receiver:
        courier = a_courier(receiver.port, shown, "127.0.0.1", permits=lambda _: True)
        outcome = await told(courier, receiver.url)
    assert (outcome.status, outcome.error) == (status, f"answered {status}:")
    assert canary.connections == 0


async def test_no_proxy_of_the_environment_is_used(
    canary: Canary, shown: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{canary.port}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with receiving(shown) as receiver:
        courier = a_courier(receiver.port, shown, "127.0.0.1", permits=lambda _: True)
        assert (await told(courier, receiver.url)).status == 204
    assert canary.connections == 0


def never() -> Callable[[Heard], Any]:
    async def wait(_heard: Heard) -> bytes:
        await asyncio.Event().wait()
        return b""

    return wait


async def test_a_receiver_that_never_answers_is_given_up(shown: Certificates) -> None:
    async with receiving(shown, answer=never()) as receiver:
        courier = a_courier(
            receiver.port, shown, "127.0.0.1", permits=lambda _: True, timeout_s=0.3
        )
        outcome = await told(courier, receiver.url)
    assert (outcome.status, outcome.error) == (None, "no answer in time")
    assert Courier(frozenset(), monotonic).timeout_s == 5


async def test_a_name_server_that_hangs_is_given_up(shown: Certificates) -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    courier = a_courier(1, shown, resolve=resolve, timeout_s=0.1)
    assert (await told(courier, f"https://{HOST}:1/")).error == "no answer in time"


async def test_of_an_endless_answer_only_the_beginning_is_read(shown: Certificates) -> None:
    async def bad(_heard: Heard) -> bytes:
        return b"HTTP/1.1 500 X\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"

    async with receiving(shown, answer=bad) as receiver:
        receiver.endless = "坏\x00了\r\n".encode() * 1000
        # Time enough: whoever reads on would never end.
        courier = a_courier(receiver.port, shown, "127.0.0.1", permits=lambda _: True, timeout_s=60)
        outcome = await asyncio.wait_for(told(courier, receiver.url), 30)
    assert outcome.status == 500
    assert outcome.error is not None
    assert outcome.error.startswith("answered 500: 坏 了 坏 了")
    assert len(outcome.error) == 200


async def test_what_is_received_is_received_whatever_follows(shown: Certificates) -> None:
    async def good(_heard: Heard) -> bytes:
        return b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n"

    async with receiving(shown, answer=good) as receiver:
        receiver.endless = b"x" * 10_000
        courier = a_courier(receiver.port, shown, "127.0.0.1", permits=lambda _: True, timeout_s=60)
        outcome = await asyncio.wait_for(told(courier, receiver.url), 30)
    assert (outcome.status, outcome.error) == (200, None)


async def test_the_next_address_is_tried_when_the_first_refuses(shown: Certificates) -> None:
    async with receiving(shown, address="127.0.0.2") as receiver:
        courier = a_courier(receiver.port, shown, "127.0.0.3", "127.0.0.2", permits=lambda _: True)
        assert (await told(courier, receiver.url)).status == 204


async def test_a_name_that_is_not_found_is_a_failure(shown: Certificates) -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        raise OSError("no such name")

    lost = a_courier(1, shown, resolve=resolve)
    assert (await told(lost, f"https://{HOST}:1/")).error == "the name was not found: no such name"
    empty = a_courier(1, shown)
    assert (await told(empty, f"https://{HOST}:1/")).error == "the name has no address"
