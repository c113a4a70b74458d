"""Validators of a result, and the conditional requests that compare them (RFC 9110, 8.8, 13)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import PIL

import imagefarm
from imagefarm.http.dates import parse_http
from imagefarm.http.etag import listed

from . import deflate
from .formats import Offer, Wanted
from .recipe import Recipe
from .source import Identity

#: Other encoders make other bytes of the same recipe.
_MAKERS = f"{imagefarm.__version__} {PIL.__version__} {deflate.NAME}"


def entity_tag(
    recipe: Recipe,
    offer: Offer,
    source: Identity,
    mark: Identity | None = None,
    derived: int = 0,
) -> bytes:
    """A strong ETag: recipe, states of source and watermark, what Accept said, the encoders.

    It is the same on every machine that has the same source with the same times.
    """
    says = offer.text() if recipe.fmt is Wanted.AUTO else ""
    states = f"{source.size} {source.mtime}"
    if mark is not None:
        states += f" {mark.size} {mark.mtime}"
    if derived:  # from pixels of another factor, so it has other bytes
        states += f" of 1/{derived}"
    text = f"{recipe.canonical()} {says} {states} {_MAKERS}"
    return b'"%s"' % hashlib.blake2b(text.encode(), digest_size=12).hexdigest().encode()


def not_modified(params: Mapping[bytes, bytes], etag: bytes, seconds: int) -> bool:
    """Whether the client's copy is still good (RFC 9110 section 13.2.2, steps 3 and 4).

    If-Modified-Since counts only where there is no If-None-Match; tags compare weakly.
    """
    none_match = params.get(b"HTTP_IF_NONE_MATCH")
    if none_match is not None:
        return listed(none_match, etag, weak=True)
    since = params.get(b"HTTP_IF_MODIFIED_SINCE")
    if since is None:
        return False
    date = parse_http(since)
    return date is not None and seconds <= date
