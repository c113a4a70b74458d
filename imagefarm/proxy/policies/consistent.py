"""``hash KEY consistent``: a key goes to the next server on a ring.

As ngx_http_upstream_hash_module has it. The ring is made of the servers as they are written in
the configuration: several addresses of one name share its points and take turns.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import Final

from attrs import define

from imagefarm.config.variables import Template
from imagefarm.http.message import Request
from imagefarm.proxy.peer import Peer
from imagefarm.proxy.peers import Peers, Tier
from imagefarm.proxy.ring import Ring

from .rehash import MAX_REHASHES, in_turn


class ConsistentHash:
    """The policy. ``template`` makes the key of a request. Serves one group, whose ring it has."""

    __slots__ = ("_built", "_names", "_ring", "_template")

    keyed: Final = True

    def __init__(self, template: Template) -> None:
        self._template = template
        self._ring = Ring()
        self._names: dict[bytes, _Name] = {}
        #: What the ring was made of.
        self._built: tuple[Tier, int] | None = None

    def key(self, request: Request) -> bytes:
        """The key's value."""
        return self._template(request)

    def choose(self, peers: Peers, key: bytes, now: float, tried: Collection[Peer]) -> Peer | None:
        """The peer whose point ``key`` belongs to; if it is out, that of a later point."""
        tier = peers.primary
        if len(peers) < 2 or not key:
            return in_turn(peers, now, tried)
        tier.advance(now)
        if self._built != (tier, tier.version):
            self._build(tier)
        for server in islice(self._ring.servers(key), MAX_REHASHES + 1):
            peer = self._names[server].choose(tried)
            if peer is not None:
                return peer
        return in_turn(peers, now, tried)

    def _build(self, tier: Tier) -> None:
        members: dict[bytes, list[Peer]] = {}
        for peer in tier:
            members.setdefault(peer.server, []).append(peer)
        self._names = {name: _Name(tuple(some)) for name, some in members.items()}
        self._ring.update({name: max(p.weight for p in some) for name, some in members.items()})
        self._built = tier, tier.version


@define(eq=False)
class _Name:
    """The addresses of one server, and whose turn it is."""

    peers: tuple[Peer, ...]
    turn: int = 0

    def choose(self, tried: Collection[Peer]) -> Peer | None:
        """The next one that can be used."""
        size = len(self.peers)
        for index in range(self.turn, self.turn + size):
            peer = self.peers[index % size]
            if peer.listed and peer not in tried:
                self.turn = (index + 1) % size
                return peer
        return None
