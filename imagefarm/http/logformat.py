"""``log_format``: the lines of access logs (nginx's ``ngx_http_log_module``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, cast

from attrs import field, frozen

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import HTTP, Environment, ListRow
from imagefarm.config.variables import Template, VariableTable

from .lookup import Lookup, Stability, lookup_of, stability_of
from .message import Facts, Request

#: The format that every configuration has.
_COMBINED: Final = (
    '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent '
    '"$http_referer" "$http_user_agent"'
)

_UNSAFE: Final = re.compile(rb'["\\\x00-\x1f\x7f-\xff]')
_UNSAFE_JSON: Final = re.compile(rb'["\\\x00-\x1f]')
_JSON: Final = {
    b'"': b'\\"', b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r", b"\t": b"\\t", b"\b": b"\\b",
    b"\f": b"\\f",
}  # fmt: skip

Escape = Callable[[bytes | None], bytes]
#: A line with places for what varies, and what goes there: places in `message.Facts`, or
#: functions of them (and of the time).
Outline = tuple[bytes, tuple[Callable[[Facts], bytes] | int, ...]]

_A: Final = Stability.ANSWER
#: The facts that are bytes; the others are numbers.
_TEXTS: Final = frozenset({0, 1, 6, 7, 8})
#: What differs each time, also where one request is repeated.
_ALWAYS: Final = frozenset({Stability.SENT, Stability.CONNECTION, Stability.NAME})
_NO_REQUEST: Final = cast(Request, None)


@frozen
class _Started:
    """Of a request, when it was begun."""

    started: float


def escape_default(value: bytes | None) -> bytes:
    r"""Quotes, backslashes, controls and all above ``~`` as ``\xXX``; "-" for what is unset."""
    if value is None:
        return b"-"
    if _UNSAFE.search(value) is None:
        return value
    return _UNSAFE.sub(lambda match: b"\\x%02X" % ord(match[0]), value)


def escape_json(value: bytes | None) -> bytes:
    """As a JSON string wants it; nothing for what is unset."""
    return _UNSAFE_JSON.sub(
        lambda match: _JSON.get(match[0]) or b"\\u%04X" % ord(match[0]), value or b""
    )


def escape_none(value: bytes | None) -> bytes:
    """The value as it is."""
    return value or b""


_ESCAPES: Final[Mapping[str, Escape]] = MappingProxyType(
    {"default": escape_default, "json": escape_json, "none": escape_none}
)


@frozen
class LogFormat:
    """A compiled format; ``line`` gives the line of a request with its end."""

    name: str
    parts: tuple[bytes | Lookup, ...] = field(repr=False)
    stabilities: tuple[Stability, ...] = field(repr=False)
    escape: Escape = escape_default
    #: Where it was defined.
    file: str = ""
    line_number: int = 0

    def line(self, request: Request) -> bytes:
        """The line for ``request``."""
        escape = self.escape
        pieces = [
            part if isinstance(part, bytes) else escape(part(request)) for part in self.parts
        ]
        pieces.append(b"\n")
        return b"".join(pieces)

    def outline(self, request: Request, *, one_of_many: bool = False) -> Outline | None:
        """The line of ``request`` and its repetitions; None if that can't be told.

        ``one_of_many``: it stands for others, too, that are answered alike.
        """
        if Stability.REQUEST in self.stabilities:
            return None
        if Stability.UPSTREAM in self.stabilities and request.outcome.attempts:
            return None
        if Stability.ARGUMENT in self.stabilities and one_of_many and request.args:
            return None
        pieces: list[bytes] = []
        gaps: list[Callable[[Facts], bytes] | int] = []
        for part, stability in zip(self.parts, self.stabilities, strict=True):
            if isinstance(part, bytes):
                pieces.append(part.replace(b"%", b"%%"))
                continue
            if stability in _TIMES:
                gaps.append(_TIMES[stability](part))
                pieces.append(b"%b")
                continue
            fact, found = stability.fact, part(request)
            value = self.escape(found)
            if stability is Stability.QUERY and found is None:
                fact = None  # nor have those that are answered alike
            if fact is not None and (one_of_many or stability in _ALWAYS):
                if value != found:
                    return None  # the others' would have to be escaped, too
                gaps.append(fact)
                pieces.append(b"%b" if fact in _TEXTS else b"%d")
            else:
                pieces.append(value.replace(b"%", b"%%"))
        return b"".join((*pieces, b"\n")), tuple(gaps)


def asks_name(outline: Outline) -> bool:
    """Whether the request id stands in the line."""
    return Stability.NAME.fact in outline[1]


def fill(outline: Outline, facts: Facts) -> bytes:
    """The line of an outline, now."""
    text, gaps = outline
    return text % tuple(
        [facts[gap] if gap.__class__ is int else gap(facts) for gap in gaps]  # type: ignore[operator]
    )


# Nothing in a time needs escaping.


def _clock(look: Lookup) -> Callable[[Facts], bytes]:
    return lambda facts: look(_NO_REQUEST) or b"-"


def _duration(look: Lookup) -> Callable[[Facts], bytes]:
    return lambda facts: look(cast(Request, _Started(facts[9]))) or b"-"


_TIMES: Final[Mapping[Stability, Callable[[Lookup], Callable[[Facts], bytes]]]] = {
    Stability.CLOCK: _clock, Stability.DURATION: _duration,
}  # fmt: skip


def combined(variables: VariableTable) -> LogFormat:
    """The predefined format."""
    template = variables.compile(_COMBINED)
    return LogFormat("combined", _parts(template), _stabilities(template))


def _parts(template: Template) -> tuple[bytes | Lookup, ...]:
    return tuple(part if isinstance(part, bytes) else lookup_of(part) for part in template.parts)


def _stabilities(template: Template) -> tuple[Stability, ...]:
    return tuple(_A if isinstance(part, bytes) else stability_of(part) for part in template.parts)


def _log_format(directive: Directive, env: Environment) -> LogFormat:
    name, *words = directive.args
    escape: Escape = escape_default
    if words[0].startswith("escape="):
        kind = words.pop(0).removeprefix("escape=")
        if kind not in _ESCAPES:
            raise Invalid(f'unknown log format escaping "{kind}"')
        escape = _ESCAPES[kind]
    template = env.template("".join(words))
    return LogFormat(
        name, _parts(template), _stabilities(template), escape, directive.file, directive.line
    )


LOG_FORMAT: Final = ListRow[LogFormat](
    name="log_format",
    contexts=frozenset({HTTP}),
    arity=(2, None),
    convert=_log_format,
    syntax="name [escape=default|json|none] string ...",
    doc="Defines the lines of an access log. The strings are joined; ``combined`` is always "
    "there.",
)
