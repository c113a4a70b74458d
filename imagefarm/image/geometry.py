"""Where the picture's pixels go: pure arithmetic, exact where pixels are counted.

Sizes are pixels; a `Box` is in the source's pixels and may cut through them.
"""

from __future__ import annotations

from attrs import frozen

from .errors import OutsidePicture
from .recipe import CENTRE, Crop, Fit, Point

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

    def moved(self, right: float, down: float) -> Box:
        """The same box elsewhere."""
        return Box(self.left + right, self.top + down, self.right + right, self.bottom + down)

    def around(self, other: Box | None) -> Box:
        """The smallest box around both."""
        if other is None:
            return self
        return Box(
            min(self.left, other.left),
            min(self.top, other.top),
            max(self.right, other.right),
            max(self.bottom, other.bottom),
        )

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
    """The picture's size, which part of the source fills it, and where it lies on a canvas.

    ``canvas`` None is no canvas: the picture is the result.
    """

    width: int
    height: int
    box: Box
    canvas: tuple[int, int] | None = None
    #: The picture's upper left corner on the canvas.
    at: tuple[int, int] = (0, 0)

    @property
    def size(self) -> tuple[int, int]:
        """The result's."""
        return self.canvas or (self.width, self.height)


def place(
    width: int,
    height: int,
    w: int | None,
    h: int | None,
    fit: Fit,
    *,
    enlarge: bool = False,
    focus: Point = CENTRE,
) -> Placement:
    """Place a picture of ``width`` by ``height`` into the box asked for."""
    whole = Box(0, 0, width, height)
    if w is None or h is None or fit in (Fit.CONTAIN, Fit.INSIDE):
        return Placement(*contain(width, height, w, h, enlarge=enlarge), whole)
    if fit is Fit.OUTSIDE:
        return Placement(*_outside(width, height, w, h, enlarge=enlarge), whole)
    if fit is Fit.PAD:
        inner = contain(width, height, w, h, enlarge=enlarge)
        at = _share(w - inner[0], focus.x), _share(h - inner[1], focus.y)
        return Placement(*inner, whole, (w, h), at)
    out = (w, h) if enlarge else _shrink_box(width, height, w, h)
    if fit is Fit.FILL:
        return Placement(*out, whole)
    return Placement(*out, cut(width, height, *out, focus))


def contain(
    width: int, height: int, w: int | None, h: int | None, *, enlarge: bool = False
) -> tuple[int, int]:
    """The largest size of the same shape within ``w`` by ``h`` (and the picture itself)."""
    if w is None and h is None:
        return width, height
    if not enlarge:
        w, h = min(w or width, width), min(h or height, height)
    if h is None or (w is not None and w * height <= h * width):
        return w or width, max(1, _round(height * (w or width), width))
    return max(1, _round(width * h, height)), h


def _outside(width: int, height: int, w: int, h: int, *, enlarge: bool) -> tuple[int, int]:
    if not enlarge and (w >= width or h >= height):
        return width, height
    if w * height >= h * width:
        return w, max(1, _round(height * w, width))
    return max(1, _round(width * h, height)), h


def _shrink_box(width: int, height: int, w: int, h: int) -> tuple[int, int]:
    if w <= width and h <= height:
        return w, h
    if width * h <= height * w:
        return width, max(1, _round(h * width, w))
    return max(1, _round(w * height, h)), height


def cut(width: int, height: int, out_width: int, out_height: int, focus: Point) -> Box:
    """The largest part of the result's shape, its middle as near to ``focus`` as can be."""
    scale = min(width / out_width, height / out_height)
    box_width = min(float(width), out_width * scale)
    box_height = min(float(height), out_height * scale)
    left = min(max(focus.x * width - box_width / 2, 0.0), width - box_width)
    top = min(max(focus.y * height - box_height / 2, 0.0), height - box_height)
    return Box(left, top, min(left + box_width, width), min(top + box_height, height))


def _share(room: int, share: float) -> int:
    return min(room, int(room * share + 0.5))


def cropped(width: int, height: int, crop: Crop | None, within: Box | None) -> Box:
    """The part of the upright picture that is asked for, in whole pixels and inside of it.

    ``within`` is what trimming has left: ``crop`` counts from there. Raises `OutsidePicture`
    where nothing would be left.
    """
    area = within or Box(0, 0, width, height)
    if crop is None:
        return area
    left, top, right, bottom = crop.left, crop.top, crop.left + crop.width, crop.top + crop.height
    if crop.percent:
        x, y = area.width / 100, area.height / 100
        left, top = min(round(left * x), area.width - 1), min(round(top * y), area.height - 1)
        right, bottom = max(round(right * x), left + 1), max(round(bottom * y), top + 1)
    right, bottom = min(right, area.width), min(bottom, area.height)
    if left >= right or top >= bottom:
        raise OutsidePicture(
            f"crop must be within the picture of {area.width:g} x {area.height:g} pixels"
        )
    return Box(area.left + left, area.top + top, area.left + right, area.top + bottom)


def _round(numerator: int, denominator: int) -> int:
    """The quotient rounded half up, exactly."""
    return (2 * numerator + denominator) // (2 * denominator)


def shrink_factor(
    box: Box, out_width: int, out_height: int, margin: float = 1.0, *, careful: bool = False
) -> int:
    """The largest factor a JPEG can be shrunk by at decoding and still cover the target.

    ``margin`` is what must be left for the resampling to do after a factor of 8, which leaves
    nothing but the mean of each block; smaller ones keep all that there is in the target's pixels,
    though not quite in its place. ``careful`` has the resampling do at least as much as from one
    whole factor to the next, which mends that.
    """
    for factor in SHRINK_FACTORS:
        least = factor * margin if factor == SHRINK_FACTORS[0] else factor
        if careful:
            least = max(least, factor + 1)
        if box.width >= out_width * least and box.height >= out_height * least:
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


#: `Recipe.flip` and `Recipe.rotate` as the EXIF orientation that asks for the same turn.
_TURNS = {
    (False, 0): 1, (False, 90): 6, (False, 180): 3, (False, 270): 8,
    (True, 0): 2, (True, 90): 7, (True, 180): 4, (True, 270): 5,
}  # fmt: skip


def turn_of(flip: bool, rotate: int) -> int:
    """The EXIF orientation that means: mirror left to right, then turn clockwise."""
    return _TURNS[flip, rotate]


def upright_box(box: Box, orientation: int, width: int, height: int) -> Box:
    """Where a part of the stored picture lies in the upright one: `stored_box` backwards.

    ``width`` and ``height`` are the stored picture's.
    """
    if swaps_axes(orientation):
        width, height = height, width
    backwards = {6: 8, 8: 6}.get(orientation, orientation)
    return stored_box(box, backwards, width, height)
