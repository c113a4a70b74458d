"""imgproxy's URLs: ``SIGNATURE/OPTION:ARGUMENT:.../plain/SOURCE@EXTENSION``, or base64 at the end.

The signature is HMAC-SHA256 of a salt and all that follows it, in base64url. Sources are paths
below the root, with ``local://`` before them or not. docs/dialects.md has each option, supported
or not. (https://docs.imgproxy.net/usage/processing)
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Sequence
from fractions import Fraction

from attrs import define, field

from imagefarm.image.errors import BadRecipe, Expired, Forbidden, one_line
from imagefarm.image.limits import Limits
from imagefarm.image.places import Place, Signature
from imagefarm.image.query import recipe_of
from imagefarm.image.recipe import Recipe

from .text import decimal, spell, unescape, whole

_POINTS = {
    b"nowe": (0.0, 0.0), b"no": (0.5, 0.0), b"noea": (1.0, 0.0),
    b"we": (0.0, 0.5), b"ce": (0.5, 0.5), b"ea": (1.0, 0.5),
    b"sowe": (0.0, 1.0), b"so": (0.5, 1.0), b"soea": (1.0, 1.0),
}  # fmt: skip
_TYPES = {
    b"fit": b"contain", b"fill": b"cover", b"fill-down": b"cover", b"force": b"fill",
}  # fmt: skip
_FLAGS = {b"1": True, b"t": True, b"true": True, b"0": False, b"f": False, b"false": False}
_HEX = re.compile(rb"(?:[0-9a-fA-F]{3}){1,2}")
_SOURCE = re.compile(rb"[A-Za-z0-9_+-]*=*")
#: Most options in one URL.
_MAX_OPTIONS = 64


def parse(path: bytes, place: Place, limits: Limits, now: float) -> tuple[Recipe, bool]:
    """The recipe, and whether it is signed. Raises `BadRecipe`, `Forbidden` or `Expired`."""
    proof, slash, rest = path.partition(b"/")
    if not slash or not proof:
        raise BadRecipe("path", "must be a signature (or unsafe), then options, then a source")
    signed = _admit(proof, b"/" + rest, place)
    options = _Options(place, limits)
    source, extension = _source(rest, options)
    if options.expires is not None and now >= options.expires:
        raise Expired("the URL has expired")
    values = options.values()
    values["src"] = source
    if extension:
        values["fmt"] = extension
    return recipe_of(values, limits), signed


def sign(key: bytes, salt: bytes, rest: bytes) -> bytes:
    """The signature of ``rest``, what follows it in the path, with its slash."""
    return base64.urlsafe_b64encode(hmac.digest(key, salt + rest, "sha256")).rstrip(b"=")


def _admit(proof: bytes, rest: bytes, place: Place) -> bool:
    if place.signature is Signature.OFF:
        return False
    shown = unescape("path", proof).rstrip(b"=")
    good = [hmac.compare_digest(sign(*pair, rest), shown) for pair in place.keys.imgproxy]
    if any(good):
        return True
    if place.signature is Signature.OPTIONAL and shown in (b"unsafe", b"_", b"insecure"):
        return False
    raise Forbidden("the signature is wrong: it does not match the path after it")


def _source(rest: bytes, options: _Options) -> tuple[bytes, bytes]:
    """Reads the options and finds the source: its path, and the extension or nothing."""
    parts = rest.split(b"/")
    if options.only_presets:
        options.read(b"preset:" + parts[0])
        parts = parts[1:]
    for number, part in enumerate(parts):
        if part == b"plain":
            return _plain(b"/".join(parts[number + 1 :]))
        if part == b"enc":
            raise BadRecipe("source", "must be plain/ or in base64, encrypted is not supported")
        if b":" not in unescape("path", part) or options.only_presets:
            return _encoded(b"".join(parts[number:]))
        options.read(unescape("path", part))
    raise BadRecipe("source", "is missing: it must be plain/PATH or a path in base64url")


def _plain(text: bytes) -> tuple[bytes, bytes]:
    source, _, extension = text.partition(b"@")
    return _local(unescape("source", source)), unescape("extension", extension)


def _encoded(text: bytes) -> tuple[bytes, bytes]:
    encoded, _, extension = unescape("source", text).partition(b".")
    if not _SOURCE.fullmatch(encoded):
        raise BadRecipe("source", "must be plain/PATH or a path in base64url")
    bare = encoded.rstrip(b"=").translate(bytes.maketrans(b"+", b"-"))
    try:
        source = base64.urlsafe_b64decode(bare + b"=" * (-len(bare) % 4))
    except binascii.Error:
        raise BadRecipe("source", "must be plain/PATH or a path in base64url") from None
    return _local(source), extension


def _local(source: bytes) -> bytes:
    return source.removeprefix(b"local://")


@define
class _Options:
    """What the options have said so far; the last one counts."""

    place: Place
    limits: Limits
    expires: int | None = None
    _values: dict[str, bytes] = field(factory=dict)
    _gravity: bytes | None = None
    _turn: int | None = None
    _mirror: bytes = b""
    _extend: bool = False
    _extend_gravity: bytes = b"0.5,0.5"
    _crop: tuple[Fraction, Fraction, tuple[bytes, ...]] | None = None
    _number: int = 0

    @property
    def only_presets(self) -> bool:
        """Whether nothing but the names of presets may be given."""
        return self.place.presets_only

    def read(self, text: bytes) -> None:
        """One option. Raises `BadRecipe`."""
        self._number += 1
        if self._number > _MAX_OPTIONS:
            raise BadRecipe("options", f"must be at most {_MAX_OPTIONS}")
        name, *arguments = text.split(b":")
        word = name.decode("latin-1")
        found = OPTIONS.get(word)
        if found is None:
            raise BadRecipe("options", f"has {one_line(word[:40])}, which is not supported")
        found(self, arguments, word)

    def values(self) -> dict[str, bytes]:
        """All in the parameters of the query form."""
        values = dict(self._values)
        fit = values.get("fit", b"contain")
        if self._extend:
            if fit != b"contain":
                raise BadRecipe("extend", "is supported with the resizing type fit alone")
            values["fit"] = b"pad"
        gravity = self._extend_gravity if self._extend else self._gravity
        if self._crop is not None:
            values["crop"] = _crop_box(*self._crop)
        mirror, turn = self._mirror, self._turn or 0
        if turn % 180:
            # imgproxy sizes, then turns, then mirrors; a recipe mirrors, turns, then sizes.
            w, h = values.pop("w", None), values.pop("h", None)
            values.update((name, side) for name, side in (("w", h), ("h", w)) if side)
            mirror = mirror.translate(bytes.maketrans(b"hv", b"vh"))
            mirror = b"hv" if mirror == b"vh" else mirror
        if gravity is not None:
            values["g"] = _turned(gravity, turn, self._mirror)
        if mirror:
            values["flip"] = mirror
        if self._turn is not None:
            values["rotate"] = b"%d" % turn
        return values

    def presets(self, arguments: list[bytes], name: str) -> None:
        """Parameters of the query form; what has been said before gives way."""
        for preset in arguments:
            self._values |= self.place.preset(preset)

    def size(self, arguments: list[bytes], name: str) -> None:
        for key, text in zip(("width", "height"), arguments, strict=False):
            if text:
                OPTIONS[key](self, [text], key)
        if arguments[2:3] not in ([], [b""]):
            self.enlarge(arguments[2:3], "enlarge")
        if arguments[3:]:
            self.extend(arguments[3:], "extend")

    def resize(self, arguments: list[bytes], name: str) -> None:
        if arguments[0]:
            self.type(arguments[:1], "resizing_type")
        self.size(arguments[1:], name)

    def type(self, arguments: list[bytes], name: str) -> None:
        if arguments[0] not in _TYPES:
            raise BadRecipe(name, "must be one of: fit, fill, fill-down, force")
        self._values["fit"] = _TYPES[arguments[0]]

    def width(self, arguments: list[bytes], name: str) -> None:
        self._side("w", arguments, name, self.limits.max_width)

    def height(self, arguments: list[bytes], name: str) -> None:
        self._side("h", arguments, name, self.limits.max_height)

    def _side(self, key: str, arguments: list[bytes], name: str, most: int) -> None:
        pixels = whole(name, arguments[0], most)
        self._values.pop(key, None)
        if pixels:
            self._values[key] = b"%d" % pixels

    def enlarge(self, arguments: list[bytes], name: str) -> None:
        self._values["enlarge"] = b"1" if _flag(name, arguments[0]) else b"0"

    def extend(self, arguments: list[bytes], name: str) -> None:
        self._extend = bool(arguments[0]) and _flag(name, arguments[0])
        if arguments[1:]:
            self._extend_gravity = _point(name, arguments[1:], smart=False)

    def gravity(self, arguments: list[bytes], name: str) -> None:
        self._gravity = _point(name, arguments, smart=True)

    def crop(self, arguments: list[bytes], name: str) -> None:
        sides = [decimal(name, text or b"0", 999_999_999) for text in arguments[:2]]
        w, h = (*sides, Fraction(0))[:2]
        self._crop = (w, h, tuple(arguments[2:])) if w or h else None

    def trim(self, arguments: list[bytes], name: str) -> None:
        if any(arguments[1:]):
            raise BadRecipe(name, "takes a threshold alone")
        self._values["trim"] = arguments[0]

    def rotate(self, arguments: list[bytes], name: str) -> None:
        angle = whole(name, arguments[0], 999_999)
        if angle % 90:
            raise BadRecipe(name, "must be 0, 90, 180 or 270")
        self._turn = angle % 360

    def flip(self, arguments: list[bytes], name: str) -> None:
        flags = [bool(text) and _flag(name, text) for text in [*arguments, b""][:2]]
        self._mirror = (b"h" if flags[0] else b"") + (b"v" if flags[1] else b"")

    def background(self, arguments: list[bytes], name: str) -> None:
        if len(arguments) == 3:
            self._values["bg"] = b"".join(b"%02x" % whole(name, one, 255) for one in arguments)
        elif arguments == [b""]:
            self._values.pop("bg", None)
        elif len(arguments) == 1 and _HEX.fullmatch(arguments[0]):
            text = arguments[0]
            double = bytes(digit for digit in text for _ in (0, 1))
            self._values["bg"] = double if len(text) == 3 else text
        else:
            raise BadRecipe(name, "must be R:G:B from 0 to 255, or rgb or rrggbb in hex")

    def quality(self, arguments: list[bytes], name: str) -> None:
        self._optional("q", arguments, name, 100)

    def max_bytes(self, arguments: list[bytes], name: str) -> None:
        self._optional("max_bytes", arguments, name, 999_999_999)

    def _optional(self, key: str, arguments: list[bytes], name: str, most: int) -> None:
        self._values.pop(key, None)
        if value := whole(name, arguments[0], most):
            self._values[key] = b"%d" % value

    def sigma(self, key: str, arguments: list[bytes], name: str) -> None:
        """A filter; zero is none."""
        self._values.pop(key, None)
        if value := decimal(name, arguments[0], 100):
            self._values[key] = spell(value).encode()

    def plain(self, key: str, arguments: list[bytes]) -> None:
        """The argument is the parameter of that name; its bounds are the parameter's."""
        self._values[key] = arguments[0]

    def format(self, arguments: list[bytes], name: str) -> None:
        self._values["fmt"] = arguments[0]

    def expire(self, arguments: list[bytes], name: str) -> None:
        if len(arguments[0]) > 10 or not arguments[0].isdigit():
            raise BadRecipe(name, "must be seconds since 1970, a whole number")
        self.expires = int(arguments[0])

    def keep(self, arguments: list[bytes], name: str) -> None:
        self._values.pop("keep", None)
        if _flag(name, arguments[0]):
            self._values["keep"] = b"copyright"

    def must_be_on(self, arguments: list[bytes], name: str) -> None:
        """What we always do."""
        if not _flag(name, arguments[0]):
            raise BadRecipe(name, "must be 1")

    def ignored(self, arguments: list[bytes], name: str) -> None:
        """What changes the URL and nothing else."""


def _flag(name: str, text: bytes) -> bool:
    if text not in _FLAGS:
        raise BadRecipe(name, "must be 1, t, true, 0, f or false")
    return _FLAGS[text]


def _point(name: str, arguments: Sequence[bytes], *, smart: bool) -> bytes:
    kind, *offsets = arguments
    if kind == b"sm" and smart:
        return b"smart"
    if kind == b"fp" and len(offsets) == 2:
        x, y = (spell(decimal(name, text, 1)) for text in offsets)
        return f"{x},{y}".encode()
    if kind not in _POINTS:
        known = ", ".join(point.decode() for point in _POINTS)
        raise BadRecipe(name, f"must be {'sm, ' if smart else ''}fp:x:y or one of: {known}")
    if any(offset.strip(b"0.") for offset in offsets):
        raise BadRecipe(name, "may have no offsets, only fp:x:y")
    return b"%g,%g" % _POINTS[kind]


def _turned(gravity: bytes, turn: int, mirror: bytes) -> bytes:
    """Where a point of the picture before it is turned and mirrored is found after that."""
    if gravity == b"smart":
        return gravity
    x, y = (float(part) for part in gravity.split(b","))
    for _ in range(turn // 90):
        x, y = 1 - y, x
    x = 1 - x if b"h" in mirror else x
    y = 1 - y if b"v" in mirror else y
    return f"{x:.9f},{y:.9f}".encode()


def _crop_box(w: Fraction, h: Fraction, where: tuple[bytes, ...]) -> bytes:
    """Shares can lie anywhere; pixels only where the picture's size doesn't matter."""
    if w < 1 and h < 1:
        point = _point("crop", where or (b"ce",), smart=False)
        x, y = (Fraction(part.decode()) for part in point.split(b","))
        w, h = w or Fraction(1), h or Fraction(1)
        sides = [100 * side for side in ((1 - w) * x, (1 - h) * y, w, h)]
        return b"pct:" + ",".join(map(spell, sides)).encode()
    if w < 1 or h < 1 or where[:1] != (b"nowe",):
        raise BadRecipe(
            "crop", "must be shares below 1, or pixels with nowe and offsets in pixels"
        )
    left, top = (whole("crop", text or b"0", 999_999_999) for text in (*where, b"", b"")[1:3])
    return b"%d,%d,%d,%d" % (left, top, int(w), int(h))


_Option = Callable[[_Options, list[bytes], str], None]


def _filter(key: str) -> _Option:
    def read(options: _Options, arguments: list[bytes], name: str) -> None:
        options.sigma(key, arguments, name)

    return read


def _parameter(key: str) -> _Option:
    def read(options: _Options, arguments: list[bytes], name: str) -> None:
        options.plain(key, arguments)

    return read


_GROUPS: tuple[tuple[tuple[str, ...], _Option], ...] = (
    (("resize", "rs"), _Options.resize),
    (("size", "s"), _Options.size),
    (("resizing_type", "rt"), _Options.type),
    (("width", "w"), _Options.width),
    (("height", "h"), _Options.height),
    (("dpr",), _parameter("dpr")),
    (("enlarge", "el"), _Options.enlarge),
    (("extend", "ex"), _Options.extend),
    (("gravity", "g"), _Options.gravity),
    (("crop", "c"), _Options.crop),
    (("trim", "t"), _Options.trim),
    (("rotate", "rot"), _Options.rotate),
    (("flip", "fl"), _Options.flip),
    (("auto_rotate", "ar"), _Options.must_be_on),
    (("background", "bg"), _Options.background),
    (("blur", "bl"), _filter("blur")),
    (("sharpen", "sh"), _filter("sharpen")),
    (("quality", "q"), _Options.quality),
    (("max_bytes", "mb"), _Options.max_bytes),
    (("format", "f", "ext"), _Options.format),
    (("strip_metadata", "sm"), _Options.must_be_on),
    (("strip_color_profile", "scp"), _Options.must_be_on),
    (("keep_copyright", "kcr"), _Options.keep),
    (("cachebuster", "cb"), _Options.ignored),
    (("expires", "exp"), _Options.expire),
    (("preset", "pr"), _Options.presets),
)
#: The options that are supported, by all their names.
OPTIONS: dict[str, _Option] = {name: option for names, option in _GROUPS for name in names}
