"""Listening addresses: their sockets, factories and TLS contexts."""

from __future__ import annotations

from typing import Any

from attrs import evolve, frozen

from imagefarm.config.ast import Directive
from imagefarm.config.table import ListRow, Row, Scope
from imagefarm.http.by_address import ByAddress
from imagefarm.http.factory import HttpFactory
from imagefarm.http.parser import NamedLimits, widest
from imagefarm.http.proxied import ProxiedFactory
from imagefarm.http.tls_context import SniContexts
from imagefarm.http.tls_transport import TlsFactory
from imagefarm.http.transfer import head_settings
from imagefarm.process.sockets import Endpoint
from imagefarm.resources.build import Listener, server_names
from imagefarm.resources.listen import Listen


def endpoint_of(where: Listen) -> Endpoint:
    """The socket that a ``listen`` asks for."""
    plain = Endpoint.from_address(
        where.address,
        backlog=where.backlog,
        reuseport=where.reuseport,
        rcvbuf=where.rcvbuf,
        sndbuf=where.sndbuf,
    )
    return evolve(
        plain,
        deferred=where.deferred,
        fastopen=where.fastopen or 0,
        ipv6only=where.ipv6only,
        keepalive=where.so_keepalive,
    )


@frozen(eq=False)
class Door:
    """A listening address, the factory of its connections, and its TLS contexts."""

    listen: Listen
    factory: HttpFactory
    contexts: SniContexts | None
    nodelay: bool

    def outermost(self) -> Any:
        """The factory for the socket: PROXY header, TLS, HTTP."""
        factory: Any = self.factory
        if self.contexts is not None:
            first = self.contexts.servers[0].settings
            factory = TlsFactory(factory, self.contexts.default, first.buffer_size)
        if self.listen.proxy_protocol:
            factory = ProxiedFactory(self.factory, factory)
        return factory


@frozen(eq=False)
class Gate:
    """A socket: the door that it was opened for, and those of single addresses behind it."""

    endpoint: Endpoint
    door: Door
    others: tuple[Door, ...] = ()

    def factory(self) -> Any:
        """The factory for the socket."""
        factory = self.door.outermost()
        if not self.others:
            return factory
        others = {door.listen.address[0]: door.outermost() for door in self.others}
        return ByAddress(factory, others)


def place_of(scope: Scope, row: Row[Any] | ListRow[Any]) -> Directive:
    """The directive that gave ``row`` its value in ``scope``."""
    inner: Scope | None = scope
    while inner is not None:
        for kind, _, directive in inner.items:
            if kind is row:
                return directive
        inner = inner.parent
    raise LookupError(row.name)


def named_limits(listener: Listener) -> NamedLimits | None:
    """What decides by name how heads are read; None where it makes no difference."""
    heads = [head_settings(scope) for scope in listener.servers]
    if len({evolve(head, tcp_nodelay=True) for head in heads}) == 1:
        return None
    names = server_names(listener, heads)
    return NamedLimits(
        lambda name: names.find(name).item.limits,
        lambda name: names.find(name).item.client_header_timeout,
        widest([head.limits for head in heads]),
    )
