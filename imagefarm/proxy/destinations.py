"""Where variables in ``proxy_pass`` and ``fastcgi_pass`` lead: groups made as they are needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import define
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from imagefarm.http.upstream import UnknownHost

from .addresses import Authority, literal, resolve
from .group import Group
from .names.directives import ResolverSettings
from .names.reply import Item, Unresolved
from .names.resolver import Resolved
from .names.resolvers import Resolvers
from .peer import Address, Peer

#: Groups that variables may bring into being; the oldest makes room.
MAX_DESTINATIONS: Final = 1000

_Key = tuple[Authority, ResolverSettings | None]


@define(eq=False)
class _Destination:
    group: Group
    items: tuple[Item, ...] = ()


class Destinations:
    """The groups of addresses and names that no ``upstream`` block stands for.

    A name's group is the same as long as it is asked for, so that what is known of its peers is
    not lost; its addresses are those that ``resolver`` has found last.
    """

    def __init__(self, resolvers: Resolvers, make: Callable[[str, list[Peer]], Group]) -> None:
        self._resolvers = resolvers
        self._make = make
        self._made: dict[_Key, _Destination] = {}

    def find(
        self, where: Authority, text: str, names: ResolverSettings | None
    ) -> Group | Deferred[Group]:
        """The group of ``where``, which has a port or a path; ``text`` is how it was written.

        Raises `UnknownHost` if there is nobody to ask for a name. The Deferred errs with it if
        the name cannot be resolved.
        """
        if where.path or literal(where.host) is not None:
            return self._fixed(where, text)
        if names is None:
            raise UnknownHost(f"no resolver defined to resolve {where.host}")
        found = self._resolvers.get(names).addresses(where.host)
        if isinstance(found, Deferred):
            return found.addCallbacks(
                self._resolved, _unresolved, callbackArgs=((where, names), text)
            )
        return self._resolved(found, (where, names), text)

    def _fixed(self, where: Authority, text: str) -> Group:
        made = self._made.get((where, None))
        if made is None:
            group = self._make(text, [Peer(address) for address in resolve(where, 0, text)])
            made = self._admit((where, None), _Destination(group))
        return made.group

    def _resolved(self, found: Resolved, key: _Key, text: str) -> Group:
        made = self._made.get(key)
        if made is not None and made.items == found.items:
            return made.group
        # Nameservers turn their answers round; the order means nothing to a group.
        if made is not None and set(made.items) == set(found.items):
            made.items = found.items
            return made.group
        port = key[0].port or 0
        peers = [Peer(Address(str(item), port)) for item in found.items]
        if made is None:
            made = self._admit(key, _Destination(self._make(text, peers)))
        else:
            made.group.replace(peers)
        made.items = found.items
        return made.group

    def _admit(self, key: _Key, destination: _Destination) -> _Destination:
        if len(self._made) >= MAX_DESTINATIONS:
            self._made.pop(next(iter(self._made))).group.stop()
        self._made[key] = destination
        return destination

    def stop(self) -> None:
        """Close all idle connections, and the others when they have finished."""
        for made in self._made.values():
            made.group.stop()


def _unresolved(failure: Failure) -> Group:
    failure.trap(Unresolved)
    raise UnknownHost(str(failure.value))
