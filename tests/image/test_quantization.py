"""The tables of JPEGs: where they come from, what a quality makes of them, what it is good for."""

from __future__ import annotations

import io
import math

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image.encode import jpeg
from imagefarm.image.geometry import Box
from imagefarm.image.quantization import CHROMA, LUMA, tables
from imagefarm.image.query import parse_query
from imagefarm.image.steps import resample
from tests.support.similarity import ssim

from .pictures import opened, saved
from .test_pipeline import make
from .test_quality import photo

#: ITU-T T.81, table K.1.
K1 = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
#: N. Robidoux's, which is symmetric.
ROBIDOUX = (
    16, 16, 16, 18, 25, 37, 56, 85, 16, 17, 20, 27, 34, 40, 53, 75,
    16, 20, 24, 31, 43, 62, 91, 135, 18, 27, 31, 40, 53, 74, 106, 156,
    25, 34, 43, 53, 69, 94, 131, 189, 37, 40, 62, 74, 94, 124, 169, 238,
    56, 53, 91, 106, 131, 169, 226, 311, 85, 75, 135, 156, 189, 238, 311, 418,
)  # fmt: skip
#: How the Huffman codes begin that are everybody's (table K.5).
K5 = bytes.fromhex("000201030302040305050404")


class Tables(SynchronousTestCase):
    def test_where_they_come_from(self) -> None:
        finer = [
            min(max(one, 12), math.ceil(other * 69 / 100))
            for one, other in zip(K1, ROBIDOUX, strict=True)
        ]
        self.assertEqual(list(LUMA), finer)

    def test_colours_are_kept_as_by_libjpeg(self) -> None:
        out = io.BytesIO()
        Image.new("RGB", (16, 16)).save(out, "JPEG", quality=50)
        _, chroma = Image.open(out).quantization.values()  # type: ignore[attr-defined]
        self.assertEqual(list(CHROMA), list(chroma))

    @given(st.integers(1, 99))
    def test_a_higher_quality_is_nowhere_coarser(self, quality: int) -> None:
        for lower, higher in zip(tables(quality), tables(quality + 1), strict=True):
            self.assertTrue(all(a >= b for a, b in zip(lower, higher, strict=True)))
            self.assertTrue(all(1 <= value <= 255 for value in lower))

    def test_the_ends(self) -> None:
        self.assertEqual(tables(50), (LUMA, CHROMA))
        self.assertEqual(tables(100), ((1,) * 64, (1,) * 64))
        self.assertEqual({*tables(1)[0], *tables(1)[1]}, {255})


class Results(SynchronousTestCase):
    """What the encoder makes with them."""

    def test_all_of_the_tables_are_its_own(self) -> None:
        for query in ("", "&progressive=1", "&q=95", "&tone=gray"):
            for width in (100, 1200):
                with self.subTest(query=query, width=width):
                    data = make(photo(), f"w={width}&fmt=jpeg{query}").data
                    image = Image.open(io.BytesIO(data))
                    image.load()
                    found = list(image.quantization.values())  # type: ignore[attr-defined]
                    wanted = tables(95 if "q=" in query else 80)
                    self.assertEqual(list(map(tuple, found)), list(wanted[: len(found)]))
                    self.assertEqual(len(found), 1 if "gray" in query else 2)
                    self.assertNotIn(K5, data)

    def test_more_alike_for_few_more_bytes(self) -> None:
        image = opened(photo())
        wanted = image.resize((800, 600), Image.Resampling.LANCZOS)
        pixels = resample(image, (800, 600), Box(0, 0, 1600, 1200))
        self.assertIn(K5, saved(pixels, "JPEG"))
        usual = saved(pixels, "JPEG", quality=80, optimize=True, subsampling="4:2:0")
        ours = make(photo(), "w=800&fmt=jpeg&q=80").data
        self.assertGreater(ssim(wanted, opened(ours)), ssim(wanted, opened(usual)) + 0.001)
        self.assertLess(len(ours), 1.08 * len(usual))

    def test_codes_of_their_own_up_to_a_size(self) -> None:
        for size, own in (((4096, 4096), True), ((4097, 4096), False)):
            options = jpeg(Image.new("L", size), None, parse_query(b"src=x"))
            self.assertIs(options["optimize"], own)
