"""Small pictures for the tests, and the folder of odd ones where it exists."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

from PIL import Image

#: Test images that lie beside some checkouts; tests that use them are skipped elsewhere.
SHARED = Path(__file__).resolve().parents[3] / "shared" / "images"
NO_SHARED = "" if SHARED.is_dir() else "there is no ../shared/images"

CORNERS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))


def corners(width: int = 64, height: int = 48) -> Image.Image:
    """Red and green above, blue and white below: shows how a picture lies."""
    image = Image.new("RGB", (width, height))
    half = width // 2, height // 2
    for number, colour in enumerate(CORNERS):
        x, y = number % 2 * half[0], number // 2 * half[1]
        image.paste(colour, (x, y, x + half[0], y + half[1]))
    return image


def gradient(width: int, height: int) -> Image.Image:
    """Something a codec has work with."""
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    return Image.merge("RGB", (across, down, Image.radial_gradient("L").resize((width, height))))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def corner_colours(image: Image.Image) -> list[str]:
    """The four quarters' colours by their letters, from the upper left, row by row."""
    names = dict(zip(CORNERS, "RGBW", strict=True))
    rgb = image.convert("RGB")
    width, height = rgb.size
    found = []
    for y in (height // 4, height * 3 // 4):
        for x in (width // 4, width * 3 // 4):
            pixel = rgb.getpixel((x, y))
            assert isinstance(pixel, tuple)
            found.append(names[min(CORNERS, key=lambda c: _distance(c, pixel))])
    return found


def _distance(one: tuple[int, ...], other: tuple[float, ...]) -> float:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True))


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises a huge picture."""
    header = struct.pack("!IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(bytes(1000)))
        + png_chunk(b"IEND", b"")
    )


def gif_of(frames: int) -> bytes:
    """A GIF of many one-pixel frames, 21 bytes each."""
    head = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff"
    frame = b"\x21\xf9\x04\x00\x0a\x00\x00\x00" + b"\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0"
    return head + frame * frames + b";"


def gif_of_dots(width: int, height: int, *dots: tuple[int, int], disposal: int = 2) -> bytes:
    """A black GIF and then frames of one white pixel each; what is black at first is all of it."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frames = []
    for number, (x, y) in enumerate(((0, 0), *dots)):
        control = b"\x21\xf9\x04" + bytes([disposal << 2]) + b"\x0a\0\0\0"
        code = b"\x4c" if number else b"\x44"
        frames.append(control + b"\x2c" + struct.pack("<HHHHB", x, y, 1, 1, 0))
        frames.append(b"\x02\x02" + code + b"\x01\0")
    return head + b"".join(frames) + b";"
