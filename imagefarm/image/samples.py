"""Sample images for a farm whose root is empty: drawn, not shipped, and the same every time."""

from __future__ import annotations

import io
import math
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageCms, ImageDraw, ImageFilter, ImageFont, ImageOps

from .samples_page import PAGE
from .zoom_page import ZOOM_PAGE, openseadragon

Colour = tuple[int, int, int]
Size = tuple[int, int]

#: Dawn, noon, dusk, night, fog: sky above, sky at the horizon, far hills, near hills.
_MOODS: tuple[tuple[Colour, Colour, Colour, Colour], ...] = (
    ((62, 84, 150), (255, 190, 140), (150, 128, 160), (34, 42, 64)),
    ((28, 108, 196), (214, 236, 250), (128, 170, 190), (22, 72, 52)),
    ((44, 26, 84), (255, 122, 72), (132, 66, 98), (26, 16, 38)),
    ((6, 10, 32), (38, 58, 110), (26, 38, 78), (4, 8, 18)),
    ((150, 164, 176), (232, 236, 236), (184, 194, 198), (74, 92, 92)),
)
_BARS: tuple[Colour, ...] = (
    (235, 235, 235), (235, 235, 16), (16, 235, 235), (16, 235, 16),
    (235, 16, 235), (235, 16, 16), (16, 16, 235),
)  # fmt: skip
_ORIENTATION = 0x0112


def draw(directory: Path | str) -> list[Path]:
    """Draw the samples into ``directory``; returns the paths, the page ``index.html`` last.

    Each file appears whole or not at all, and the page only when all it shows is there. Raises
    OSError where the directory cannot be written.
    """
    root = Path(directory)
    made = []
    for name, paint in FILES:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not a name that a server would list or a glob would find.
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            unfinished.write_bytes(paint())
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        made.append(path)
    return made


def scene(size: Size, mood: int, seed: int) -> Image.Image:
    """A landscape: sky and sun, five ridges of hills in the haze, grain as of a camera."""
    above, horizon, far, near = _MOODS[mood % len(_MOODS)]
    rng = random.Random(seed)
    sky = Image.linear_gradient("L").resize(size, Image.Resampling.BILINEAR)
    picture = ImageOps.colorize(sky, above, horizon).convert("RGB")
    _sun(picture, rng)
    paint = ImageDraw.Draw(picture)
    for ridge in range(5):
        share = ridge / 4
        colour = tuple(round(a + (b - a) * share) for a, b in zip(far, near, strict=True))
        paint.polygon(_ridge(size, 0.45 + 0.12 * ridge, rng), fill=colour)
    return _grain(picture, rng)


def _sun(picture: Image.Image, rng: random.Random) -> None:
    width, height = picture.size
    reach = height // 2
    centre = round(width * rng.uniform(0.25, 0.75)), round(height * rng.uniform(0.2, 0.4))
    glow = _soft_disc(2 * reach).point(lambda value: value * value / 300)
    corner = centre[0] - reach, centre[1] - reach
    picture.paste((255, 244, 214), corner, glow)
    disc = height // 22
    ImageDraw.Draw(picture).circle(centre, disc, fill=(255, 250, 232))


def _soft_disc(across: int) -> Image.Image:
    """White in the middle, black from the edge of the inscribed circle on."""
    fade = Image.radial_gradient("L").point(lambda value: max(0, 255 - value * 255 / 180))
    return fade.resize((across, across))


def _ridge(size: Size, level: float, rng: random.Random) -> list[tuple[float, float]]:
    width, height = size
    waves = [
        (rng.uniform(0.7, 1.3) * 2**octave, rng.uniform(0, math.tau), 0.09 / 1.7**octave)
        for octave in range(8)
    ]
    points: list[tuple[float, float]] = [(0, height)]
    for step in range(401):
        x = step / 400
        y = level + sum(a * math.sin(math.tau * f * x + phase) for f, phase, a in waves)
        points.append((x * width, y * height))
    return [*points, (width, height)]


def _grain(picture: Image.Image, rng: random.Random) -> Image.Image:
    width, height = picture.size
    noise = Image.frombytes("L", (width, height), rng.randbytes(width * height))
    noise = noise.filter(ImageFilter.BoxBlur(0.6)).point(lambda value: value / 9 + 114)
    grain = Image.merge("RGB", (noise, noise, noise))
    return ImageChops.add(picture, grain, scale=1, offset=-128)


def label(picture: Image.Image, text: str, share: float = 0.08) -> Image.Image:
    """``text`` in the lower left corner; its height is that ``share`` of the picture's."""
    size = round(picture.height * share)
    paint = ImageDraw.Draw(picture)
    place = (size, picture.height - 2 * size)
    white: Any = 255 if picture.mode == "L" else "white"
    black: Any = 0 if picture.mode == "L" else "black"
    edge = max(1, size // 14)
    font = ImageFont.load_default(size)
    paint.text(place, text, fill=white, font=font, stroke_width=edge, stroke_fill=black)
    return picture


def test_card(size: Size) -> Image.Image:
    """Colour bars, a grey staircase, a grid and a circle: what a resizer may get wrong."""
    width, height = size
    card = Image.new("RGB", size, (96, 96, 96))
    paint = ImageDraw.Draw(card)
    cell = height // 18
    for x in range(width // 2 % cell, width, cell):
        paint.line((x, 0, x, height), fill=(150, 150, 150))
    for y in range(height // 2 % cell, height, cell):
        paint.line((0, y, width, y), fill=(150, 150, 150))
    left, top, right, bottom = width // 6, height // 6, width * 5 // 6, height * 5 // 6
    bar = (right - left) / 7
    for number, colour in enumerate(_BARS):
        start = left + number * bar
        paint.rectangle((start, top, start + bar, height * 0.55), fill=colour)
    for number in range(11):
        grey = (round(number * 25.5),) * 3
        stair = (right - left) / 11
        start = left + number * stair
        paint.rectangle((start, height * 0.55, start + stair, height * 0.67), fill=grey)
    for number in range(round(right - left)):
        # Lines that get ever finer: aliasing shows here first.
        pitch = 10 - 9 * number / (right - left)
        white = math.sin(math.tau * number / pitch) > 0
        x = left + number
        paint.line((x, height * 0.67, x, bottom), fill="white" if white else "black")
    radius = height * 0.46
    paint.circle((width / 2, height / 2), radius, outline="white", width=max(2, height // 180))
    return label(card, "imagefarm", 0.05)


def rings(size: Size) -> Image.Image:
    """Three soft discs on nothing: every degree of transparency."""
    width, height = size
    picture = Image.new("RGBA", size)
    for number, colour in enumerate(((230, 60, 60), (60, 190, 90), (60, 110, 230))):
        across = height * 2 // 3
        disc = _soft_disc(across)
        layer = Image.new("RGBA", size)
        angle = math.tau * number / 3 - math.tau / 4
        x = round(width / 2 + height / 6 * math.cos(angle) - across / 2)
        y = round(height / 2 + height / 6 * math.sin(angle) - across / 2)
        layer.paste(colour, (x, y), disc)
        picture = Image.alpha_composite(picture, layer)
    return picture


def portrait(size: Size, colour: Colour) -> Image.Image:
    """Somebody, anybody: head and shoulders."""
    width, height = size
    picture = Image.new("RGB", size, colour)
    paint = ImageDraw.Draw(picture)
    light = tuple(value + (255 - value) * 2 // 3 for value in colour)
    paint.circle((width / 2, height * 0.38), height * 0.19, fill=light)
    paint.ellipse((width * 0.14, height * 0.64, width * 0.86, height * 1.4), fill=light)
    return picture


def _spinner() -> list[Image.Image]:
    frames = []
    for turn in range(12):
        frame = Image.new("RGB", (160, 160), (250, 250, 250))
        paint = ImageDraw.Draw(frame)
        for dot in range(12):
            angle = math.tau * dot / 12
            grey = 40 + 17 * ((turn - dot) % 12)
            centre = 80 + 54 * math.cos(angle), 80 + 54 * math.sin(angle)
            paint.circle(centre, 11, fill=(grey, grey, min(255, grey + 30)))
        frames.append(frame.quantize(32, dither=Image.Dither.NONE))
    return frames


def _waves() -> list[Image.Image]:
    frames = []
    for turn in range(16):
        frame = Image.new("RGBA", (320, 180))
        paint = ImageDraw.Draw(frame)
        for x in range(0, 320, 4):
            y = 90 + 50 * math.sin(math.tau * (x / 160 + turn / 16))
            paint.circle((x, y), 9, fill=(40 + x // 2, 120, 255 - x // 2, 255))
        frames.append(frame)
    return frames


def _saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def _animated(frames: list[Image.Image], kind: str, **options: Any) -> bytes:
    rest = frames[1:]
    return _saved(frames[0], kind, save_all=True, append_images=rest, loop=0, **options)


def _landscape() -> bytes:
    return _saved(label(scene((2816, 2112), 2, 1), "2816 x 2112", 0.04), "JPEG", quality=90)


def _sideways() -> bytes:
    """Stored lying on its side, as cameras do, with the note to turn it upright."""
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    upright = label(scene((900, 1200), 0, 2), "upright", 0.05)
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return _saved(stored, "JPEG", quality=88, exif=exif, icc_profile=_undated(profile))


def _undated(profile: bytes) -> bytes:
    """The profile without the moment of its creation (ICC.1, 7.2.1, bytes 24 to 35)."""
    return profile[:24] + bytes(12) + profile[36:]


def _grey() -> bytes:
    picture = scene((1200, 800), 4, 3).convert("L")
    return _saved(label(picture, "grey"), "JPEG", quality=85)


def _cmyk() -> bytes:
    return _saved(label(scene((1200, 800), 1, 4), "CMYK").convert("CMYK"), "JPEG", quality=88)


def _still(number: int) -> Callable[[], bytes]:
    def paint() -> bytes:
        picture = scene((640, 360), number, 10 + number)
        return _saved(label(picture, f"channel {number:02}", 0.1), "JPEG", quality=82)

    return paint


def _profile(colour: Colour, kind: str) -> Callable[[], bytes]:
    def paint() -> bytes:
        picture = portrait((200, 200), colour)
        return _saved(picture.quantize(64) if kind == "GIF" else picture, kind)

    return paint


#: Every sample with its path; the page comes last, when all that it shows is there.
FILES: tuple[tuple[str, Callable[[], bytes]], ...] = (
    ("photos/landscape.jpg", _landscape),
    ("photos/portrait-exif6.jpg", _sideways),
    ("photos/grey.jpg", _grey),
    ("photos/cmyk.jpg", _cmyk),
    ("photos/dawn.webp", lambda: _saved(scene((1280, 853), 0, 5), "WEBP", quality=82, method=2)),
    ("photos/dusk.avif", lambda: _saved(scene((960, 640), 2, 6), "AVIF", speed=8, max_threads=1)),
    ("graphics/testcard.png", lambda: _saved(test_card((1280, 720)), "PNG")),
    ("graphics/alpha.png", lambda: _saved(rings((800, 600)), "PNG")),
    ("graphics/palette.gif", lambda: _saved(test_card((480, 360)).quantize(64), "GIF")),
    ("motion/spinner.gif", lambda: _animated(_spinner(), "GIF", duration=80)),
    ("motion/waves.webp", lambda: _animated(_waves(), "WEBP", duration=60, quality=80)),
    *((f"thumbnail/channel-{number:02}.jpg", _still(number)) for number in range(1, 7)),
    ("upload/fe/profile/anna.png", _profile((176, 84, 120), "PNG")),
    ("upload/fe/profile/jun.jpg", _profile((64, 120, 168), "JPEG")),
    (
        "theme/micro/common/img/player/profile_thmb_default.gif",
        _profile((120, 126, 134), "GIF"),
    ),
    ("openseadragon.min.js", openseadragon),
    ("zoom.html", ZOOM_PAGE.encode),
    ("index.html", PAGE.encode),
)
