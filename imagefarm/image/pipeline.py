"""From an open source to the bytes of the result: probe, guard, plan, the steps, encode."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import BinaryIO

from attrs import define, field
from PIL import Image
from PIL.ImageFile import ImageFile

from .encode import Frames, encode
from .errors import Broken, DeadlineExceeded, Failed, ImageError, TooLarge
from .formats import Format, Offer, choose
from .geometry import place, shrink_factor, stored_box, swaps_axes
from .job import Rendered
from .limits import Limits
from .probe import Header, probe
from .recipe import Recipe
from .source import identify
from .steps import STEPS, Plan

#: Seconds from any fixed point, never going back.
Clock = Callable[[], float]


#: Bytes that encoding takes for each pixel, measured, where they are many: the AVIF encoder dies
#: where it gets no memory.
_ENCODING = {Format.AVIF: 26}


@define
class Watch:
    """Stops the time of each step and ends the work at the deadline."""

    clock: Clock
    deadline: float
    laps: dict[str, float] = field(factory=dict)
    _started: float = field(init=False)
    _last: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._started = self._last = self.clock()

    def lap(self, name: str) -> None:
        """Book the time since the last call under ``name``. Raises `DeadlineExceeded`."""
        now = self.clock()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._last
        self._last = now
        if now - self._started > self.deadline:
            raise DeadlineExceeded(f"the image took longer than {self.deadline:g} s")


def make_plan(header: Header, recipe: Recipe, offer: Offer, limits: Limits) -> Plan:
    """Decide everything that the header allows to decide. Raises `TooLarge`."""
    width, height = header.width, header.height
    swap = swaps_axes(header.orientation)
    upright = (height, width) if swap else (width, height)
    placement = place(*upright, recipe.w, recipe.h, recipe.fit)
    if placement.width > limits.max_width or placement.height > limits.max_height:
        raise TooLarge(
            f"the result would be {placement.width} x {placement.height} pixels, more than "
            f"{limits.max_width} x {limits.max_height}: give w or h"
        )
    box = stored_box(placement.box, header.orientation, width, height)
    out_width, out_height = placement.width, placement.height
    if swap:
        out_width, out_height = out_height, out_width
    target = choose(recipe.fmt, offer, header.format, alpha=header.alpha, animated=header.animated)
    if out_width * out_height * _ENCODING.get(target, 0) > limits.memory:
        raise TooLarge("the image needs more memory than a worker may use")
    return Plan(
        header=header,
        width=out_width,
        height=out_height,
        box=box,
        factor=shrink_factor(box, out_width, out_height) if header.format == "JPEG" else 1,
        format=target,
        quality=recipe.q,
        frames=header.frames if target.animates else 1,
    )


def render(file: BinaryIO, recipe: Recipe, offer: Offer, limits: Limits, clock: Clock) -> Rendered:
    """Make the picture. Every failure is an `ImageError`, whatever the source did to Pillow."""
    watch = Watch(clock, limits.deadline)
    source = identify(os.fstat(file.fileno()))
    try:
        image, header = probe(file, limits)
        with image:
            watch.lap("probe")
            plan = make_plan(header, recipe, offer, limits)
            frames = _frames(image, plan, watch)
            data = _encode(frames, plan, limits)
        watch.lap("encode")
    except ImageError:
        raise
    except MemoryError:
        raise TooLarge("the image needs more memory than a worker may use") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise TooLarge(f"the source has more than {limits.max_pixels} pixels") from None
    except Exception as error:
        raise Broken("the source is damaged and cannot be decoded") from error
    first = frames.images[0]
    return Rendered(
        data=data,
        format=plan.format,
        width=first.width,
        height=first.height,
        frames=len(frames.images),
        source=source,
        timings=tuple(watch.laps.items()),
    )


def _encode(frames: Frames, plan: Plan, limits: Limits) -> bytes:
    try:
        return encode(frames, plan, limits)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # the pixels are good by now: this one is our fault
        raise Failed(f"the {plan.format.value} encoder failed") from error


def _frames(image: ImageFile, plan: Plan, watch: Watch) -> Frames:
    made: list[Image.Image] = []
    durations: list[int] = []
    for number, frame in enumerate(_each(image, plan)):
        # Read after the first step: Pillow learns a WebP frame's duration by decoding it.
        for name, step in STEPS:
            frame = step(frame, plan)
            watch.lap(name)
            if number == len(durations):
                durations.append(_duration(frame))
        made.append(frame)
    loop = image.info.get("loop")
    if plan.animated:
        made = _without_idle_alpha(made)
    return Frames(made, durations, loop if isinstance(loop, int) else None)


def _each(image: ImageFile, plan: Plan) -> Iterator[Image.Image]:
    if not plan.animated:
        yield image
        return
    for number in range(plan.frames):
        image.seek(number)
        image.load()
        yield image.copy()


def _duration(frame: Image.Image) -> int:
    value = frame.info.get("duration", 100)
    return max(0, min(int(value), 65_000)) if isinstance(value, (int, float)) else 100


def _without_idle_alpha(images: list[Image.Image]) -> list[Image.Image]:
    """Frames that turn out opaque throughout are smaller, and compress better, as RGB."""
    if any(image.mode != "RGBA" or _min_alpha(image) < 255 for image in images):
        return images
    return [image.convert("RGB") for image in images]


def _min_alpha(image: Image.Image) -> float:
    low, _ = image.getchannel("A").getextrema()
    return low if isinstance(low, (int, float)) else 255
