"""``ip_hash``: requests of one client address go to one peer (ngx_http_upstream_ip_hash_module).

The same hash as nginx's, so that a farm which changes from nginx keeps its clients where they
were: over the first three octets of an IPv4 address or the whole of an IPv6 one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator
from typing import Final

from imagefarm.http.message import Request
from imagefarm.proxy.peer import Peer
from imagefarm.proxy.peers import Peers

from .rehash import first_usable, in_turn

#: nginx's stand-in for clients that have no IP address (Unix sockets).
_NO_ADDRESS = b"\0\0\0"


class IpHash:
    """The policy; holds nothing."""

    __slots__ = ()

    keyed: Final = True

    def key(self, request: Request) -> bytes:
        """The octets of the client's address that count."""
        return address_key(request.peer.address)

    def choose(self, peers: Peers, key: bytes, now: float, tried: Collection[Peer]) -> Peer | None:
        """The peer that ``key`` falls on; if it is out, the one a rehash falls on."""
        if len(peers.primary) < 2:
            return in_turn(peers, now, tried)
        return first_usable(peers, _points(key, peers.primary.sums[-1]), now, tried)


def _points(key: bytes, total: int) -> Iterator[int]:
    state = 89
    while True:
        for octet in key:
            state = (state * 113 + octet) % 6271
        yield state % total


def address_key(address: str) -> bytes:
    """The octets of a client address that ``ip_hash`` looks at."""
    try:
        packed = ipaddress.ip_address(address.partition("%")[0]).packed
    except ValueError:
        return _NO_ADDRESS
    return packed[:3] if len(packed) == 4 else packed
