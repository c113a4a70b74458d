"""The peers of a group, and which of them can be had.

A `Tier` keeps its available peers in an arrangement (`turn.Turn`, or `load.ByLoad` for
``least_conn``), and hears of every change from the peers themselves, so that no choice has to
look at all of them. What changes by the mere passing of time waits in a queue.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate, count
from typing import Final, Protocol, TypeVar

from .peer import Peer
from .turn import Turn


class Arrangement(Protocol):
    """An order in which the available peers of a tier are chosen."""

    #: Whether `loaded` wants to be told of each request that begins or ends.
    by_load: bool

    def add(self, peer: Peer) -> None:
        """``peer`` can be chosen from now on."""

    def remove(self, peer: Peer) -> None:
        """And now it can't."""

    def loaded(self, peer: Peer) -> None:
        """``peer.conns`` of one that can be chosen changed."""

    def choose(self, tried: Collection[Peer]) -> Peer | None:
        """The next one that is not in ``tried``, which takes its turn by this."""


A = TypeVar("A", bound=Arrangement)
_IDLE: Final = float("inf")


class Tier:
    """The ordinary peers of a group, or the ``backup`` ones. A `peer.Keeper` and a sequence.

    ``version`` changes with the peers and their weights: what is derived from them (hash rings)
    is good as long as it is the same. ``now`` is the last moment the tier was told.
    """

    __slots__ = ("_arrangement", "_queue", "_sums", "now", "peers", "serving", "version")

    def __init__(self) -> None:
        self.peers: tuple[Peer, ...] = ()
        self.version = 0
        #: How many peers are neither down, nor draining, nor unhealthy.
        self.serving = 0
        self.now = float("-inf")
        self._arrangement: Arrangement = Turn()
        self._queue: list[tuple[float, int, Peer]] = []
        self._sums: list[int] | None = None

    def __len__(self) -> int:
        return len(self.peers)

    def __iter__(self) -> Iterator[Peer]:
        return iter(self.peers)

    def __getitem__(self, index: int) -> Peer:
        return self.peers[index]

    # -- choosing ------------------------------------------------------------------------------

    def choose(self, kind: type[Arrangement], now: float, tried: Collection[Peer]) -> Peer | None:
        """The next peer in the order ``kind``, available at ``now`` and not in ``tried``.

        A tier serves one kind; asking for another one arranges the peers anew.
        """
        self.advance(now)
        if type(self._arrangement) is not kind:
            self._arrange(kind)
        return self._arrangement.choose(tried)

    def at(self, point: int) -> Peer:
        """The peer on whose weight ``point`` falls, 0 being the first unit of the first peer's."""
        return self.peers[bisect_right(self.sums, point)]

    @property
    def sums(self) -> Sequence[int]:
        """The running sums of the configured weights; the last is the sum of all."""
        if self._sums is None:
            self._sums = list(accumulate(peer.weight for peer in self.peers))
        return self._sums

    def advance(self, now: float) -> None:
        """It is ``now``: peers whose time has come are looked at again."""
        self.now = now
        queue = self._queue
        while queue and queue[0][0] < now:
            at, _, peer = heapq.heappop(queue)
            if at == peer.waking and peer.keeper is self:
                peer.waking = _IDLE
                peer.tick(now)

    # -- what peers tell -------------------------------------------------------------------------

    def review(self, peer: Peer, now: float) -> None:
        """`peer.Keeper`."""
        if peer.in_service is not peer.serving:
            peer.serving = peer.in_service
            self.serving += 1 if peer.serving else -1
        available = peer.available(now)
        if available is not peer.listed:
            peer.listed = available
            if available:
                self._arrangement.add(peer)
            else:
                self._arrangement.remove(peer)

    def loaded(self, peer: Peer) -> None:
        """`peer.Keeper`."""
        if peer.max_conns:
            self.review(peer, self.now)
        if peer.listed and self._arrangement.by_load:
            self._arrangement.loaded(peer)

    def reshared(self, peer: Peer, *, weight: bool = False) -> None:
        """`peer.Keeper`."""
        if weight:
            self.version += 1
            self._sums = None
        if peer.listed:
            self._arrangement.remove(peer)
            self._arrangement.add(peer)

    def wake(self, peer: Peer, at: float) -> None:
        """`peer.Keeper`."""
        if at < peer.waking:
            peer.waking = at
            heapq.heappush(self._queue, (at, peer.id, peer))

    # -- membership ------------------------------------------------------------------------------

    def replace(self, peers: Iterable[Peer]) -> None:
        """These are the peers now, in this order. Those that stay keep all they have."""
        before = self.peers
        self.peers = tuple(peers)
        self.version += 1
        self._sums = None
        for peer in before:
            if peer.listed:
                self._arrangement.remove(peer)
                peer.listed = False
            peer.keeper, peer.serving = None, False
        self.serving = 0
        for order, peer in enumerate(self.peers):
            peer.keeper, peer.order = self, order
        for peer in self.peers:
            self.review(peer, self.now)

    def _arrange(self, kind: type[Arrangement]) -> None:
        listed = [peer for peer in self.peers if peer.listed]
        for peer in listed:
            self._arrangement.remove(peer)
        self._arrangement = kind()
        for peer in listed:
            self._arrangement.add(peer)

    def __repr__(self) -> str:
        listed = sum(peer.listed for peer in self.peers)
        return f"<Tier {listed} of {len(self.peers)} available>"


class Peers:
    """The peers of a group: the ordinary ones, and the ones that only step in for them."""

    __slots__ = ("_ids", "_tries", "backup", "primary", "single")

    def __init__(self, peers: Iterable[Peer]) -> None:
        self.primary = Tier()
        self.backup = Tier()
        #: nginx ignores failures of the only peer of a group.
        self.single = False
        self._ids = count()
        self.replace(peers)

    def __iter__(self) -> Iterator[Peer]:
        yield from self.primary
        yield from self.backup

    def __len__(self) -> int:
        return len(self.primary) + len(self.backup)

    @property
    def tries(self) -> int:
        """How many peers a request may be tried on; those out for their failures count too."""
        return self.primary.serving + self.backup.serving

    def find(self, ident: int) -> Peer | None:
        """The peer with this `Peer.id`."""
        return next((peer for peer in self if peer.id == ident), None)

    def replace(self, peers: Iterable[Peer]) -> tuple[Peer, ...]:
        """These are the peers now; returns those that have gone.

        A peer that is there already (the same ``server`` line's name, address and ``backup``)
        stays with its state, counters and run-time weight, and the new object is dropped, so
        that a resolver may make all of them anew each time. What has gone finishes what it has;
        its idle connections are the caller's to close (`Group.replace` does).
        """
        # The same line twice makes two peers, as in nginx.
        known: dict[object, list[Peer]] = {}
        for peer in self:
            known.setdefault(_identity(peer), []).append(peer)
        staying: list[Peer] = []
        for peer in peers:
            same = known.get(_identity(peer))
            kept = same.pop(0) if same else peer
            staying.append(kept)
            if kept.id < 0:
                kept.id = next(self._ids)
        self.single = len(staying) == 1
        for peer in staying:
            peer.alone = self.single
        self.primary.replace(peer for peer in staying if not peer.backup)
        self.backup.replace(peer for peer in staying if peer.backup)
        return tuple(peer for same in known.values() for peer in same)

    def __repr__(self) -> str:
        return f"<Peers primary={self.primary!r} backup={self.backup!r}>"


def _identity(peer: Peer) -> object:
    return peer.server, peer.address, peer.backup
