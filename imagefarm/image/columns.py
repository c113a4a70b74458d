"""Lanczos with columns before rows: Pillow takes a fifth less time for a column than for a row.

It takes rows first, and the first pass is the longer one where a picture shrinks.
"""

from __future__ import annotations

import math

from PIL import Image

from .geometry import Box

#: How many of the source's pixels Lanczos looks at to each side, for each that it is shrunk by.
_REACH = 3
#: Rows whose beginnings are so many bytes apart are in each other's way in a processor's cache:
#: columns take twice as long then.
_ALIASES = 4096
#: So many columns of such pictures are taken at a time.
_STRIP = 960


def shrink(image: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
    """The part of ``image`` in ``box`` in ``size``, which is smaller in both directions."""
    first, last = _reached(box.left, box.right, size[0], image.width)
    columns = _columns(image, (first, last), (box.top, box.bottom), size[1])
    edges = (box.left - first, 0, box.right - first, size[1])
    return columns.resize(size, Image.Resampling.LANCZOS, box=edges)


def _reached(begin: float, end: float, wanted: int, length: int) -> tuple[int, int]:
    """The pixels along one axis that are looked at."""
    reach = _REACH * (end - begin) / wanted
    return max(0, math.floor(begin - reach)), min(length, math.ceil(end + reach))


def _columns(
    image: Image.Image, across: tuple[int, int], down: tuple[float, float], height: int
) -> Image.Image:
    """Those columns, whose part ``down`` becomes that high."""
    first, last = across
    if last - first == image.width and image.width * 4 % _ALIASES:
        edges = (0, down[0], image.width, down[1])
        return image.resize((image.width, height), Image.Resampling.LANCZOS, box=edges)
    top, bottom = _reached(*down, height, image.height)
    made = Image.new(image.mode, (last - first, height))
    for left in range(first, last, _STRIP):
        right = min(left + _STRIP, last)
        strip = image.crop((left, top, right, bottom))
        edges = (0, down[0] - top, right - left, down[1] - top)
        strip = strip.resize((right - left, height), Image.Resampling.LANCZOS, box=edges)
        made.paste(strip, (left - first, 0))
    return made
