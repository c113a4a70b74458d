"""Who belongs to an ``upstream`` block: its ``server`` lines, and where their names lead now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from attrs import evolve
from twisted.logger import Logger

from .group import Group
from .names.follow import Follower, Place
from .names.resolver import Resolver
from .peer import Peer
from .upstream_directives import ServerSpec


class Membership:
    """The peers of one group. `follow` and `start` it if it `changes`."""

    log = Logger()

    def __init__(self, servers: Sequence[ServerSpec]) -> None:
        self._servers = tuple(servers)
        #: For each server where it is; None as long as nobody has said.
        self._places: list[tuple[Place, ...] | None] = [
            None if server.named else tuple(map(Place, server.addresses)) for server in servers
        ]
        self._followers: list[Follower] = []
        self._group: Group | None = None
        self._ours: set[Peer] = set()

    @property
    def changes(self) -> bool:
        """Whether names are to be followed."""
        return any(server.named for server in self._servers)

    def peers(self) -> Iterator[Peer]:
        """The peers as far as they are known, each a new one."""
        for server, places in zip(self._servers, self._places, strict=True):
            for place in places or ():
                if place.spare and server.backup:
                    continue  # as in nginx: a spare of the spares is never asked
                backup = server.backup or place.spare
                weight = place.weight or server.weight
                yield evolve(server, weight=weight, backup=backup).peer(place.address)

    def follow(self, group: Group, resolver: Resolver) -> None:
        """``group`` is to have what ``resolver`` finds; until then its requests wait."""
        self._group = group
        self._ours = set(group.peers)
        where = group.name.decode("utf-8", "replace")
        for index, server in enumerate(self._servers):
            if server.named is not None:
                changed = partial(self._changed, index)
                self._followers.append(Follower(resolver, server.named, where, changed))
        if not any(self._places):
            group.hold()

    def start(self) -> None:
        """Begin to ask."""
        for follower in self._followers:
            follower.start()

    def stop(self) -> None:
        """Ask no more."""
        for follower in self._followers:
            follower.stop()

    def _changed(self, index: int, places: tuple[Place, ...]) -> None:
        group = self._group
        assert group is not None
        before, self._places[index] = self._places[index] or (), places
        # Servers that operators have added at run time are none of ours, and stay.
        others = [peer for peer in group.peers if peer not in self._ours]
        group.replace([*self.peers(), *others])
        self._ours = set(group.peers).difference(others)
        if any(self._places) or None not in self._places:
            group.release()
        self._report(self._servers[index], before, places)

    def _report(
        self, server: ServerSpec, before: tuple[Place, ...], places: tuple[Place, ...]
    ) -> None:
        assert self._group is not None
        say = self.log.info if places else self.log.warn
        say(
            'addresses of {name} in upstream "{group}": {now}; new: {new}; gone: {gone}',
            name=server.name.decode("utf-8", "replace"),
            group=self._group.name.decode("utf-8", "replace"),
            now=_listed(places),
            new=_listed(place for place in places if place not in before),
            gone=_listed(place for place in before if place not in places),
        )


def _listed(places: Iterable[Place]) -> str:
    return ", ".join(place.address.name.decode("ascii") for place in places) or "none"
