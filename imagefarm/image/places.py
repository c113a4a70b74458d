"""The locations of the resizer: which paths speak which dialect, and what they allow."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import Enum

from attrs import field, frozen

from .errors import BadRecipe, Forbidden
from .recipe import Recipe


class Dialect(Enum):
    """A URL form."""

    QUERY = "query"
    IIIF = "iiif"
    THUMBOR = "thumbor"
    IMGPROXY = "imgproxy"


class Signature(Enum):
    """Whether requests are signed."""

    #: Signatures are not looked at.
    OFF = "off"
    #: What is not signed is bound by the limits without signature.
    OPTIONAL = "optional"
    REQUIRED = "required"


class Confined(Enum):
    """What IIIF's ``!w,h`` does where the box is larger than the region."""

    #: 400, as the public validator wants it.
    STRICT = "strict"
    #: The region as it is, as the specification says.
    FIT = "fit"


@frozen
class Unsigned:
    """What may be asked for without a signature, in pixels; empty ``sizes`` are any.

    A size is w and h as a recipe has them, 0 for one that is not given.
    """

    max_width: int | None = None
    max_height: int | None = None
    sizes: tuple[tuple[int, int], ...] = ()

    def check(self, recipe: Recipe) -> None:
        """Raise `Forbidden` for a recipe that asks for more."""
        if self.sizes and (recipe.w or 0, recipe.h or 0) not in self.sizes:
            names = " ".join(f"{w}x{h}" for w, h in self.sizes[:12])
            raise Forbidden(f"w and h must be one of these sizes without a signature: {names}")
        self.check_made(recipe.w or 0, recipe.h or 0)

    def check_made(self, width: int, height: int) -> None:
        """Raise `Forbidden` for a result that is larger."""
        for name, value, most in (("w", width, self.max_width), ("h", height, self.max_height)):
            if most is not None and value > most:
                raise Forbidden(f"{name} must be at most {most} without a signature")


@frozen
class Keys:
    """The secrets of a location, by whose signature they make; several for rotation."""

    own: tuple[bytes, ...] = field(default=(), repr=False)
    thumbor: tuple[bytes, ...] = field(default=(), repr=False)
    #: Pairs of key and salt.
    imgproxy: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)

    def of(self, dialect: Dialect) -> Sequence[object]:
        """Those that count in a dialect."""
        if dialect is Dialect.THUMBOR:
            return self.thumbor
        return self.imgproxy if dialect is Dialect.IMGPROXY else self.own


@frozen
class Place:
    """One location: the paths that begin with ``prefix``, which is empty for all others.

    ``presets`` are parameters by the name of the preset.
    """

    prefix: bytes = b""
    dialect: Dialect = Dialect.QUERY
    signature: Signature = Signature.OFF
    keys: Keys = Keys()
    unsigned: Unsigned = Unsigned()
    presets: Mapping[str, Mapping[str, bytes]] = field(factory=dict)
    presets_only: bool = False
    confined: Confined = Confined.STRICT

    def preset(self, name: bytes) -> Mapping[str, bytes]:
        """The parameters of a preset. Raises `BadRecipe`."""
        found = self.presets.get(name.decode("latin-1"))
        if found is None:
            known = ", ".join(sorted(self.presets)) or "there are none"
            raise BadRecipe("preset", f"must be one of: {known}")
        return found


_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


def normal_path(path: bytes) -> bytes:
    """The path as servers in front see it: decoded, slashes merged, dot segments resolved."""
    plain = _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode("ascii")), path)
    kept: list[bytes] = []
    *folders, last = plain.split(b"/")
    for segment in folders:
        if segment == b"..":
            del kept[-1:]
        elif segment not in (b"", b"."):
            kept.append(segment)
    if last == b"..":
        del kept[-1:]
    end = b"" if last in (b".", b"..") else last
    return b"/" + b"/".join([*kept, end])


def _longest_first(places: Sequence[Place]) -> tuple[Place, ...]:
    return tuple(sorted(places, key=lambda place: -len(place.prefix)))


@frozen
class Places:
    """All locations. What none of them takes goes to ``default``."""

    default: Place = Place()
    places: tuple[Place, ...] = field(default=(), converter=_longest_first)

    def find(self, path: bytes) -> tuple[Place, bytes]:
        """The location with the longest prefix of ``path``, and what comes after the prefix.

        The server in front has looked at the path decoded and normalised, and the dialects need
        it as it was sent: where the two do not lead to the same location the answer is 400.
        Raises `BadRecipe`.
        """
        if not path.startswith(b"/"):
            raise BadRecipe("path", "must begin with a slash")
        place = self._match(path)
        if self._match(normal_path(path)) is not place:
            raise BadRecipe("path", "must not lead elsewhere when it is decoded and normalised")
        return place, path[len(place.prefix) :]

    def _match(self, path: bytes) -> Place:
        for place in self.places:
            if path.startswith(place.prefix):
                return place
        return self.default
