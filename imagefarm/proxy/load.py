"""Peers by how busy they are, for ``least_conn``.

nginx's rule (ngx_http_upstream_least_conn_module.c): the peer with the fewest exchanges in
progress for its weight; among several such, smooth round robin, in which only they take part.
Peers with the same load share a `Turn`; a heap knows the least load.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection
from typing import Final

from .peer import Peer
from .turn import Turn

#: Emptied turns that are kept for the next load that occurs.
_SPARE: Final = 16


class ByLoad:
    """Chooses among the least busy of the peers that were added. A `peers.Arrangement`."""

    __slots__ = ("_known", "_loads", "_of", "_spare", "_turns")

    by_load = True

    def __init__(self) -> None:
        self._turns: dict[float, Turn] = {}
        #: The loads in ``_turns``, and some that have gone; each once.
        self._loads: list[float] = []
        self._known: set[float] = set()
        self._of: dict[Peer, float] = {}
        self._spare: list[Turn] = []

    def add(self, peer: Peer) -> None:
        """`peers.Arrangement`."""
        load = peer.load
        turn = self._turns.get(load)
        if turn is None:
            turn = self._turns[load] = self._spare.pop() if self._spare else Turn()
            if load not in self._known:
                self._known.add(load)
                heapq.heappush(self._loads, load)
        turn.add(peer)
        self._of[peer] = load

    def remove(self, peer: Peer) -> None:
        """`peers.Arrangement`."""
        load = self._of.pop(peer)
        turn = self._turns[load]
        turn.remove(peer)
        if not turn:
            del self._turns[load]
            if len(self._spare) < _SPARE:
                self._spare.append(turn)

    def loaded(self, peer: Peer) -> None:
        """`peers.Arrangement`."""
        if peer.load != self._of[peer]:
            self.remove(peer)
            self.add(peer)

    def choose(self, tried: Collection[Peer]) -> Peer | None:
        """`peers.Arrangement`."""
        away = [peer for peer in tried if peer in self._of]
        for peer in away:
            self.remove(peer)
        best = self._least()
        for peer in away:
            self.add(peer)
        return best

    def _least(self) -> Peer | None:
        loads = self._loads
        while loads and loads[0] not in self._turns:
            self._known.discard(heapq.heappop(loads))
        if not loads:
            return None
        turn = self._turns[loads[0]]
        # One alone is no round: nobody gains by it.
        return turn.only() or turn.choose(())

    def __repr__(self) -> str:
        return f"<ByLoad {len(self._of)} peers, {len(self._turns)} loads>"
