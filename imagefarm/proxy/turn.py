"""Smooth weighted round robin over peers that come and go, nginx's default method.

nginx's rule (ngx_http_upstream_round_robin.c): in each round every available peer's current
weight grows by its effective weight; the largest, the first of several, wins and pays the sum of
all. With weights 5, 1, 1 this gives a a b a c a a, not a a a a a b c. A failure lowers the
effective weight, each round afterwards restores one unit of it.

Here a round does not look at all of them, and the sequence is nginx's to the last request. What
a peer has is ``base + share * round``. Peers with equal shares grow in step, so that among them
nothing changes but for the one that pays: they are a `_Lane` with a heap. The lanes' first ones
meet in a `Tournament`. So a round costs the logarithm of the number of peers.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection
from itertools import count

from attrs import define

from .peer import Peer
from .tournament import Line, Tournament


@define(eq=False)
class _Seat:
    """A peer's place in a lane. ``base`` is as of round 0; ``serial`` tells seats of one peer."""

    peer: Peer
    lane: _Lane
    base: int
    serial: int
    alive: bool = True

    @property
    def entry(self) -> _Entry:
        """Its entry in the lane's heap: who has most, then who is first."""
        return -self.base, self.peer.order, self.serial, self


_Entry = tuple[int, int, int, _Seat]


class _Lane(Line):
    """The peers with one share; as a `Line` it is the first of them.

    Some entries of ``heap`` may be of seats that are dead.
    """

    __slots__ = ("heap", "living")

    def __init__(self, share: int) -> None:
        super().__init__(share)
        self.heap: list[_Entry] = []
        self.living = 0

    def push(self, seat: _Seat) -> None:
        """Add an entry for ``seat``."""
        if len(self.heap) > 2 * self.living + 8:
            self.heap = [entry for entry in self.heap if entry[3].alive]
            heapq.heapify(self.heap)
        heapq.heappush(self.heap, seat.entry)

    def settle(self) -> bool:
        """Find who is first now, of at least one alive; returns whether that changed anything."""
        heap = self.heap
        while not heap[0][3].alive:
            heapq.heappop(heap)
        first = heap[0][3]
        if first.base == self.base and first.peer.order == self.order:
            return False
        self.base, self.order = first.base, first.peer.order
        return True


class Turn:
    """Chooses in turn among the peers that were added. A `peers.Arrangement`."""

    __slots__ = (
        "_lanes", "_recovering", "_round", "_seats", "_serials", "_total", "_tournament",
    )  # fmt: skip

    by_load = False

    def __init__(self) -> None:
        self._round = 0
        self._total = 0
        self._serials = count()
        self._lanes: dict[int, _Lane] = {}
        self._tournament: Tournament[_Lane] = Tournament()
        self._seats: dict[Peer, _Seat] = {}
        #: Whose effective weight is below the weight.
        self._recovering: dict[Peer, None] = {}

    def __len__(self) -> int:
        return len(self._seats)

    def __contains__(self, peer: Peer) -> bool:
        return peer in self._seats

    def add(self, peer: Peer) -> None:
        """`peers.Arrangement`; it goes on with the current weight it has."""
        share = peer.share
        lane = self._lanes.get(share)
        new = lane is None
        if lane is None:
            lane = self._lanes[share] = _Lane(share)
        seat = _Seat(peer, lane, peer.current_weight - share * self._round, next(self._serials))
        lane.push(seat)
        lane.living += 1
        settled = lane.settle()
        if new:
            self._tournament.add(lane, self._round)
        elif settled:
            self._tournament.changed(lane, self._round)
        self._seats[peer] = seat
        self._total += share
        if peer.effective_weight < peer.weight:
            self._recovering[peer] = None

    def remove(self, peer: Peer) -> None:
        """`peers.Arrangement`; the peer takes its current weight along."""
        seat = self._seats.pop(peer)
        seat.alive = False
        lane = seat.lane
        lane.living -= 1
        if not lane.living:
            del self._lanes[lane.slope]
            self._tournament.remove(lane, self._round)
        elif lane.settle():
            self._tournament.changed(lane, self._round)
        peer.current_weight = seat.base + lane.slope * self._round
        self._total -= lane.slope
        self._recovering.pop(peer, None)

    def loaded(self, peer: Peer) -> None:
        """`peers.Arrangement`; it makes no difference here."""

    def only(self) -> Peer | None:
        """The peer, if there is but one."""
        return next(iter(self._seats)) if len(self._seats) == 1 else None

    def choose(self, tried: Collection[Peer]) -> Peer | None:
        """`peers.Arrangement`."""
        if not tried:
            return self._next()
        # Who was tried sits out this round: it neither gains nor counts.
        away = [peer for peer in tried if peer in self._seats]
        for peer in away:
            self.remove(peer)
        best = self._next()
        for peer in away:
            self.add(peer)
        return best

    def _next(self) -> Peer | None:
        self._round += 1
        lane = self._tournament.highest(self._round)
        if lane is None:
            return None
        best = lane.heap[0][3]
        best.base -= self._total
        heapq.heapreplace(lane.heap, best.entry)
        if lane.settle():
            self._tournament.changed(lane, self._round)
        if self._recovering:
            self._recover()
        return best.peer

    def _recover(self) -> None:
        """After a round everyone in it has one unit of its effective weight back."""
        for peer in tuple(self._recovering):
            self.remove(peer)
            peer.effective_weight += 1
            self.add(peer)

    def __repr__(self) -> str:
        return f"<Turn {len(self._seats)} peers, round {self._round}>"
