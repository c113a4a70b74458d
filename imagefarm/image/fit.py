"""The highest quality at which a picture has no more bytes than it may have (``max_bytes``).

A small picture is encoded again and again, the quality searched by halves. For a large one that
would take minutes: the search is made on a mosaic of pieces of it, which has about as many bytes
for each pixel, and only what is found there is tried on the whole picture. Nothing depends on how
fast the machine is: equal recipes give equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from PIL import Image

#: Pixels up to which the whole picture is what is searched with.
SMALL = 1 << 18
#: Side of the mosaic's pieces: a multiple of every encoder's blocks.
_PIECE = 64
#: Pieces in each direction of the mosaic.
_PIECES = 8
#: Share of the bytes allowed that the mosaic may foretell: no forecast is exact.
_CAUTION = 0.95

#: Encodes a picture in a quality.
Encode = Callable[[Image.Image, int], bytes]


@define
class _Forecast:
    """How many bytes the picture will have, by its mosaic."""

    mosaic: Image.Image
    encode: Encode
    #: Bytes of the picture for one of the mosaic.
    scale: float
    _sizes: dict[int, int] = field(factory=dict)

    def size(self, quality: int) -> float:
        """Bytes of the whole."""
        if quality not in self._sizes:
            self._sizes[quality] = len(self.encode(self.mosaic, quality))
        return self._sizes[quality] * self.scale

    def quality(self, low: int, high: int, budget: float) -> int:
        """The highest one between ``low`` and ``high`` that keeps to ``budget``, or ``low``."""
        while high - low > 1:
            middle = (low + high) // 2
            if self.size(middle) <= budget:
                low = middle
            else:
                high = middle
        return low


def fit(image: Image.Image, encode: Encode, best: int, budget: int, tries: int) -> bytes | None:
    """``image`` within ``budget`` bytes in a quality of at most ``best``, or None.

    ``tries`` is how often the whole of a large picture is encoded at most, and once more in the
    lowest quality where none of these fits.
    """
    if image.width * image.height <= SMALL:
        return _by_halves(image, encode, best, budget)
    forecast = _Forecast(mosaic(image), encode, 1.0)
    forecast.scale = image.width * image.height / (forecast.mosaic.width * forecast.mosaic.height)
    found, low, high = None, 0, best + 1
    allowed = budget * _CAUTION
    for _ in range(tries):
        quality = forecast.quality(low, high, allowed)
        if quality == low:
            break
        data = encode(image, quality)
        if len(data) <= budget:
            found, low = data, quality
        else:
            high = quality
        forecast.scale *= len(data) / forecast.size(quality)
    if found is None and high > 1:
        data = encode(image, 1)
        found = data if len(data) <= budget else None
    return found


def _by_halves(image: Image.Image, encode: Encode, best: int, budget: int) -> bytes | None:
    found = None
    low, high = 0, best + 1
    quality = best
    while high - low > 1:
        data = encode(image, quality)
        if len(data) <= budget:
            found, low = data, quality
        else:
            high = quality
        quality = (low + high) // 2
    return found


def mosaic(image: Image.Image) -> Image.Image:
    """Pieces from all over the picture, side by side, in their order."""
    across, down = (min(_PIECES, side // _PIECE) or 1 for side in image.size)
    width, height = min(_PIECE, image.width), min(_PIECE, image.height)
    made = Image.new(image.mode, (across * width, down * height))
    for row in range(down):
        top = (image.height - height) * row // max(1, down - 1)
        for column in range(across):
            left = (image.width - width) * column // max(1, across - 1)
            piece = image.crop((left, top, left + width, top + height))
            made.paste(piece, (column * width, row * height))
    return made
