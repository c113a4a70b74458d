"""From an open source to the bytes of the result: probe, guard, plan, the steps, encode."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from attrs import define, evolve, field, frozen
from PIL import Image
from PIL.ImageFile import ImageFile

from .encode import Frames, encode
from .errors import Broken, DeadlineExceeded, Expensive, Failed, ImageError, TooLarge
from .formats import Format, Offer
from .frames import of_one_kind, plays
from .geometry import Box, contain, stored_box, swaps_axes, upright_box
from .intermediates import Intermediates, Key
from .job import Rendered
from .limits import Limits
from .look import SMALL, border_at, focus
from .looks import ready_mark
from .metadata import kept
from .places import Unsigned
from .plan import Plan, Seen, estimate, looks, make_plan, preparing, settled, smart
from .probe import probe
from .recipe import Recipe
from .source import Identity, identify
from .steps import STEPS, decode, keeps_profile, orient, plain_pixels, to_srgb, transposed

#: Seconds from any fixed point, never going back.
Clock = Callable[[], float]


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


#: How much of a worker's memory a job and what is kept may take together before that is dropped.
_ROOM = 0.75

#: Opens another picture of the same root for reading. Raises as `source.open_source` does.
Opener = Callable[[bytes], BinaryIO]


@frozen
class Surroundings:
    """What a job finds where it is done."""

    limits: Limits
    clock: Clock
    #: Opens the watermark.
    also: Opener
    root: bytes = b""
    #: Seconds that the job may take by estimate.
    most: float = math.inf
    store: Intermediates = field(factory=lambda: Intermediates(0))
    #: Whether pixels may be used that were decoded for a larger picture.
    derive: bool = False
    #: How large the result may be.
    unsigned: Unsigned = field(factory=Unsigned)


def render(file: BinaryIO, recipe: Recipe, offer: Offer, around: Surroundings) -> Rendered:
    """Make the picture. Every failure is an `ImageError`, whatever the source did to Pillow."""
    limits = around.limits
    watch = Watch(around.clock, limits.deadline)
    source = identify(os.fstat(file.fileno()))
    with only_image_errors(limits):
        image, header = probe(file, limits)
        with image:
            watch.lap("probe")
            plan = make_plan(header, recipe, offer, limits)
            if recipe.trim is None:  # else its size is known when it is made
                around.unsigned.check_made(*plan.placement.size)
            if estimate(plan, limits) > around.most:
                raise Expensive("the image is expensive")
            if around.store.bytes + plan.memory > limits.memory * _ROOM:
                around.store.clear()
            key = Key(around.root, recipe.src, source, plan.factor)
            factor = around.store.larger(key) if around.derive else key.factor
            derived = factor if factor != key.factor else 0
            if derived:
                plan, key = evolve(plan, factor=factor), evolve(key, factor=factor)
            first, keep = _read(image, plan, key, around.store)
            watch.lap("decode")
            if looks(recipe):
                trimmed = _trimmed(image, first, plan, watch)
                plan = settled(plan, offer, limits, _look(first, plan, offer, limits, trimmed))
                watch.lap("look")
            mark, mark_identity = _mark(plan, around)
            plan = evolve(plan, mark=mark)
            frames = _frames(image, first, keep, plan, watch)
            del first  # encoders need the memory that the source had
            image.close()
            data = _encode(frames, plan, limits, watch)
    made = frames.images[0]
    return Rendered(
        data=data,
        format=plan.format,
        width=made.width,
        height=made.height,
        frames=len(frames.images),
        source=source,
        mark=mark_identity,
        timings=tuple(watch.laps.items()),
        derived=derived,
    )


@contextmanager
def only_image_errors(limits: Limits) -> Iterator[None]:
    """Whatever a source does to Pillow becomes an `ImageError`."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError:
        raise TooLarge("the image needs more memory than a worker may use") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise TooLarge(f"the source has more than {limits.max_pixels} pixels") from None
    except Exception as error:
        raise Broken("the source is damaged and cannot be decoded") from error


def _encode(frames: Frames, plan: Plan, limits: Limits, watch: Watch) -> bytes:
    try:
        return encode(frames, plan, limits, lambda: watch.lap("encode"))
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # the pixels are good by now: this one is our fault
        raise Failed(f"the {plan.format.value} encoder failed") from error


def _read(
    image: ImageFile, plan: Plan, key: Key, store: Intermediates
) -> tuple[Image.Image, dict[str, bytes]]:
    """The pixels of the first frame, of this source or kept from it, and metadata to keep."""
    stored = None if plan.animated or plan.recipe.keep else store.get(key)
    if stored is not None:
        return stored, {}
    frame = decode(image, plan)
    keep = kept(frame, plan.recipe) if plan.recipe.keep else {}
    if plan.animated:
        frame = plain_pixels(frame.copy(), plan)
    else:
        frame = plain_pixels(frame, plan)
        store.put(key, frame)
    if keeps_profile(frame, plan):
        keep["icc_profile"] = frame.info["icc_profile"]
    return frame, keep


def _trimmed(image: ImageFile, first: Image.Image, plan: Plan, watch: Watch) -> Box | None:
    """What ``trim`` leaves of the upright picture: the box around what each frame has.

    None without ``trim``, and where nothing would be left.
    """
    tolerance, orientation = plan.recipe.trim, plan.header.orientation
    if tolerance is None:
        return None
    width, height = first.size
    corner = stored_box(Box(0, 0, 1, 1), orientation, width, height)
    border = border_at(first, (int(corner.left), int(corner.top)), tolerance)
    whole, left = Box(0, 0, width, height), None
    for frame in _each(image, first, plan):
        if frame.size != first.size:
            # Pillow makes room for a GIF's frame that does not fit: nobody sees what lies there.
            frame = frame.crop((0, 0, width, height))
        found = border.within(frame)
        del frame  # the next one needs the memory
        left = found.around(left) if found else left
        watch.lap("look")
        if left == whole:
            break
    return None if left is None else upright_box(left, orientation, width, height)


def _look(
    pixels: Image.Image, plan: Plan, offer: Offer, limits: Limits, trimmed: Box | None
) -> Seen:
    """See where the content is in what is left without the border."""
    header, recipe = plan.header, plan.recipe
    if not smart(recipe):
        return Seen(trimmed)
    plan = settled(plan, offer, limits, Seen(trimmed))
    view = plan.view.shrunk(plan.factor, pixels.width, pixels.height)
    size = contain(max(1, round(view.width)), max(1, round(view.height)), SMALL, SMALL)
    small = pixels.resize(
        size,
        Image.Resampling.BILINEAR,
        box=(view.left, view.top, view.right, view.bottom),
        reducing_gap=2.0,
    )
    small = transposed(transposed(small, header.orientation), plan.turn)
    width, height = plan.view.width, plan.view.height
    if swaps_axes(header.orientation) != swaps_axes(plan.turn):
        width, height = height, width
    box = plan.placement.box
    return Seen(trimmed, focus(small, box.width / width, box.height / height))


def _mark(plan: Plan, around: Surroundings) -> tuple[Image.Image | None, Identity | None]:
    """The watermark, ready to be laid on, and which state of it that is."""
    wanted, limits = plan.recipe.mark, around.limits
    if wanted is None:
        return None, None
    try:
        with around.also(wanted.src) as file, only_image_errors(limits):
            found = identify(os.fstat(file.fileno()))
            image, header = probe(file, limits)
            if estimate(plan, limits) + preparing(header) > around.most:
                raise Expensive("the image is expensive")
            own = make_plan(header, Recipe(wanted.src, fmt=Format.PNG), Offer(), limits)
            with image:
                mark: Image.Image = image
                for step in (decode, plain_pixels, to_srgb, orient):
                    mark = step(mark, own)
                mark = ready_mark(mark.convert("RGBA"), wanted, plan.placement.size)
    except ImageError as error:
        raise type(error)(f"watermark: {error.reason}") from error
    return mark, found


def _frames(
    image: ImageFile, first: Image.Image, keep: dict[str, bytes], plan: Plan, watch: Watch
) -> Frames:
    made: list[Image.Image] = []
    durations: list[int] = []
    for frame in _each(image, first, plan):
        watch.lap("decode")
        # Pillow learns a WebP frame's duration by decoding it.
        durations.append(_duration(frame))
        for name, step in STEPS:
            frame = step(frame, plan)
            watch.lap(name)
        made.append(frame)
    if plan.animated:
        made = of_one_kind(made)
    return Frames(made, durations, plays(image), keep)


def _each(image: ImageFile, first: Image.Image, plan: Plan) -> Iterator[Image.Image]:
    """The frames as they are to be seen; all but the first are decoded anew each time."""
    yield first
    for number in range(1, plan.frames):
        image.seek(number)
        yield plain_pixels(decode(image, plan).copy(), plan)


def _duration(frame: Image.Image) -> int:
    value = frame.info.get("duration", 100)
    return max(0, min(int(value), 65_000)) if isinstance(value, (int, float)) else 100
