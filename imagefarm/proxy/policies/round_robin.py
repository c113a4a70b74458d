"""Smooth weighted round robin, nginx's default (``upstream`` without a method).

At each choice every available peer's current weight grows by its effective weight; the largest
wins and pays the sum of all. With weights 5, 1, 1 this gives a a b a c a a, not a a a a a b c.
A failure lowers the effective weight, each choice afterwards restores one unit of it, so that a
peer that recovers does not get its full share at once.
"""

from __future__ import annotations

from collections.abc import Collection

from imagefarm.http.message import Request
from imagefarm.proxy.peers import Peer, Peers


class RoundRobin:
    """The policy; its state is in the peers."""

    __slots__ = ()

    def key(self, request: Request) -> bytes:
        """The choice depends on no property of the request."""
        return b""

    def choose(self, peers: Peers, key: bytes, now: float, tried: Collection[Peer]) -> Peer | None:
        """The next peer in turn; a ``backup`` one only if no other is available."""
        if peers.single:
            only = (peers.primary or peers.backup)[0]
            return None if only.down or only.full or only in tried else only
        return _turn(peers.primary, now, tried) or _turn(peers.backup, now, tried)


def _turn(peers: tuple[Peer, ...], now: float, tried: Collection[Peer]) -> Peer | None:
    best: Peer | None = None
    total = 0
    for peer in peers:
        if peer in tried or not peer.available(now):
            continue
        peer.current_weight += peer.effective_weight
        total += peer.effective_weight
        if peer.effective_weight < peer.weight:
            peer.effective_weight += 1
        if best is None or peer.current_weight > best.current_weight:
            best = peer
    if best is not None:
        best.current_weight -= total
    return best
