"""The answers that leave the cache, and the Cache-Status (RFC 9211) that they carry."""

from __future__ import annotations

from math import floor
from typing import Final

import attrs
from attrs import frozen

from imagefarm.http.filters.slice import VARIABLE as SLICE_RANGE
from imagefarm.http.headers import Headers
from imagefarm.http.message import Body, FileBody, Request, Response

from .directives import CacheSettings
from .entry import Entry
from .policy import age
from .purge import Purger
from .store import Found
from .zone import Zone

#: RFC 9211 section 2.2: why the request went forward, by ``$upstream_cache_status``; empty where
#: the cache was not asked for its method.
_FORWARD: Final = {
    b"MISS": b"miss",
    b"EXPIRED": b"stale",
    b"BYPASS": b"bypass",
    b"": b"method",
}


def from_file(
    settings: CacheSettings,
    request: Request,
    found: Found,
    status: bytes,
    now: float,
    how: bytes = b"",
) -> Response:
    """The answer in an open cache file, which it takes over; the rest as for `from_entry`."""
    entry = found.entry
    body: Body = FileBody(found.file, found.body_offset, entry.body_length)
    if not entry.body_length:
        found.file.close()
        body = b""
    return from_entry(settings, request, entry, body, status, now, how)


def from_entry(
    settings: CacheSettings,
    request: Request,
    entry: Entry,
    body: Body,
    status: bytes,
    now: float,
    how: bytes = b"",
) -> Response:
    """The answer to ``request`` that ``entry`` and its body make.

    ``status`` is for ``$upstream_cache_status``; ``how`` replaces "hit" in Cache-Status.
    """
    request.outcome.cache_status = status
    # $upstream_http_NAME of a hit is what the upstream said then (nginx).
    request.outcome.upstream_headers = Headers(entry.headers)
    response = Response(
        entry.status,
        Headers(entry.headers),
        body,
        ranges=entry.status == 200,
        final=entry.final,
    )
    if settings.present is not None:
        settings.present(response, request)
    headers = response.headers
    response.mtime = shown(entry.last_modified, headers)
    if settings.rfc9111:
        # Section 5.1: what comes from a cache says how old it is.
        headers.set(b"Age", b"%d" % age(entry, now))
    if settings.status_header:
        how = how or b"hit"
        ttl = floor(entry.expires - now)  # what is stale is below zero (RFC 9211 section 2.4)
        headers.add(b"Cache-Status", b"imagefarm; %b; ttl=%d" % (how, ttl))
    return response


@frozen
class _Stored:
    """A piece of a sliced answer, in a zone (`http.keeping.Stored`)."""

    zone: Zone
    entry: Entry
    hit: bool

    @property
    def asked(self) -> float:
        """When the upstream was asked for it."""
        return self.entry.asked

    def drop(self) -> None:
        """Remove it, unless a later one has its place."""
        self.zone.drop(self.entry)


def marked(
    response: Response, request: Request, zone: Zone, entry: Entry, *, hit: bool
) -> Response:
    """``response``, and which file it is, where ``slice`` may find that it is out of date."""
    if request.variables.get(SLICE_RANGE):
        response.stored = _Stored(zone, entry, hit)
    return response


def shown(modified: float | None, headers: Headers) -> float | None:
    """The date in ``Last-Modified``, if clients are told; else it is for the upstream alone."""
    return modified if b"last-modified" in headers else None


def forwarded(settings: CacheSettings, response: Response, status: bytes, how: bytes) -> Response:
    """The upstream's answer on its way through; ``how`` is what Cache-Status adds."""
    if not settings.status_header:
        return response
    headers = response.headers.copy()
    headers.add(b"Cache-Status", b"imagefarm; fwd=" + _FORWARD[status] + how)
    return attrs.evolve(response, headers=headers)


def purged(purger: Purger, key: bytes) -> Response:
    """Purge what ``*_cache_purge`` asks for; a key that ends with ``*`` is a prefix (nginx).

    204 if it was there, 404 if not; always 204 for a prefix, whose files nobody has counted.
    """
    try:
        if key.endswith(b"*"):
            purger.prefix(key[:-1])
            return Response(204)
        return Response(204 if purger.key(key) else 404)
    except OSError:
        return Response(500)
