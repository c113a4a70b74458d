"""What a request asks for: its location, its dialect, and whether it may."""

from __future__ import annotations

import re
from collections.abc import Mapping

from attrs import frozen

from .dialects import imgproxy, query, thumbor
from .errors import BadRecipe
from .limits import Limits
from .places import Dialect, Place, Places, Unsigned
from .recipe import Recipe

#: Longest request target that is read, in bytes.
MAX_TARGET = 16_384

_HOST = re.compile(rb"[A-Za-z0-9._:\[\]-]{1,255}")


@frozen
class Asked:
    """A request's location, what follows its prefix in the path as it was sent, and the query."""

    place: Place
    rest: bytes
    query: bytes


@frozen
class Wish:
    """A picture that may be made; without a signature the limits of the location bind it."""

    recipe: Recipe
    place: Place
    signed: bool

    @property
    def unsigned(self) -> Unsigned:
        """What binds it."""
        return Unsigned() if self.signed else self.place.unsigned

    def check_made(self, width: int, height: int) -> None:
        """Raise `Forbidden` for a result that is larger than it may be."""
        self.unsigned.check_made(width, height)


def read_target(params: Mapping[bytes, bytes], places: Places) -> Asked:
    """Find the location by REQUEST_URI, the target as the client sent it. Raises `BadRecipe`."""
    target = params.get(b"REQUEST_URI", b"/")
    if len(target) > MAX_TARGET:
        raise BadRecipe("path", f"must be at most {MAX_TARGET} bytes long with its query")
    path, _, query = target.partition(b"?")
    place, rest = places.find(path)
    return Asked(place, rest, params.get(b"QUERY_STRING", query))


def read_wish(asked: Asked, limits: Limits, now: float) -> Wish:
    """The picture that is asked for in any dialect but IIIF.

    ``now`` is in seconds since the epoch. Raises `BadRecipe`, `Forbidden` or `Expired`.
    """
    place = asked.place
    if place.dialect is Dialect.THUMBOR:
        recipe, signed = thumbor.parse(asked.rest, place, limits)
    elif place.dialect is Dialect.IMGPROXY:
        recipe, signed = imgproxy.parse(asked.rest, place, limits, now)
    else:
        recipe, ticket = query.parse(asked.rest, asked.query, place, limits)
        signed = ticket.admit(recipe, place, now)
    if not signed:
        place.unsigned.check(recipe)
    return Wish(recipe, place, signed)


def read_signable(asked: Asked, limits: Limits) -> Recipe:
    """The recipe of a URL of the query form that is yet to be signed. Raises `BadRecipe`."""
    recipe, _ = query.parse(asked.rest, asked.query, asked.place, limits)
    return recipe


def service_uri(params: Mapping[bytes, bytes], place: Place, identifier: str) -> str:
    """The URI of an IIIF image service, as the client sees it. Raises `BadRecipe`."""
    host = params.get(b"HTTP_HOST") or params.get(b"SERVER_NAME", b"localhost")
    if not _HOST.fullmatch(host):
        raise BadRecipe("Host", "must be a name or an address, and a port")
    secure = params.get(b"REQUEST_SCHEME") == b"https" or params.get(b"HTTPS") in (b"on", b"1")
    scheme = "https" if secure else "http"
    return f"{scheme}://{host.decode('ascii')}{place.prefix.decode('ascii')}{identifier}"
