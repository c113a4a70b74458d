"""``charset`` and ``X-Accel-Charset``: name the charset in Content-Type. Nothing is recoded."""

from __future__ import annotations

import re
from typing import Final, Protocol

import attrs

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import HSL, HSLI, AnyRow, Environment, Row, Scope
from imagefarm.config.values import flag
from imagefarm.config.variables import encode
from imagefarm.http.message import Request, Response
from imagefarm.http.requestlog import printable, report

from .mediatypes import MediaTypes, media_type, media_types

#: As nginx finds it: the last parameter, whatever is behind it.
_NAMED: Final = re.compile(rb"[ \t]*;[ \t]*charset=(.*)", re.I | re.S)


def _charset(directive: Directive, env: Environment) -> bytes | None:
    name = directive.args[0]
    if name == "off":
        return None
    if "$" in name:
        raise Invalid('variables are not supported in the "charset" directive')
    return encode(name)


CHARSET: Final = Row[bytes | None](
    name="charset",
    default_text="off",
    contexts=HSLI,
    convert=_charset,
    default=None,
    syntax="charset | off",
    doc="Adds ``; charset=`` to the Content-Type of the types in ``charset_types``.",
)
CHARSET_TYPES: Final = Row[MediaTypes](
    name="charset_types",
    default_text="text/html text/xml text/plain text/vnd.wap.wml application/javascript "
    "application/rss+xml",
    contexts=HSL,
    arity=(1, None),
    convert=media_types(b"text/html"),
    default=frozenset(
        {
            b"text/html",
            b"text/xml",
            b"text/plain",
            b"text/vnd.wap.wml",
            b"application/javascript",
            b"application/rss+xml",
        }
    ),
    syntax="mime-type ...",
    doc="The types that ``charset`` applies to, besides text/html; ``*`` is any.",
)
OVERRIDE_CHARSET: Final = Row[bool](
    name="override_charset",
    contexts=HSLI,
    convert=flag,
    default=False,
    syntax="on | off",
    doc="Whether ``charset`` replaces a charset that an upstream has named.",
)
DIRECTIVES: Final[tuple[AnyRow, ...]] = (CHARSET, CHARSET_TYPES, OVERRIDE_CHARSET)


#: Where `Request.variables` has what an upstream has said with X-Accel-Charset. It is for the
#: request's answer wherever that comes from, as in nginx. No variable has this name.
SAID: Final = "X-Accel-Charset"


def known_charsets(scope: Scope) -> frozenset[bytes]:
    """The names, in lower case, that the configuration has anywhere: X-Accel-Charset can only
    name one of these."""
    return frozenset(name.lower() for name in scope.anywhere(CHARSET) if name is not None)


class Needs(Protocol):
    """The settings that this filter reads."""

    @property
    def charset(self) -> bytes | None:
        """``charset``, None for off."""

    @property
    def charsets(self) -> frozenset[bytes]:
        """`known_charsets`."""

    @property
    def charset_types(self) -> MediaTypes:
        """``charset_types``."""

    @property
    def override_charset(self) -> bool:
        """``override_charset``."""


def apply(request: Request, response: Response, settings: Needs) -> Response:
    """Complete the Content-Type of ``response``."""
    said = request.variables.get(SAID)
    if said:
        return _said(said, request, response, settings.charsets)
    charset = settings.charset
    # As nginx: not on 301 and 302, whose charset old browsers took for the next page's.
    if charset is None or response.status in (301, 302):
        return response
    value = response.headers.first(b"content-type")
    if not value:
        return response
    kind, named = split_charset(value)
    if named is not None:
        if not settings.override_charset:
            return response
        value = kind
    elif not settings.charset_types & {media_type(value), b"*"}:
        return response
    return _typed(response, value + b"; charset=" + charset)


def _said(said: bytes, request: Request, response: Response, known: frozenset[bytes]) -> Response:
    """What becomes of X-Accel-Charset; ``charset`` does not count then, whatever it is."""
    value = response.headers.first(b"content-type")
    if not value:
        return response
    try:
        kind = overridden(value, said, known, response.status)
    except Invalid as error:
        report(request, "error", str(error))
        return response
    return _typed(response, kind)


def overridden(value: bytes, said: bytes, known: frozenset[bytes], status: int) -> bytes:
    """A Content-Type with the charset ``said``. Raises `Invalid` where it is not to be had."""
    if said.lower() not in known:
        raise Invalid(f'unknown charset "{printable(said)}" to override')
    kind, named = split_charset(value)
    if named is not None and named.lower() != said.lower():
        raise Invalid(
            f'no "charset_map" between the charsets "{printable(named)}" and "{printable(said)}"'
        )
    return kind if status in (301, 302) else kind + b"; charset=" + said


def split_charset(value: bytes) -> tuple[bytes, bytes | None]:
    """A Content-Type without its charset, and that; None where it names none."""
    found = _NAMED.search(value)
    if found is None:
        return value, None
    return value[: found.start()], found[1].removeprefix(b'"').removesuffix(b'"')


def _typed(response: Response, value: bytes) -> Response:
    headers = response.headers.copy()
    headers.set(b"Content-Type", value)
    return attrs.evolve(response, headers=headers)
