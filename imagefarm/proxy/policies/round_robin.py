"""Smooth weighted round robin, nginx's default (``upstream`` without a method)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from imagefarm.http.message import Request
from imagefarm.proxy.peer import Peer
from imagefarm.proxy.peers import Peers
from imagefarm.proxy.turn import Turn


class RoundRobin:
    """The policy; its state is in the peers."""

    __slots__ = ()

    keyed: Final = False

    def key(self, request: Request) -> bytes:
        """The choice depends on no property of the request."""
        return b""

    def choose(self, peers: Peers, key: bytes, now: float, tried: Collection[Peer]) -> Peer | None:
        """The next peer in turn; a ``backup`` one only if no other is available."""
        return peers.primary.choose(Turn, now, tried) or peers.backup.choose(Turn, now, tried)
