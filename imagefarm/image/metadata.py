"""Metadata that a recipe's ``keep`` names; all other is left behind."""

from __future__ import annotations

from typing import Any

from PIL import Image

from .formats import Format
from .recipe import Keep, Recipe

_ORIENTATION = 0x0112
_COPYRIGHT = (0x8298, 0x013B)
#: What a TIFF has beside its EXIF data (TIFF 6.0, section 8): how its own pixels are stored, and
#: metadata of other kinds (XMP, IPTC, Photoshop's, the colour profile).
_OF_TIFF = frozenset((
    0x00FE, 0x00FF, 0x0100, 0x0101, 0x0102, 0x0103, 0x0106, 0x010A, 0x0111, 0x0115, 0x0116,
    0x0117, 0x011C, 0x0120, 0x0121, 0x0124, 0x0125, 0x013D, 0x0140, 0x0142, 0x0143, 0x0144,
    0x0145, 0x014A, 0x014C, 0x0151, 0x0152, 0x0153, 0x0154, 0x0155, 0x015B, 0x0200, 0x0201,
    0x0202, 0x0211, 0x0212, 0x0213, 0x0214, 0x02BC, 0x83BB, 0x8649, 0x8773,
))  # fmt: skip
#: Most bytes of each kind that are kept: one segment of a JPEG.
MAX_KEPT = 65_000
#: Which formats hold which kinds.
_HOLDS = {
    "exif": (Format.JPEG, Format.PNG, Format.WEBP, Format.AVIF),
    "xmp": (Format.JPEG, Format.PNG, Format.WEBP, Format.AVIF),
    "icc_profile": (Format.JPEG, Format.PNG, Format.WEBP, Format.AVIF),
}


def kept(image: Image.Image, recipe: Recipe) -> dict[str, bytes]:
    """The metadata of a decoded source that its recipe keeps, by the names of Pillow's options.

    What is broken or too long is left out: the picture may well be good. The colour profile is
    not among it, as the pixels have a say in that.
    """
    found: dict[str, bytes] = {}
    try:
        if Keep.EXIF in recipe.keep or Keep.COPYRIGHT in recipe.keep:
            found["exif"] = _exif(image, everything=Keep.EXIF in recipe.keep)
        if Keep.XMP in recipe.keep:
            found["xmp"] = _xmp(image)
    except MemoryError:
        raise
    except Exception:
        return {}  # whatever broken metadata raises
    return {name: data for name, data in found.items() if 0 < len(data) <= MAX_KEPT}


def _exif(image: Image.Image, *, everything: bool) -> bytes:
    source = image.getexif()
    if not everything:
        exif = Image.Exif()
        for tag in _COPYRIGHT:
            if tag in source:
                exif[tag] = source[tag]
        return exif.tobytes() if len(exif) else b""
    if _ORIENTATION in source:
        del source[_ORIENTATION]  # the picture is upright now
    for tag in _OF_TIFF.intersection(source):
        del source[tag]
    return source.tobytes() if len(source) else b""


def _xmp(image: Image.Image) -> bytes:
    value = image.info.get("xmp", b"")
    return value if isinstance(value, bytes) else b""


def holds(name: str, format: Format) -> bool:
    """Whether a format has a place for metadata of that name of Pillow's options."""
    return format in _HOLDS[name]


def options(kept: dict[str, bytes], format: Format) -> dict[str, Any]:
    """The options of Pillow's encoder for what a format holds."""
    return {name: data for name, data in kept.items() if holds(name, format)}
