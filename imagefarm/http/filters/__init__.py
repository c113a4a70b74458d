"""Filters: plain functions from (request, response) to response.

The order is nginx's. Preconditions come first, because a 304 or 412 has nothing left to
transform; what ``expires`` and ``add_header`` say goes on 304s too, so they follow. The charset
is named before gzip, whose stream has no text to look at, and before the parts of a multipart
range repeat the Content-Type. Ranges come last: they are cut from the representation as it is
sent, and a compressed answer has none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from attrs import frozen

from imagefarm.config.table import AnyRow, Scope
from imagefarm.http.conditional import IfModifiedSince
from imagefarm.http.errorpages import MSIE_PADDING
from imagefarm.http.message import Request, Response

from . import charset, gzip, headers, not_modified, range, slice
from .gzip import GzipSettings
from .headers import AddHeader, Expires, Kind
from .mediatypes import MediaTypes
from .streams import Later

DIRECTIVES: Final[tuple[AnyRow, ...]] = (
    *not_modified.DIRECTIVES,
    *headers.DIRECTIVES,
    *charset.DIRECTIVES,
    *gzip.DIRECTIVES,
    *range.DIRECTIVES,
    *slice.DIRECTIVES,
)

_CHARSET_TYPES: Final = charset.CHARSET_TYPES.default
_NO_EXPIRES: Final = Expires(Kind.OFF)
_NO_GZIP: Final = GzipSettings()


@frozen
class FilterSettings:
    """What the filters do in a location; names are nginx's directives.

    ``clock`` gives seconds since the epoch. ``later`` runs a function on the next turn of the
    event loop; with it, compressing a large file does not hold up other connections. ``etag``
    is for the leaf that serves files.
    """

    etag: bool = True
    if_modified_since: IfModifiedSince = IfModifiedSince.EXACT
    expires: Expires = _NO_EXPIRES
    add_headers: tuple[AddHeader, ...] = ()
    charset: bytes | None = None
    charsets: frozenset[bytes] = frozenset()
    charset_types: MediaTypes = _CHARSET_TYPES
    override_charset: bool = False
    gzip: GzipSettings = _NO_GZIP
    max_ranges: int | None = None
    slice: int = 0
    msie_padding: bool = True
    clock: Callable[[], float] = time.time
    later: Later | None = None

    @classmethod
    def from_scope(
        cls,
        scope: Scope,
        *,
        clock: Callable[[], float] = time.time,
        later: Later | None = None,
    ) -> FilterSettings:
        """The settings in ``scope``."""
        return cls(
            etag=scope[not_modified.ETAG],
            if_modified_since=scope[not_modified.IF_MODIFIED_SINCE],
            expires=scope[headers.EXPIRES],
            add_headers=scope.all(headers.ADD_HEADER),
            charset=scope[charset.CHARSET],
            charsets=charset.known_charsets(scope),
            charset_types=scope[charset.CHARSET_TYPES],
            override_charset=scope[charset.OVERRIDE_CHARSET],
            gzip=GzipSettings.from_scope(scope),
            max_ranges=scope[range.MAX_RANGES],
            slice=scope[slice.SLICE],
            msie_padding=scope[MSIE_PADDING],
            clock=clock,
            later=later,
        )


Filter = Callable[[Request, Response, FilterSettings], Response]

#: The chain; why in this order is said above.
FILTERS: Final[tuple[Filter, ...]] = (
    not_modified.apply,
    headers.apply,
    charset.apply,
    gzip.apply,
    range.apply,
)


def run(request: Request, response: Response, settings: FilterSettings) -> Response:
    """``response`` as it is to be sent.

    May turn a 200 into a 412 or 416 with the built-in page; nginx lets ``error_page`` apply to
    those. A body that is not passed on has been released.
    """
    for step in FILTERS:
        response = step(request, response, settings)
    return response
