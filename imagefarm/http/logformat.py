"""``log_format``: the lines of access logs (nginx's ``ngx_http_log_module``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from attrs import field, frozen

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import HTTP, Environment, ListRow
from imagefarm.config.variables import Template, VariableTable

from .message import Request
from .variables import Lookup, lookup_of

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


def combined(variables: VariableTable) -> LogFormat:
    """The predefined format."""
    return LogFormat("combined", _parts(variables.compile(_COMBINED)))


def _parts(template: Template) -> tuple[bytes | Lookup, ...]:
    return tuple(part if isinstance(part, bytes) else lookup_of(part) for part in template.parts)


def _log_format(directive: Directive, env: Environment) -> LogFormat:
    name, *words = directive.args
    escape: Escape = escape_default
    if words[0].startswith("escape="):
        kind = words.pop(0).removeprefix("escape=")
        if kind not in _ESCAPES:
            raise Invalid(f'unknown log format escaping "{kind}"')
        escape = _ESCAPES[kind]
    template = env.template("".join(words))
    return LogFormat(name, _parts(template), escape, directive.file, directive.line)


LOG_FORMAT: Final = ListRow[LogFormat](
    name="log_format",
    contexts=frozenset({HTTP}),
    arity=(2, None),
    convert=_log_format,
    syntax="name [escape=default|json|none] string ...",
    doc="Defines the lines of an access log. The strings are joined; ``combined`` is always "
    "there.",
)
