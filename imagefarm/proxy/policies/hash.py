"""``hash KEY``: requests with one key go to one peer (ngx_http_upstream_hash_module).

The same hash as nginx's and Cache::Memcached's, so that a farm which changes from nginx finds
its keys where they were. A change of the group moves most of them; see `consistent`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final
from zlib import crc32

from imagefarm.config.variables import Template
from imagefarm.http.message import Request
from imagefarm.proxy.peer import Peer
from imagefarm.proxy.peers import Peers

from .rehash import first_usable, in_turn


class Hash:
    """The policy. ``template`` makes the key of a request."""

    __slots__ = ("_template",)

    keyed: Final = True

    def __init__(self, template: Template) -> None:
        self._template = template

    def key(self, request: Request) -> bytes:
        """The key's value."""
        return self._template(request)

    def choose(self, peers: Peers, key: bytes, now: float, tried: Collection[Peer]) -> Peer | None:
        """The peer that ``key`` falls on; if it is out, the one a rehash falls on."""
        if len(peers.primary) < 2 or not key:
            return in_turn(peers, now, tried)
        return first_usable(peers, _points(key, peers.primary.sums[-1]), now, tried)


def _points(key: bytes, total: int) -> Iterator[int]:
    state = (crc32(key) >> 16) & 0x7FFF
    rehash = 0
    while True:
        yield state % total
        rehash += 1
        state += (crc32(b"%d" % rehash + key) >> 16) & 0x7FFF
