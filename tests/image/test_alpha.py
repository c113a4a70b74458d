"""Pictures with transparency: what is resampled of them, and that it looks like all of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image import alpha
from imagefarm.image.geometry import Box
from imagefarm.image.steps import resample_finely
from tests.support.similarity import on_white, ssim

from .pictures import gradient, opened, saved
from .test_pipeline import make

Rectangle = tuple[int, int, int, int]


def showing(size: tuple[int, int], mode: str, *places: Rectangle) -> Image.Image:
    """A picture that is visible in some places; what is not seen there is white."""
    image = Image.new("RGBA", size, (255, 255, 255, 0))
    for place in places:
        width, height = place[2] - place[0], place[3] - place[1]
        part = gradient(width, height)
        part.putalpha(Image.radial_gradient("L").resize((width, height)))
        image.paste(part, place)
    return image.convert(mode)


@st.composite
def sides(draw: st.DrawFn) -> tuple[int, int]:
    first = draw(st.integers(0, 59))
    return first, draw(st.integers(first + 1, 60))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Image.Image, tuple[int, int], Box]:
    image = showing(
        (61, 61),
        draw(st.sampled_from(["RGBA", "LA"])),
        *(
            (left, top, right, bottom)
            for (left, right), (top, bottom) in draw(
                st.lists(st.tuples(sides(), sides()), max_size=2)
            )
        ),
    )
    (left, right), (top, bottom) = draw(sides()), draw(sides())
    shift = draw(st.sampled_from([0, 0.25, 0.75]))
    box = Box(left + shift, top + shift, right + shift, bottom + shift)
    return image, draw(st.tuples(st.integers(1, 90), st.integers(1, 90))), box


def difference(one: Image.Image, other: Image.Image) -> int:
    """By how much two pictures differ at most in what is seen."""
    weighted = {"RGBA": "RGBa", "LA": "La"}[one.mode]
    pair = [image.convert(weighted).tobytes() for image in (one, other)]
    return max(abs(a - b) for a, b in zip(*pair, strict=True))


def smoothly(image: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
    """Without what Lanczos overshoots, whose clipping depends on the order of the passes."""
    edges = box.left, box.top, box.right, box.bottom
    return image.resize(size, Image.Resampling.BILINEAR, box=edges)


class Resampled(SynchronousTestCase):
    @given(cases())
    def test_as_if_all_of_it_were(self, case: tuple[Image.Image, tuple[int, int], Box]) -> None:
        image, size, box = case
        found = alpha.resampled(image, size, box, smoothly)
        weighted = image.convert({"RGBA": "RGBa", "LA": "La"}[image.mode])
        wanted = smoothly(weighted, size, box).convert(image.mode)
        self.assertEqual((found.mode, found.size), (image.mode, size))
        self.assertLessEqual(difference(found, wanted), 2)

    def test_only_what_is_seen_is_looked_at(self) -> None:
        looked: list[tuple[int, int]] = []

        def resample(image: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
            looked.append(image.size)
            return resample_finely(image, size, box)

        image = showing((600, 400), "RGBA", (100, 50, 200, 250))
        alpha.resampled(image, (300, 200), Box(0, 0, 600, 400), resample)
        ((width, height),) = looked
        self.assertTrue(100 < width < 130 and 200 < height < 230, looked)
        for nothing in (showing((60, 40), "LA"), showing((60, 40), "RGBA")):
            made = alpha.resampled(nothing, (30, 20), Box(0, 0, 60, 40), resample)
            self.assertEqual((made.mode, made.size), (nothing.mode, (30, 20)))
            self.assertIsNone(made.getbbox())
        outside = alpha.resampled(image, (30, 20), Box(400, 300, 600, 400), resample)
        self.assertIsNone(outside.getbbox())
        self.assertEqual(len(looked), 1)

    def test_large_ones_are_not_copied(self) -> None:
        self.patch(alpha, "_MOST_COPIED", 899)
        image = showing((30, 30), "RGBA", (9, 9, 20, 20))
        looked: list[tuple[int, int]] = []

        def resample(image: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
            looked.append(image.size)
            return resample_finely(image, size, box)

        box = Box(0, 0, 30, 30)
        large = alpha.resampled(image, (20, 20), box, resample)
        self.assertEqual(looked, [(30, 30)])
        self.patch(alpha, "_MOST_COPIED", 900)
        self.assertLessEqual(difference(alpha.resampled(image, (20, 20), box, resample), large), 2)

    def test_colours_that_are_not_seen(self) -> None:
        image = Image.new("RGBA", (90, 90), (0, 255, 0, 0))
        image.paste((255, 0, 0, 255), (30, 30, 60, 60))
        made = alpha.resampled(image, (31, 31), Box(0, 0, 90, 90), resample_finely)
        red, green, _, seen = made.split()
        self.assertEqual(green.getextrema(), (0, 0))
        self.assertEqual(seen.getextrema(), (0, 255))
        self.assertEqual(red.getextrema(), (0, 255))

    def test_similarity(self) -> None:
        # 4,096 bytes a row is a special case.
        for width in (1000, 1024):
            image = showing((width, 600), "RGBA", (0, 0, 500, 400), (300, 200, width, 600))
            size = width * 2 // 5, 240
            wanted = image.convert("RGBa").resize(size, Image.Resampling.LANCZOS)
            found = alpha.resampled(image, size, Box(0, 0, width, 600), resample_finely)
            self.assertGreater(ssim(on_white(wanted.convert("RGBA")), on_white(found)), 0.9995)


class Opaque(SynchronousTestCase):
    def test_what_is(self) -> None:
        image = gradient(30, 20)
        for mode, wanted in (("RGB", False), ("RGBA", True), ("L", False), ("LA", True)):
            self.assertEqual(alpha.opaque(image.convert(mode)), wanted, mode)
        for place in ((0, 0), (29, 19)):
            part = image.convert("RGBA")
            part.putpixel(place, (1, 2, 3, 254))
            self.assertFalse(alpha.opaque(part))

    def test_the_result_has_no_alpha(self) -> None:
        for mode, wanted in (("RGBA", "RGB"), ("LA", "L")):
            image = gradient(64, 48).convert(mode)
            self.assertEqual(opened(make(saved(image, "PNG"), "w=20").data).mode, wanted)
        seen = showing((64, 48), "RGBA", (0, 0, 64, 48))
        self.assertEqual(opened(make(saved(seen, "PNG"), "w=20").data).mode, "RGBA")

    def test_room_that_is_made_is_transparent_all_the_same(self) -> None:
        data = saved(gradient(64, 48).convert("RGBA"), "PNG")
        made = opened(make(data, "w=40&h=40&fit=pad").data)
        self.assertEqual(made.mode, "RGBA")
        corner = made.getpixel((0, 0))
        assert isinstance(corner, tuple)
        self.assertEqual(corner[3], 0)
