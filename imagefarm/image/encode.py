"""The encoders: one function a format that Pillow writes, chosen settings and their reasons.

The numbers were measured on a 320 and a 1600 pixel wide photograph.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from attrs import evolve, field, frozen
from PIL import Image, ImageFile

from . import metadata, png
from .errors import TooLarge
from .fit import fit
from .formats import Format
from .frames import all_or_nothing, hundredths, piles_up
from .limits import Limits
from .plan import Plan, tries
from .quantization import tables
from .recipe import Recipe


@frozen
class Frames:
    """One picture, or an animation's: durations in milliseconds, ``plays`` 0 is for ever."""

    images: Sequence[Image.Image]
    durations: Sequence[int] = ()
    plays: int = 0
    #: Metadata that goes into the result (`metadata.kept`).
    kept: dict[str, bytes] = field(factory=dict)


#: Bytes a pixel that a JPEG may take: noise in the best quality takes a bit more than three.
_MOST_JPEG: Final = 6
#: The quality from which on a byte a pixel is not unusual.
_FINE_JPEG: Final = 95
#: Pixels up to which a JPEG has Huffman codes of its own. What they are made from takes three to
#: six bytes of memory a pixel.
_OWN_CODES: Final = 1 << 24


class _Overflow(Exception):
    """The result has more bytes than it may have."""


class _Bounded(io.BytesIO):
    """A buffer that refuses to grow beyond a limit."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self._limit = limit

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self._limit:
            raise _Overflow
        return super().write(data)


def encode(frames: Frames, plan: Plan, limits: Limits, lap: Callable[[], None]) -> bytes:
    """The bytes of the result, within ``max_bytes`` of the recipe if it says so.

    ``lap`` is called after each try, and may raise to put an end to it. Raises `TooLarge` above
    ``max_output_bytes``, and where no quality is low enough.
    """
    budget = plan.recipe.max_bytes
    if budget is None:
        most = limits.max_output_bytes
        data = _once(frames, plan, plan.recipe.q, most, f"is larger than {most} bytes")
        lap()
        return data
    too_large = f"has more bytes than max_bytes={budget} allows"
    best = plan.recipe.q or plan.format.default_quality
    if best is None or (plan.recipe.lossless and plan.format is Format.WEBP):
        return _once(frames, plan, None, budget, too_large)
    if plan.animated:
        found = _within(frames, plan, best, budget, lap)
        return found or _once(frames, plan, 1, budget, too_large)

    def attempt(image: Image.Image, quality: int) -> bytes:
        data = _encode(evolve(frames, images=[image]), plan, quality, math.inf)
        lap()
        return data

    fitting = fit(frames.images[0], attempt, best, budget, tries(plan, limits))
    if fitting is None:
        raise TooLarge(f"the result {too_large}")
    return fitting


def _once(frames: Frames, plan: Plan, quality: int | None, most: int, reason: str) -> bytes:
    try:
        return _encode(frames, plan, quality, most)
    except _Overflow:
        raise TooLarge(f"the result {reason}") from None


def _within(
    frames: Frames, plan: Plan, best: int, budget: int, lap: Callable[[], None]
) -> bytes | None:
    """The animation in the highest quality up to ``best`` that fits, searched by halves."""
    data = None
    low, high = 0, best + 1  # `low` fits (0 always would), `high` does not
    quality = best
    while high - low > 1:
        try:
            data = _encode(frames, plan, quality, budget)
            low = quality
        except _Overflow:
            high = quality
        lap()
        quality = (low + high) // 2
    return data


def _encode(frames: Frames, plan: Plan, quality: int | None, most: float) -> bytes:
    if plan.format is not Format.JPEG:
        return _write(frames, plan, quality, most)
    if quality is None or quality < _FINE_JPEG or not _own_codes(frames.images[0]):
        try:
            return _write(frames, plan, quality, most)
        except OSError:
            pass
    with _room_for_scans(frames):
        return _write(frames, plan, quality, most)


@contextmanager
def _room_for_scans(frames: Frames) -> Iterator[None]:
    """Let Pillow's JPEG encoder have room for whatever the picture may become.

    libjpeg writes what it has to look at twice (``optimize``, ``progressive``) in one go, into
    one buffer. Pillow guesses its size, one byte a pixel, which is not enough for a picture full
    of detail; it has no parameter for it but this.
    """
    usual = ImageFile.MAXBLOCK
    width, height = (-(-side // 16) * 16 for side in frames.images[0].size)
    kept = sum(map(len, frames.kept.values()))
    ImageFile.MAXBLOCK = max(usual, width * height * _MOST_JPEG + kept)
    try:
        yield
    finally:
        ImageFile.MAXBLOCK = usual


def _write(frames: Frames, plan: Plan, quality: int | None, most: float) -> bytes:
    out = _Bounded(most)
    if plan.format is Format.PNG:
        png.write(out, frames.images[0], frames.kept)
        return out.getvalue()
    options = ENCODERS[plan.format](frames.images[0], quality, plan.recipe)
    if plan.animated:
        options |= _animation(frames, plan)
    options |= metadata.options(frames.kept, plan.format)
    _ready(frames.images[0], plan).save(out, plan.format.value, **options)
    data = out.getvalue()
    if plan.animated and plan.format is Format.WEBP and _transparent(frames):
        data = _declare_alpha(data)
    return data


def _transparent(frames: Frames) -> bool:
    return any(image.mode == "RGBA" for image in frames.images)


def _declare_alpha(data: bytes) -> bytes:
    """Set the alpha flag of a WebP container (RFC 9649 section 2.7.1, extended file format).

    libwebp leaves it out where it could crop all transparency away: readers that believe the
    flag then show black around the frames.
    """
    if data[12:16] != b"VP8X":
        return data
    return data[:20] + bytes([data[20] | 0x10]) + data[21:]


def _ready(image: Image.Image, plan: Plan) -> Image.Image:
    """The picture in a mode that its encoder takes as it is."""
    if plan.format is Format.GIF:
        return all_or_nothing(image)
    if plan.format is Format.JPEG or image.mode in ("RGB", "RGBA"):
        return image
    return image.convert("RGBA" if image.mode == "LA" else "RGB")


def _own_codes(image: Image.Image) -> bool:
    return image.width * image.height <= _OWN_CODES


def jpeg(image: Image.Image, quality: int | None, recipe: Recipe) -> dict[str, Any]:
    """JPEG: Huffman codes of its own save 1 to 17 % for 2 ns a pixel, half as long as encoding.

    From quality 90 on the colours keep their full resolution, as the eye is meant to look.
    """
    quality = quality or 80
    return {
        "qtables": tables(quality),
        "optimize": _own_codes(image),
        "progressive": recipe.progressive,
        "subsampling": "4:4:4" if quality >= 90 else "4:2:0",
    }


def webp(image: Image.Image, quality: int | None, recipe: Recipe) -> dict[str, Any]:
    """WebP: method 2 is half the time of the usual 4 and 4 % larger.

    Without loss, quality is how hard it tries; transparent pixels keep their colours.
    """
    if recipe.lossless:
        return {"lossless": True, "quality": 50, "method": 2, "exact": True}
    return {"quality": quality or 80, "method": 2}


def avif(image: Image.Image, quality: int | None, recipe: Recipe) -> dict[str, Any]:
    """AVIF: speed 8 and one thread, as there is a process a core; 27 ms at 320 wide."""
    return {"quality": quality or 55, "speed": 8, "max_threads": 1}


def gif(image: Image.Image, quality: int | None, recipe: Recipe) -> dict[str, Any]:
    """GIF: a palette of the picture's own, made by Pillow."""
    return {"optimize": False}


Encoder = Callable[[Image.Image, int | None, Recipe], dict[str, Any]]
ENCODERS: dict[Format, Encoder] = {
    Format.JPEG: jpeg,
    Format.WEBP: webp,
    Format.AVIF: avif,
    Format.GIF: gif,
}


def _animation(frames: Frames, plan: Plan) -> dict[str, Any]:
    options: dict[str, Any] = {
        "save_all": True,
        "append_images": [_ready(image, plan) for image in frames.images[1:]],
        "duration": list(frames.durations),
    }
    if plan.format is Format.GIF:
        options["duration"] = hundredths(frames.durations)
        if _transparent(frames):
            options["disposal"] = 2  # transparent pixels must not show the frame before
        if frames.plays != 1:  # a GIF that says nothing plays once
            options["loop"] = max(0, frames.plays - 1)
    else:
        options["loop"] = frames.plays
        options["method"] = 0
        if not plan.recipe.lossless and piles_up(frames.images):
            options["kmax"] = 1  # each frame by itself
    return options
