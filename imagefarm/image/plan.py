"""The plan of one job: all that can be decided before the pixels are worked on."""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve, field, frozen
from PIL import Image

from .errors import TooLarge
from .fit import SMALL
from .formats import Format, Offer, choose
from .geometry import (
    Box,
    Placement,
    cropped,
    place,
    shrink_factor,
    stored_box,
    swaps_axes,
    turn_of,
)
from .limits import Limits
from .probe import Header, decoding_memory
from .recipe import CENTRE, Fit, Point, Recipe

#: Bytes that encoding takes for each pixel, measured, where they are many: the AVIF encoder fails
#: where it gets no memory. Those of a picture with transparency are the second.
_ENCODING = {Format.AVIF: (33, 40)}
#: What the process itself has, in bytes, besides what encoding takes.
_ITSELF = 64 << 20


def _encoding_memory(size: tuple[int, int], target: Format, *, alpha: bool) -> int:
    width, height = size
    return width * height * _ENCODING[target][alpha] + _ITSELF if target in _ENCODING else 0


#: What must be left to shrink after a JPEG decoder's largest factor. Decoding with the next one
#: takes a tenth longer and resampling three times as long: little beside what encoders take that
#: are not JPEG's.
_MARGIN = 1.5
#: Sources of up to so many pixels are shrunk carefully: at worst it takes 6 ms.
_CAREFULLY = 1 << 20


@frozen
class Seen:
    """What looking at the pixels has found."""

    #: What is left of the upright picture without its border.
    trimmed: Box | None = None
    focus: Point | None = None


@frozen
class Plan:
    """What is to be done.

    ``width``, ``height`` (of the picture) and the boxes (of the source) are in the axes of the
    picture as stored; ``factor`` is the shrinking that the JPEG decoder does.
    """

    header: Header
    recipe: Recipe
    width: int
    height: int
    box: Box
    factor: int
    format: Format
    #: The upright picture placed in the box asked for.
    placement: Placement
    #: The part of the stored picture that ``trim`` and ``crop`` leave.
    view: Box
    #: Frames to make: 1, or all of the animation's.
    frames: int = 1
    #: The watermark, ready to be laid on.
    mark: Image.Image | None = field(default=None, eq=False, repr=False)

    @property
    def animated(self) -> bool:
        """Whether the result is an animation."""
        return self.frames > 1

    @property
    def memory(self) -> int:
        """Bytes that decoding and encoding are known to take, not both at a time."""
        encoding = _encoding_memory(self.placement.size, self.format, alpha=self.alpha)
        return max(decoding_memory(self.header), encoding)

    @property
    def alpha(self) -> bool:
        """Whether the result may have transparency, as far as the header and the recipe say."""
        recipe = self.recipe
        return self.header.alpha or recipe.radius is not None or recipe.fit is Fit.PAD

    @property
    def turn(self) -> int:
        """How the recipe turns the upright picture, as an EXIF orientation."""
        return turn_of(self.recipe.flip, self.recipe.rotate)


#: Nanoseconds for each pixel decoded and encoded, measured on one core in 2026: good enough to
#: tell milliseconds from seconds.
_DECODE_TIME = {
    "JPEG": 3, "PNG": 25, "WEBP": 20, "GIF": 20, "AVIF": 40, "TIFF": 15, "BMP": 5, "JPEG2000": 80,
}  # fmt: skip
_ENCODE_TIME = {
    Format.JPEG: 8, Format.PNG: 40, Format.WEBP: 80, Format.AVIF: 200, Format.GIF: 80,
}  # fmt: skip
#: The same for each pixel of the result that is resampled.
_RESAMPLE_TIME = 30
#: The same for each pixel of a frame that ``trim`` looks at.
_TRIM_TIME = 4
#: `max_bytes` encodes a small picture about so many times, and the whole of a large one (`fit`) at
#: most, if so many take no more than this share of the deadline.
_TRIES_SMALL = 7
_TRIES = 3
_SHARE = 0.5


def _encoding(plan: Plan) -> float:
    """Seconds that encoding one frame takes, once."""
    width, height = plan.placement.size
    return width * height * _ENCODE_TIME[plan.format] / 1e9


def tries(plan: Plan, limits: Limits) -> int:
    """How often a picture is encoded to find the quality for ``max_bytes``."""
    width, height = plan.placement.size
    if plan.animated or width * height <= SMALL:
        return _TRIES_SMALL
    return max(1, min(_TRIES, int(limits.deadline * _SHARE / _encoding(plan))))


def estimate(plan: Plan, limits: Limits) -> float:
    """About how many seconds the job takes, by pixels, frames and codecs."""
    width, height = plan.placement.size
    source = plan.header.width * plan.header.height
    decoding = source * _DECODE_TIME[plan.header.format] / 1e9
    resampling = width * height * _RESAMPLE_TIME / 1e9
    times = 1 if plan.recipe.max_bytes is None else tries(plan, limits)
    once = (decoding + resampling + _encoding(plan) * times) * plan.frames
    if plan.recipe.trim is None or not plan.animated:
        return once
    # All frames are decoded twice: where to cut is known after the last one.
    return once + (decoding + source * _TRIM_TIME / 1e9) * plan.frames


def preparing(header: Header) -> float:
    """Seconds that a watermark takes until it has its size."""
    return header.width * header.height * (_DECODE_TIME[header.format] + _RESAMPLE_TIME) / 1e9


#: One step of the pipeline.
Step = Callable[[Image.Image, Plan], Image.Image]


def make_plan(
    header: Header, recipe: Recipe, offer: Offer, limits: Limits, seen: Seen | None = None
) -> Plan:
    """Decide everything that the header (and ``seen``) allows to decide.

    Raises `TooLarge`, and `OutsidePicture` for a crop that has nothing of the picture.
    """
    seen = seen or Seen()
    width, height = header.width, header.height
    swap, turn = swaps_axes(header.orientation), turn_of(recipe.flip, recipe.rotate)
    upright = (height, width) if swap else (width, height)
    view = cropped(*upright, recipe.crop, seen.trimmed)
    shape = (int(view.width), int(view.height))
    turned = shape[::-1] if swaps_axes(turn) else shape
    gravity = recipe.gravity if isinstance(recipe.gravity, Point) else seen.focus
    placement = place(
        *turned, recipe.w, recipe.h, recipe.fit, enlarge=recipe.enlarge, focus=gravity or CENTRE
    )
    _check(placement, limits)
    part = stored_box(placement.box, turn, *shape).moved(view.left, view.top)
    box = stored_box(part, header.orientation, width, height)
    out_width, out_height = placement.width, placement.height
    if swap != swaps_axes(turn):
        out_width, out_height = out_height, out_width
    target = choose(
        recipe.fmt,
        offer,
        header.format,
        alpha=header.alpha,
        animated=header.animated,
        lossless=recipe.lossless,
    )
    canvas_width, canvas_height = placement.size
    factor = 1
    if header.format == "JPEG" and recipe.trim is None:
        margin = 1.0 if target is Format.JPEG else _MARGIN
        careful = width * height <= _CAREFULLY
        factor = shrink_factor(box, out_width, out_height, margin, careful=careful)
    frames = header.frames if target.animates else 1
    if frames > 1 and canvas_width * canvas_height * frames > limits.max_total_pixels:
        raise TooLarge(f"the result's frames have more than {limits.max_total_pixels} pixels")
    plan = Plan(
        header=header,
        recipe=recipe,
        width=out_width,
        height=out_height,
        box=box,
        factor=factor,
        format=target,
        placement=placement,
        view=stored_box(view, header.orientation, width, height),
        frames=frames,
    )
    if plan.memory > limits.memory:
        raise TooLarge("the image needs more memory than a worker may use")
    return plan


def _check(placement: Placement, limits: Limits) -> None:
    width, height = placement.size
    if width > limits.max_width or height > limits.max_height:
        raise TooLarge(
            f"the result would be {width} x {height} pixels, more than "
            f"{limits.max_width} x {limits.max_height}: give w or h"
        )


def settled(plan: Plan, offer: Offer, limits: Limits, seen: Seen) -> Plan:
    """The plan with what has been ``seen``; what is decoded already stays as it is."""
    return evolve(make_plan(plan.header, plan.recipe, offer, limits, seen), factor=plan.factor)


def looks(recipe: Recipe) -> bool:
    """Whether the pixels have a say in where the picture is cut."""
    return recipe.trim is not None or smart(recipe)


def smart(recipe: Recipe) -> bool:
    """Whether the content says where to cut."""
    return recipe.fit is Fit.COVER and not isinstance(recipe.gravity, Point)
