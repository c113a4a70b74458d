"""What the policies that draw a peer by a number share: draw again, and at last take turns."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from imagefarm.proxy.peer import Peer
from imagefarm.proxy.peers import Peers
from imagefarm.proxy.turn import Turn

#: nginx's bound: after so many peers that cannot be used the turn decides.
MAX_REHASHES: Final = 20


def in_turn(peers: Peers, now: float, tried: Collection[Peer]) -> Peer | None:
    """The next in turn, where drawing led nowhere; a ``backup`` one if no other is available."""
    return peers.primary.choose(Turn, now, tried) or peers.backup.choose(Turn, now, tried)


def first_usable(
    peers: Peers, points: Iterator[int], now: float, tried: Collection[Peer]
) -> Peer | None:
    """The first peer that can be used at the ``points`` of the summed weights.

    A retry begins anew with the same points, and passes over the peers tried before: each of
    them is free once, since nginx goes on where it was.
    """
    tier = peers.primary
    tier.advance(now)
    free = set(tried)
    misses = 0
    for point in points:
        peer = tier.at(point)
        if peer.listed and peer not in tried:
            return peer
        if peer in free:
            free.discard(peer)
            continue
        misses += 1
        if misses > MAX_REHASHES:
            break
    return in_turn(peers, now, tried)
