"""How the picture looks: the steps after the one resampling, all on the small picture."""

from __future__ import annotations

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter

from .geometry import cut
from .plan import Plan
from .recipe import CENTRE, Backdrop, Colour, Fit, Tone, Watermark

_ALPHA = ("LA", "RGBA")


def adjust(image: Image.Image, plan: Plan) -> Image.Image:
    """Brightness, contrast, saturation: percent more or less than the picture's own."""
    recipe = plan.recipe
    for change, enhance in (
        (recipe.brightness, ImageEnhance.Brightness),
        (recipe.contrast, ImageEnhance.Contrast),
        (recipe.saturation, ImageEnhance.Color),
    ):
        if change:
            image = enhance(image).enhance(1 + change / 100)
    return image


def blur(image: Image.Image, plan: Plan) -> Image.Image:
    """A Gaussian blur; colours are weighted by alpha, so that nothing transparent bleeds."""
    sigma = plan.recipe.blur
    if sigma is None:
        return image
    mode = image.mode
    weighted = image.convert({"LA": "La", "RGBA": "RGBa"}[mode]) if mode in _ALPHA else image
    blurred = weighted.filter(ImageFilter.GaussianBlur(sigma))
    return blurred.convert(mode) if mode in _ALPHA else blurred


def sharpen(image: Image.Image, plan: Plan) -> Image.Image:
    """An unsharp mask over the colours; alpha stays as it is."""
    sigma = plan.recipe.sharpen
    if sigma is None:
        return image
    return _on_colours(image, ImageFilter.UnsharpMask(sigma, percent=100, threshold=0))


def _on_colours(image: Image.Image, effect: ImageFilter.UnsharpMask) -> Image.Image:
    if image.mode not in _ALPHA:
        return image.filter(effect)
    alpha = image.getchannel("A")
    result = image.convert(image.mode[:-1]).filter(effect)
    result.putalpha(alpha)
    return result


def tone(image: Image.Image, plan: Plan) -> Image.Image:
    """Grey, or black and white."""
    wanted = plan.recipe.tone
    if wanted is Tone.COLOR:
        return image
    alpha = image.getchannel("A") if image.mode in _ALPHA else None
    grey = image.convert("L")
    if wanted is Tone.BITONAL:
        grey = grey.point([0] * 128 + [255] * 128)
    if alpha is not None:
        grey.putalpha(alpha)
    return grey


#: The blurred backdrop is made at most this wide or high: nobody sees more in it.
_BACKDROP = 64
_BACKDROP_SIGMA = 3.0


def pad(image: Image.Image, plan: Plan) -> Image.Image:
    """Lay the picture on a canvas in the size that was asked for."""
    if plan.recipe.fit is not Fit.PAD or plan.placement.size == image.size:
        return image
    canvas = _canvas(image, plan)
    if image.mode in _ALPHA:
        canvas.alpha_composite(image.convert("RGBA"), plan.placement.at)
    else:
        canvas.paste(image, plan.placement.at)
    return canvas


def _canvas(image: Image.Image, plan: Plan) -> Image.Image:
    bg, size = plan.recipe.bg, plan.placement.size
    mode = "RGBA" if image.mode in _ALPHA else "RGB"
    if bg is Backdrop.BLUR:
        return _backdrop(image.convert(mode), size)
    if isinstance(bg, Colour) and bg.alpha == 255:
        return Image.new(mode, size, (bg.red, bg.green, bg.blue, 255)[: len(mode)])
    if bg is None and not plan.format.alpha:
        return Image.new(mode, size, "white")
    return Image.new("RGBA", size)  # `flatten` puts the colour below


def _backdrop(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    part = cut(*image.size, *size, CENTRE)
    shrink = min(1.0, _BACKDROP / max(size))
    small = image.resize(
        (max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink))),
        Image.Resampling.BILINEAR,
        box=(part.left, part.top, part.right, part.bottom),
        reducing_gap=2.0,
    )
    soft = small.filter(ImageFilter.GaussianBlur(_BACKDROP_SIGMA))
    return soft.resize(size, Image.Resampling.BICUBIC)


def watermark(image: Image.Image, plan: Plan) -> Image.Image:
    """Lay the mark on the result."""
    wanted, mark = plan.recipe.mark, plan.mark
    if wanted is None or mark is None:
        return image
    room = image.width - mark.width, image.height - mark.height
    at = round(room[0] * wanted.position.x), round(room[1] * wanted.position.y)
    opaque = image.mode not in _ALPHA
    result = image.convert("RGBA")
    result.alpha_composite(mark, at)
    return result.convert("RGB") if opaque else result


def ready_mark(mark: Image.Image, wanted: Watermark, room: tuple[int, int]) -> Image.Image:
    """An RGBA mark in its size and opacity on a result of the size ``room``: never larger."""
    width = mark.width if wanted.scale is None else max(1, round(room[0] * wanted.scale / 100))
    scale = min(width / mark.width, room[0] / mark.width, room[1] / mark.height)
    size = max(1, round(mark.width * scale)), max(1, round(mark.height * scale))
    size = min(size[0], room[0]), min(size[1], room[1])
    if size != mark.size:
        mark = mark.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")
    if wanted.opacity < 100:
        mark.putalpha(mark.getchannel("A").point([v * wanted.opacity // 100 for v in range(256)]))
    return mark


#: Corners up to this radius are drawn four times as large and reduced, which makes them smooth.
_SMOOTH = 512


def round_corners(image: Image.Image, plan: Plan) -> Image.Image:
    """Make what is outside of rounded corners transparent."""
    if plan.recipe.radius is None:
        return image
    radius = min(plan.recipe.radius, min(image.size) // 2)
    if radius < 1:
        return image
    scale = 4 if radius <= _SMOOTH else 1
    corner = Image.new("L", (radius * scale, radius * scale), 0)
    ImageDraw.Draw(corner).circle((radius * scale, radius * scale), radius * scale, fill=255)
    corner = corner.resize((radius, radius), Image.Resampling.BOX)
    mask = Image.new("L", image.size, 255)
    right, bottom = image.width - radius, image.height - radius
    mirrored = corner.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    mask.paste(corner, (0, 0))
    mask.paste(mirrored, (right, 0))
    mask.paste(corner.transpose(Image.Transpose.FLIP_TOP_BOTTOM), (0, bottom))
    mask.paste(mirrored.transpose(Image.Transpose.FLIP_TOP_BOTTOM), (right, bottom))
    if image.mode in _ALPHA:
        mask = ImageChops.multiply(mask, image.getchannel("A"))
        image = image.convert(image.mode[:-1])
    else:
        image = image.copy()
    image.putalpha(mask)
    return image


def flatten(image: Image.Image, plan: Plan) -> Image.Image:
    """Lay a transparent picture on its background: white for formats without transparency."""
    bg = plan.recipe.bg
    colour = bg if isinstance(bg, Colour) else None
    if image.mode not in _ALPHA or (colour is None and plan.format.alpha):
        return image
    paper = Image.new("RGBA", image.size, "white" if not plan.format.alpha else (0, 0, 0, 0))
    if colour is not None:
        sheet = (colour.red, colour.green, colour.blue, colour.alpha)
        paper.alpha_composite(Image.new("RGBA", image.size, sheet))
    paper.alpha_composite(image.convert("RGBA"))
    if plan.format.alpha and colour is not None and colour.alpha < 255:
        return paper
    plain = colour is None or colour.red == colour.green == colour.blue
    return paper.convert("L" if plain and image.mode == "LA" else "RGB")
