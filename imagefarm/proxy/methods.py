"""The directives that choose an ``upstream`` block's balancing method."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from attrs import frozen

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid, Problem
from imagefarm.config.table import UPSTREAM, AnyRow, Environment, Row, Scope
from imagefarm.config.variables import Template

from .policies import ConsistentHash, Hash, IpHash, LeastConn, Policy, Random, RoundRobin
from .upstream_directives import KEEPALIVE, servers_of

_INSIDE: Final = frozenset({UPSTREAM})


@frozen
class HashKey:
    """``hash``: of what, and whether on a ring."""

    template: Template
    consistent: bool


def _on(directive: Directive, env: Environment) -> bool:
    return True


def _hash(directive: Directive, env: Environment) -> HashKey:
    key, *more = directive.args
    if more and more != ["consistent"]:
        raise Invalid(f'invalid parameter "{more[0]}"')
    return HashKey(env.template(key), bool(more))


def _random(directive: Directive, env: Environment) -> str:
    for word, known in zip(directive.args, ("two", "least_conn"), strict=False):
        if word != known:
            raise Invalid(f'invalid parameter "{word}"')
    return " ".join(directive.args)


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
LEAST_CONN: Final = Row[bool](
    name="least_conn",
    contexts=_INSIDE,
    arity=(0, 0),
    convert=_on,
    default=False,
    inherits=False,
    doc="Sends a request to the server with the fewest requests in progress for its weight; they "
    "take turns where several have equally few.",
)
HASH: Final = Row[HashKey | None](
    name="hash",
    contexts=_INSIDE,
    arity=(1, 2),
    convert=_hash,
    default=None,
    inherits=False,
    syntax="key [consistent]",
    doc="Sends the requests with one key to one server, the one that nginx sends them to. With "
    "``consistent`` only a small part of the keys moves when a server is added or removed "
    "(ketama, 160 points for a unit of weight); without it, most do.",
)
RANDOM: Final = Row[str | None](
    name="random",
    contexts=_INSIDE,
    arity=(0, 2),
    convert=_random,
    default=None,
    inherits=False,
    syntax="[two [least_conn]]",
    doc="Sends a request to a server by lot, heavier ones more often; with ``two`` to the one of "
    "two that has fewer requests in progress for its weight.",
)

METHOD_DIRECTIVES: Final[tuple[AnyRow, ...]] = (HASH, IP_HASH, LEAST_CONN, RANDOM)

_MAKE: Final[dict[AnyRow, Callable[[Scope], Policy]]] = {
    HASH: lambda scope: _hashed(scope[HASH]),
    IP_HASH: lambda scope: IpHash(),
    LEAST_CONN: lambda scope: LeastConn(),
    RANDOM: lambda scope: Random(random.Random().randrange, two=bool(scope[RANDOM])),
}
#: What nginx documents for each: these know no spare servers and no growing weights.
_REFUSED: Final[dict[AnyRow, tuple[str, ...]]] = dict.fromkeys(
    (HASH, IP_HASH, RANDOM), ("backup", "slow_start")
)


def method(scope: Scope, warnings: list[Problem]) -> Policy:
    """The policy of an ``upstream`` block; the last method given counts. Raises `Invalid`.

    Adds to ``warnings`` where nginx would warn.
    """
    chosen: AnyRow | None = None
    before = False
    for row, _, directive in scope.items:
        if row in _MAKE:
            if before:
                text = "load balancing method redefined"
                warnings.append(Problem(text, directive.file, directive.line))
            chosen = row
        before = before or row in _MAKE or row is KEEPALIVE
    if chosen is None:
        return RoundRobin()
    for parameter in _REFUSED.get(chosen, ()):
        if any(getattr(server, parameter) for server in servers_of(scope)):
            raise Invalid(f'balancing method does not support parameter "{parameter}"')
    return _MAKE[chosen](scope)


def _hashed(key: HashKey | None) -> Policy:
    assert key is not None
    return ConsistentHash(key.template) if key.consistent else Hash(key.template)
