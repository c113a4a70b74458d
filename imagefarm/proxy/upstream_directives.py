"""The ``upstream`` block and what stands in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from attrs import frozen

from imagefarm.config import values
from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import (
    HTTP,
    UPSTREAM,
    AnyRow,
    BlockRow,
    Environment,
    ListRow,
    Row,
    Scope,
)

from . import statefile
from .addresses import literal, parse_authority, resolve
from .names.follow import Named
from .peer import Address, Peer
from .pool import KeepaliveSettings

_INSIDE: Final = frozenset({UPSTREAM})
_DEFAULTS: Final = KeepaliveSettings()
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
#: nginx's: eight pages.
_ZONE_LEAST: Final = 8 * 4096


@frozen
class ServerSpec:
    """One ``server`` line; a name may stand for several addresses, each becomes a peer.

    ``name`` is the address as it was written. With ``resolve`` there are no addresses yet, and
    ``named`` is what to ask for.
    """

    addresses: tuple[Address, ...]
    name: bytes = b""
    weight: int = 1
    max_fails: int = 1
    fail_timeout: float = 10.0
    max_conns: int = 0
    slow_start: float = 0.0
    backup: bool = False
    down: bool = False
    drain: bool = False
    named: Named | None = None

    def peer(self, address: Address) -> Peer:
        """A new peer for one of the server's addresses."""
        return Peer(
            address,
            weight=self.weight,
            max_fails=self.max_fails,
            fail_timeout=self.fail_timeout,
            backup=self.backup,
            down=self.down,
            draining=self.drain,
            max_conns=self.max_conns,
            slow_start=self.slow_start,
            server=self.name,
        )


def _parameters(words: Sequence[str]) -> dict[str, Any]:
    """The words after the address. Raises `Invalid`."""
    parameters: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals and name in ("backup", "down", "drain", "resolve"):
            parameters[name] = True
        elif equals and name in ("weight", "max_fails", "max_conns"):
            if not _NUMBER.fullmatch(value) or (name == "weight" and not int(value)):
                raise Invalid(f'invalid parameter "{word}"')
            parameters[name] = int(value)
        elif equals and name in ("fail_timeout", "slow_start"):
            try:
                parameters[name] = values.parse_time(value)
            except Invalid:
                raise Invalid(f'invalid parameter "{word}"') from None
        elif equals and name == "service":
            if not value:
                raise Invalid("service is empty")
            parameters[name] = value
        else:
            raise Invalid(f'invalid parameter "{word}"')
    return parameters


def _server(directive: Directive, env: Environment) -> ServerSpec:
    where, *words = directive.args
    parameters = _parameters(words)
    service, follow = parameters.pop("service", ""), parameters.pop("resolve", False)
    authority = parse_authority(where)
    if service and not follow:
        raise Invalid(f'service upstream "{where}" requires "resolve" parameter')
    if service and authority.port is not None:
        raise Invalid(f'service upstream "{where}" may not have port')
    named = None
    if follow and not authority.path and literal(authority.host) is None:
        named = Named(authority.host, authority.port or 80, service)
    addresses = () if named else resolve(authority, 80, where)
    name = where.encode("utf-8", "surrogateescape")
    return ServerSpec(addresses, name, named=named, **parameters)


def _keepalive(directive: Directive, env: Environment) -> KeepaliveSettings:
    count, *more = directive.args
    if not re.fullmatch(r"[0-9]{1,9}", count):
        raise Invalid(f'invalid value "{count}" in "keepalive" directive')
    if more and more != ["local"]:
        raise Invalid(f'invalid parameter "{more[0]}"')
    return KeepaliveSettings(connections=int(count), local=bool(more))


def _zone(directive: Directive, env: Environment) -> str:
    name, *size = directive.args
    if not name:
        raise Invalid(f'invalid zone name "{name}"')
    if size:
        try:
            enough = values.parse_size(size[0]) >= _ZONE_LEAST
        except Invalid:
            raise Invalid(f'invalid zone size "{size[0]}"') from None
        if not enough:
            raise Invalid(f'zone "{name}" is too small')
    return name


@frozen
class State:
    """``state``: the file, and the servers that it has had when the configuration was read."""

    path: str
    servers: tuple[ServerSpec, ...]


def _state(directive: Directive, env: Environment) -> State:
    path = env.path(directive.args[0])
    lines = statefile.load(path)
    for line in lines:
        authority = parse_authority(line.args[0])
        if not authority.path and literal(authority.host) is None:
            # It would be written back as what it means today.
            raise Invalid(f'state file "{path}": "{line.args[0]}" is no address')
    return State(path, tuple(_server(line, env) for line in lines))


def servers_of(scope: Scope) -> tuple[ServerSpec, ...]:
    """The servers of an ``upstream`` block. Raises `Invalid`."""
    state, servers = scope[STATE], scope.all(UPSTREAM_SERVER)
    if state is None:
        return servers
    if servers:
        raise Invalid('"state" directive is incompatible with "server" directive')
    return state.servers


UPSTREAM_BLOCK: Final = BlockRow[str](
    name="upstream",
    contexts=frozenset({HTTP}),
    arity=(1, 1),
    opens=UPSTREAM,
    convert=values.text,
    syntax="name { ... }",
    doc="Defines a group of servers that ``proxy_pass`` and ``fastcgi_pass`` may name.",
)
UPSTREAM_SERVER: Final = ListRow[ServerSpec](
    name="server",
    contexts=_INSIDE,
    arity=(1, None),
    convert=_server,
    inherits=False,
    syntax="address [weight=number] [max_fails=number] [fail_timeout=time] [max_conns=number] "
    "[slow_start=time] [backup] [down] [drain] [resolve] [service=name]",
    doc="A server of the group: a host with an optional port (80), or ``unix:`` and a path. Names "
    "are resolved when the configuration is read; each address is a peer of its own. With "
    "``resolve`` the ``resolver`` is asked again and again and the peers change with its answers; "
    "``service`` has the ports and weights in SRV records. After "
    "``max_fails`` failures it is left alone for ``fail_timeout``; when it comes back it regains "
    "its weight within ``slow_start``. ``backup`` and ``slow_start`` cannot be used with "
    "``hash``, ``ip_hash`` and ``random``.",
)
KEEPALIVE: Final = Row[KeepaliveSettings](
    name="keepalive",
    contexts=_INSIDE,
    arity=(1, 2),
    convert=_keepalive,
    default=_DEFAULTS,
    default_text=str(_DEFAULTS.connections),
    inherits=False,
    syntax="connections [local]",
    doc="The most idle connections to the group's servers that are kept for the next request; the "
    "least recently used is closed when there are more. 0 keeps none. With "
    "``local`` a location uses only connections that were opened for it.",
)
KEEPALIVE_REQUESTS: Final = Row[int](
    name="keepalive_requests",
    contexts=_INSIDE,
    convert=values.number,
    default=_DEFAULTS.requests,
    inherits=False,
    syntax="number",
    doc="How many requests one connection to a server may carry before it is closed.",
)
KEEPALIVE_TIME: Final = Row[float](
    name="keepalive_time",
    contexts=_INSIDE,
    convert=values.time,
    default=_DEFAULTS.time,
    inherits=False,
    syntax="time",
    doc="How long after it was opened a connection to a server may be used again.",
)
KEEPALIVE_TIMEOUT: Final = Row[float](
    name="keepalive_timeout",
    contexts=_INSIDE,
    convert=values.time,
    default=_DEFAULTS.timeout,
    inherits=False,
    syntax="timeout",
    doc="How long an idle connection to a server is kept open.",
)
ZONE: Final = Row[str](
    name="zone",
    contexts=_INSIDE,
    arity=(1, 2),
    convert=_zone,
    default="",
    inherits=False,
    syntax="name [size]",
    doc="Workers count together for ``max_conns`` and ``max_fails``, and tell each other which "
    "servers failures have put out. Turns and least connections they count each for itself; the "
    "name and the size mean nothing.",
)
STATE: Final = Row[State | None](
    name="state",
    contexts=_INSIDE,
    convert=_state,
    default=None,
    inherits=False,
    syntax="file",
    doc="The file that keeps the group's servers, instead of ``server`` lines. It is read with "
    "the configuration, if it is there, and written anew by each change of servers through "
    "``api``; the workers' user has to be able to make files in its directory. A path is relative "
    "to the prefix.",
)

UPSTREAM_DIRECTIVES: Final[tuple[AnyRow, ...]] = (
    UPSTREAM_BLOCK, UPSTREAM_SERVER, KEEPALIVE, KEEPALIVE_REQUESTS, KEEPALIVE_TIME,
    KEEPALIVE_TIMEOUT, ZONE, STATE,
)  # fmt: skip
