"""Resampling pictures with transparency: what cannot be seen neither counts nor takes time.

Transparent pixels have a colour as well, which must not bleed into their neighbours: colours are
weighted by alpha meanwhile. (Pillow would do so too, but then without the fast path for large
factors.) And only the rectangle outside of which nothing is visible is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from attrs import frozen
from PIL import Image

from .geometry import Box

Size = tuple[int, int]
#: Makes a picture of that size of a part of another.
Resample = Callable[[Image.Image, Size, Box], Image.Image]

_WEIGHTED: Final = {"LA": "La", "RGBA": "RGBa"}
#: What has an alpha channel that does not count yet.
MODES: Final = frozenset(_WEIGHTED)
#: How many pixels of the result, or of an enlarged source, a kernel reaches to each side.
_REACH = 3
#: Nothing is cut off from pictures of more pixels, which would take memory for another copy.
_MOST_COPIED = 1 << 22


def opaque(image: Image.Image) -> bool:
    """Whether ``image`` has an alpha channel in which nothing is transparent."""
    if image.mode not in MODES:
        return False
    # Of most that are not the first pixel says so.
    corner = image.getpixel((0, 0))
    if not isinstance(corner, tuple) or corner[-1] < 255:
        return False
    return image.getchannel("A").getextrema() == (255, 255)


def resampled(image: Image.Image, size: Size, box: Box, resample: Resample) -> Image.Image:
    """The part of ``image`` (LA or RGBA) in ``box``, in ``size``, made by ``resample``."""
    mode = image.mode
    if image.width * image.height > _MOST_COPIED:
        return resample(image.convert(_WEIGHTED[mode]), size, box).convert(mode)
    part = _visible(image, size, box)
    if part is None:
        return Image.new(mode, size)
    weighted = image.crop(part.source).convert(_WEIGHTED[mode])
    made = resample(weighted, part.size, part.box).convert(mode)
    if part.size == size:
        return made
    whole = Image.new(mode, size)
    whole.paste(made, part.corner)
    return whole


@frozen
class _Part:
    """A part of the result and what of the source it needs."""

    corner: tuple[int, int]
    size: Size
    source: tuple[int, int, int, int]
    #: Where the source of the part itself lies in ``source``, whose margins kernels look at.
    box: Box


def _visible(image: Image.Image, size: Size, box: Box) -> _Part | None:
    """The part outside of which the result is transparent; None if it is so throughout."""
    seen = image.getbbox()
    if seen is None:
        return None
    left, right, first, last, x0, x1 = _axis(
        image.width, size[0], (box.left, box.right), (seen[0], seen[2])
    )
    top, bottom, above, below, y0, y1 = _axis(
        image.height, size[1], (box.top, box.bottom), (seen[1], seen[3])
    )
    if x0 >= x1 or y0 >= y1:
        return None
    return _Part(
        corner=(x0, y0),
        size=(x1 - x0, y1 - y0),
        source=(left, top, right, bottom),
        box=Box(first, above, last, below),
    )


def _axis(
    length: int, wanted: int, box: tuple[float, float], seen: tuple[int, int]
) -> tuple[int, int, float, float, int, int]:
    """Along one axis: the source's pixels, the box in them, and the result's pixels."""
    scale = (box[1] - box[0]) / wanted
    reach = _REACH * max(1.0, scale)
    begin = max(0, math.floor((seen[0] - reach - box[0]) / scale))
    end = min(wanted, math.ceil((seen[1] + reach - box[0]) / scale))
    from_, to = box[0] + begin * scale, min(box[0] + end * scale, float(length))
    first = max(0, math.floor(from_ - reach))
    last = min(length, math.ceil(to + reach))
    return first, last, from_ - first, to - first, begin, end
