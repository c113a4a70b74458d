"""``resolver`` and ``resolver_timeout``."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from imagefarm.config import values
from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import (
    HTTP,
    LOCATION,
    SERVER,
    UPSTREAM,
    AnyRow,
    Environment,
    Row,
    Scope,
)
from imagefarm.proxy.addresses import parse_authority, resolve
from imagefarm.proxy.peer import Address

from .query import PORT
from .reply import Kind

_CONTEXTS: Final = frozenset({HTTP, SERVER, LOCATION, UPSTREAM})


@frozen
class Nameserving:
    """The value of ``resolver``. ``valid`` 0: answers live as long as they say."""

    servers: tuple[Address, ...]
    valid: float = 0.0
    ipv4: bool = True
    ipv6: bool = True
    status_zone: str = ""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The types of addresses to ask for."""
        return (Kind.A,) * self.ipv4 + (Kind.AAAA,) * self.ipv6


@frozen
class ResolverSettings:
    """What a location or an upstream block uses for names. ``timeout`` in seconds."""

    nameserving: Nameserving
    timeout: float

    @classmethod
    def from_scope(cls, scope: Scope) -> ResolverSettings | None:
        """None without ``resolver``."""
        nameserving = scope[RESOLVER]
        return None if nameserving is None else cls(nameserving, scope[RESOLVER_TIMEOUT])


def _resolver(directive: Directive, env: Environment) -> Nameserving:
    servers: list[Address] = []
    families = {"ipv4": True, "ipv6": True}
    valid, status_zone = 0.0, ""
    for word in directive.args:
        name, equals, value = word.partition("=")
        if equals and name == "valid":
            try:
                valid = values.parse_time(value)
            except Invalid:
                raise Invalid(f"invalid parameter: {word}") from None
        elif equals and name in families:
            if value not in ("on", "off"):
                raise Invalid(f"invalid parameter: {word}")
            families[name] = value == "on"
        elif equals and name == "status_zone":
            status_zone = value
        else:
            authority = parse_authority(word, where="resolver")
            if authority.path:
                raise Invalid(f'invalid host in resolver "{word}"')
            servers += resolve(authority, PORT, word, where="resolver")
    if not any(families.values()):
        raise Invalid('"ipv4" and "ipv6" cannot both be "off"')
    if not servers:
        raise Invalid("no name servers defined")
    return Nameserving(
        tuple(dict.fromkeys(servers)), valid, families["ipv4"], families["ipv6"], status_zone
    )


RESOLVER: Final = Row[Nameserving | None](
    name="resolver",
    contexts=_CONTEXTS,
    arity=(1, None),
    convert=_resolver,
    default=None,
    syntax="address ... [valid=time] [ipv4=on|off] [ipv6=on|off] [status_zone=zone]",
    doc="The nameservers, asked in turn, that resolve names at run time: those that variables "
    "make, and those of servers with ``resolve``. Answers are used for their TTL or for "
    "``valid``; ``status_zone`` has the ``status`` page count them under that name.",
)
RESOLVER_TIMEOUT: Final = Row[float](
    name="resolver_timeout",
    contexts=_CONTEXTS,
    convert=values.time,
    default=30.0,
    syntax="time",
    doc="How long resolving a name may take.",
)

RESOLVER_DIRECTIVES: Final[tuple[AnyRow, ...]] = (RESOLVER, RESOLVER_TIMEOUT)
