"""Preconditions (RFC 9110 section 13) evaluated in nginx's order.

nginx follows section 13.2.2 with one difference that clients have come to rely on: where both
``If-None-Match`` and ``If-Modified-Since`` are given, both must say "not modified".
"""

from __future__ import annotations

from enum import Enum

from .dates import parse_http
from .etag import listed
from .headers import Headers


class IfModifiedSince(Enum):
    """How ``If-Modified-Since`` is compared (nginx's ``if_modified_since``)."""

    OFF = "off"
    EXACT = "exact"
    BEFORE = "before"


class Verdict(Enum):
    """What the preconditions make of a 200."""

    PROCEED = 200
    NOT_MODIFIED = 304
    FAILED = 412


def evaluate(
    headers: Headers,
    *,
    etag: bytes | None,
    mtime: float | None,
    since: IfModifiedSince = IfModifiedSince.EXACT,
) -> Verdict:
    """Evaluate the request's preconditions against the representation's validators.

    ``mtime`` is Last-Modified in seconds, None where there is none.
    """
    unmodified = headers.first(b"if-unmodified-since")
    if unmodified is not None and not _unmodified(unmodified, mtime):
        return Verdict.FAILED
    match = headers.get(b"if-match")
    if match is not None and not listed(match, etag, weak=False):
        return Verdict.FAILED
    modified = headers.first(b"if-modified-since")
    none_match = headers.get(b"if-none-match")
    if modified is None and none_match is None:
        return Verdict.PROCEED
    if modified is not None and _modified(modified, mtime, since):
        return Verdict.PROCEED
    if none_match is not None and not listed(none_match, etag, weak=True):
        return Verdict.PROCEED
    return Verdict.NOT_MODIFIED


def _unmodified(value: bytes, mtime: float | None) -> bool:
    date = parse_http(value)
    return mtime is not None and date is not None and date >= int(mtime)


def _modified(value: bytes, mtime: float | None, since: IfModifiedSince) -> bool:
    if mtime is None or since is IfModifiedSince.OFF:
        return True
    date = parse_http(value)
    if date is None:
        return True
    if date == int(mtime):
        return False
    return since is IfModifiedSince.EXACT or date < int(mtime)
