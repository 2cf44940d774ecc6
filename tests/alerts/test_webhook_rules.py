"""Webhooks' decisions: what is heard, where to, how signed, when again, when no more."""

import re
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.alerts.rules import AlertKind, Severity
from app.alerts.webhooks.rules import (
    GIVE_UP,
    LONGEST_WAIT,
    OFF_AFTER,
    OFF_AFTER_FAILURES,
    Ear,
    Target,
    all_of,
    first_words,
    hears,
    is_public,
    must_switch_off,
    next_try,
    signature,
    target_of,
    wait_after,
)

AT = datetime(2026, 11, 23, 15, 40, tzinfo=UTC)
DOCS = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text("utf-8")


def test_pauses_double_to_a_bound_and_are_spread_over_all_of_it() -> None:
    bounds = [wait_after(attempts, 1.0).total_seconds() for attempts in range(1, 14)]
    assert bounds[:5] == [10, 20, 40, 80, 160]
    assert bounds == sorted(bounds)
    assert bounds[-1] == LONGEST_WAIT.total_seconds()
    assert wait_after(7, 0.0) == timedelta(0)
    assert wait_after(7, 0.5) == wait_after(7, 1.0) / 2
    assert wait_after(10_000, 1.0) == LONGEST_WAIT


@pytest.mark.parametrize("share", [0.4, 0.5, 0.6, 1.0])
def test_a_delivery_is_tried_for_about_a_day(share: float) -> None:
    at, attempts = AT, 1
    while (again := next_try(AT, attempts, share, at)) is not None:
        assert again < AT + GIVE_UP
        at, attempts = again, attempts + 1
    assert 12 <= attempts <= 30
    assert at >= AT + GIVE_UP - LONGEST_WAIT


def test_a_webhook_is_switched_off_after_many_failures_over_many_hours() -> None:
    assert must_switch_off(OFF_AFTER_FAILURES, AT, AT + OFF_AFTER)
    assert not must_switch_off(OFF_AFTER_FAILURES - 1, AT, AT + OFF_AFTER)
    assert not must_switch_off(10_000, AT, AT + OFF_AFTER - timedelta(seconds=1))


PUBLIC = ["8.8.8.8", "223.5.5.5", "2400:3200::1", "2606:4700:4700::1111"]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "223.5.5.5"])
def test_a_public_address_in_a_translators_dress_is_public(address: str) -> None:
    assert is_public(f"::ffff:{address}")
    assert is_public(f"64:ff9b::{address}")


@pytest.mark.parametrize(
    "address",
    [
        "fe80::1%eth0",
        "2606:4700:4700::1111%eth0",
        "fec0::1",
        "ff0e::1",
        "64:ff9b:1::8.8.8.8",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:db8::1",
        "2002:808:808::1",
        "2400:3200::5efe:7f00:1",
        "2400:3200::200:5efe:7f00:1",
        "3fff::1",
        "5f00::1",
        "100::1",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "198.18.0.1",
        "240.0.0.1",
        "",
        "example.org",
        "0x7f000001",
        "2130706433",
        "127.1",
        "8.8.8.8/32",
    ],
)
def test_what_is_not_public_or_no_address(address: str) -> None:
    assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_no_dress_makes_an_inner_address_public(address: IPv4Address) -> None:
    number = int(address)
    public = is_public(str(address))
    if not address.is_global:
        assert not public
    for dressed in (IPv6Address((0xFFFF << 32) | number), IPv6Address((0x64FF9B << 96) | number)):
        assert is_public(str(dressed)) is public
    for dressed in (
        IPv6Address(number),
        IPv6Address((0x2002 << 112) | (number << 80)),
        IPv6Address((0x20010000 << 96) | number),
        IPv6Address((0x24003200 << 96) | (0x5EFE << 32) | number),
    ):
        assert not is_public(str(dressed))


@given(st.ip_addresses(v=6))
def test_what_python_calls_private_is_never_public(address: IPv6Address) -> None:
    if is_public(str(address)):
        assert ip_address(address).is_global or address.ipv4_mapped is not None
        assert not address.is_multicast


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://hooks.example.org", Target("hooks.example.org", 443, "/")),
        ("https://hooks.example.org:443/a?b=c", Target("hooks.example.org", 443, "/a?b=c")),
        ("https://xn--fiq228c.example:8443/", Target("xn--fiq228c.example", 8443, "/")),
    ],
)
def test_addresses_of_webhooks(url: str, target: Target) -> None:
    assert target_of(url) == target


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://hooks.example.org/",
        "https://hooks.example.org/#a",
        "https://hooks.example.org/a b",
        "https://hooks.example.org/\r\nHost: x",
        "https://hooks.example.org\\@127.0.0.1/",
        "https://a@hooks.example.org/",
        "https://hooks.example.org:0/",
        "https://hooks.example.org:65536/",
        "https://hooks.example.org:/",
        "https://hooks.example.org?x",
        "https://hooks.example.org./",
        "https://-hooks.example.org/",
        "https://hooks..example.org/",
        "https://localhost/",
        "https://127.0.0.1/",
        "https://0x7f.1/",
        "https://[::1]/",
        "https://钩子.example.org/",
        "https://Hooks.example.org/",
        "https://" + "a." * 130 + "org/",
        "https://hooks.example.org/\n",
    ],
)
def test_what_is_no_address_of_a_webhook(url: str) -> None:
    assert target_of(url) is None


def test_the_port_of_https_is_not_named() -> None:
    found = target_of("https://hooks.example.org:443/")
    assert found is not None
    assert found.authority == "hooks.example.org"


def an_ear(**changes: Any) -> Ear:
    values: dict[str, Any] = {"path": "1.2", "has_city": False, "kinds": None, "severities": None}
    return Ear(**(values | changes))


def test_a_webhook_hears_its_branch_and_the_city_hears_all() -> None:
    kind = AlertKind.DOOR_FORCED
    assert hears(an_ear(), kind, "1.2")
    assert hears(an_ear(), kind, "1.2.7")
    assert not hears(an_ear(), kind, "1.20")
    assert not hears(an_ear(), kind, "1")
    assert not hears(an_ear(), kind, None)
    city = an_ear(path="1", has_city=True)
    assert hears(city, kind, "1.20.3")
    assert hears(city, kind, None)


def test_a_webhook_hears_the_kinds_and_severities_it_chose() -> None:
    chosen = an_ear(kinds=["door_forced", "door_held"], severities=["urgent"])
    assert hears(chosen, AlertKind.DOOR_FORCED, "1.2")
    assert not hears(chosen, AlertKind.DOOR_HELD, "1.2")  # Normal.
    assert not hears(chosen, AlertKind.TAMPER, "1.2")  # Not chosen.
    assert all_of([Severity.URGENT, Severity.NORMAL, Severity.URGENT]) == ["normal", "urgent"]
    assert all_of(None) is None


def test_what_a_failure_leaves_in_the_log_is_one_short_line() -> None:
    assert first_words("a\x00b\r\n\tc\x1b[31m") == "a b c [31m"
    assert len(first_words("坏" * 500)) == 200


def documented() -> dict[str, str]:
    """Read the test vector of the document."""
    found = re.findall(r"^\| (secret|timestamp|body|signature) \| `([^`]+)` \|$", DOCS, re.M)
    assert len(found) == 4
    return dict(found)


def test_the_document_has_a_test_vector_that_holds() -> None:
    vector = documented()
    body = vector["body"].encode()
    made = signature([vector["secret"]], int(vector["timestamp"]), body)
    assert made == vector["signature"]
    both = signature(["other", vector["secret"]], int(vector["timestamp"]), body)
    assert both.split(" ")[1] == made


def test_the_documents_ten_lines_verify_what_we_sign_and_nothing_else() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCS, re.S)
    assert len(example.strip().splitlines()) <= 12
    names: dict[str, Any] = {}
    exec(example, names)
    vector = documented()
    body, timestamp = vector["body"].encode(), vector["timestamp"]
    secret, now = vector["secret"], int(timestamp) + 60
    genuine = names["genuine"]

    def heads(signed: str, at: str = timestamp) -> dict[str, str]:
        return {"Yizhan-Timestamp": at, "Yizhan-Signature": signed}

    right = vector["signature"]
    assert genuine(heads(right), body, secret, now)
    assert genuine(heads(f"v1=00 {right}"), body, secret, now)
    assert not genuine(heads(right), body + b" ", secret, now)
    assert not genuine(heads(right), body, "other", now)
    assert not genuine(heads(right, str(int(timestamp) + 1)), body, secret, now)
    assert not genuine(heads(right), body, secret, now + 600)
    assert not genuine(heads("v1="), body, secret, now)
