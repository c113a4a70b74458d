"""``charset``: names the charset in Content-Type. Nothing is recoded."""

from __future__ import annotations

from typing import Final, Protocol

import attrs

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import HSL, HSLI, AnyRow, Environment, Row
from imagefarm.config.values import flag
from imagefarm.config.variables import encode
from imagefarm.http.message import Request, Response

from .mediatypes import MediaTypes, media_type, media_types


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


class Needs(Protocol):
    """The settings that this filter reads."""

    @property
    def charset(self) -> bytes | None:
        """``charset``, None for off."""

    @property
    def charset_types(self) -> MediaTypes:
        """``charset_types``."""

    @property
    def override_charset(self) -> bool:
        """``override_charset``."""


def apply(request: Request, response: Response, settings: Needs) -> Response:
    """Complete the Content-Type of ``response``."""
    charset = settings.charset
    # As nginx: not on 301 and 302, whose charset old browsers took for the next page's.
    if charset is None or response.status in (301, 302):
        return response
    value = response.headers.first(b"content-type")
    if not value:
        return response
    kind, _, parameters = value.partition(b";")
    if b"charset=" in parameters.lower():
        if not settings.override_charset:
            return response
        value = kind.rstrip(b" \t")
    elif not settings.charset_types & {media_type(value), b"*"}:
        return response
    headers = response.headers.copy()
    headers.set(b"Content-Type", value + b"; charset=" + charset)
    return attrs.evolve(response, headers=headers)
