"""The ``proxy_*`` directives; `DIRECTIVES` has these and the ``upstream`` block's."""

from __future__ import annotations

from typing import Final

from imagefarm.config import values
from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import (
    HSL,
    LOCATION,
    LOCATION_IF,
    AnyRow,
    Environment,
    Ignored,
    ListRow,
    Row,
)
from imagefarm.config.variables import Template

from .redirect import Redirect, Special, captures, convert_redirect
from .response_parser import MAX_HEAD
from .target import Pass, parse_url
from .upstream_directives import UPSTREAM_DIRECTIVES

#: The words of ``proxy_next_upstream``.
NEXT_UPSTREAM_WORDS: Final = frozenset({
    "error", "timeout", "invalid_header", "http_500", "http_502", "http_503", "http_504",
    "http_403", "http_404", "http_429", "non_idempotent", "off",
})  # fmt: skip

#: The fields that ``proxy_ignore_headers`` may name.
IGNORABLE: Final = frozenset({
    "X-Accel-Redirect", "X-Accel-Expires", "X-Accel-Limit-Rate", "X-Accel-Buffering",
    "X-Accel-Charset", "Expires", "Cache-Control", "Set-Cookie", "Vary",
})  # fmt: skip


def _pass(directive: Directive, env: Environment) -> Pass:
    text = directive.args[0]
    template = env.template(text)
    target = parse_url(text) if template.constant is not None else None
    return Pass(template, target, directive.file, directive.line)


def _pair(directive: Directive, env: Environment) -> tuple[str, Template]:
    name, value = directive.args
    return name, env.template(value)


def _lower(directive: Directive, env: Environment) -> bytes:
    return directive.args[0].lower().encode("utf-8", "surrogateescape")


def _ignorable(directive: Directive, env: Environment) -> frozenset[bytes]:
    for word in directive.args:
        if word not in IGNORABLE:
            raise Invalid(f'invalid value "{word}"')
    return frozenset(word.lower().encode("ascii") for word in directive.args)


def next_upstream(directive: Directive, env: Environment) -> frozenset[str]:
    """The words of a ``*_next_upstream`` line; ``off`` is the empty set."""
    for word in directive.args:
        if word not in NEXT_UPSTREAM_WORDS:
            raise Invalid(f'invalid value "{word}"')
    return frozenset() if "off" in directive.args else frozenset(directive.args)


def _time(name: str, default: float, doc: str) -> Row[float]:
    return Row(
        name=name, contexts=HSL, convert=values.time, default=default, syntax="time", doc=doc
    )


def _flag(name: str, default: bool, doc: str) -> Row[bool]:
    return Row(
        name=name, contexts=HSL, convert=values.flag, default=default, syntax="on | off", doc=doc
    )


PROXY_PASS: Final = Row[Pass | None](
    name="proxy_pass",
    contexts=frozenset({LOCATION, LOCATION_IF}),
    convert=_pass,
    default=None,
    inherits=False,
    syntax="URL",
    doc="Passes requests to an upstream group or server over HTTP. With a URI, it replaces the "
    "location's prefix; without, the request's own is passed on as the client sent it.",
)
PROXY_REDIRECT: Final = ListRow[Special | Redirect](
    name="proxy_redirect",
    default_text="default",
    contexts=HSL,
    arity=(1, 2),
    convert=convert_redirect,
    defines=captures,
    syntax="default | off | redirect replacement",
    doc="Rewrites ``Location`` and ``Refresh`` of the upstream's answers. ``default`` replaces "
    "the URL of ``proxy_pass`` by the location's prefix.",
)
PROXY_SET_HEADER: Final = ListRow[tuple[str, Template]](
    name="proxy_set_header",
    default_text="Host $proxy_host",
    contexts=HSL,
    arity=(2, 2),
    convert=_pair,
    syntax="field value",
    doc="Sets a field of the request to the upstream; an empty value leaves the field out. "
    "Unless set here to something, Host is $proxy_host; only over HTTP/1.0 can it be left out.",
)
PROXY_HIDE_HEADER: Final = ListRow[bytes](
    name="proxy_hide_header",
    contexts=HSL,
    convert=_lower,
    syntax="field",
    doc="Keeps a field of the upstream's answer from the client, besides Date, Server, X-Pad and "
    "X-Accel-..., which are never passed on unless ``proxy_pass_header`` says so.",
)
PROXY_PASS_HEADER: Final = ListRow[bytes](
    name="proxy_pass_header",
    contexts=HSL,
    convert=_lower,
    syntax="field",
    doc="Passes on a field of the upstream's answer that is otherwise hidden.",
)
PROXY_IGNORE_HEADERS: Final = Row[frozenset[bytes]](
    name="proxy_ignore_headers",
    contexts=HSL,
    arity=(1, None),
    convert=_ignorable,
    default=frozenset(),
    syntax="field ...",
    doc="Fields of the upstream's answer that the cache does not obey.",
)
PROXY_HTTP_VERSION: Final = Row[tuple[int, int]](
    name="proxy_http_version",
    default_text="1.1",
    contexts=HSL,
    convert=values.choice({"1.0": (1, 0), "1.1": (1, 1)}),
    default=(1, 1),
    syntax="1.0 | 1.1",
    doc="The HTTP version spoken to the upstream. The default is 1.1, as in current nginx; only "
    "with it are connections kept.",
)
PROXY_METHOD: Final = Row[Template | None](
    name="proxy_method",
    contexts=HSL,
    convert=values.template,
    default=None,
    syntax="method",
    doc="The method of the request to the upstream, instead of the client's.",
)
PROXY_CONNECT_TIMEOUT: Final = _time(
    "proxy_connect_timeout", 60.0, "How long connecting to an upstream server may take."
)
PROXY_SEND_TIMEOUT: Final = _time(
    "proxy_send_timeout",
    60.0,
    "How long an upstream server may take no bytes of a request that waits to be sent.",
)
PROXY_READ_TIMEOUT: Final = _time(
    "proxy_read_timeout", 60.0, "The longest pause between two reads from an upstream server."
)
PROXY_NEXT_UPSTREAM: Final = Row[frozenset[str]](
    name="proxy_next_upstream",
    default_text="error timeout",
    contexts=HSL,
    arity=(1, None),
    convert=next_upstream,
    default=frozenset({"error", "timeout"}),
    syntax="error | timeout | invalid_header | http_500 | http_502 | http_503 | http_504 | "
    "http_403 | http_404 | http_429 | non_idempotent | off ...",
    doc="When a request goes to the next server. One with a method that is not idempotent (POST, "
    "LOCK, PATCH) goes on only before it was sent, unless ``non_idempotent`` is given.",
)
PROXY_NEXT_UPSTREAM_TRIES: Final = Row[int](
    name="proxy_next_upstream_tries",
    contexts=HSL,
    convert=values.number,
    default=0,
    syntax="number",
    doc="The most servers that one request is tried on; 0 is no limit.",
)
PROXY_NEXT_UPSTREAM_TIMEOUT: Final = _time(
    "proxy_next_upstream_timeout",
    0.0,
    "How long after its beginning a request may still go to the next server; 0 is no limit.",
)
PROXY_INTERCEPT_ERRORS: Final = _flag(
    "proxy_intercept_errors",
    False,
    "Whether ``error_page`` applies to answers of the upstream with a status of 300 or more.",
)
PROXY_PASS_REQUEST_HEADERS: Final = _flag(
    "proxy_pass_request_headers", True, "Whether the client's header fields are passed on."
)
PROXY_PASS_REQUEST_BODY: Final = _flag(
    "proxy_pass_request_body", True, "Whether the client's request body is passed on."
)
PROXY_SET_BODY: Final = Row[Template | None](
    name="proxy_set_body",
    contexts=HSL,
    convert=values.template,
    default=None,
    syntax="value",
    doc="The body of the request to the upstream, instead of the client's.",
)
PROXY_BUFFER_SIZE: Final = Row[int](
    name="proxy_buffer_size",
    contexts=HSL,
    convert=values.size,
    default=MAX_HEAD,
    syntax="size",
    doc="The largest header of an upstream's answer that is accepted.",
)


def _ignored(name: str, why: str) -> Ignored:
    return Ignored(name=name, contexts=HSL, why=why)


_STREAMED: Final = "answers stream through with backpressure and are never written to disk"

DIRECTIVES: Final[tuple[AnyRow, ...]] = (
    *UPSTREAM_DIRECTIVES,
    PROXY_PASS,
    PROXY_REDIRECT,
    PROXY_SET_HEADER,
    PROXY_HIDE_HEADER,
    PROXY_PASS_HEADER,
    PROXY_IGNORE_HEADERS,
    PROXY_HTTP_VERSION,
    PROXY_METHOD,
    PROXY_CONNECT_TIMEOUT,
    PROXY_SEND_TIMEOUT,
    PROXY_READ_TIMEOUT,
    PROXY_NEXT_UPSTREAM,
    PROXY_NEXT_UPSTREAM_TRIES,
    PROXY_NEXT_UPSTREAM_TIMEOUT,
    PROXY_INTERCEPT_ERRORS,
    PROXY_PASS_REQUEST_HEADERS,
    PROXY_PASS_REQUEST_BODY,
    PROXY_SET_BODY,
    PROXY_BUFFER_SIZE,
    _ignored("proxy_buffering", _STREAMED),
    _ignored("proxy_buffers", _STREAMED),
    _ignored("proxy_busy_buffers_size", _STREAMED),
    _ignored("proxy_max_temp_file_size", _STREAMED),
    _ignored("proxy_temp_file_write_size", _STREAMED),
    _ignored("proxy_temp_path", _STREAMED),
    _ignored("proxy_request_buffering", "requests stream to the upstream"),
    _ignored("proxy_ignore_client_abort", "a client that leaves cancels the upstream request"),
)
