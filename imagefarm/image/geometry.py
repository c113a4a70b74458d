"""Where the picture's pixels go: pure arithmetic, exact where pixels are counted.

Sizes are pixels; a `Box` is in the source's pixels and may cut through them.
"""

from __future__ import annotations

from attrs import frozen

from .recipe import Fit

#: The factors by which a JPEG decoder can shrink while it decodes (its DCT is 8 by 8).
SHRINK_FACTORS = (8, 4, 2, 1)


@frozen
class Box:
    """A part of a picture, edges in pixels from its upper left corner."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """From left to right."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """From top to bottom."""
        return self.bottom - self.top

    def shrunk(self, factor: float, width: int, height: int) -> Box:
        """The same part of the picture made smaller by ``factor`` and then ``width`` wide."""
        return Box(
            min(self.left / factor, width),
            min(self.top / factor, height),
            min(self.right / factor, width),
            min(self.bottom / factor, height),
        )


@frozen
class Placement:
    """The result's size, and which part of the source fills it."""

    width: int
    height: int
    box: Box


def place(width: int, height: int, w: int | None, h: int | None, fit: Fit) -> Placement:
    """Place a picture of ``width`` by ``height`` into the box asked for. Never enlarges."""
    whole = Box(0, 0, width, height)
    if w is None or h is None or fit in (Fit.CONTAIN, Fit.INSIDE):
        return Placement(*contain(width, height, w, h), whole)
    out_width, out_height = _shrink_box(width, height, w, h)
    if fit is Fit.FILL:
        return Placement(out_width, out_height, whole)
    return Placement(out_width, out_height, _centred(width, height, out_width, out_height))


def contain(width: int, height: int, w: int | None, h: int | None) -> tuple[int, int]:
    """The largest size of the same shape within ``w`` by ``h`` and within the picture itself."""
    w = width if w is None else min(w, width)
    h = height if h is None else min(h, height)
    if w * height <= h * width:
        return w, max(1, _round(height * w, width))
    return max(1, _round(width * h, height)), h


def _shrink_box(width: int, height: int, w: int, h: int) -> tuple[int, int]:
    if w <= width and h <= height:
        return w, h
    if width * h <= height * w:
        return width, max(1, _round(h * width, w))
    return max(1, _round(w * height, h)), height


def _centred(width: int, height: int, out_width: int, out_height: int) -> Box:
    scale = min(width / out_width, height / out_height)
    box_width = min(float(width), out_width * scale)
    box_height = min(float(height), out_height * scale)
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return Box(left, top, left + box_width, top + box_height)


def _round(numerator: int, denominator: int) -> int:
    """The quotient rounded half up, exactly."""
    return (2 * numerator + denominator) // (2 * denominator)


def shrink_factor(box: Box, out_width: int, out_height: int) -> int:
    """The largest factor a JPEG can be shrunk by at decoding and still cover the target.

    No margin is asked for: the resampling that follows gets at least the target's own pixels.
    """
    for factor in SHRINK_FACTORS:
        if box.width >= out_width * factor and box.height >= out_height * factor:
            return factor
    return 1


def swaps_axes(orientation: int) -> bool:
    """Whether an EXIF orientation exchanges width and height."""
    return 5 <= orientation <= 8


def stored_box(box: Box, orientation: int, width: int, height: int) -> Box:
    """Where a part of the upright picture lies in the picture as stored (EXIF 1 to 8).

    ``width`` and ``height`` are the stored picture's.
    """
    left, top, right, bottom = box.left, box.top, box.right, box.bottom
    if swaps_axes(orientation):  # upright x runs along stored y
        left, top, right, bottom = top, left, bottom, right
    if orientation in (2, 3, 7, 8):
        left, right = width - right, width - left
    if orientation in (3, 4, 6, 7):
        # Orientation 6 turns clockwise: the upright x axis is the stored y axis reversed.
        top, bottom = height - bottom, height - top
    return Box(left, top, right, bottom)
