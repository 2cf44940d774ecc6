"""Where a request comes from: the peer, or what a trusted proxy says of it."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.requests import HTTPConnection

UNKNOWN = "unknown"
Networks = Sequence[IPv4Network | IPv6Network]


def address_of(request: HTTPConnection, trusted: Networks) -> str:
    """Give the caller's address: the rightmost in X-Forwarded-For that no trusted proxy wrote."""
    peer = request.client.host if request.client else UNKNOWN
    if not _is_within(peer, trusted):
        return peer
    forwarded = request.headers.get("x-forwarded-for", "")[:1000]
    for hop in reversed([part.strip() for part in forwarded.split(",") if part.strip()]):
        if not _is_within(hop, trusted):
            return hop
    return peer


def network_of(address: str) -> str:
    """Give the network that limits count by: /24, or /48 for IPv6."""
    try:
        found = ip_address(address)
    except ValueError:
        return UNKNOWN
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return network_of(str(found.ipv4_mapped))
        return str(ip_network(f"{found}/48", strict=False))
    return str(ip_network(f"{found}/24", strict=False))


def _is_within(address: str, networks: Networks) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return any(found in network for network in networks)
