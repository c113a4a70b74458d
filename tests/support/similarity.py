"""How alike two pictures look: structural similarity (Wang et al. 2004), with Pillow alone."""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageMath

#: Side of the squares that are compared, and how far apart they are.
WINDOW = 8
STEP = 4


def on_white(image: Image.Image) -> Image.Image:
    """The picture as RGB; what is transparent shows white."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    paper = Image.new("RGBA", image.size, "white")
    paper.alpha_composite(image.convert("RGBA"))
    return paper.convert("RGB")


def ssim(one: Image.Image, other: Image.Image) -> float:
    """Structural similarity of the greys, mean over squares that overlap by half: 1 is equal."""
    x, y = one.convert("L").convert("F"), other.convert("L").convert("F")
    values = [
        value
        for across in range(0, WINDOW, STEP)
        for down in range(0, WINDOW, STEP)
        for value in _squares(*(f.crop((across, down, *f.size)) for f in (x, y)))
    ]
    return sum(values) / len(values)


def _squares(x: Image.Image, y: Image.Image) -> list[float]:
    def mean(f: Any) -> list[float]:
        product = ImageMath.lambda_eval(f, x=x, y=y)
        return list(product.reduce(WINDOW).get_flattened_data())

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similar = []
    for mx, my, xx, yy, xy in zip(
        mean(lambda v: v["x"] + 0), mean(lambda v: v["y"] + 0), mean(lambda v: v["x"] * v["x"]),
        mean(lambda v: v["y"] * v["y"]), mean(lambda v: v["x"] * v["y"]), strict=True,
    ):  # fmt: skip
        both = (2 * mx * my + c1) * (2 * (xy - mx * my) + c2)
        similar.append(both / ((mx * mx + my * my + c1) * (xx - mx * mx + yy - my * my + c2)))
    return similar
