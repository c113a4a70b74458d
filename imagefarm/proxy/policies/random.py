"""``random [two [least_conn]]``: a peer by lot (ngx_http_upstream_random_module).

With ``two`` two are drawn, and the less busy for its weight is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from imagefarm.http.message import Request
from imagefarm.proxy.peer import Peer
from imagefarm.proxy.peers import Peers

from .rehash import MAX_REHASHES, in_turn


class Random:
    """The policy. ``draw(n)`` gives an integer from 0 to below ``n``, each equally likely."""

    __slots__ = ("_draw", "_two")

    keyed: Final = False

    def __init__(self, draw: Callable[[int], int], *, two: bool = False) -> None:
        self._draw = draw
        self._two = two

    def key(self, request: Request) -> bytes:
        """The choice depends on no property of the request."""
        return b""

    def choose(self, peers: Peers, key: bytes, now: float, tried: Collection[Peer]) -> Peer | None:
        """One of the peers, the more likely the more weight it has."""
        tier = peers.primary
        if len(tier) < 2:
            return in_turn(peers, now, tried)
        tier.advance(now)
        total = tier.sums[-1]
        other: Peer | None = None
        for _ in range(MAX_REHASHES + 1):
            peer = tier.at(self._draw(total))
            if peer is other or not peer.listed or peer in tried:
                continue
            if not self._two:
                return peer
            if other is not None:
                return other if peer.load > other.load else peer
            other = peer
        return in_turn(peers, now, tried)
