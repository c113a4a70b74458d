"""nginx's choice of a peer, written down as plainly as nginx does it: a walk over all of them.

The reference that our policies are compared with, from the C sources of nginx 1.22
(ngx_http_upstream_round_robin.c and the modules of the methods). Times are any seconds.
"""

from __future__ import annotations

from collections.abc import Collection
from zlib import crc32

from attrs import define, field


@define(eq=False)
class ModelPeer:
    """ngx_http_upstream_rr_peer_t."""

    number: int
    weight: int = 1
    max_fails: int = 1
    fail_timeout: float = 10.0
    max_conns: int = 0
    down: bool = False
    conns: int = 0
    fails: int = 0
    accessed: float = float("-inf")
    checked: float = float("-inf")
    current_weight: int = 0
    effective_weight: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.effective_weight = self.weight


@define(eq=False)
class Model:
    """A group, or its backup servers."""

    peers: list[ModelPeer]
    method: str = "round_robin"
    single: bool = False

    def usable(self, peer: ModelPeer, now: float, tried: Collection[int]) -> bool:
        """The conditions that all methods share."""
        if peer.number in tried or peer.down:
            return False
        if (
            not self.single
            and peer.max_fails
            and peer.fails >= peer.max_fails
            and now - peer.checked <= peer.fail_timeout
        ):
            return False
        return not (peer.max_conns and peer.conns >= peer.max_conns)

    def choose(self, now: float, tried: Collection[int] = (), key: bytes = b"") -> int | None:
        """The number of the peer that gets a request, which is taken."""
        usable = [peer for peer in self.peers if self.usable(peer, now, tried)]
        if self.method == "least_conn":
            best = self._least(usable)
        elif self.method == "hash":
            best = self._hashed(usable, key, tried)
        else:
            best = self._turn(usable)
        if best is None:
            return None
        best.conns += 1
        if now - best.checked > best.fail_timeout:
            best.checked = now
        return best.number

    def _turn(self, usable: list[ModelPeer]) -> ModelPeer | None:
        best: ModelPeer | None = None
        total = 0
        for peer in usable:
            peer.current_weight += peer.effective_weight
            total += peer.effective_weight
            if peer.effective_weight < peer.weight:
                peer.effective_weight += 1
            if best is None or peer.current_weight > best.current_weight:
                best = peer
        if best is not None:
            best.current_weight -= total
        return best

    def _least(self, usable: list[ModelPeer]) -> ModelPeer | None:
        best: ModelPeer | None = None
        many = False
        for peer in usable:
            if best is None or peer.conns * best.weight < best.conns * peer.weight:
                best, many = peer, False
            elif peer.conns * best.weight == best.conns * peer.weight:
                many = True
        if best is None or not many:
            return best
        return self._turn([p for p in usable if p.conns * best.weight == best.conns * p.weight])

    def _hashed(
        self, usable: list[ModelPeer], key: bytes, tried: Collection[int]
    ) -> ModelPeer | None:
        total = sum(peer.weight for peer in self.peers)
        value, rehash, tries = 0, 0, 0
        passed: set[int] = set()
        while tries <= 20:
            value += crc32((b"%d" % rehash if rehash else b"") + key) >> 16 & 0x7FFF
            rehash += 1
            weight = value % total
            for peer in self.peers:
                if weight < peer.weight:
                    break
                weight -= peer.weight
            if peer in usable:
                return peer
            if peer.number in tried and peer.number not in passed:
                passed.add(peer.number)  # where an earlier try went on from
            else:
                tries += 1
        return self._turn(usable)

    def free(self, number: int, now: float, *, failed: bool) -> None:
        """A request that peer ``number`` had is over."""
        peer = self.peers[number]
        peer.conns -= 1
        if self.single:
            return
        if not failed:
            if peer.accessed < peer.checked:
                peer.fails = 0
            return
        peer.fails += 1
        peer.accessed = peer.checked = now
        if peer.max_fails:
            left = peer.effective_weight - peer.weight // peer.max_fails
            peer.effective_weight = max(0, left)
