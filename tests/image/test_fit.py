"""Finding the quality for ``max_bytes``: it fits, it is about the best one, and it has an end."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image.fit import SMALL, fit, mosaic
from imagefarm.image.samples import scene

from .pictures import gradient


class Encoder:
    """Has ``size(quality)`` bytes for each pixel, and knows how often it was used."""

    def __init__(self, size: object) -> None:
        self.size = size
        self.pixels: list[int] = []

    def __call__(self, image: Image.Image, quality: int) -> bytes:
        assert callable(self.size) and 1 <= quality <= 100
        self.pixels.append(image.width * image.height)
        return bytes(int(image.width * image.height * self.size(quality)) + 1)


class Fitting(SynchronousTestCase):
    def test_a_small_one_is_exact(self) -> None:
        image = Image.new("L", (100, 100))
        for quality in (1, 2, 40, 79, 80):
            encode = Encoder(lambda q: q / 100)
            found = fit(image, encode, 80, quality * 100 + 1, 1)
            assert found is not None
            self.assertEqual(len(found), quality * 100 + 1)
        self.assertIs(fit(image, Encoder(lambda q: q / 100), 80, 100, 1), None)

    @given(st.integers(1, 100), st.integers(1, 3), st.floats(0.3, 3.0), st.integers(1, 3_000_000))
    def test_a_large_one(self, best: int, tries: int, wrong: float, budget: int) -> None:
        image = Image.new("L", (2000, 1000))
        encode = Encoder(lambda q: q / 100)

        def misleading(picture: Image.Image, quality: int) -> bytes:
            data = encode(picture, quality)
            return data if picture is image else data[: int(len(data) * wrong)] or b"."

        found = fit(image, misleading, best, budget, tries)
        whole = [pixels for pixels in encode.pixels if pixels > SMALL]
        self.assertLessEqual(len(whole), tries + 1)
        lowest = int(2_000_000 * 0.01) + 1
        if found is None:
            self.assertGreater(lowest, budget)
        else:
            self.assertLessEqual(len(found), budget)

    def test_a_photograph(self) -> None:
        image = scene((1200, 900), 1, 5)

        def encode(picture: Image.Image, quality: int) -> bytes:
            out = io.BytesIO()
            picture.save(out, "JPEG", quality=quality)
            return out.getvalue()

        for budget in (60_000, 120_000, 250_000):
            found = fit(image, encode, 90, budget, 3)
            assert found is not None
            sizes = [len(encode(image, quality)) for quality in range(1, 91, 3)]
            best = max(size for size in sizes if size <= budget)
            self.assertTrue(best * 0.85 <= len(found) <= budget, (budget, best, len(found)))


class Mosaics(SynchronousTestCase):
    @given(st.integers(1, 700), st.integers(1, 700))
    def test_their_size(self, width: int, height: int) -> None:
        made = mosaic(Image.new("L", (width, height)))
        self.assertLessEqual(made.width * made.height, SMALL)
        self.assertLessEqual(made.width, width)
        self.assertLessEqual(made.height, height)

    def test_they_are_of_the_picture(self) -> None:
        image = gradient(1000, 800)
        made = mosaic(image)
        self.assertEqual(made.size, (512, 512))
        self.assertEqual(made.getpixel((0, 0)), image.getpixel((0, 0)))
        self.assertEqual(made.getpixel((511, 511)), image.getpixel((999, 799)))
