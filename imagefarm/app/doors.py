"""Listening addresses: their sockets, factories and TLS contexts."""

from __future__ import annotations

import datetime
from typing import Any

from attrs import evolve, frozen
from OpenSSL import SSL

from imagefarm.config.ast import Directive
from imagefarm.config.errors import ConfigurationError, Invalid, Problem
from imagefarm.config.table import Row, Scope
from imagefarm.http.by_address import ByAddress
from imagefarm.http.factory import HttpFactory
from imagefarm.http.parser import NamedLimits, widest
from imagefarm.http.proxied import ProxiedFactory
from imagefarm.http.tls import (
    CERTIFICATE,
    SELF_SIGNED,
    SniContexts,
    TlsSettings,
    make_context,
)
from imagefarm.http.tls_transport import TlsFactory
from imagefarm.http.transfer import head_settings
from imagefarm.process.certificate import ensure_self_signed
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
            factory = TlsFactory(factory, self.contexts.default)
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


def place_of(scope: Scope, row: Row[Any]) -> Directive:
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


def contexts(listener: Listener) -> SniContexts:
    """The TLS contexts of a listening address. Raises `ConfigurationError`."""
    made: list[SSL.Context] = []
    alike: dict[TlsSettings, SSL.Context] = {}
    found: list[Problem] = []
    for scope in listener.servers:
        directive = scope.directive
        assert directive is not None
        try:
            settings = TlsSettings.from_scope(scope)
            if settings is not None:
                directive = place_of(scope, CERTIFICATE)
            else:
                raise Invalid('no "ssl_certificate" is defined for the "listen ... ssl" directive')
            if scope[SELF_SIGNED]:
                now = datetime.datetime.now(datetime.UTC)
                ensure_self_signed(settings.certificate, settings.key, now)
            if settings not in alike:
                alike[settings] = make_context(settings)
            made.append(alike[settings])
        except Invalid as error:
            found.append(Problem(str(error), directive.file, directive.line))
    if found:  # several servers may have the same certificate
        raise ConfigurationError(list(dict.fromkeys(found)))
    if len(alike) == 1:
        return SniContexts(made[0], None)
    names = server_names(listener, made)

    def choose(name: bytes) -> SSL.Context:
        return names.find(name).item

    return SniContexts(made[0], choose)
