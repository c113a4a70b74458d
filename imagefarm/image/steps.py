"""What happens to the pixels of one frame: small functions from picture to picture.

The order is chosen for speed and right colours at once. Shrinking comes as early as possible,
in the JPEG decoder itself where it can; pixels become a kind that can be averaged before the
one resampling; everything that does not change by being resampled first (colour profiles,
orientation, flattening) is done on the small picture.
"""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

from PIL import Image, ImageCms
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from . import alpha, columns, unpng
from .formats import Format
from .geometry import Box
from .looks import adjust, blur, flatten, pad, round_corners, sharpen, tone, watermark
from .metadata import holds
from .plan import Plan, Step
from .recipe import Keep, Tone

#: Bytes that the JPEG decoder is given at a time: each time it begins a row of blocks anew.
_PIECE = 1 << 20


def decode(image: Image.Image, plan: Plan) -> Image.Image:
    """Decode the pixels, shrunk by ``plan.factor`` where the decoder can."""
    if isinstance(image, JpegImageFile):
        image.decodermaxblock = _PIECE
    if plan.factor > 1:
        # Pillow picks the factor by whole division of the sizes: ask in its own arithmetic.
        size = plan.header.width // plan.factor, plan.header.height // plan.factor
        image.draft(None, size)
    key = _key_of(image)
    image = unpng.load(image)
    if key is not None:
        image.info["transparency"] = key
    return image


#: By the form of a PNG's samples, how one becomes what Pillow makes of it, of 8 bits.
_SAMPLES: Final[Mapping[object, Callable[[int], int]]] = {
    "1": lambda sample: sample % 2 * 255,
    "L;2": lambda sample: sample % 4 * 85,
    "L;4": lambda sample: sample % 16 * 17,
    "L": lambda sample: sample % 256,
    "RGB": lambda sample: sample % 256,
    "I;16B": lambda sample: (sample + 128) // 257,
    "RGB;16B": lambda sample: sample >> 8,
}


def _key_of(image: Image.Image) -> int | tuple[int, ...] | None:
    """The one transparent colour of a PNG (section 11.3.2.1) in 8 bits a channel; None if it has
    none.

    Pillow gives it in the file's samples, and looks for it among pixels that it has brought to
    8 bits. Of samples of 16 bits all that are the same in 8 become transparent.
    """
    key = image.info.get("transparency")
    if not isinstance(image, PngImageFile) or not image.tile or not isinstance(key, int | tuple):
        return None
    scaled = _SAMPLES.get(image.tile[0].args)
    if scaled is None:
        return None
    return scaled(key) if isinstance(key, int) else tuple(map(scaled, key))


_KEEP = ("L", "LA", "RGB", "RGBA", "CMYK")


def plain_pixels(image: Image.Image, plan: Plan) -> Image.Image:
    """Pixels of 8 bits a channel that can be averaged: grey, RGB or CMYK, with or without alpha.

    Keeps ``info``, which holds the colour profile.
    """
    info = image.info
    if image.mode.startswith("I;16"):
        image = image.point(lambda value: value * (1 / 257) + 0.5).convert("L")
    elif image.mode == "I":
        # A PNG or TIFF of 16 bits that Pillow gives as 32; really wide values saturate.
        image = image.point(lambda value: value * (1 / 257) + 0.5).convert("L")
    elif image.mode == "LAB":
        transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), _SRGB, "LAB", "RGB")
        image = ImageCms.applyTransform(image, transform) or image
    elif image.mode == "1":
        image = image.convert("L")
    if image.mode == "L" and "transparency" in info:
        image.info["transparency"] = info["transparency"]
        image = image.convert("RGBA")
    elif "transparency" in info or image.mode in ("P", "PA", "La", "RGBa"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode not in _KEEP:
        image = image.convert("RGB")
    if plan.animated and image.mode != "RGBA":
        image = image.convert("RGBA")  # frames of one kind, whatever each of them is stored as
    image.info = {key: info[key] for key in ("icc_profile", "duration") if key in info}
    return image


#: Sources more than this many times larger than the result are first averaged down to it.
_REDUCING_GAP = 3.0
#: From so many pixels on, those of a JPEG are resampled by a shorter kernel than Lanczos: they are
#: what takes the time, and a third of it is saved for a similarity (SSIM) of 0.998 to what Lanczos
#: makes, less than what encoding takes.
_MANY = 1 << 19
#: The same where the decoder has shrunk the picture already: what is made of 6 megapixels is then
#: still as like the original's own Lanczos as sharp's.
_MANY_SHRUNK = 1 << 16


def resample(
    image: Image.Image, size: tuple[int, int], box: Box, *, shrunk: bool = False
) -> Image.Image:
    """The part of ``image`` in ``box``, in ``size``; ``shrunk`` says that the decoder began."""
    many = box.width * box.height >= (_MANY_SHRUNK if shrunk else _MANY)
    shorter = many and _shrinks_little(size, box)
    kernel = Image.Resampling.BICUBIC if shorter else Image.Resampling.LANCZOS
    return _resized(image, size, box, kernel)


def resample_finely(image: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
    """The same by the whole kernel: for transparency, and where encoding is slow or lossless."""
    if _shrinks_little(size, box):
        return columns.shrink(image, size, box)
    return _resized(image, size, box, Image.Resampling.LANCZOS)


def _shrinks_little(size: tuple[int, int], box: Box) -> bool:
    """Whether it gets smaller in both directions, and nothing is averaged down before."""
    across, down = box.width / size[0], box.height / size[1]
    return 1 < across < 2 * _REDUCING_GAP and 1 < down < 2 * _REDUCING_GAP


def _resized(
    image: Image.Image, size: tuple[int, int], box: Box, kernel: Image.Resampling
) -> Image.Image:
    edges = (box.left, box.top, box.right, box.bottom)
    return image.resize(size, kernel, box=edges, reducing_gap=_REDUCING_GAP)


def crop_and_resize(image: Image.Image, plan: Plan) -> Image.Image:
    """Cut out the box and resample it, in one go. What is opaque throughout has no alpha then."""
    header, info = plan.header, image.info
    if not plan.animated and alpha.opaque(image):
        image = image.convert(image.mode[:-1])
    box = plan.box.shrunk(plan.factor, image.width, image.height)
    size = (plan.width, plan.height)
    if size == image.size == (header.width, header.height) and (
        box.width == header.width and box.height == header.height
    ):
        return image.copy()  # the steps that follow change it, and it may be kept as it is
    if image.mode in alpha.MODES:
        image = alpha.resampled(image, size, box, resample_finely)
    elif plan.format is Format.JPEG:
        image = resample(image, size, box, shrunk=plan.factor > 1)
    else:
        image = resample_finely(image, size, box)
    image.info = info
    return image


_SRGB = ImageCms.createProfile("sRGB")
#: Transforms by profile and mode: building one for CMYK takes as long as a thumbnail.
_TRANSFORMS: OrderedDict[tuple[bytes, str], ImageCms.ImageCmsTransform | None] = OrderedDict()
_MAX_TRANSFORMS = 16


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform of ``mode`` to sRGB; None for a profile that is broken or of another mode."""
    key = hashlib.blake2b(profile, digest_size=16).digest(), mode
    if key not in _TRANSFORMS:
        if len(_TRANSFORMS) >= _MAX_TRANSFORMS:
            _TRANSFORMS.popitem(last=False)
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            _TRANSFORMS[key] = ImageCms.buildTransform(source, _SRGB, mode, "RGB")
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            _TRANSFORMS[key] = None
    return _TRANSFORMS[key]


def keeps_profile(image: Image.Image, plan: Plan) -> bool:
    """Whether the result has the source's colours and profile: RGB, staying so, and in a format
    that has profiles.
    """
    profile = image.info.get("icc_profile")
    if Keep.ICC not in plan.recipe.keep or plan.recipe.tone is not Tone.COLOR:
        return False
    if not holds("icc_profile", plan.format):
        return False
    return (
        isinstance(profile, bytes)
        and image.mode in ("RGB", "RGBA")
        and _transform(profile, "RGB") is not None
    )


def to_srgb(image: Image.Image, plan: Plan) -> Image.Image:
    """Bring the colours to sRGB by the embedded profile; CMYK without one by the formula.

    A profile that does not fit the pixels is ignored: the picture is then taken for sRGB, as
    browsers do.
    """
    profile = image.info.get("icc_profile")
    if keeps_profile(image, plan):
        return image
    if isinstance(profile, bytes):
        alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
        colour = image.convert(image.mode[:-1]) if alpha is not None else image
        transform = _transform(profile, colour.mode)
        if transform is not None:
            colour = ImageCms.applyTransform(colour, transform) or colour
            if alpha is not None:
                colour.putalpha(alpha)
            image = colour
    return image.convert("RGB") if image.mode == "CMYK" else image


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def transposed(image: Image.Image, orientation: int) -> Image.Image:
    """The picture turned as an EXIF orientation asks for."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def orient(image: Image.Image, plan: Plan) -> Image.Image:
    """Turn the picture upright by its EXIF orientation."""
    return transposed(image, plan.header.orientation)


def turn(image: Image.Image, plan: Plan) -> Image.Image:
    """Turn the upright picture as the recipe asks for."""
    return transposed(image, plan.turn)


def strip(image: Image.Image, plan: Plan) -> Image.Image:
    """Forget all metadata: encoders write what they find in ``info``."""
    image.info = {}
    return image


#: Each step after `decode` and `plain_pixels`, whose result may be kept for the next size of the
#: same source, with the name under which its time is reported (Server-Timing).
STEPS: tuple[tuple[str, Step], ...] = (
    ("resize", crop_and_resize),
    ("colour", to_srgb),
    ("colour", orient),
    ("colour", turn),
    ("effects", adjust),
    ("effects", blur),
    ("effects", sharpen),
    ("effects", tone),
    ("effects", pad),
    ("effects", watermark),
    ("effects", round_corners),
    ("effects", flatten),
    ("effects", strip),
)
