"""Columns before rows: the same as Pillow's rows before columns, up to rounding."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image import columns
from imagefarm.image.geometry import Box

from .pictures import gradient


def difference(one: Image.Image, other: Image.Image) -> int:
    """By how much they differ at most."""
    return max(abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True))


def by_pillow(image: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
    edges = (box.left, box.top, box.right, box.bottom)
    return image.resize(size, Image.Resampling.LANCZOS, box=edges)


@st.composite
def shrunk(draw: st.DrawFn, length: int) -> tuple[int, float, float]:
    """A number of pixels, and a longer part of ``length`` for them."""
    begin = draw(st.integers(0, 4 * (length - 3))) / 4
    end = draw(st.integers(int(begin) + 2, length))
    return draw(st.integers(1, int(end - begin))), begin, float(end)


class Shrink(SynchronousTestCase):
    @given(st.sampled_from(["L", "RGB", "RGBa", "La", "CMYK"]), shrunk(70), shrunk(50), st.data())
    def test_as_pillow(
        self,
        mode: str,
        across: tuple[int, float, float],
        down: tuple[int, float, float],
        data: st.DataObject,
    ) -> None:
        self.patch(columns, "_ALIASES", data.draw(st.sampled_from([280, 4096])))
        self.patch(columns, "_STRIP", data.draw(st.sampled_from([1, 16, 100])))
        image = gradient(70, 50).convert(mode.replace("a", "A")).convert(mode)
        size, box = (across[0], down[0]), Box(across[1], down[1], across[2], down[2])
        found = columns.shrink(image, size, box)
        self.assertEqual((found.mode, found.size), (mode, size))
        self.assertLessEqual(difference(found, by_pillow(image, size, box)), 3)

    def test_only_the_part_that_is_needed_is_looked_at(self) -> None:
        # What is far from the box may be anything.
        image = Image.new("RGB", (1024, 600), "red")
        image.paste("blue", (400, 200, 600, 400))
        made = columns.shrink(image, (50, 50), Box(440, 240, 560, 360))
        self.assertEqual(made.getcolors(), [(2500, (0, 0, 255))])
