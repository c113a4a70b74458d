"""Preconditions: a 200 becomes 304 or 412 (nginx's ``not_modified`` filter)."""

from __future__ import annotations

from typing import Final, Protocol

import attrs

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import HSL, AnyRow, Environment, Row
from imagefarm.config.values import flag
from imagefarm.http.conditional import IfModifiedSince, Verdict, evaluate
from imagefarm.http.errorpages import error_response
from imagefarm.http.message import Request, Response, discard


def _since(directive: Directive, env: Environment) -> IfModifiedSince:
    try:
        return IfModifiedSince(directive.args[0])
    except ValueError:
        raise Invalid(f'invalid value "{directive.args[0]}"') from None


IF_MODIFIED_SINCE: Final = Row[IfModifiedSince](
    name="if_modified_since",
    default_text="exact",
    contexts=HSL,
    convert=_since,
    default=IfModifiedSince.EXACT,
    syntax="off | exact | before",
    doc="How Last-Modified is compared with ``If-Modified-Since``: never equal, exactly, or "
    "not later.",
)
ETAG: Final = Row[bool](
    name="etag",
    contexts=HSL,
    convert=flag,
    default=True,
    syntax="on | off",
    doc="Whether static files get an ``ETag``.",
)
DIRECTIVES: Final[tuple[AnyRow, ...]] = (IF_MODIFIED_SINCE, ETAG)

#: What a 304 does not repeat; nginx leaves out what describes the body that is not there.
_DROPPED: Final = (b"content-type", b"content-encoding", b"accept-ranges")
#: What a 412 is not less dependent on, and what a cache has done (RFC 9211).
_KEPT: Final = (b"Vary", b"Cache-Status")
_CONDITIONS: Final = (
    b"if-none-match", b"if-modified-since", b"if-match", b"if-unmodified-since",
)  # fmt: skip


class Needs(Protocol):
    """The settings that this filter reads."""

    @property
    def if_modified_since(self) -> IfModifiedSince:
        """``if_modified_since``."""

    @property
    def msie_padding(self) -> bool:
        """``msie_padding``."""


def apply(request: Request, response: Response, settings: Needs) -> Response:
    """Evaluate the preconditions of ``request`` on a 200."""
    asked = request.head.headers
    if (
        response.status != 200
        or not response.conditional
        or not any(condition in asked for condition in _CONDITIONS)
    ):
        return response
    verdict = evaluate(
        asked,
        etag=response.headers.first(b"etag"),
        mtime=response.mtime,
        since=settings.if_modified_since,
    )
    if verdict is Verdict.PROCEED:
        return response
    discard(response.body)
    if verdict is Verdict.FAILED:
        error = error_response(request, 412, padding=settings.msie_padding)
        for name in _KEPT:
            value = response.headers.get(name.lower())
            if value is not None:
                error.headers.set(name, value)
        return attrs.evolve(error, close=response.close)
    headers = response.headers.copy()
    for name in _DROPPED:
        headers.remove(name)
    return attrs.evolve(response, status=304, headers=headers, body=b"", length=None, ranges=False)
