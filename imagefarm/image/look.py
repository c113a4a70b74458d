"""Looking at the pixels to decide where to cut: plain borders, and where the content is."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from PIL import Image, ImageChops, ImageFilter, ImageStat

from .geometry import Box
from .recipe import Point

#: The side of the picture that is looked at for its content, in pixels.
SMALL = 160
#: How much less content at the edge counts than content in the middle.
_CENTRE_BIAS = 0.15


@frozen
class Border:
    """What belongs to a border: pixels in which no channel is far from its colour.

    Made by `border_at`; good for all pictures of the same mode as the one that it is made from.
    """

    #: For each channel, and each value of it, 255 if it is too far, else 0.
    tables: list[list[int]]

    def within(self, image: Image.Image) -> Box | None:
        """What is left of ``image`` without its border. None where all of it would go."""
        image, left = _plain(image), None
        # One after the other: all at once would take the memory of another picture.
        for number, table in enumerate(self.tables):
            found = image.getchannel(number).point(table).getbbox()
            left = Box(*found).around(left) if found else left
        return left


def border_at(image: Image.Image, corner: tuple[int, int], tolerance: int) -> Border:
    """The border in the colour of the pixel at ``corner``, give or take ``tolerance``."""
    left, top = corner
    pixel = _plain(image.crop((left, top, left + 1, top + 1))).getpixel((0, 0))
    colour = pixel if isinstance(pixel, tuple) else (pixel or 0,)
    return Border([[255 * (abs(v - own) > tolerance) for v in range(256)] for own in colour])


def _plain(image: Image.Image) -> Image.Image:
    """Transparent is transparent in any colour."""
    if image.mode == "LA":
        image = image.convert("RGBA")
    return image.convert("RGBa") if image.mode == "RGBA" else image


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
