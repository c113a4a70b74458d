"""The query form of a recipe: ``src=/a.jpg&w=320&h=240&fit=cover``."""

from __future__ import annotations

import re
from enum import Enum
from typing import TypeVar

from .errors import BadRecipe, one_line
from .formats import Format, Wanted
from .limits import Limits
from .recipe import (
    CENTRE,
    POINTS,
    SOUTH_EAST,
    Backdrop,
    Colour,
    Crop,
    Fit,
    Gravity,
    Keep,
    Point,
    Recipe,
    Tone,
    Watermark,
    fold,
)

#: Longest query string that is read, and longest path in it, in bytes.
MAX_QUERY = 8192
MAX_PATH = 4096
#: Least bytes that ``max_bytes`` may ask for: hardly any picture is smaller.
MIN_BYTES = 200

#: The parameters, in the order in which messages list them.
NAMES = (
    "src", "w", "h", "dpr", "fit", "enlarge", "g", "trim", "crop", "flip", "rotate", "bg", "blur",
    "sharpen", "tone", "brightness", "contrast", "saturation", "radius", "wm", "wm_pos",
    "wm_opacity", "wm_scale", "q", "max_bytes", "lossless", "progressive", "keep", "fmt",
)  # fmt: skip

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
_DIGITS = re.compile(rb"[0-9]{1,9}")
_SIGNED = re.compile(rb"-?[0-9]{1,9}")
_DECIMAL = re.compile(rb"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_COLOUR = re.compile(rb"(?:[0-9A-Fa-f]{2}){3,4}")
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://")
_FORMATS: dict[bytes, Format | Wanted] = {
    **{fmt.value.encode("ascii"): fmt for fmt in Format},
    b"jpg": Format.JPEG,
    b"auto": Wanted.AUTO,
}
_FORMAT_NAMES = ", ".join([fmt.value for fmt in Format] + ["auto"])
#: Formats that can't be lossless.
_LOSSY = (Format.JPEG, Format.AVIF, Format.GIF)


def parse_query(query: bytes, limits: Limits | None = None) -> Recipe:
    """Read ``src=/a.jpg&w=320&h=240&fit=cover&q=80&fmt=auto``.

    The form is that of HTML forms and of PHP's ``$_GET``: ``+`` is a space, ``%`` needs two hex
    digits. ``w`` and ``h``, with ``dpr`` in them, go up to ``limits``. Raises `BadRecipe`, which
    names the parameter and says what it may be.
    """
    if len(query) > MAX_QUERY:
        raise BadRecipe("query string", f"must be at most {MAX_QUERY} bytes long")
    return parse_canonical(query, limits)


def parse_canonical(query: bytes, limits: Limits | None = None) -> Recipe:
    """As `parse_query`, of any length: a canonical form may be longer than what it stands for."""
    return recipe_of(pairs(query), limits or Limits())


def recipe_of(values: dict[str, bytes], limits: Limits) -> Recipe:
    """The recipe in parameters that are decoded already. Raises `BadRecipe`."""
    if "src" not in values:
        raise BadRecipe("src", "is missing: it must be a path under the image root")
    read = Reader(values)
    dpr = read.decimal("dpr", 0.1, 10.0) or 1.0
    mirrored, turn = read.turn()
    fmt = read.format()
    lossless = read.flag("lossless")
    if lossless and fmt in _LOSSY:
        raise BadRecipe("lossless", "needs fmt to be webp, png or auto, or to be left out")
    return fold(
        Recipe(
            src=source_path(values["src"]),
            w=_times("w", read.whole("w", 1, limits.max_width), dpr, limits.max_width),
            h=_times("h", read.whole("h", 1, limits.max_height), dpr, limits.max_height),
            fit=read.word("fit", Fit, Fit.CONTAIN),
            q=read.whole("q", 1, 100),
            fmt=fmt,
            enlarge=read.flag("enlarge"),
            gravity=read.gravity(),
            trim=read.whole("trim", 0, 255),
            crop=read.crop(),
            flip=mirrored,
            rotate=turn,
            bg=read.background(),
            blur=_scaled(read.decimal("blur", 0.1, 100.0), dpr, 100.0),
            sharpen=_scaled(read.decimal("sharpen", 0.1, 10.0), dpr, 10.0),
            tone=read.word("tone", Tone, Tone.COLOR),
            brightness=read.percent("brightness"),
            contrast=read.percent("contrast"),
            saturation=read.percent("saturation"),
            radius=_times("radius", read.whole("radius", 1, 10_000), dpr, 10_000),
            mark=read.watermark(),
            max_bytes=read.whole("max_bytes", MIN_BYTES, limits.max_output_bytes),
            lossless=lossless,
            progressive=read.flag("progressive"),
            keep=read.keep(),
        )
    )


def _times(name: str, value: int | None, dpr: float, most: int) -> int | None:
    if value is None or dpr == 1.0:
        return value
    pixels = max(1, round(value * dpr))
    if pixels > most:
        raise BadRecipe(name, f"times dpr must be at most {most}")
    return pixels


def _scaled(sigma: float | None, dpr: float, most: float) -> float | None:
    return sigma if sigma is None else max(0.1, min(round(sigma * dpr, 4), most))


_E = TypeVar("_E", bound=Enum)


class Reader:
    """Reads parameters, each with its bounds; all raise `BadRecipe`."""

    def __init__(self, values: dict[str, bytes]) -> None:
        self._values = values

    def whole(self, name: str, least: int, most: int) -> int | None:
        """A whole number."""
        text = self._values.get(name)
        if text is None:
            return None
        if not _DIGITS.fullmatch(text) or not least <= int(text) <= most:
            raise BadRecipe(name, f"must be a whole number from {least} to {most}")
        return int(text)

    def percent(self, name: str) -> int:
        """More or less of something."""
        text = self._values.get(name, b"0")
        if not _SIGNED.fullmatch(text) or not -100 <= int(text) <= 100:
            raise BadRecipe(name, "must be a whole number from -100 to 100")
        return int(text)

    def decimal(self, name: str, least: float, most: float) -> float | None:
        """A number, rounded to four decimals."""
        text = self._values.get(name)
        if text is None:
            return None
        value = _number(text)
        if value is None or not least <= value <= most:
            raise BadRecipe(name, f"must be a number from {least:g} to {most:g}")
        return value

    def flag(self, name: str) -> bool:
        """Yes or no."""
        text = self._values.get(name, b"0")
        if text not in (b"0", b"1"):
            raise BadRecipe(name, "must be 0 or 1")
        return text == b"1"

    def word(self, name: str, kind: type[_E], default: _E) -> _E:
        """One of an Enum's values."""
        if name not in self._values:
            return default
        for one in kind:
            if one.value.encode("ascii") == self._values[name]:
                return one
        raise BadRecipe(name, "must be one of: " + ", ".join(one.value for one in kind))

    def format(self) -> Format | Wanted:
        """``fmt``."""
        if "fmt" not in self._values:
            return Wanted.SAME
        if self._values["fmt"] not in _FORMATS:
            raise BadRecipe("fmt", f"must be one of: {_FORMAT_NAMES}")
        return _FORMATS[self._values["fmt"]]

    def gravity(self) -> Point | Gravity:
        """``g``."""
        if self._values.get("g") == b"smart":
            return Gravity.SMART
        return self.point("g", CENTRE, "smart, ")

    def point(self, name: str, default: Point, also: str = "") -> Point:
        """One of the nine points, or two shares."""
        text = self._values.get(name)
        if text is None:
            return default
        named = POINTS.get(text.decode("latin-1"))
        if named is not None:
            return named
        shares = [_number(part) for part in text.split(b",")[:3]]
        if len(shares) == 2:
            x, y = shares
            if x is not None and y is not None and x <= 1 and y <= 1:
                return Point(x, y)
        names = ", ".join(POINTS)
        raise BadRecipe(name, f"must be {also}x,y from 0,0 to 1,1 or one of: {names}")

    def crop(self) -> Crop | None:
        """``crop``: ``x,y,w,h`` in pixels, or after ``pct:`` in percent."""
        text = self._values.get("crop")
        if text is None:
            return None
        percent = text.startswith(b"pct:")
        form = _DECIMAL if percent else _DIGITS
        parts = text.removeprefix(b"pct:").split(b",")[:5]
        if len(parts) == 4 and all(map(form.fullmatch, parts)):
            left, top, width, height = (round(float(part), 4) for part in parts)
            if width > 0 and height > 0 and not (percent and max(left, top, width, height) > 100):
                return Crop(left, top, width, height, percent)
        raise BadRecipe("crop", "must be x,y,w,h in whole pixels or pct:x,y,w,h in percent")

    def turn(self) -> tuple[bool, int]:
        """``flip`` and ``rotate``: mirrored left to right, then so many degrees clockwise."""
        rotate = self._values.get("rotate", b"0")
        if rotate not in (b"0", b"90", b"180", b"270"):
            raise BadRecipe("rotate", "must be one of: 0, 90, 180, 270")
        flip = self._values.get("flip", b"")
        if flip not in (b"", b"h", b"v", b"hv") or (not flip and "flip" in self._values):
            raise BadRecipe("flip", "must be one of: h, v, hv")
        # Upside down is mirrored left to right and turned by half.
        half = 180 if b"v" in flip else 0
        return flip in (b"h", b"v"), (int(rotate) + half) % 360

    def background(self) -> Colour | Backdrop | None:
        """``bg``."""
        text = self._values.get("bg", b"transparent")
        if text == b"transparent":
            return None
        if text == b"blur":
            return Backdrop.BLUR
        if not _COLOUR.fullmatch(text):
            raise BadRecipe("bg", "must be rrggbb or rrggbbaa in hex, blur or transparent")
        return Colour(*bytes.fromhex(text.decode("ascii")))

    def watermark(self) -> Watermark | None:
        """``wm`` and its like."""
        position = self.point("wm_pos", SOUTH_EAST)
        opacity = self.whole("wm_opacity", 0, 100)
        scale = self.whole("wm_scale", 1, 100)
        if "wm" not in self._values:
            return None
        path = source_path(self._values["wm"], "wm")
        return Watermark(path, position, 100 if opacity is None else opacity, scale)

    def keep(self) -> frozenset[Keep]:
        """``keep``."""
        text = self._values.get("keep")
        if text is None:
            return frozenset()
        known = {one.value.encode("ascii"): one for one in Keep}
        words = text.split(b",")
        if any(word not in known for word in words):
            names = ", ".join(one.value for one in Keep)
            raise BadRecipe("keep", f"must be some of, with commas between: {names}")
        return frozenset(known[word] for word in words)


def _number(text: bytes) -> float | None:
    return round(float(text), 4) if _DECIMAL.fullmatch(text) else None


def source_path(path: bytes, name: str = "src") -> bytes:
    """A decoded path, normalised: one slash in front, no empty, ``.`` or ``..`` segments.

    Raises `BadRecipe` for what cannot be a path under a root, in the ``name`` of its parameter.
    Whether links lead out of it is for the file system to say (``source.py``).
    """
    if not path:
        raise BadRecipe(name, "must not be empty")
    if b"\0" in path:
        raise BadRecipe(name, "must not contain a zero byte")
    if _SCHEME.match(path):
        raise BadRecipe(name, "must be a path under the image root, not a URL")
    kept: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            if not kept:
                raise BadRecipe(name, "must not climb out of the image root")
            kept.pop()
        elif segment not in (b"", b"."):
            kept.append(segment)
    # A trailing slash says "directory" and must not become the name of a file.
    tail = b"/" if kept and path.endswith((b"/", b"/.", b"/..")) else b""
    normal = b"/" + b"/".join(kept) + tail
    if len(normal) > MAX_PATH:
        raise BadRecipe(name, f"must be at most {MAX_PATH} bytes long")
    return normal


def pairs(query: bytes) -> dict[str, bytes]:
    """The parameters of a query string, decoded. Raises `BadRecipe`."""
    values: dict[str, bytes] = {}
    for pair in query.split(b"&"):
        if not pair:
            continue
        raw, _, value = pair.partition(b"=")
        name = unquote("parameter name", raw).decode("latin-1")
        if name not in NAMES:
            shown = one_line(name[:40])
            raise BadRecipe(f'"{shown}"', "is not a parameter; known: " + ", ".join(NAMES))
        if name in values:
            raise BadRecipe(name, "must be given only once")
        values[name] = unquote(name, value)
    return values


def unquote(name: str, raw: bytes) -> bytes:
    """Form decoding. Raises `BadRecipe` in the ``name`` of the parameter."""
    if b"%" not in raw:
        return raw.replace(b"+", b" ")

    def octet(match: re.Match[bytes]) -> bytes:
        if match[1] is None:
            raise BadRecipe(name, "is badly encoded: % must be followed by two hex digits")
        return bytes.fromhex(match[1].decode("ascii"))

    return _ESCAPE.sub(octet, raw.replace(b"+", b" "))
