"""Looking at the pixels to decide where to cut: plain borders, and where the content is."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageChops, ImageFilter, ImageStat

from .geometry import Box
from .recipe import Point

#: The side of the picture that is looked at for its content, in pixels.
SMALL = 160
#: How much less content at the edge counts than content in the middle.
_CENTRE_BIAS = 0.15


def border(image: Image.Image, corner: tuple[int, int], tolerance: int) -> Box | None:
    """What is left without the border in the colour of the pixel at ``corner``.

    A pixel belongs to the border if no channel differs by more than ``tolerance``. None where
    the whole picture would go.
    """
    if image.mode in ("LA", "RGBA"):
        image = image.convert("RGBA").convert("RGBa")  # transparent is transparent in any colour
    paper = Image.new(image.mode, image.size, image.getpixel(corner))
    channels = ImageChops.difference(image, paper).split()
    furthest = channels[0]
    for channel in channels[1:]:
        furthest = ImageChops.lighter(furthest, channel)
    found = furthest.point([255 if value > tolerance else 0 for value in range(256)]).getbbox()
    return Box(*found) if found else None


def content(image: Image.Image) -> Image.Image:
    """How much there is to see at each pixel of a small picture, as a picture of greys.

    The eye goes to edges, and to colours that are not those of the rest.
    """
    rgb = image.convert("RGB")
    grey = rgb.convert("L")
    fine = ImageChops.difference(grey, grey.filter(ImageFilter.GaussianBlur(2)))
    mean = tuple(round(value) for value in ImageStat.Stat(rgb).mean)
    red, green, blue = ImageChops.difference(rgb, Image.new("RGB", rgb.size, mean)).split()
    unlike = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    if image.mode == "RGBA":
        seen = image.getchannel("A")
        fine, unlike = ImageChops.multiply(fine, seen), ImageChops.multiply(unlike, seen)
    return ImageChops.add(fine.point([min(255, 4 * v) for v in range(256)]), unlike, scale=2)


def focus(image: Image.Image, across: float, down: float) -> Point:
    """The middle of the part with most to see; the part has these shares of width and height."""
    weights = content(image).convert("F")
    columns = weights.resize((image.width, 1), Image.Resampling.BOX).get_flattened_data()
    rows = weights.resize((1, image.height), Image.Resampling.BOX).get_flattened_data()
    return Point(_best(columns, across), _best(rows, down))  # type: ignore[arg-type]


def _best(weights: Sequence[float], share: float) -> float:
    """The middle, 0 to 1, of the window of ``share`` of the whole that weighs most."""
    window = min(len(weights), max(1, round(len(weights) * share)))
    last = len(weights) - window
    if last == 0:
        return 0.5
    total = sum(weights[:window])
    best, where = -1.0, 0
    # From the middle outwards, so that the nearest of equals wins.
    totals = [total]
    for start in range(last):
        total += weights[start + window] - weights[start]
        totals.append(total)
    for start in sorted(range(last + 1), key=lambda start: abs(2 * start - last)):
        weight = totals[start] * (1 - _CENTRE_BIAS * abs(2 * start / last - 1))
        if weight > best + 1e-6:
            best, where = weight, start
    return (where + window / 2) / len(weights)
