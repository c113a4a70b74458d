"""The frames of an animation as their encoders want them: of one kind, in alpha that they hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from PIL import Image, ImageChops

#: From this alpha on a pixel counts as opaque where it must be that or transparent.
_OPAQUE: Final = 128
#: WebP counts in 16 bits (RFC 9649, section 2.7.1).
_MOST_PLAYS: Final = 0xFFFF


def of_one_kind(images: Sequence[Image.Image]) -> list[Image.Image]:
    """All frames as RGBA; as RGB, which is smaller, where they turn out opaque throughout."""
    if any(has_alpha(image) and _least(image.getchannel("A")) < 255 for image in images):
        return [image.convert("RGBA") for image in images]
    return [image.convert("RGB") for image in images]


def has_alpha(image: Image.Image) -> bool:
    """Whether its mode has a channel for it."""
    return image.mode in ("LA", "RGBA")


def _least(channel: Image.Image) -> float:
    low, _ = channel.getextrema()
    return low if isinstance(low, int | float) else 255


def all_or_nothing(image: Image.Image) -> Image.Image:
    """The picture without half transparent pixels, as a GIF has them: it has one transparent
    colour (GIF89a, section 23), and Pillow takes any other for opaque.
    """
    if not has_alpha(image):
        return image
    opaque = image.getchannel("A").point([0] * _OPAQUE + [255] * (256 - _OPAQUE))
    made = Image.new("RGBA", image.size)
    made.paste(image.convert("RGB"), mask=opaque)
    return made


def plays(image: Image.Image) -> int:
    """How often an animation is to be seen, 0 for ever.

    WebP says that; a GIF says how often it is to be seen again, or nothing and is seen once.
    """
    loop = image.info.get("loop")
    if image.format == "WEBP":
        return loop if isinstance(loop, int) else 0
    if not isinstance(loop, int):
        return 1
    return min(loop + 1, _MOST_PLAYS) if loop else 0


def hundredths(durations: Sequence[int]) -> list[int]:
    """Milliseconds in whole hundredths of a second, which a GIF counts in (GIF89a, section 23).

    What is rounded off one frame is added to the next. Browsers show what is to be seen for 10 ms
    or less for 100 ms: nothing that is longer gets that short.
    """
    rounded, rest = [], 0
    for duration in durations:
        wanted = duration + rest
        step = max(10 * round(wanted / 10), 20 if duration > 10 else 0)
        rest = max(-5, wanted - step)
        rounded.append(step)
    return rounded


def piles_up(images: Sequence[Image.Image]) -> bool:
    """Whether half transparent pixels lie where one frame differs from the next.

    libwebp's lossy encoder stores what differs of a frame and may have it laid over the frame
    before, where half transparent pixels then count twice.
    """
    before = None
    for image in images:
        if image.mode != "RGBA":
            return False
        if before is not None:
            box = ImageChops.difference(before, image).getbbox(alpha_only=False)
            if box is not None and any(image.crop(box).getchannel("A").histogram()[1:255]):
                return True
        before = image
    return False
