"""The ``proxy_*`` directives; `DIRECTIVES` has these and the ``upstream`` block's."""

from __future__ import annotations

from typing import Final

from imagefarm.config import values
from imagefarm.config.ast import Directive
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
from imagefarm.http.upstream_rows import upstream_rows

from .cookies import COOKIE_DIRECTIVES
from .health.directives import DIRECTIVES as HEALTH_DIRECTIVES
from .methods import METHOD_DIRECTIVES
from .names.directives import RESOLVER_DIRECTIVES
from .redirect import Redirect, Special, captures, convert_redirect
from .target import Pass, parse_url
from .tls import TLS_DIRECTIVES
from .upstream_directives import UPSTREAM_DIRECTIVES

#: The rows that FastCGI has as well.
COMMON: Final = upstream_rows(
    "proxy",
    ("error", "timeout", "invalid_header", "http_500", "http_502", "http_503", "http_504",
     "http_403", "http_404", "http_429", "non_idempotent"),
)  # fmt: skip


def _pass(directive: Directive, env: Environment) -> Pass:
    text = directive.args[0]
    template = env.template(text)
    target = parse_url(text) if template.constant is not None else None
    return Pass(template, target, directive.file, directive.line)


def _pair(directive: Directive, env: Environment) -> tuple[str, Template]:
    name, value = directive.args
    return name, env.template(value)


def _templates(directive: Directive, env: Environment) -> tuple[Template, ...]:
    return tuple(env.template(word) for word in directive.args)


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
    lone="off",
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
PROXY_PASS_TRAILERS: Final = Row[bool](
    name="proxy_pass_trailers",
    contexts=HSL,
    convert=values.flag,
    default=False,
    syntax="on | off",
    doc="Whether the trailer fields of chunked answers are passed to clients that say "
    "``TE: trailers``. To get them from upstreams set ``TE`` and ``Connection: te``.",
)
EARLY_HINTS: Final = Row[tuple[Template, ...]](
    name="early_hints",
    contexts=HSL,
    arity=(1, None),
    convert=_templates,
    default=(),
    syntax="string ...",
    doc="Passes 103 (Early Hints) of an upstream to clients of HTTP/1.1, if a string is not empty "
    "and not 0. All the hints of an answer may have ``proxy_buffer_size``.",
)
PROXY_SET_BODY: Final = Row[Template | None](
    name="proxy_set_body",
    contexts=HSL,
    convert=values.template,
    default=None,
    syntax="value",
    doc="The body of the request to the upstream, instead of the client's.",
)


def _ignored(name: str, why: str) -> Ignored:
    return Ignored(name=name, contexts=HSL, why=why)


_HASHED: Final = "our tables of fields need no sizes"

DIRECTIVES: Final[tuple[AnyRow, ...]] = (
    *UPSTREAM_DIRECTIVES,
    *HEALTH_DIRECTIVES,
    *COMMON.every,
    *METHOD_DIRECTIVES,
    *RESOLVER_DIRECTIVES,
    PROXY_PASS,
    PROXY_REDIRECT,
    PROXY_SET_HEADER,
    PROXY_HTTP_VERSION,
    PROXY_METHOD,
    PROXY_SET_BODY,
    PROXY_PASS_TRAILERS,
    EARLY_HINTS,
    *COOKIE_DIRECTIVES,
    *TLS_DIRECTIVES,
    _ignored("proxy_headers_hash_max_size", _HASHED),
    _ignored("proxy_headers_hash_bucket_size", _HASHED),
)
