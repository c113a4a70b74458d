"""The recipe: what to make of which source. Every way to ask for an image parses into one."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import cached_property
from operator import attrgetter
from typing import Any
from urllib.parse import quote_from_bytes

from attrs import evolve, frozen

from .formats import Format, Wanted


class Fit(Enum):
    """How the picture meets the box of ``w`` times ``h`` (CSS object-fit's and sharp's words).

    Nothing is enlarged unless ``enlarge`` says so: where the box is larger than the picture,
    ``cover`` and ``fill`` shrink the box, keeping its shape, until neither direction is enlarged.
    """

    #: The whole picture, its shape kept, as large as fits within the box; the result may be
    #: smaller than the box in one direction: no bars are added.
    CONTAIN = "contain"
    #: The box filled, the picture's shape kept, what sticks out cut off; `Recipe.gravity` says
    #: where.
    COVER = "cover"
    #: The whole picture stretched to the shape of the box.
    FILL = "fill"
    #: sharp's word for what `CONTAIN` does here; folded into it.
    INSIDE = "inside"
    #: The whole picture, its shape kept, as small as covers the box: sticks out on one side.
    OUTSIDE = "outside"
    #: As `CONTAIN`, and the rest of the box filled with the background: always ``w`` by ``h``.
    PAD = "pad"


@frozen
class Point:
    """A point in a picture: shares of its width and height from the upper left, 0 to 1.

    Four decimals, so that its text is exact.
    """

    x: float = 0.5
    y: float = 0.5


class Gravity(Enum):
    """Where to look, if not at a `Point`."""

    #: Where the content is, by the picture itself.
    SMART = "smart"


CENTRE = Point()
SOUTH_EAST = Point(1.0, 1.0)
#: The nine points by name.
POINTS: dict[str, Point] = {
    "northwest": Point(0.0, 0.0), "north": Point(0.5, 0.0), "northeast": Point(1.0, 0.0),
    "west": Point(0.0, 0.5), "center": CENTRE, "east": Point(1.0, 0.5),
    "southwest": Point(0.0, 1.0), "south": Point(0.5, 1.0), "southeast": SOUTH_EAST,
}  # fmt: skip
_POINT_NAMES = {point: name for name, point in POINTS.items()}


@frozen
class Crop:
    """A part of the upright picture: pixels, or with ``percent`` hundredths of its sides.

    Pixels are whole; percent have four decimals. What lies outside the picture is left out.
    """

    left: float
    top: float
    width: float
    height: float
    percent: bool = False


@frozen
class Colour:
    """Red, green, blue and opacity, 0 to 255."""

    red: int
    green: int
    blue: int
    alpha: int = 255


class Backdrop(Enum):
    """What fills the rest of a padded box, if not a `Colour`."""

    #: The picture itself, filling the box and blurred.
    BLUR = "blur"


class Tone(Enum):
    """The colours of the result."""

    COLOR = "color"
    GRAY = "gray"
    #: Black and white and nothing between.
    BITONAL = "bitonal"


class Keep(Enum):
    """Metadata that may be kept."""

    #: All EXIF data but the orientation and the thumbnail.
    EXIF = "exif"
    #: The colour profile; the colours are then not brought to sRGB.
    ICC = "icc"
    XMP = "xmp"
    #: Of the EXIF data, Copyright and Artist.
    COPYRIGHT = "copyright"


@frozen
class Watermark:
    """A second picture of the same root on top of the result.

    ``opacity`` is in percent. ``scale`` is the width of the mark in percent of the result's;
    None is the mark's own size. It is always within the result.
    """

    src: bytes
    position: Point = SOUTH_EAST
    opacity: int = 100
    scale: int | None = None


@frozen
class Recipe:
    """What to make. Equal recipes give equal pictures; `fold` makes equivalent ones equal.

    The steps follow in this order, whatever the order in a URL: turned upright by EXIF, ``trim``,
    ``crop``, ``flip``, ``rotate``, the box (``w``, ``h``, ``fit``, ``enlarge``, ``gravity``), the
    colours and filters, ``bg``, ``radius``, ``mark``. So the box is always that of the result.

    ``src`` is the source's path from the root: decoded, normalised, with a leading slash.
    ``w`` and ``h`` are pixels of the result (a device's pixel ratio is already in them); without
    both the picture keeps its size. ``q`` None is the format's own default.
    """

    src: bytes
    w: int | None = None
    h: int | None = None
    fit: Fit = Fit.CONTAIN
    q: int | None = None
    fmt: Format | Wanted = Wanted.SAME
    #: Whether the result may have more pixels than the source.
    enlarge: bool = False
    #: What must stay in the picture where `Fit.COVER` cuts; where `Fit.PAD` puts it.
    gravity: Point | Gravity = CENTRE
    #: How far, 0 to 255, a channel of a border to cut off may differ from the corner's colour.
    trim: int | None = None
    crop: Crop | None = None
    #: Mirrored left to right, before it is turned.
    flip: bool = False
    #: Degrees clockwise: 0, 90, 180 or 270.
    rotate: int = 0
    #: What shows through; None is nothing, and white in a format without transparency.
    bg: Colour | Backdrop | None = None
    #: Standard deviations in pixels of the result, 0.1 to 100 and 0.1 to 10.
    blur: float | None = None
    sharpen: float | None = None
    tone: Tone = Tone.COLOR
    #: Percent more or less, -100 to 100.
    brightness: int = 0
    contrast: int = 0
    saturation: int = 0
    #: Radius of the corners in pixels of the result; at most half its shorter side counts.
    radius: int | None = None
    mark: Watermark | None = None
    #: The quality is lowered from ``q`` until the result has no more bytes than this.
    max_bytes: int | None = None
    lossless: bool = False
    progressive: bool = False
    keep: frozenset[Keep] = frozenset()

    def canonical(self) -> str:
        """The one text of this recipe: a query string that parses back into it."""
        return self._text

    @cached_property
    def _text(self) -> str:
        said = []
        for (name, write, default), value in zip(_WRITERS, _values(self), strict=True):
            # Most fields have their defaults, and are those very objects.
            if value is not default and value != default:
                text = write(value)
                if text is not None:
                    said.append(f"{name}={text}")
        return "&".join(said)


def decimal(value: float) -> str:
    """The shortest text of a number with at most four decimals."""
    return repr(float(value)).removesuffix(".0")


def point_text(point: Point | Gravity) -> str:
    """``southeast``, ``0.3,0.25`` or ``smart``."""
    if isinstance(point, Gravity):
        return point.value
    return _POINT_NAMES.get(point) or f"{decimal(point.x)},{decimal(point.y)}"


def crop_text(crop: Crop) -> str:
    """``10,20,300,200`` or ``pct:10,20,50,50.5``."""
    numbers = ",".join(map(decimal, (crop.left, crop.top, crop.width, crop.height)))
    return f"pct:{numbers}" if crop.percent else numbers


def colour_text(colour: Colour | Backdrop) -> str:
    """``ff8000``, ``ff800080`` or ``blur``."""
    if isinstance(colour, Backdrop):
        return colour.value
    text = f"{colour.red:02x}{colour.green:02x}{colour.blue:02x}"
    return text if colour.alpha == 255 else f"{text}{colour.alpha:02x}"


def _path_text(path: bytes) -> str:
    return quote_from_bytes(path, safe="/")


_Text = Callable[[Any], str | None]


def _mark(field: str, text: Callable[[Any], str] = str) -> _Text:
    """What a watermark says, unless it is the default."""
    default = next((a.default for a in Watermark.__attrs_attrs__ if a.name == field), None)

    def write(mark: Watermark) -> str | None:
        value = getattr(mark, field)
        return None if value == default else text(value)

    return write


def _word(value: Enum) -> str:
    return str(value.value)


def _flag(value: bool) -> str:
    return "1"


#: The parameters in the order of the canonical form: the field, and the text of a value that is
#: not its default; None says nothing.
_PARAMETERS: tuple[tuple[str, str, _Text], ...] = (
    ("src", "src", _path_text),
    ("w", "w", str),
    ("h", "h", str),
    ("fit", "fit", _word),
    ("enlarge", "enlarge", _flag),
    ("g", "gravity", point_text),
    ("trim", "trim", str),
    ("crop", "crop", crop_text),
    ("flip", "flip", lambda flip: "h"),
    ("rotate", "rotate", str),
    ("bg", "bg", colour_text),
    ("blur", "blur", decimal),
    ("sharpen", "sharpen", decimal),
    ("tone", "tone", _word),
    ("brightness", "brightness", str),
    ("contrast", "contrast", str),
    ("saturation", "saturation", str),
    ("radius", "radius", str),
    ("wm", "mark", _mark("src", _path_text)),
    ("wm_pos", "mark", _mark("position", point_text)),
    ("wm_opacity", "mark", _mark("opacity")),
    ("wm_scale", "mark", _mark("scale")),
    ("q", "q", str),
    ("max_bytes", "max_bytes", str),
    ("lossless", "lossless", _flag),
    ("progressive", "progressive", _flag),
    ("keep", "keep", lambda keep: ",".join(sorted(one.value for one in keep))),
    ("fmt", "fmt", _word),
)
_DEFAULTS: dict[str, Any] = {a.name: a.default for a in Recipe.__attrs_attrs__}
#: Each with the default, for the values that `_values` takes from a recipe in the same order.
_WRITERS = tuple((name, text, _DEFAULTS[field]) for name, field, text in _PARAMETERS)
_values = attrgetter(*(field for _, field, _ in _PARAMETERS))


def fold(recipe: Recipe) -> Recipe:
    """The simplest recipe that makes the same picture. Whatever makes a recipe ends with it.

    With one side or none all fits are alike; what has no effect on the fit, the format or the
    colours that are asked for says nothing.
    """
    return _fold_format(_fold_looks(_fold_box(recipe)))


def _fold_box(recipe: Recipe) -> Recipe:
    if recipe.fit is not Fit.CONTAIN and (
        recipe.fit is Fit.INSIDE or recipe.w is None or recipe.h is None
    ):
        recipe = evolve(recipe, fit=Fit.CONTAIN)
    if recipe.enlarge and recipe.w is None and recipe.h is None:
        recipe = evolve(recipe, enlarge=False)
    points = recipe.fit is Fit.COVER or (
        recipe.fit is Fit.PAD and isinstance(recipe.gravity, Point)
    )
    if not points and recipe.gravity is not CENTRE:
        recipe = evolve(recipe, gravity=CENTRE)
    if recipe.crop == Crop(0, 0, 100, 100, percent=True):
        recipe = evolve(recipe, crop=None)
    return recipe


def _fold_looks(recipe: Recipe) -> Recipe:
    bg = recipe.bg
    if (bg is Backdrop.BLUR and recipe.fit is not Fit.PAD) or (
        isinstance(bg, Colour) and bg.alpha == 0
    ):
        recipe = evolve(recipe, bg=None)
    if recipe.saturation and recipe.tone is not Tone.COLOR:
        recipe = evolve(recipe, saturation=0)
    if Keep.EXIF in recipe.keep:
        recipe = evolve(recipe, keep=recipe.keep - {Keep.COPYRIGHT})
    if recipe.mark is not None and recipe.mark.opacity == 0:
        recipe = evolve(recipe, mark=None)
    return recipe


def _fold_format(recipe: Recipe) -> Recipe:
    if isinstance(recipe.fmt, Format):
        quality = recipe.fmt.default_quality
        if recipe.q is not None and (quality is None or recipe.q == quality):
            recipe = evolve(recipe, q=None)
        if recipe.lossless and recipe.fmt is Format.PNG:
            recipe = evolve(recipe, lossless=False)
        if recipe.progressive and recipe.fmt is not Format.JPEG:
            recipe = evolve(recipe, progressive=False)
    if recipe.lossless:
        recipe = evolve(recipe, q=None, progressive=False)
    return recipe
