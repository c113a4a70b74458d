"""The PNG encoder (W3C Portable Network Graphics, third edition).

Pillow's tries five filters on each row and compresses with zlib, which together takes longer than
decoding and resampling. Here one filter is chosen for the whole picture: none, which is best for
drawings and for what is transparent, or the difference to the pixel before or above.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from PIL import Image, ImageChops

from .deflate import compressor

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Colour types by mode; all have 8 bits a channel.
_COLOUR_TYPES = {"L": 0, "RGB": 2, "LA": 4, "RGBA": 6}
#: Filter types: how far left and up the pixel is whose difference is written. 0 writes it itself.
_FILTERS = {0: None, 1: (1, 0), 2: (0, 1)}
#: Bytes of pixels that are worked on at a time, and longest chunk of them.
_STRIP = 1 << 18
#: So many rows, from the middle, say which filter is the better one.
_SAMPLE = 24


def write(out: BinaryIO, image: Image.Image, kept: Mapping[str, bytes]) -> None:
    """Write ``image`` (L, LA, RGB or RGBA) with metadata as of `metadata.kept`.

    Raises what ``out.write`` raises.
    """
    head = struct.pack(
        "!IIBBBBB", image.width, image.height, 8, _COLOUR_TYPES[image.mode], 0, 0, 0
    )
    out.write(_SIGNATURE + _chunk(b"IHDR", head))
    for kind, data in _metadata(kept):
        out.write(_chunk(kind, data))
    stream = compressor()
    for rows in _rows(image, _filter(image)):
        if data := stream.compress(rows):
            out.write(_chunk(b"IDAT", data))
    out.write(_chunk(b"IDAT", stream.flush()) + _chunk(b"IEND", b""))


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(data, zlib.crc32(kind))
    return b"".join((struct.pack("!I", len(data)), kind, data, struct.pack("!I", check)))


def _metadata(kept: Mapping[str, bytes]) -> Iterator[tuple[bytes, bytes]]:
    if "icc_profile" in kept:
        yield b"iCCP", b"ICC Profile\0\0" + zlib.compress(kept["icc_profile"])
    if "xmp" in kept:
        text = kept["xmp"].decode("utf-8", "replace").encode("utf-8")
        yield b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + text
    if "exif" in kept:
        yield b"eXIf", kept["exif"].removeprefix(b"Exif\0\0")


def _filter(image: Image.Image) -> int:
    """The filter that makes the middle of the picture smaller."""
    top = max(0, (image.height - _SAMPLE) // 2)
    middle = image.crop((0, top, image.width, min(image.height, top + _SAMPLE)))
    return min(_FILTERS, key=lambda kind: _size(middle, kind))


def _size(image: Image.Image, kind: int) -> int:
    stream = compressor()
    return sum(len(stream.compress(rows)) for rows in _rows(image, kind)) + len(stream.flush())


def _rows(image: Image.Image, kind: int) -> Iterator[bytes]:
    """The filtered rows, each after its filter's number, in strips."""
    width, bands, before = image.width, len(image.getbands()), _FILTERS[kind]
    length = width * bands
    height = max(1, _STRIP // (length + 1))
    for top in range(0, image.height, height):
        bottom = min(image.height, top + height)
        strip = image.crop((0, top, width, bottom))
        if before is not None:
            left, up = before  # beyond the edges all is zero
            neighbours = image.crop((-left, top - up, width - left, bottom - up))
            strip = ImageChops.subtract_modulo(strip, neighbours)
        rows = Image.new("L", (length + 1, strip.height), kind)
        rows.paste(Image.frombytes("L", (length, strip.height), strip.tobytes()), (1, 0))
        yield rows.tobytes()
