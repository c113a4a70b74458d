"""``ip_hash``: requests of one client address go to one peer (ngx_http_upstream_ip_hash_module).

The same hash as nginx's, so that a farm which changes from nginx keeps its clients where they
were: over the first three octets of an IPv4 address or the whole of an IPv6 one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from imagefarm.http.message import Request
from imagefarm.proxy.peers import Peer, Peers

from .round_robin import RoundRobin

#: After so many peers that cannot be used the turn decides, not the hash.
MAX_REHASHES = 20
#: nginx's stand-in for clients that have no IP address (Unix sockets).
_NO_ADDRESS = b"\0\0\0"


class IpHash:
    """The policy; holds nothing but the one it falls back to."""

    __slots__ = ("_fallback",)

    def __init__(self) -> None:
        self._fallback = RoundRobin()

    def key(self, request: Request) -> bytes:
        """The octets of the client's address that count."""
        return address_key(request.peer.address)

    def choose(self, peers: Peers, key: bytes, now: float, tried: Collection[Peer]) -> Peer | None:
        """The peer that ``key`` falls on; if it is out, the one a rehash falls on."""
        if peers.single or len(peers.primary) < 2:
            return self._fallback.choose(peers, key, now, tried)
        total = sum(peer.weight for peer in peers.primary)
        state = 89
        for _ in range(MAX_REHASHES + 1):
            for octet in key:
                state = (state * 113 + octet) % 6271
            peer = _at(peers.primary, state % total)
            if peer not in tried and peer.available(now):
                return peer
        return self._fallback.choose(peers, key, now, tried)


def address_key(address: str) -> bytes:
    """The octets of a client address that ``ip_hash`` looks at."""
    try:
        packed = ipaddress.ip_address(address.partition("%")[0]).packed
    except ValueError:
        return _NO_ADDRESS
    return packed[:3] if len(packed) == 4 else packed


def _at(peers: tuple[Peer, ...], weight: int) -> Peer:
    for peer in peers:
        if weight < peer.weight:
            return peer
        weight -= peer.weight
    raise AssertionError("the weight exceeds the sum of all weights")
