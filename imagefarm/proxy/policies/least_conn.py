"""``least_conn``: the least busy peer for its weight (ngx_http_upstream_least_conn_module)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from imagefarm.http.message import Request
from imagefarm.proxy.load import ByLoad
from imagefarm.proxy.peer import Peer
from imagefarm.proxy.peers import Peers


class LeastConn:
    """The policy; its state is in the peers."""

    __slots__ = ()

    keyed: Final = False

    def key(self, request: Request) -> bytes:
        """The choice depends on no property of the request."""
        return b""

    def choose(self, peers: Peers, key: bytes, now: float, tried: Collection[Peer]) -> Peer | None:
        """The least busy peer; a ``backup`` one only if no other is available."""
        return peers.primary.choose(ByLoad, now, tried) or peers.backup.choose(ByLoad, now, tried)
