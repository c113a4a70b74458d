"""thumbor's URLs: ``SIGNATURE/OPTIONS/filters:NAME(ARGUMENTS):.../IMAGE``.

``unsafe`` stands for a signature; a signature is HMAC-SHA1 of all that follows it, in base64url.
docs/dialects.md has each option and filter, supported or not.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable, Sequence
from fractions import Fraction

from imagefarm.image.errors import BadRecipe, Forbidden, one_line
from imagefarm.image.limits import Limits
from imagefarm.image.places import Place, Signature
from imagefarm.image.query import recipe_of
from imagefarm.image.recipe import Recipe

from .text import decimal, spell, unescape, whole

_TRIM = re.compile(rb"trim(:top-left|:bottom-right)?(?::([0-9]+))?")
_CROP = re.compile(rb"([0-9.]+)x([0-9.]+):([0-9.]+)x([0-9.]+)")
_SIZE = re.compile(rb"(-)?([0-9]*|orig)x(-)?([0-9]*|orig)")
_FILTER = re.compile(rb"([a-z_]+)\(([^()]*)\)")
_FIT = re.compile(rb"(adaptive-)?(full-)?fit-in")
_ACROSS = {b"left": 0.0, b"center": 0.5, b"right": 1.0}
_DOWN = {b"top": 0.0, b"middle": 0.5, b"bottom": 1.0}
_COLOURS = {
    b"white": b"ffffff", b"black": b"000000", b"red": b"ff0000", b"green": b"008000",
    b"blue": b"0000ff", b"gray": b"808080", b"grey": b"808080", b"yellow": b"ffff00",
    b"transparent": b"transparent", b"blur": b"blur",
}  # fmt: skip
_HEX = re.compile(rb"(?:[0-9a-fA-F]{3}){1,2}|[0-9a-fA-F]{8}")
#: Most filters in one URL.
_MAX_FILTERS = 32


def parse(path: bytes, place: Place, limits: Limits) -> tuple[Recipe, bool]:
    """The recipe, and whether it is signed. Raises `BadRecipe` or `Forbidden`."""
    proof, slash, rest = path.partition(b"/")
    if not slash:
        raise BadRecipe("path", "must be unsafe or a signature, then options, then an image")
    signed = _admit(proof, rest, place)
    return recipe_of(_Reader(unescape("path", rest), limits).read(), limits), signed


def sign(key: bytes, rest: bytes) -> bytes:
    """The signature of what follows it in the path."""
    return base64.urlsafe_b64encode(hmac.digest(key, rest, "sha1"))


def _admit(proof: bytes, rest: bytes, place: Place) -> bool:
    if proof == b"unsafe":
        if place.signature is Signature.REQUIRED:
            raise Forbidden("unsafe is not allowed here: only signed URLs are answered")
        return False
    if place.signature is Signature.OFF:
        raise BadRecipe("path", "must begin with unsafe: signatures are not read here")
    plain = unescape("path", rest)
    shown = unescape("path", proof).ljust(28, b"=")
    # Clients sign the URL before or after they encode it.
    good = [
        hmac.compare_digest(sign(key, text), shown)
        for key in place.keys.thumbor
        for text in (rest, plain)
    ]
    if not any(good):
        raise Forbidden("the signature is wrong: it does not match the path after it")
    return True


class _Reader:
    """Reads the options in thumbor's order; all may be left out."""

    def __init__(self, path: bytes, limits: Limits) -> None:
        self._path = path
        self._limits = limits
        self._values: dict[str, bytes] = {}
        self._fit_in = False
        self._x, self._y = 0.5, 0.5

    def read(self) -> dict[str, bytes]:
        self._refuse(b"debug", b"meta", b"adaptive-fit-in", b"adaptive-full-fit-in")
        self._option(_TRIM, self._trim)
        self._option(_CROP, self._crop)
        self._refuse(b"adaptive-fit-in", b"adaptive-full-fit-in")
        self._option(_FIT, self._fit)
        self._option(_SIZE, self._size)
        self._x = self._word(_ACROSS, self._x)
        self._y = self._word(_DOWN, self._y)
        smart = self._word({b"smart": 1.0}, 0.0)
        self._gravity(bool(smart))
        if self._path.startswith(b"filters:"):
            self._filters()
        self._values["src"] = self._path
        return self._values

    def _head(self) -> bytes | None:
        head, slash, _ = self._path.partition(b"/")
        return head if slash else None

    def _advance(self) -> None:
        self._path = self._path.partition(b"/")[2]

    def _refuse(self, *words: bytes) -> None:
        head = self._head()
        if head in words:
            raise BadRecipe(head.decode(), "is not supported here")

    def _option(self, form: re.Pattern[bytes], read: Callable[[re.Match[bytes]], None]) -> None:
        match = form.fullmatch(self._head() or b"")
        if match is not None and match[0]:
            read(match)
            self._advance()

    def _word(self, words: dict[bytes, float], default: float) -> float:
        head = self._head()
        if head not in words:
            return default
        self._advance()
        return words[head]

    def _trim(self, match: re.Match[bytes]) -> None:
        if match[1] == b":bottom-right":
            raise BadRecipe("trim", "goes by the colour at the top left, not at bottom-right")
        # thumbor's tolerance is a distance in RGB, up to 442; ours is one channel's.
        tolerance = whole("trim", match[2] or b"0", 442)
        self._values["trim"] = b"%d" % min(255, round(tolerance / 3**0.5))

    def _crop(self, match: re.Match[bytes]) -> None:
        edges = [decimal("crop", text, 999_999_999) for text in match.groups()]
        if not any(edges):
            return
        left, top, right, bottom = edges
        if right <= left or bottom <= top:
            raise BadRecipe("crop", "must be LEFTxTOP:RIGHTxBOTTOM, and not be empty")
        relative = max(edges) <= 1 and any(edge.denominator > 1 for edge in edges)
        box = [left, top, right - left, bottom - top]
        if relative:
            self._values["crop"] = b"pct:" + _list([100 * side for side in box])
        elif all(edge.denominator == 1 for edge in edges):
            self._values["crop"] = _list(box)
        else:
            raise BadRecipe("crop", "must be whole pixels, or shares from 0 to 1")

    def _fit(self, match: re.Match[bytes]) -> None:
        self._fit_in = True
        self._values["fit"] = b"outside" if match[2] else b"contain"

    def _size(self, match: re.Match[bytes]) -> None:
        mirrored, width, upside, height = match.groups()
        if b"orig" in (width, height) and (width, height) != (b"orig", b"orig"):
            raise BadRecipe("size", "must be WIDTHxHEIGHT or origxorig")
        for name, text, most in (
            ("w", width, self._limits.max_width),
            ("h", height, self._limits.max_height),
        ):
            if text not in (b"", b"orig") and (pixels := whole("size", text, most)):
                self._values[name] = b"%d" % pixels
        if mirrored or upside:
            self._values["flip"] = (b"h" if mirrored else b"") + (b"v" if upside else b"")
        if not self._fit_in:
            self._values |= {"fit": b"cover", "enlarge": b"1"}

    def _gravity(self, smart: bool) -> None:
        """Ours counts after mirroring, thumbor's before."""
        flip = self._values.get("flip", b"")
        x = 1 - self._x if b"h" in flip else self._x
        y = 1 - self._y if b"v" in flip else self._y
        self._values["g"] = b"smart" if smart else f"{x:g},{y:g}".encode()

    def _filters(self) -> None:
        end = self._path.find(b")/")
        if end < 0:
            raise BadRecipe("filters", "must be NAME(ARGUMENTS) with colons between, then /IMAGE")
        text, self._path = self._path[len(b"filters:") : end + 1], self._path[end + 2 :]
        for position, one in enumerate(_split_filters(text)):
            match = _FILTER.fullmatch(one)
            if match is None or position >= _MAX_FILTERS:
                raise BadRecipe("filters", "must be NAME(ARGUMENTS) with colons between")
            name = match[1].decode()
            if name not in FILTERS:
                raise BadRecipe("filters", f"has {one_line(name[:40])}, which is not supported")
            arguments = [part.strip() for part in match[2].split(b",")]
            FILTERS[name](self._values, arguments, name)


def _split_filters(text: bytes) -> list[bytes]:
    return [one if one.endswith(b")") else one + b")" for one in text.split(b"):")]


def _list(numbers: Sequence[Fraction]) -> bytes:
    return ",".join(spell(number) for number in numbers).encode()


_Values = dict[str, bytes]
_Filter = Callable[[_Values, list[bytes], str], None]


def _plain(parameter: str) -> _Filter:
    """The first argument is the parameter; its bounds are the parameter's."""

    def read(values: _Values, arguments: list[bytes], name: str) -> None:
        values[parameter] = arguments[0]

    return read


def _says(**parameters: str) -> _Filter:
    def read(values: _Values, arguments: list[bytes], name: str) -> None:
        if arguments != [b""]:
            raise BadRecipe(name, "takes no arguments")
        values.update((key, value.encode()) for key, value in parameters.items())

    return read


def _nothing(values: _Values, arguments: list[bytes], name: str) -> None:
    """Metadata is stripped in any case."""


def _colour(name: str, text: bytes) -> bytes:
    text = text.lower().removeprefix(b"#")
    if text in _COLOURS:
        return _COLOURS[text]
    if not _HEX.fullmatch(text):
        known = ", ".join(word.decode() for word in _COLOURS)
        raise BadRecipe(name, f"must be rgb, rrggbb or rrggbbaa in hex or one of: {known}")
    return bytes(digit for digit in text for _ in (0, 1)) if len(text) == 3 else text


def _fill(values: _Values, arguments: list[bytes], name: str) -> None:
    values["bg"] = _colour(name, arguments[0])
    if values.get("fit") == b"contain":
        values["fit"] = b"pad"


def _background(values: _Values, arguments: list[bytes], name: str) -> None:
    values["bg"] = _colour(name, arguments[0])


def _blur(values: _Values, arguments: list[bytes], name: str) -> None:
    values["blur"] = arguments[1] if len(arguments) > 1 else arguments[0]


def _saturation(values: _Values, arguments: list[bytes], name: str) -> None:
    factor = decimal(name, arguments[0], 2)
    values["saturation"] = b"%d" % round((factor - 1) * 100)


def _rotate(values: _Values, arguments: list[bytes], name: str) -> None:
    """thumbor turns to the left and after it has sized the picture; we turn before."""
    angle = whole(name, arguments[0], 359)
    if angle % 90:
        raise BadRecipe(name, "must be 0, 90, 180 or 270")
    values["rotate"] = b"%d" % ((360 - angle) % 360)
    if angle % 180:
        w, h = values.pop("w", None), values.pop("h", None)
        values.update((key, side) for key, side in (("w", h), ("h", w)) if side is not None)
    _turn_gravity(values, (360 - angle) % 360)


def _turn_gravity(values: _Values, degrees: int) -> None:
    if values.get("g", b"smart") == b"smart":
        return
    x, y = (float(part) for part in values["g"].split(b","))
    for _ in range(degrees // 90):
        x, y = 1 - y, x
    values["g"] = f"{x:g},{y:g}".encode()


def _corners(values: _Values, arguments: list[bytes], name: str) -> None:
    if len(arguments) not in (1, 4, 5) or b"|" in arguments[0]:
        raise BadRecipe(name, "must be one radius, or radius,red,green,blue")
    values["radius"] = arguments[0]
    if len(arguments) == 4:
        values["bg"] = b"".join(b"%02x" % whole(name, part, 255) for part in arguments[1:4])


def _watermark(values: _Values, arguments: list[bytes], name: str) -> None:
    if not 4 <= len(arguments) <= 6 or arguments[5:] not in ([], [b"none"]):
        raise BadRecipe(name, "must be image,x,y,transparency or image,x,y,transparency,width")
    edges = {b"0": 0.0, b"-0": 1.0, b"center": 0.5}
    x, y = arguments[1], arguments[2]
    if x not in edges or y not in edges:
        raise BadRecipe(name, "may be at 0, -0 or center in both directions")
    values |= {
        "wm": arguments[0],
        "wm_pos": f"{edges[x]:g},{edges[y]:g}".encode(),
        "wm_opacity": b"%d" % (100 - whole(name, arguments[3], 100)),
    }
    if arguments[4:5] not in ([], [b"none"]):
        values["wm_scale"] = arguments[4]


#: The filters that are supported.
FILTERS: dict[str, _Filter] = {
    "quality": _plain("q"),
    "format": _plain("fmt"),
    "max_bytes": _plain("max_bytes"),
    "brightness": _plain("brightness"),
    "contrast": _plain("contrast"),
    "saturation": _saturation,
    "grayscale": _says(tone="gray"),
    "upscale": _says(enlarge="1"),
    "no_upscale": _says(enlarge="0"),
    "stretch": _says(fit="fill"),
    "blur": _blur,
    "rotate": _rotate,
    "fill": _fill,
    "background_color": _background,
    "round_corner": _corners,
    "watermark": _watermark,
    "strip_exif": _nothing,
    "strip_icc": _nothing,
}
