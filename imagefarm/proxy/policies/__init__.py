"""Balancing policies, one a module. A policy decides and returns; the group acts."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from imagefarm.http.message import Request
from imagefarm.proxy.peer import Peer
from imagefarm.proxy.peers import Peers

from .consistent import ConsistentHash
from .hash import Hash
from .ip_hash import IpHash
from .least_conn import LeastConn
from .random import Random
from .round_robin import RoundRobin

__all__ = [
    "ConsistentHash", "Hash", "IpHash", "LeastConn", "Policy", "Random", "RoundRobin",
]  # fmt: skip


class Policy(Protocol):
    """Chooses the peer for a request. ``keyed``: by something of the request."""

    @property
    def keyed(self) -> bool:
        """See the class."""

    def key(self, request: Request) -> bytes:
        """What of ``request`` the choice depends on; empty if on nothing."""

    def choose(self, peers: Peers, key: bytes, now: float, tried: Collection[Peer]) -> Peer | None:
        """A peer that is available at ``now`` and not in ``tried``, or None if none is."""
