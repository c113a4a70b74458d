"""Questions to nameservers, and what a reply says of them.

Sans-IO: a `Reply` is what `codec` made of a packet.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from attrs import frozen

#: The most aliases (CNAME) that are followed from a name to its addresses.
MAX_ALIASES: Final = 16
#: The most records that are taken of one answer.
MAX_RECORDS: Final = 1024
#: Seconds; a larger time to live is cut to it (RFC 8767 section 4).
MAX_TTL: Final = 7 * 86400.0

_LABEL: Final = re.compile(r"[!-\-/-~]{1,63}", re.ASCII)


class Kind(Enum):
    """The types of records that are asked for (RFC 1035, 3596, 2782)."""

    A = 1
    AAAA = 28
    SRV = 33


#: The type of an alias (RFC 1035 section 3.3.1).
CNAME: Final = 5


@frozen
class Question:
    """What is asked; ``name`` is in lower case and has no final dot."""

    name: str
    kind: Kind


@frozen
class Service:
    """The data of an SRV record (RFC 2782)."""

    priority: int
    weight: int
    port: int
    target: str


#: An address as text, or a service.
Item = str | Service


@frozen
class Record:
    """A record of a reply. ``kind`` is the type's number; ``value`` of a CNAME is its target."""

    name: str
    kind: int
    ttl: int
    value: Item


@frozen
class Reply:
    """A nameserver's reply to one question.

    ``negative_ttl`` is how long the absence of what was asked for may be remembered, from the
    zone's SOA record (RFC 2308 section 5).
    """

    code: int
    records: tuple[Record, ...] = ()
    truncated: bool = False
    negative_ttl: int | None = None


#: RFC 1035 section 4.1.1, and what a resolver adds, with nginx's numbers and words.
FORMAT_ERROR: Final = 1
SERVER_FAILURE: Final = 2
NOT_FOUND: Final = 3
TIMED_OUT: Final = 110
REFUSED: Final = 111
_WORDS: Final = {
    1: "Format error",
    2: "Server failure",
    3: "Host not found",
    4: "Unimplemented",
    5: "Operation refused",
    110: "Operation timed out",
    111: "Connection refused",
}


def could_not(name: str, code: int) -> str:
    """That ``name`` could not be resolved, in nginx's words."""
    return f"{name} could not be resolved ({code}: {_WORDS.get(code, 'Unknown error')})"


class Unresolved(Exception):
    """A name has no addresses, or nobody could say. ``again``: when asking may be of use."""

    def __init__(self, name: str, code: int, again: float = 0.0) -> None:
        super().__init__(could_not(name, code))
        self.name = name
        self.code = code
        self.again = again


@frozen
class Answer:
    """What a question came to. No items: there are none (RFC 2308).

    ``ttl`` in seconds; None where a negative answer does not say.
    """

    items: tuple[Item, ...]
    ttl: float | None


@frozen
class Alias:
    """The reply leads to another name and has nothing of it: ask for that one."""

    target: str
    ttl: float


def canonical(name: str) -> str | None:
    """``name`` as questions have it; None if no nameserver could know it."""
    name = name.lower().removesuffix(".")
    if len(name) > 253 or not all(map(_LABEL.fullmatch, name.split("."))):
        return None
    return name


def read(reply: Reply, question: Question) -> Answer | Alias | int:
    """What ``reply`` says to ``question``; a number is the code of a failure."""
    if reply.code not in (0, NOT_FOUND):
        return reply.code
    name, ttl = question.name, MAX_TTL
    aliases: dict[str, Record] = {}
    for record in reply.records:
        if record.kind == CNAME:
            aliases.setdefault(record.name, record)
    for _ in range(MAX_ALIASES):
        found = [r for r in reply.records if r.kind == question.kind.value and r.name == name]
        if found:
            ttl = min(ttl, *(_ttl(record) for record in found))
            items = dict.fromkeys(record.value for record in found[:MAX_RECORDS])
            return Answer(tuple(items), ttl)
        alias = aliases.get(name)
        if alias is None:
            break
        ttl = min(ttl, _ttl(alias))
        name = str(alias.value)
    else:
        return SERVER_FAILURE  # a loop, or a chain beyond all reason
    # RFC 2308 section 2.1: NXDOMAIN speaks of the last name of the chain.
    if name == question.name or reply.code == NOT_FOUND or reply.negative_ttl is not None:
        negative = reply.negative_ttl
        return Answer((), None if negative is None else min(float(negative), MAX_TTL))
    return Alias(name, ttl)


def _ttl(record: Record) -> float:
    # RFC 2181 section 8: with the highest bit set it counts as zero.
    return 0.0 if record.ttl >= 1 << 31 else min(float(record.ttl), MAX_TTL)
