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
from .message import Request

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
#: A line with look-ups of the time where that stands.
Outline = tuple[bytes | Lookup, ...]

_A: Final = Stability.ANSWER
_NO_REQUEST: Final = cast(Request, None)


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

    def outline(self, request: Request) -> Outline | None:
        """The line of ``request`` and its repetitions, but for the time; None if more varies."""
        if Stability.REQUEST in self.stabilities:
            return None
        pieces: list[bytes | Lookup] = [b""]
        for part, stability in zip((*self.parts, b"\n"), (*self.stabilities, _A), strict=True):
            if stability is Stability.CLOCK:
                pieces += [part, b""]
            else:
                value = part if isinstance(part, bytes) else self.escape(part(request))
                pieces[-1] = pieces[-1] + value  # type: ignore[operator]
        return tuple(pieces)


def fill(outline: Outline) -> bytes:
    """The line of an outline, now."""
    # Nothing in a time needs escaping, and its look-up needs no request.
    return b"".join([p if isinstance(p, bytes) else p(_NO_REQUEST) or b"-" for p in outline])


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
