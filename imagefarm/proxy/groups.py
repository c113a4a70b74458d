"""All groups of a configuration: those it names, and those that an address implies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import evolve
from twisted.internet.defer import Deferred

from imagefarm.config.errors import ConfigurationError, Invalid, Problem
from imagefarm.config.table import Scope
from imagefarm.http.places import Places

from .addresses import Authority, parse_authority, resolve
from .destinations import Destinations
from .group import Group
from .membership import Membership
from .methods import method
from .names.directives import ResolverSettings
from .names.resolvers import Resolvers
from .peer import Peer
from .peers import Peers
from .policies import RoundRobin
from .pool import KeepaliveSettings
from .upstream_directives import (
    KEEPALIVE,
    KEEPALIVE_REQUESTS,
    KEEPALIVE_TIME,
    KEEPALIVE_TIMEOUT,
    STATE,
    UPSTREAM_BLOCK,
    ZONE,
    servers_of,
)

#: As in nginx, an address that no ``upstream`` block names keeps no connections.
_IMPLICIT: Final = KeepaliveSettings(connections=0)


class Groups:
    """The ``upstream`` blocks by name, and the implicit groups made so far."""

    def __init__(self, reactor: Any, places: Places | None = None) -> None:
        self.reactor = reactor
        self._places = places or Places(0, reactor.seconds)
        #: Harmless defects of the blocks.
        self.warnings: list[Problem] = []
        self._named: dict[str, Group] = {}
        self._implicit: dict[Authority, Group] = {}
        self.resolvers = Resolvers(reactor)
        self._destinations = Destinations(self.resolvers, self._make)
        self._memberships: list[Membership] = []

    @classmethod
    def from_scope(cls, http: Scope, reactor: Any, places: Places | None = None) -> Groups:
        """Build the groups of the ``http`` block. Raises `ConfigurationError`.

        ``places`` are those of the process.
        """
        groups = cls(reactor, places)
        problems: list[Problem] = []
        for scope in http.blocks(UPSTREAM_BLOCK):
            directive = scope.directive
            assert directive is not None
            try:
                if scope.value in groups._named:
                    raise Invalid(f'duplicate upstream "{scope.value}"')
                groups._named[scope.value] = groups._block(scope)
            except Invalid as error:
                problems.append(Problem(str(error), directive.file, directive.line))
        if problems:
            raise ConfigurationError(problems)
        return groups

    def find(self, authority: str, default_port: int | None = None) -> Group:
        """The group that a ``*_pass`` directive means: a block's name, or an address.

        ``default_port`` None demands a port. Raises `Invalid`.
        """
        parsed = parse_authority(authority)
        named = self._by_name(parsed, authority)
        if named is not None:
            return named
        if parsed.port is None and default_port is None and not parsed.path:
            raise Invalid(f'no port in upstream "{authority}"')
        port = parsed.port or default_port
        key = evolve(parsed, port=port)
        group = self._implicit.get(key)
        if group is None:
            addresses = resolve(parsed, port or 0, parsed.host)
            group = self._implicit[key] = self._make(authority, [Peer(a) for a in addresses])
        return group

    def dynamic(
        self,
        authority: str,
        default_port: int | None = None,
        names: ResolverSettings | None = None,
    ) -> Group | Deferred[Group]:
        """The group that the value of a variable means; ``names`` tells whom to ask for a name.

        Raises `Invalid`, and `UnknownHost` if there is nobody to ask. The Deferred errs with
        `UnknownHost`; it may be cancelled.
        """
        parsed = parse_authority(authority)
        if parsed.port is None and parsed.host in self._named:
            return self._named[parsed.host]
        if parsed.port is None and not parsed.path:
            if default_port is None:
                raise Invalid(f'no port in upstream "{authority}"')
            parsed = evolve(parsed, port=default_port)
        # As in nginx: what some other line names without variables was resolved there.
        fixed = self._implicit.get(parsed)
        return fixed or self._destinations.find(parsed, authority, names)

    @property
    def named(self) -> Mapping[str, Group]:
        """The ``upstream`` blocks, for the status page."""
        return self._named

    def start(self) -> None:
        """Begin to ask for the names of servers with ``resolve``."""
        for membership in self._memberships:
            membership.start()

    def stop(self) -> None:
        """Close all idle connections, and the others when they have finished."""
        for membership in self._memberships:
            membership.stop()
        self.resolvers.stop()
        self._destinations.stop()
        for groups in (self._named, self._implicit):
            for group in groups.values():
                group.stop()

    def _by_name(self, parsed: Authority, authority: str) -> Group | None:
        group = self._named.get(parsed.host)
        if group is not None and parsed.port is not None:
            raise Invalid(f'upstream "{parsed.host}" may not have port {parsed.port}')
        return group

    def _make(self, name: str, peers: list[Peer]) -> Group:
        return Group(
            self.reactor, name.encode(), Peers(peers), RoundRobin(), _IMPLICIT, self._places
        )

    def _block(self, scope: Scope) -> Group:
        """The group of one ``upstream`` block. Raises `Invalid`."""
        servers, state = servers_of(scope), scope[STATE]
        name: str = scope.value
        policy = method(scope, self.warnings)
        if not servers and state is None:
            raise Invalid("no servers are inside upstream")
        if state is None and all(server.backup for server in servers):
            raise Invalid(f'no servers in upstream "{name}"')
        membership = Membership(servers)
        names = ResolverSettings.from_scope(scope)
        if membership.changes and names is None:
            raise Invalid(f'no resolver defined to resolve names at run time in upstream "{name}"')
        keepalive = evolve(
            scope[KEEPALIVE],
            requests=scope[KEEPALIVE_REQUESTS],
            time=scope[KEEPALIVE_TIME],
            timeout=scope[KEEPALIVE_TIMEOUT],
        )
        encoded = name.encode("utf-8", "surrogateescape")
        group = Group(
            self.reactor, encoded, Peers(membership.peers()), policy, keepalive, self._places
        )
        group.zone = bool(scope[ZONE])
        group.state = None if state is None else state.path
        if membership.changes and names is not None:
            membership.follow(group, self.resolvers.get(names))
            self._memberships.append(membership)
        return group

    def __repr__(self) -> str:
        return f"<Groups {sorted(self._named)}>"
