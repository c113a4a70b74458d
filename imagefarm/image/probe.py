"""The header of a source: what it is, before any pixel is decoded.

The allow-list is ours, not Pillow's: the first bytes choose one decoder, and no other is ever
tried. So EPS, PDF, FPX, WMF and their like are never opened, and a JPEG with an MPO index is
simply a JPEG.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import BinaryIO

from attrs import frozen
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL.ImageFile import ImageFile

from .errors import Broken, ImageError, TooLarge, Unsupported
from .limits import Limits

#: One thread a decoder: the pool has one process a core already.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

_ORIENTATION = 0x0112
_DECODERS: dict[str, Callable[[BinaryIO, str], ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "JPEG2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
}
#: Formats whose further frames are an animation (a TIFF's are pages: the first one counts).
_ANIMATIONS = ("GIF", "WEBP")


@frozen
class Header:
    """What the header says. ``width`` and ``height`` are as stored, before ``orientation``."""

    format: str
    width: int
    height: int
    frames: int = 1
    #: EXIF orientation, 1 to 8.
    orientation: int = 1
    alpha: bool = False

    @property
    def animated(self) -> bool:
        """Whether there is more than one frame to show."""
        return self.frames > 1


def sniff(head: bytes) -> str | None:
    """Pillow's name of the format that a file beginning with ``head`` (32 bytes) is in."""
    for name, offset, magic in _MAGIC:
        if head.startswith(magic, offset):
            if name == "WEBP" and not head.startswith(b"RIFF"):
                continue
            return name
    return None


_MAGIC: tuple[tuple[str, int, bytes], ...] = (
    ("JPEG", 0, b"\xff\xd8\xff"),
    ("PNG", 0, b"\x89PNG\r\n\x1a\n"),
    ("GIF", 0, b"GIF87a"),
    ("GIF", 0, b"GIF89a"),
    ("WEBP", 8, b"WEBPVP8"),
    ("AVIF", 4, b"ftypavif"),
    ("AVIF", 4, b"ftypavis"),
    ("AVIF", 4, b"ftypmif1"),
    ("TIFF", 0, b"II*\0"),
    ("TIFF", 0, b"MM\0*"),
    ("BMP", 0, b"BM"),
    ("JPEG2000", 0, b"\xff\x4f\xff\x51"),
    ("JPEG2000", 0, b"\0\0\0\x0cjP  \r\n\x87\n"),
)


def probe(file: BinaryIO, limits: Limits) -> tuple[ImageFile, Header]:
    """Read the header and check it against ``limits``; no pixel is decoded.

    Raises `Unsupported` for what is not one of the formats, `Broken` for a header that cannot
    be read, `TooLarge` for one that is above a limit.
    """
    size = os.fstat(file.fileno()).st_size
    if size > limits.max_source_bytes:
        raise TooLarge(f"the source is larger than {limits.max_source_bytes} bytes")
    name = sniff(file.read(32))
    file.seek(0)
    if name is None:
        raise Unsupported("the source is not an image in a format that is read")
    if name == "GIF":
        # Counted by ourselves and no further than the limit, as Pillow would count them all.
        frames = count_gif_frames(file, limits.max_frames)
        file.seek(0)
    try:
        image = _DECODERS[name](file, "")
        if name != "GIF":
            frames = getattr(image, "n_frames", 1) if name in _ANIMATIONS else 1
        header = Header(
            format=name,
            width=image.width,
            height=image.height,
            frames=frames,
            orientation=_orientation(image, name),
            alpha=image.has_transparency_data,
        )
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise TooLarge(_too_many_pixels(limits)) from None
    except MemoryError:
        raise
    except Exception as error:
        raise Broken(f"the header of the {name} image cannot be read") from error
    for check in GUARDS:
        check(header, limits)
    return image, header


def _orientation(image: ImageFile, name: str) -> int:
    """The EXIF orientation; 1 where there is none, or none that makes sense."""
    if name == "TIFF":
        return 1  # Pillow turns these itself, and has exchanged the size already
    if name == "PNG" and "exif" not in image.info:
        return 1  # asking Pillow further would decode the pixels in search of a late chunk
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1  # whatever broken EXIF data raises: the picture itself may well be good
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _too_many_pixels(limits: Limits) -> str:
    return f"the source has more than {limits.max_pixels} pixels"


def guard_pixels(header: Header, limits: Limits) -> None:
    """One frame's pixels: they all have to be in memory at once."""
    if header.width < 1 or header.height < 1:
        raise Broken("the source has no pixels")
    if header.width * header.height > limits.max_pixels:
        raise TooLarge(_too_many_pixels(limits))


def guard_frames(header: Header, limits: Limits) -> None:
    """How many frames there are."""
    if header.frames > limits.max_frames:
        raise TooLarge(f"the source has more than {limits.max_frames} frames")


def guard_total_pixels(header: Header, limits: Limits) -> None:
    """An animation's pixels in all its frames: they bound its time."""
    if header.animated and header.width * header.height * header.frames > limits.max_total_pixels:
        raise TooLarge(f"the source's frames have more than {limits.max_total_pixels} pixels")


#: Bytes that decoding takes for each pixel, measured; several decoders keep planes of their own
#: besides the picture, and some of them die where they get no memory.
_DECODING = {"JPEG": 10, "WEBP": 16, "AVIF": 12, "JPEG2000": 20}
_DECODING_OTHERS = 4


def decoding_memory(header: Header) -> int:
    """Bytes that decoding is known to need."""
    return header.width * header.height * _DECODING.get(header.format, _DECODING_OTHERS)


def guard_memory(header: Header, limits: Limits) -> None:
    """What decoding is known to need; the process's own limit holds against all else."""
    if decoding_memory(header) > limits.memory:
        raise TooLarge("the image needs more memory than a worker may use")


Guard = Callable[[Header, Limits], None]
#: Cheap checks, the order is that of what a client can best make use of.
GUARDS: tuple[Guard, ...] = (guard_pixels, guard_frames, guard_total_pixels, guard_memory)


def count_gif_frames(file: BinaryIO, limit: int) -> int:
    """The frames of a GIF, at most ``limit`` + 1 of them (GIF89a, appendix B).

    Walks over the blocks without decoding; a file that breaks off has the frames before that.
    """
    header = file.read(13)
    if len(header) < 13:
        return 0
    _skip_colours(file, header[10])
    frames = 0
    while frames <= limit:
        kind = file.read(1)
        if kind == b"\x2c":  # image descriptor, its colours, the LZW code size, the data
            descriptor = file.read(9)
            if len(descriptor) < 9:
                break
            _skip_colours(file, descriptor[8])
            file.seek(1, os.SEEK_CUR)
            frames += 1
        elif kind == b"\x21":  # extension: its label, then data
            file.seek(1, os.SEEK_CUR)
        else:  # the trailer, the end of the file, or rubbish, at which Pillow stops too
            break
        _skip_blocks(file)
    return frames


def _skip_colours(file: BinaryIO, flags: int) -> None:
    if flags & 0x80:
        file.seek(3 << ((flags & 7) + 1), os.SEEK_CUR)


def _skip_blocks(file: BinaryIO) -> None:
    while size := file.read(1):
        if size == b"\0":
            return
        file.seek(size[0], os.SEEK_CUR)
