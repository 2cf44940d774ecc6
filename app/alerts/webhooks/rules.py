"""What a webhook hears, where it may lead, how it is signed, retried and switched off. Pure."""

import hmac
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from app.alerts.rules import BEHAVIOUR, AlertKind, Severity
from app.places.rules import is_within


class EventKind(StrEnum):
    """What a webhook tells; closed, and stable in the API."""

    OPENED = "alert.opened"
    ACKNOWLEDGED = "alert.acknowledged"
    CLOSED = "alert.closed"
    TEST = "test"


class DeliveryState(StrEnum):
    """What became of a delivery."""

    DUE = "due"
    DELIVERED = "delivered"
    FAILED = "failed"
    """Given up."""


class OffBecause(StrEnum):
    """Why a webhook is off."""

    FAILURES = "failures"
    ADMINISTRATOR = "administrator"


TIMEOUT = timedelta(seconds=5)
"""For the whole of one try: name, connection, answer."""
ERROR_LENGTH = 200
"""Characters of a failure that the log keeps."""

CLAIM = timedelta(minutes=1)
"""A delivery that a process took and did not settle is taken again after so long."""
FIRST_WAIT = timedelta(seconds=10)
LONGEST_WAIT = timedelta(hours=4)
GIVE_UP = timedelta(hours=24)
"""A delivery this old is not tried again: about twenty tries, most of them in the first hours."""

OFF_AFTER_FAILURES = 20
OFF_AFTER = timedelta(hours=12)
"""So many failures in a row, over so long, switch a webhook off: an evening's outage does not."""

OVERLAP = timedelta(hours=24)
"""So long a replaced secret signs beside the new one, unless somebody says otherwise."""


def wait_after(attempts: int, share: float) -> timedelta:
    """Give the pause after so many failed tries: `share` (0 to 1) of a bound that doubles.

    The share is drawn anew each time (full jitter), so that what failed together does not come
    back together.
    """
    doublings = min(max(attempts - 1, 0), 20)
    return min(FIRST_WAIT * (1 << doublings), LONGEST_WAIT) * share


def next_try(created_at: datetime, attempts: int, share: float, at: datetime) -> datetime | None:
    """Give when to try again; None: no more, a day has passed."""
    again = at + wait_after(attempts, share)
    return None if again >= created_at + GIVE_UP else again


def must_switch_off(failures: int, failing_since: datetime, at: datetime) -> bool:
    """Whether a webhook has failed often enough, and for long enough, to be switched off."""
    return failures >= OFF_AFTER_FAILURES and at - failing_since >= OFF_AFTER


@dataclass(frozen=True, slots=True)
class Ear:
    """What a webhook listens to."""

    path: str
    """Its unit's."""
    has_city: bool
    """Its unit is the city: it hears what concerns no station, too."""
    kinds: Collection[str] | None
    severities: Collection[str] | None
    """None: all of them."""


def hears(ear: Ear, kind: AlertKind, station_path: str | None) -> bool:
    """Whether a webhook wants an alert of this kind at a station of this unit; None: no station."""
    if ear.kinds is not None and kind.value not in ear.kinds:
        return False
    if ear.severities is not None and BEHAVIOUR[kind].severity.value not in ear.severities:
        return False
    return ear.has_city if station_path is None else is_within(station_path, ear.path)


def all_of(chosen: Collection[AlertKind | Severity] | None) -> list[str] | None:
    """Give a choice as it is stored: sorted, each once; None: all."""
    return None if chosen is None else sorted({each.value for each in chosen})


_HOST = r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
_URL = re.compile(
    rf"https://(?P<host>{_HOST})(?::(?P<port>[1-9][0-9]{{0,4}}))?"
    r"(?P<path>/[!$%&'()*+,./0-9:;=?@A-Z_a-z~-]*)?"
)
"""One shape, whole: no user, no fragment, no backslash, no bare address, nothing to be parsed in
two ways. A last label that begins with a letter is no number in disguise."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a webhook leads."""

    host: str
    port: int
    path: str
    """With the query, if there is one."""

    @property
    def authority(self) -> str:
        """The host as settings and the Host header name it: with its port unless that is 443."""
        return self.host if self.port == 443 else f"{self.host}:{self.port}"


def target_of(url: str) -> Target | None:
    """Take a webhook's address apart; None unless it is `https://name[:port][/path][?query]`."""
    found = _URL.fullmatch(url)
    if found is None or len(found["host"]) > 253:
        return None
    port = int(found["port"] or 443)
    return Target(found["host"], port, found["path"] or "/") if port <= 65535 else None


_PUBLIC_6 = IPv6Network("2000::/3")
"""All that is given out as global unicast today; loopback, ULA, link and multicast lie outside."""
_NAT64 = IPv6Network("64:ff9b::/96")
_NOT_PUBLIC_6 = (
    IPv6Network("2001::/23"),  # Protocol assignments, Teredo (which carries an IPv4) among them.
    IPv6Network("2001:db8::/32"),
    IPv6Network("2002::/16"),  # 6to4: carries an IPv4 address.
    IPv6Network("3fff::/20"),
)
_NOT_PUBLIC_4 = (
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.88.99.0/24"),  # Relays of 6to4.
)
"""What `is_global` of some Python versions lets through."""
_ISATAP = (0x00005EFE, 0x02005EFE)
"""The middle of an IPv6 address that carries an IPv4 one (RFC 5214)."""


def is_public(address: str) -> bool:
    """Whether an address is one on the open internet, whatever it is wrapped in."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return _is_public_4(found) if isinstance(found, IPv4Address) else _is_public_6(found)


def _is_public_4(address: IPv4Address) -> bool:
    if any(address in network for network in _NOT_PUBLIC_4):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _is_public_6(address: IPv6Address) -> bool:
    if address.scope_id is not None:
        return False
    if address.ipv4_mapped is not None:
        return _is_public_4(address.ipv4_mapped)
    if address in _NAT64:
        return _is_public_4(IPv4Address(int(address) & 0xFFFFFFFF))
    if address not in _PUBLIC_6 or any(address in network for network in _NOT_PUBLIC_6):
        return False
    return address.is_global and (int(address) >> 32) & 0xFFFFFFFF not in _ISATAP


def signature(secrets: Sequence[str], timestamp: int, body: bytes) -> str:
    """Sign `timestamp.body` with every secret in force: `v1=<hex>`, with a space between."""
    signed = str(timestamp).encode() + b"." + body
    return " ".join(
        f"v1={hmac.digest(secret.encode(), signed, 'sha256').hex()}" for secret in secrets
    )


def first_words(text: str) -> str:
    """Cut a failure for the log: one line, printable, at most ERROR_LENGTH characters."""
    line = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(line.split())[:ERROR_LENGTH]
