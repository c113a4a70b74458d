"""The pictures that resizers are compared on: taken from a directory, or drawn."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from imagefarm.image.samples import scene

PHOTO = "photo-2725x2225.jpg"
LARGE = "photo-4000x3000.jpg"
ALPHA = "alpha-1024x768.png"
WEBP = "photo-1024x772.webp"


def _photo(path: Path) -> None:
    scene((2725, 2225), 1, 6).save(path, quality=85)


def _large(path: Path) -> None:
    scene((4000, 3000), 0, 12).save(path, quality=90)


def _alpha(path: Path) -> None:
    """A photograph that fades out to all sides."""
    picture = scene((1024, 768), 2, 1)
    fading = Image.radial_gradient("L").resize(picture.size, Image.Resampling.BILINEAR)
    picture.putalpha(fading.point([min(255, 2 * (255 - value)) for value in range(256)]))
    picture.save(path)


def _webp(path: Path) -> None:
    scene((1024, 772), 4, 3).save(path, quality=90)


_DRAWN: dict[str, Callable[[Path], None]] = {
    PHOTO: _photo, LARGE: _large, ALPHA: _alpha, WEBP: _webp
}  # fmt: skip


def provide(where: Path, given: Path | None) -> list[str]:
    """Put each picture into ``where``: a copy of the one in ``given``, else a drawing.

    Returns the names of those that were drawn: photographs by name, landscapes with grain, the
    same every time.
    """
    drawn = []
    for name, draw in _DRAWN.items():
        if given is not None and (given / name).exists():
            shutil.copyfile(given / name, where / name)
        else:
            draw(where / name)
            drawn.append(name)
    return drawn
