"""Our own form: the query string of `imagefarm.image.query`, presets and signatures with it.

``/resize?src=/a.jpg&w=320``, and where there is a location whose prefix ends in a slash the source
may be the rest of the path: ``/resize/a.jpg?w=320``.
"""

from __future__ import annotations

from attrs import field, frozen

from imagefarm.image.errors import BadRecipe, Forbidden
from imagefarm.image.limits import Limits
from imagefarm.image.places import Place, Signature
from imagefarm.image.query import MAX_QUERY, pairs, recipe_of, unquote
from imagefarm.image.recipe import Recipe
from imagefarm.image.signing import verify

from .text import unescape

#: Parameters that are not the recipe's.
_OWN = ("preset", "expires", "sig")


@frozen
class _Query:
    values: dict[str, bytes]
    own: dict[str, bytes] = field(factory=dict)


def parse(path: bytes, query: bytes, place: Place, limits: Limits) -> tuple[Recipe, Ticket]:
    """The recipe, and what the request shows for itself. ``path`` is what follows the prefix.

    Raises `BadRecipe`, which names the parameter.
    """
    asked = _split(query)
    values = asked.values
    if place.prefix.endswith(b"/") and path and "src" not in values:
        values["src"] = unescape("src", path)
    if place.presets_only:
        _only_preset(asked, place)
    if "preset" in asked.own:
        for name in asked.own["preset"].split(b","):
            values = {**place.preset(name), **values}
    expires = asked.own.get("expires")
    end = None if expires is None else _seconds(expires)
    return recipe_of(values, limits), Ticket(end, asked.own.get("sig"))


@frozen
class Ticket:
    """``expires`` and ``sig`` of a request."""

    expires: int | None = None
    signature: bytes | None = None

    def admit(self, recipe: Recipe, place: Place, now: float) -> bool:
        """Whether the request is signed. Raises `Forbidden` or `Expired`."""
        if place.signature is Signature.OFF:
            return False
        if self.signature is None:
            if place.signature is Signature.REQUIRED:
                raise Forbidden("sig is missing: only signed URLs are answered here")
            return False
        verify(place.keys.own, recipe, self.expires, self.signature, now)
        return True


def _seconds(text: bytes) -> int:
    if len(text) > 10 or not text.isdigit():
        raise BadRecipe("expires", "must be seconds since 1970, a whole number")
    return int(text)


def _only_preset(asked: _Query, place: Place) -> None:
    known = ", ".join(sorted(place.presets))
    for name in asked.values:
        if name != "src":
            raise BadRecipe(name, f"must not be given here, only preset, one of: {known}")
    if "preset" not in asked.own:
        raise BadRecipe("preset", f"is missing: it must be one of: {known}")


def _split(query: bytes) -> _Query:
    if len(query) > MAX_QUERY:
        raise BadRecipe("query string", f"must be at most {MAX_QUERY} bytes long")
    own: dict[str, bytes] = {}
    rest: list[bytes] = []
    for pair in query.split(b"&"):
        raw, _, value = pair.partition(b"=")
        name = unquote("parameter name", raw).decode("latin-1")
        if name not in _OWN:
            rest.append(pair)
        elif name in own:
            raise BadRecipe(name, "must be given only once")
        else:
            own[name] = unquote(name, value)
    return _Query(pairs(b"&".join(rest)), own)
