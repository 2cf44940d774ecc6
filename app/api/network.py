"""Where a request comes from: the peer, or what a trusted proxy says of it."""

from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from starlette.requests import HTTPConnection

UNKNOWN = "unknown"
Networks = Sequence[IPv4Network | IPv6Network]


def address_of(request: HTTPConnection, trusted: Networks) -> str:
    """Give the caller's address: the rightmost in X-Forwarded-For that no trusted proxy wrote."""
    peer = request.client.host if request.client else UNKNOWN
    if not _is_within(peer, trusted):
        return peer
    # Whatever the caller sent stands to the left of what our proxies added, in one header or in
    # several: so read all of them, and from the right.
    written = ",".join(request.headers.getlist("x-forwarded-for"))[-1000:]
    for hop in reversed([part.strip() for part in written.split(",") if part.strip()]):
        if not _is_within(hop, trusted):
            return hop
    return peer


def network_of(address: str) -> str:
    """Give the network that limits count by: /24, or /48 for IPv6."""
    found = _parsed(address)
    if found is None:
        return UNKNOWN
    return str(ip_network(f"{found}/{24 if found.version == 4 else 48}", strict=False))


def _is_within(address: str, networks: Networks) -> bool:
    found = _parsed(address)
    return found is not None and any(found in network for network in networks)


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    """Read an address; one of IPv4 in IPv6's clothes, or with a zone or a port, is itself."""
    text = address.split("%")[0]
    if text.startswith("["):
        text = text[1:].split("]")[0]
    elif text.count(":") == 1:
        text = text.split(":")[0]
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found
