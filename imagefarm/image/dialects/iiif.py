"""IIIF Image API 3.0 requests: ``{identifier}/{region}/{size}/{rotation}/{quality}.{format}``.

What an image request means depends on the picture's size, so it is read in two steps: `parse`
looks at the URL alone, `resolve` at the picture too. (https://iiif.io/api/image/3.0/)
"""

from __future__ import annotations

from enum import Enum
from fractions import Fraction
from urllib.parse import quote_from_bytes

from attrs import frozen

from imagefarm.image.errors import BadRecipe, NotFound
from imagefarm.image.limits import Limits
from imagefarm.image.query import recipe_of, source_path
from imagefarm.image.recipe import Recipe

from .text import decimal, spell, unescape, whole

#: The largest number that a region or a size may have.
_MOST = 999_999_999
#: What may stand in a path segment as it is (RFC 3986, pchar without the percent sign).
_PCHAR = "!$&'()*+,;=:@"

#: The formats by their names in URLs, and ours for them; the first two make level 2.
FORMATS = {"jpg": "jpeg", "png": "png", "webp": "webp", "gif": "gif", "avif": "avif"}
QUALITIES = ("default", "color", "gray", "bitonal")


class Form(Enum):
    """The forms of a region or a size."""

    FULL = "full"
    SQUARE = "square"
    PIXELS = "pixels"
    PERCENT = "percent"
    MAX = "max"
    CONFINED = "confined"


@frozen
class Region:
    """Section 4.1. ``numbers`` are x, y, w, h: pixels, or percent of the picture."""

    form: Form
    numbers: tuple[Fraction, ...] = ()


@frozen
class Size:
    """Section 4.2. ``w`` or ``h`` may be None, but not both (`Form.PIXELS`)."""

    form: Form
    enlarge: bool = False
    w: int | None = None
    h: int | None = None
    percent: Fraction = Fraction(100)


@frozen
class ImageRequest:
    """A picture asked for: ``src`` is the source's path, ``rotation`` is in degrees."""

    src: bytes
    region: Region
    size: Size
    mirror: bool
    rotation: Fraction
    quality: str
    format: str


@frozen
class InfoRequest:
    """``{identifier}/info.json``."""

    src: bytes


@frozen
class BaseRequest:
    """``{identifier}``: the service's own URI, which leads to its info.json (section 2)."""

    src: bytes


@frozen
class Bounds:
    """The largest picture that is given away, in pixels; ``declared`` says so in info.json."""

    width: int
    height: int
    declared: bool = False

    def declared_for(self, width: int, height: int) -> bool:
        """Whether a client has to know: the picture itself may be larger."""
        return self.declared or width > self.width or height > self.height


@frozen
class Resolved:
    """What a request means for one picture, in its pixels: the part, and the size made of it."""

    left: int
    top: int
    width: int
    height: int
    out_width: int
    out_height: int
    whole: bool
    #: The canonical form of the request after the identifier (section 4.7).
    canonical: str


def parse(path: bytes) -> ImageRequest | InfoRequest | BaseRequest:
    """Read the path after the location's prefix. Raises `BadRecipe` or `NotFound`."""
    parts = path.split(b"/")
    src = source_path(unescape("identifier", parts[0])) if parts[0] else b"/"
    if src == b"/" or src.endswith(b"/"):
        raise NotFound("there is no such source")
    if len(parts) == 1 or parts[1:] == [b""]:
        return BaseRequest(src)
    if parts[1:] == [b"info.json"]:
        return InfoRequest(src)
    if len(parts) != 5:
        raise NotFound(
            "there is nothing here: a request is identifier/region/size/rotation/quality.format "
            "or identifier/info.json, slashes in the identifier are written %2F"
        )
    region, size, rotation, last = (
        unescape(name, part)
        for name, part in zip(("region", "size", "rotation", "quality"), parts[1:], strict=True)
    )
    mirror, degrees = _rotation(rotation)
    quality, _, extension = last.rpartition(b".")
    return ImageRequest(
        src,
        _region(region),
        _size(size),
        mirror,
        degrees,
        _word("quality", quality, QUALITIES),
        _word("format", extension, tuple(FORMATS)),
    )


def _word(name: str, text: bytes, known: tuple[str, ...]) -> str:
    word = text.decode("latin-1")
    if word not in known:
        raise BadRecipe(name, "must be one of: " + ", ".join(known))
    return word


def _region(text: bytes) -> Region:
    if text == b"full":
        return Region(Form.FULL)
    if text == b"square":
        return Region(Form.SQUARE)
    form, read, most = Form.PIXELS, _pixel, _MOST
    if text.startswith(b"pct:"):
        form, read, most, text = Form.PERCENT, decimal, 100, text[4:]
    parts = text.split(b",")
    if len(parts) != 4:
        raise BadRecipe("region", "must be full, square, x,y,w,h or pct:x,y,w,h")
    numbers = tuple(read("region", part, most) for part in parts)
    if not numbers[2] or not numbers[3]:
        raise BadRecipe("region", "must not be empty")
    return Region(form, numbers)


def _pixel(name: str, text: bytes, most: int) -> Fraction:
    return Fraction(whole(name, text, most))


def _size(text: bytes) -> Size:
    enlarge = text.startswith(b"^")
    text = text[1:] if enlarge else text
    if text == b"max":
        return Size(Form.MAX, enlarge)
    if text.startswith(b"pct:"):
        percent = decimal("size", text[4:], 100_000 if enlarge else 100)
        if not percent:
            raise BadRecipe("size", "must not be empty")
        return Size(Form.PERCENT, enlarge, percent=percent)
    confined = text.startswith(b"!")
    w, comma, h = (text[1:] if confined else text).partition(b",")
    if not comma or not (w or h) or (confined and not (w and h)):
        raise BadRecipe(
            "size", "must be max, w, or ,h or w,h or !w,h or pct:n, ^ before it enlarges"
        )
    return Size(
        Form.CONFINED if confined else Form.PIXELS,
        enlarge,
        whole("size", w, _MOST, 1) if w else None,
        whole("size", h, _MOST, 1) if h else None,
    )


def _rotation(text: bytes) -> tuple[bool, Fraction]:
    mirror = text.startswith(b"!")
    degrees = decimal("rotation", text[1:] if mirror else text, 360)
    if degrees % 90:
        raise BadRecipe("rotation", "must be 0, 90, 180 or 270, with ! before it mirrored")
    return mirror, degrees % 360


def resolve(
    request: ImageRequest, width: int, height: int, bounds: Bounds, *, strict: bool
) -> Resolved:
    """What the request means for a picture of ``width`` by ``height``. Raises `BadRecipe`.

    ``strict``: a box of ``!w,h`` that is larger than the region is refused, as the public
    validator wants it; else the region is given as it is, as section 4.2 says.
    """
    left, top, region_width, region_height = _part(request.region, width, height)
    out = _scaled(request.size, region_width, region_height, bounds, width, height, strict)
    everything = (region_width, region_height) == (width, height)
    return Resolved(
        left, top, region_width, region_height, *out, everything,
        _canonical(request, (left, top, region_width, region_height), out, everything),
    )  # fmt: skip


def _part(region: Region, width: int, height: int) -> tuple[int, int, int, int]:
    if region.form is Form.FULL:
        return 0, 0, width, height
    if region.form is Form.SQUARE:
        side = min(width, height)
        return (width - side) // 2, (height - side) // 2, side, side
    x, y, w, h = region.numbers
    if region.form is Form.PERCENT:
        x, w, y, h = x * width / 100, w * width / 100, y * height / 100, h * height / 100
    left, top = _round(x), _round(y)
    if left >= width or top >= height:
        raise BadRecipe("region", f"lies outside the image of {width} x {height} pixels")
    return left, top, min(max(1, _round(w)), width - left), min(max(1, _round(h)), height - top)


def _scaled(
    size: Size, rw: int, rh: int, bounds: Bounds, width: int, height: int, strict: bool
) -> tuple[int, int]:
    declared = bounds.declared_for(width, height)
    w, h = rw, rh
    if size.form is Form.MAX:
        if declared:
            scale = min(Fraction(bounds.width, rw), Fraction(bounds.height, rh))
            w, h = _times(rw, rh, scale if size.enlarge else min(scale, Fraction(1)))
    elif size.form is Form.PERCENT:
        w, h = _times(rw, rh, size.percent / 100)
    elif size.form is Form.CONFINED:
        assert size.w is not None and size.h is not None
        scale = min(Fraction(size.w, rw), Fraction(size.h, rh))
        if not (size.enlarge or strict):
            scale = min(scale, Fraction(1))
        w, h = _times(rw, rh, scale)
    elif size.w is None or size.h is None:
        w, h = _from_one_side(rw, rh, size.w, size.h)
    else:
        w, h = size.w, size.h
    if not size.enlarge and (w > rw or h > rh):
        raise BadRecipe("size", f"is larger than the region of {rw} x {rh} pixels: ^ enlarges")
    if w > bounds.width or h > bounds.height:
        raise BadRecipe("size", f"must be at most {bounds.width} x {bounds.height} pixels")
    return w, h


def _from_one_side(rw: int, rh: int, w: int | None, h: int | None) -> tuple[int, int]:
    if w is not None:
        return w, max(1, _round(Fraction(rh * w, rw)))
    assert h is not None
    return max(1, _round(Fraction(rw * h, rh))), h


def _times(w: int, h: int, scale: Fraction) -> tuple[int, int]:
    return max(1, _round(w * scale)), max(1, _round(h * scale))


def _round(value: Fraction) -> int:
    return int(value + Fraction(1, 2))


def _canonical(
    request: ImageRequest,
    part: tuple[int, int, int, int],
    out: tuple[int, int],
    everything: bool,
) -> str:
    region = "full" if everything else ",".join(map(str, part))
    size = "max" if out == part[2:] else f"{out[0]},{out[1]}"
    if out[0] > part[2] or out[1] > part[3]:
        size = "^" + size
    quality = "default" if request.quality == "color" else request.quality
    rotation = ("!" if request.mirror else "") + spell(request.rotation)
    return f"{region}/{size}/{rotation}/{quality}.{request.format}"


def to_recipe(request: ImageRequest, resolved: Resolved, limits: Limits) -> Recipe:
    """The recipe. A size that keeps the region's shape is the query form's ``w`` alone."""
    values = {"src": request.src, "fmt": FORMATS[request.format].encode()}
    size = resolved.width, resolved.height
    if not resolved.whole:
        values["crop"] = b"%d,%d,%d,%d" % (resolved.left, resolved.top, *size)
    out = resolved.out_width, resolved.out_height
    if request.rotation % 180:  # the box of a recipe is that of the result
        size, out = (size[1], size[0]), (out[1], out[0])
    if out != size:
        values["w"] = b"%d" % out[0]
        if _from_one_side(*size, out[0], None) != out:
            values |= {"h": b"%d" % out[1], "fit": b"fill"}
        if out[0] > size[0] or out[1] > size[1]:
            values["enlarge"] = b"1"
    if request.mirror:
        values["flip"] = b"h"
    values["rotate"] = spell(request.rotation).encode()
    if request.quality in ("gray", "bitonal"):
        values["tone"] = request.quality.encode()
    return recipe_of(values, limits)


def identifier(src: bytes) -> str:
    """The identifier of a source, as it is written in a URI."""
    return quote_from_bytes(src.removeprefix(b"/"), safe=_PCHAR)
