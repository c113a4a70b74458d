"""The ``upstream`` block and what stands in it."""

from __future__ import annotations

import re
from typing import Final

from attrs import frozen

from imagefarm.config import values
from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import HTTP, UPSTREAM, AnyRow, BlockRow, Environment, ListRow, Row

from .addresses import parse_authority, resolve
from .peers import Address
from .pool import KeepaliveSettings

_INSIDE: Final = frozenset({UPSTREAM})
_DEFAULTS: Final = KeepaliveSettings()


@frozen
class ServerSpec:
    """One ``server`` line; a name may stand for several addresses, each becomes a peer."""

    addresses: tuple[Address, ...]
    weight: int = 1
    max_fails: int = 1
    fail_timeout: float = 10.0
    max_conns: int = 0
    backup: bool = False
    down: bool = False


def _server(directive: Directive, env: Environment) -> ServerSpec:
    where, *words = directive.args
    parameters: dict[str, int | float | bool] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals and name in ("backup", "down"):
            parameters[name] = True
        elif equals and name in ("weight", "max_fails", "max_conns"):
            if not re.fullmatch(r"\d+", value, re.ASCII) or (name == "weight" and not int(value)):
                raise Invalid(f'invalid parameter "{word}"')
            parameters[name] = int(value)
        elif equals and name == "fail_timeout":
            try:
                parameters[name] = values.parse_time(value)
            except Invalid:
                raise Invalid(f'invalid parameter "{word}"') from None
        else:
            raise Invalid(f'invalid parameter "{word}"')
    addresses = resolve(parse_authority(where), 80, where)
    return ServerSpec(
        addresses,
        weight=int(parameters.get("weight", 1)),
        max_fails=int(parameters.get("max_fails", 1)),
        fail_timeout=float(parameters.get("fail_timeout", 10.0)),
        max_conns=int(parameters.get("max_conns", 0)),
        backup="backup" in parameters,
        down="down" in parameters,
    )


def _on(directive: Directive, env: Environment) -> bool:
    return True


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
    "[backup] [down]",
    doc="A server of the group: a host with an optional port (80), or ``unix:`` and a path. Names "
    "are resolved when the configuration is read; each address is a peer of its own.",
)
IP_HASH: Final = Row[bool](
    name="ip_hash",
    contexts=_INSIDE,
    arity=(0, 0),
    convert=_on,
    default=False,
    inherits=False,
    doc="Sends the requests of one client address to one server: the first three octets of an "
    "IPv4 address or the whole IPv6 address decide.",
)
KEEPALIVE: Final = Row[int](
    name="keepalive",
    contexts=_INSIDE,
    convert=values.number,
    default=_DEFAULTS.connections,
    inherits=False,
    syntax="connections",
    doc="The most idle connections to the group's servers that are kept for the next request; the "
    "least recently used is closed when there are more. 0 keeps none.",
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

UPSTREAM_DIRECTIVES: Final[tuple[AnyRow, ...]] = (
    UPSTREAM_BLOCK, UPSTREAM_SERVER, IP_HASH, KEEPALIVE, KEEPALIVE_REQUESTS, KEEPALIVE_TIME,
    KEEPALIVE_TIMEOUT,
)  # fmt: skip
