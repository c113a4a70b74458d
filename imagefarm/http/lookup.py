"""What a variable is: a getter that can tell unset from empty, and how stable its value is."""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import Enum
from typing import Final

from attrs import frozen

from imagefarm.config.variables import Getter, Template

from .headers import Headers
from .message import Request

Lookup = Callable[[Request], bytes | None]


class Stability(Enum):
    """What a variable's value depends on, for answers that are repeated (`plans`) and their
    lines in the log.
    """

    REQUEST = "anything"
    ANSWER = "the client's address, the header block, the target and the answer"
    HOST = "the method, Host and the listening socket"
    BLOCK = "the header block"
    CACHE = "what the cache did"
    CLOCK = "the time of day alone"
    DURATION = "when the request began, and the time of day"
    UPSTREAM = "as ANSWER, where no upstream was asked"
    #: It depends on whether the connection is kept, too.
    SENT = "the size of the whole answer"
    #: As ANSWER; where many are answered alike, these are among their `message.Facts`.
    LINE = "the request line"
    TARGET = "the target"
    PATH = "the path"
    QUERY = "the query"
    #: As ANSWER, but for many that are answered alike.
    ARGUMENT = "a part of the query"
    BODY = "the size of the answer's body"
    SIZE = "the size of the request"
    CONNECTION = "the number of the connection"
    NAME = "the request id"

    @property
    def fact(self) -> int | None:
        """The place among the facts."""
        return _FACTS.get(self)


_FACTS: Final = {
    stability: place
    for place, stability in enumerate(
        (
            Stability.LINE,
            Stability.TARGET,
            Stability.BODY,
            Stability.SENT,
            Stability.SIZE,
            Stability.CONNECTION,
            Stability.NAME,
            Stability.PATH,
            Stability.QUERY,
        )
    )
}  # fmt: skip

#: What is the same whenever the same bytes come to the same listening socket.
OF_BYTES: Final = frozenset({
    Stability.HOST, Stability.BLOCK, Stability.LINE, Stability.TARGET, Stability.PATH,
    Stability.QUERY, Stability.ARGUMENT,
})  # fmt: skip

_PASSED_ON: Final = frozenset({
    Stability.HOST, Stability.BLOCK, Stability.ANSWER, Stability.ARGUMENT,
})  # fmt: skip


@frozen
class Variable:
    """A getter that can also tell unset from empty."""

    lookup: Lookup
    stability: Stability = Stability.REQUEST

    def __call__(self, request: Request) -> bytes:
        """The value; empty if unset."""
        return self.lookup(request) or b""


def stability_of(getter: Getter) -> Stability:
    """What the value of ``getter`` depends on."""
    return getter.stability if isinstance(getter, Variable) else Stability.REQUEST


def stabilities_of(template: Getter) -> frozenset[Stability]:
    """What the value of a template, or of a getter alone, depends on."""
    if not isinstance(template, Template):
        return frozenset({stability_of(template)})
    return frozenset(stability_of(part) for part in template.parts if not isinstance(part, bytes))


def joined(stabilities: Collection[Stability]) -> Stability:
    """What a value depends on that is made of others, by a rule that nothing else decides.

    One that facts tell of (`Stability.fact`) would itself be no such fact.
    """
    if not stabilities:
        return Stability.HOST
    (first, *others) = stabilities
    return first if not others and first in _PASSED_ON else Stability.REQUEST


def lookup_of(getter: Getter) -> Lookup:
    """The function that tells unset (None) from empty, if ``getter`` has one."""
    return getter.lookup if isinstance(getter, Variable) else getter


def field(headers: Headers, name: bytes) -> bytes | None:
    """The field that ``$http_NAME`` means: dashes are underscores there."""
    value = headers.get(name.replace(b"_", b"-"))
    return headers.get(name) if value is None and b"_" in name else value
