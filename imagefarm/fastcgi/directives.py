"""The directives of the FastCGI client (ngx_http_fastcgi_module) and what they become."""

from __future__ import annotations

import re
from typing import Final

from attrs import field, frozen

from imagefarm.config import values
from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.regex import compile_pattern
from imagefarm.config.table import (
    HSL,
    LOCATION,
    LOCATION_IF,
    AnyRow,
    Environment,
    Ignored,
    ListRow,
    Row,
    Scope,
)
from imagefarm.config.variables import Template, encode
from imagefarm.http.upstream import Timeouts

from .cgi import HEAD_LIMIT

#: Response fields that speak to the server and not to the client (nginx's default list).
HIDDEN: Final = frozenset(
    (b"status", b"x-accel-expires", b"x-accel-redirect", b"x-accel-limit-rate",
     b"x-accel-buffering", b"x-accel-charset")
)  # fmt: skip

_NEXT: Final = frozenset(
    ("error", "timeout", "invalid_header", "http_500", "http_503", "http_403", "http_404",
     "http_429", "non_idempotent", "off")
)  # fmt: skip
_IGNORABLE: Final = frozenset(
    ("X-Accel-Redirect", "X-Accel-Expires", "X-Accel-Limit-Rate", "X-Accel-Buffering",
     "X-Accel-Charset", "Expires", "Cache-Control", "Set-Cookie", "Vary")
)  # fmt: skip


@frozen
class Param:
    """One ``fastcgi_param``."""

    name: bytes
    value: Template
    if_not_empty: bool = False


def _param(directive: Directive, env: Environment) -> Param:
    name, value, *flags = directive.args
    if flags and flags != ["if_not_empty"]:
        raise Invalid(f'invalid parameter "{flags[0]}"')
    return Param(encode(name), env.template(value), bool(flags))


def _pattern(directive: Directive, env: Environment) -> re.Pattern[bytes]:
    text = directive.args[0]
    pattern = compile_pattern(text)
    if pattern.groups < 2:
        raise Invalid(f'pattern "{text}" must have 2 captures')
    return pattern


def _next_upstream(directive: Directive, env: Environment) -> frozenset[str]:
    words = frozenset(directive.args)
    for word in directive.args:
        if word not in _NEXT:
            raise Invalid(f'invalid value "{word}"')
    return frozenset() if "off" in words else words


def _field_name(directive: Directive, env: Environment) -> bytes:
    return encode(directive.args[0]).lower()


def _ignorable(directive: Directive, env: Environment) -> frozenset[bytes]:
    known = {name.lower(): encode(name.lower()) for name in _IGNORABLE}
    for word in directive.args:
        if word.lower() not in known:
            raise Invalid(f'invalid value "{word}"')
    return frozenset(known[word.lower()] for word in directive.args)


def _time(name: str, doc: str) -> Row[float]:
    return Row(name=name, contexts=HSL, convert=values.time, default=60.0, doc=doc, syntax="time")


def _flag(name: str, default: bool, doc: str) -> Row[bool]:
    return Row(
        name=name, contexts=HSL, convert=values.flag, default=default, doc=doc, syntax="on | off"
    )


PASS: Final[Row[Template | None]] = Row(
    name="fastcgi_pass",
    contexts=frozenset({LOCATION, LOCATION_IF}),
    convert=values.template,
    default=None,
    inherits=False,
    syntax="address",
    doc="Passes requests to a FastCGI application: ``host:port``, ``unix:/path`` or the name of "
    "an ``upstream`` block. May contain variables.",
)
INDEX: Final[Row[str]] = Row(
    name="fastcgi_index",
    contexts=HSL,
    convert=values.text,
    default="",
    syntax="name",
    doc="The file name that ``$fastcgi_script_name`` gets where the URI ends with a slash.",
)
PARAM: Final[ListRow[Param]] = ListRow(
    name="fastcgi_param",
    contexts=HSL | {LOCATION_IF},
    arity=(2, 3),
    convert=_param,
    syntax="parameter value [if_not_empty]",
    doc="A parameter for the application. With ``if_not_empty`` it is sent only if its value is "
    "not empty. A name that begins with ``HTTP_`` takes the place of that request header.",
)
SPLIT_PATH_INFO: Final[Row[re.Pattern[bytes] | None]] = Row(
    name="fastcgi_split_path_info",
    contexts=HSL,
    convert=_pattern,
    default=None,
    syntax="regex",
    doc="A regular expression whose first capture becomes ``$fastcgi_script_name`` and whose "
    "second one becomes ``$fastcgi_path_info``.",
)
KEEP_CONN: Final = _flag(
    "fastcgi_keep_conn",
    False,
    "Asks the application to leave the connection open, so that ``keepalive`` can use it again.",
)
CONNECT_TIMEOUT: Final = _time(
    "fastcgi_connect_timeout", "How long connecting to the application may take."
)
SEND_TIMEOUT: Final = _time(
    "fastcgi_send_timeout",
    "How long the application may leave our bytes untaken, between two writes.",
)
READ_TIMEOUT: Final = _time(
    "fastcgi_read_timeout", "How long the application may be silent, between two reads."
)
NEXT_UPSTREAM: Final[Row[frozenset[str]]] = Row(
    name="fastcgi_next_upstream",
    default_text="error timeout",
    contexts=HSL,
    arity=(1, None),
    convert=_next_upstream,
    default=frozenset({"error", "timeout"}),
    syntax="error | timeout | invalid_header | http_500 | http_503 | http_403 | http_404 | "
    "http_429 | non_idempotent | off ...",
    doc="When a request goes on to the next server of the group.",
)
NEXT_UPSTREAM_TRIES: Final[Row[int]] = Row(
    name="fastcgi_next_upstream_tries",
    contexts=HSL,
    convert=values.number,
    default=0,
    syntax="number",
    doc="How many servers a request may be tried on; 0 is no limit.",
)
NEXT_UPSTREAM_TIMEOUT: Final[Row[float]] = Row(
    name="fastcgi_next_upstream_timeout",
    contexts=HSL,
    convert=values.time,
    default=0.0,
    syntax="time",
    doc="For how long a request may go on to the next server; 0 is no limit.",
)
INTERCEPT_ERRORS: Final = _flag(
    "fastcgi_intercept_errors",
    False,
    "Lets ``error_page`` replace the application's answers of status 300 and above.",
)
HIDE_HEADER: Final[ListRow[bytes]] = ListRow(
    name="fastcgi_hide_header",
    contexts=HSL,
    convert=_field_name,
    syntax="field",
    doc="A response field that is not passed to the client.",
)
PASS_HEADER: Final[ListRow[bytes]] = ListRow(
    name="fastcgi_pass_header",
    contexts=HSL,
    convert=_field_name,
    syntax="field",
    doc="A response field that is passed to the client although it is hidden by default.",
)
IGNORE_HEADERS: Final[Row[frozenset[bytes]]] = Row(
    name="fastcgi_ignore_headers",
    contexts=HSL,
    arity=(1, None),
    convert=_ignorable,
    default=frozenset(),
    syntax="field ...",
    doc="Response fields that the cache does not obey.",
)
PASS_REQUEST_HEADERS: Final = _flag(
    "fastcgi_pass_request_headers",
    True,
    "Whether the request's header fields are passed as ``HTTP_`` parameters.",
)
PASS_REQUEST_BODY: Final = _flag(
    "fastcgi_pass_request_body", True, "Whether the request's body is passed."
)
BUFFER_SIZE: Final[Row[int]] = Row(
    name="fastcgi_buffer_size",
    contexts=HSL,
    convert=values.size,
    default=HEAD_LIMIT,
    syntax="size",
    doc="The largest head of a response that is accepted from the application.",
)

_STREAMS = "answers stream through as fast as the client takes them, without such buffers"
_UNBUFFERED: Final = tuple(
    Ignored(name=name, contexts=HSL, why=_STREAMS)
    for name in (
        "fastcgi_buffering",
        "fastcgi_buffers",
        "fastcgi_busy_buffers_size",
        "fastcgi_max_temp_file_size",
        "fastcgi_temp_file_write_size",
        "fastcgi_temp_path",
    )
)
_REQUEST_BUFFERING: Final = Ignored(
    name="fastcgi_request_buffering",
    contexts=HSL,
    why="request bodies of known length stream through, others are collected first",
)

DIRECTIVES: Final[tuple[AnyRow, ...]] = (
    PASS,
    INDEX,
    PARAM,
    SPLIT_PATH_INFO,
    KEEP_CONN,
    CONNECT_TIMEOUT,
    SEND_TIMEOUT,
    READ_TIMEOUT,
    NEXT_UPSTREAM,
    NEXT_UPSTREAM_TRIES,
    NEXT_UPSTREAM_TIMEOUT,
    INTERCEPT_ERRORS,
    HIDE_HEADER,
    PASS_HEADER,
    IGNORE_HEADERS,
    PASS_REQUEST_HEADERS,
    PASS_REQUEST_BODY,
    BUFFER_SIZE,
    *_UNBUFFERED,
    _REQUEST_BUFFERING,
)


@frozen(eq=False, kw_only=True)
class FastCGISettings:
    """What the directives say in one location; names are theirs, times in seconds.

    ``address`` is None where there is no ``fastcgi_pass``. ``hidden`` and ``ignore_headers``
    have lower-case field names.
    """

    address: Template | None = None
    index: bytes = b""
    split_path_info: re.Pattern[bytes] | None = None
    params: tuple[Param, ...] = ()
    keep_conn: bool = False
    timeouts: Timeouts = field(factory=Timeouts)
    next_upstream: frozenset[str] = NEXT_UPSTREAM.default
    next_upstream_tries: int = 0
    next_upstream_timeout: float = 0.0
    intercept_errors: bool = False
    hidden: frozenset[bytes] = HIDDEN
    ignore_headers: frozenset[bytes] = frozenset()
    pass_request_headers: bool = True
    pass_request_body: bool = True
    buffer_size: int = HEAD_LIMIT

    @classmethod
    def from_scope(cls, scope: Scope) -> FastCGISettings:
        """The settings in force in ``scope``."""
        more: tuple[bytes, ...] = scope.all(HIDE_HEADER)
        fewer: tuple[bytes, ...] = scope.all(PASS_HEADER)
        return cls(
            address=scope[PASS],
            index=encode(scope[INDEX]),
            split_path_info=scope[SPLIT_PATH_INFO],
            params=scope.all(PARAM),
            keep_conn=scope[KEEP_CONN],
            timeouts=Timeouts(scope[CONNECT_TIMEOUT], scope[SEND_TIMEOUT], scope[READ_TIMEOUT]),
            next_upstream=scope[NEXT_UPSTREAM],
            next_upstream_tries=scope[NEXT_UPSTREAM_TRIES],
            next_upstream_timeout=scope[NEXT_UPSTREAM_TIMEOUT],
            intercept_errors=scope[INTERCEPT_ERRORS],
            hidden=HIDDEN.union(more).difference(fewer),
            ignore_headers=scope[IGNORE_HEADERS],
            pass_request_headers=scope[PASS_REQUEST_HEADERS],
            pass_request_body=scope[PASS_REQUEST_BODY],
            buffer_size=scope[BUFFER_SIZE],
        )
