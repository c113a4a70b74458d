"""How good the pictures are: structural similarity to what the long way round gives."""

from __future__ import annotations

import functools
from typing import Any

from PIL import Image
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image.geometry import Box
from imagefarm.image.samples import scene
from imagefarm.image.steps import resample
from tests.support.similarity import ssim

from .pictures import opened, saved
from .test_pipeline import make


@functools.cache
def photo() -> bytes:
    """What a camera might give; drawing it takes a while."""
    return saved(scene((1600, 1200), 1, 7), "JPEG", quality=92)


class Similarity(SynchronousTestCase):
    """Against the whole picture decoded and resampled at once with Lanczos."""

    def setUp(self) -> None:
        self.photo = photo()

    def similarity(self, query: str, size: tuple[int, int], box: Any = None) -> float:
        reference = opened(self.photo).resize(size, Image.Resampling.LANCZOS, box=box)
        return ssim(reference, opened(make(self.photo, query).data))

    def test_the_measure(self) -> None:
        picture = opened(self.photo).resize((320, 240))
        self.assertAlmostEqual(ssim(picture, picture), 1.0)
        soft = picture.resize((80, 60), Image.Resampling.BOX).resize((320, 240))
        self.assertLess(ssim(picture, soft), 0.96)

    def test_sizes(self) -> None:
        # Each just above and below a factor of the decoder, where shrinking does most.
        for width in (80, 199, 200, 201, 320, 400, 401, 800, 801, 1200):
            size = width, round(width * 3 / 4)
            with self.subTest(width=width):
                found = self.similarity(f"w={width}&fmt=png", size)
                self.assertGreater(found, 0.99)

    def test_sizes_of_small_ones(self) -> None:
        picture = opened(self.photo).resize((1000, 752), Image.Resampling.LANCZOS)
        data = saved(picture, "JPEG", quality=92)
        # Each just below a half, a quarter and an eighth.
        for size in ((496, 373), (400, 301), (244, 183), (124, 93)):
            with self.subTest(size=size):
                wanted = opened(data).resize(size, Image.Resampling.LANCZOS)
                query = f"w={size[0]}&h={size[1]}&fit=fill&fmt=png"
                self.assertGreater(ssim(wanted, opened(make(data, query).data)), 0.995)

    def test_cuts(self) -> None:
        box = (200, 0, 1400, 1200)
        found = self.similarity("w=150&h=150&fit=cover&fmt=png", (150, 150), box)
        self.assertGreater(found, 0.99)
        part = (100, 200, 900, 800)
        found = self.similarity("crop=100,200,800,600&w=200&fmt=png", (200, 150), part)
        self.assertGreater(found, 0.99)

    def test_large_ones(self) -> None:
        # They are resampled by a shorter kernel; the part stays where it is.
        image = opened(self.photo)
        for size, box in (
            ((900, 675), Box(0, 0, 1600, 1200)),
            ((500, 500), Box(250.5, 100.25, 1350.5, 1100)),
            ((700, 600), Box(899.5, 0, 1600, 900.5)),
        ):
            with self.subTest(box=box):
                edges = (box.left, box.top, box.right, box.bottom)
                wanted = image.resize(size, Image.Resampling.LANCZOS, box=edges)
                self.assertGreater(ssim(wanted, resample(image, size, box)), 0.995)

    def test_shrunk_ones(self) -> None:
        """What the decoder has begun with is resampled like a large one."""
        image = opened(self.photo).resize((680, 510))
        box = Box(0, 0, 680, 510)
        for width, alike in ((360, False), (640, False), (100, True)):
            size = width, round(width * 3 / 4)
            with self.subTest(width=width):
                wanted = resample(image, size, box)
                made = resample(image, size, box, shrunk=True)
                self.assertEqual(made.tobytes() == wanted.tobytes(), alike)
                self.assertGreater(ssim(wanted, made), 0.995)

    def test_formats(self) -> None:
        for fmt, least in (
            ("jpeg", 0.95),
            ("webp", 0.94),
            ("avif", 0.94),
            ("webp&lossless=1", 0.99),
        ):
            with self.subTest(fmt=fmt):
                self.assertGreater(self.similarity(f"w=400&fmt={fmt}", (400, 300)), least)
