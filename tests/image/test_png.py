"""The PNG encoder: Pillow reads back what was written, whatever it was."""

from __future__ import annotations

import importlib.util
import io
import sys
import zlib

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image import deflate, png

from .pictures import gradient

BANDS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}


def written(image: Image.Image, **kept: bytes) -> bytes:
    out = io.BytesIO()
    png.write(out, image, kept)
    return out.getvalue()


@st.composite
def pictures(draw: st.DrawFn) -> Image.Image:
    mode = draw(st.sampled_from(sorted(BANDS)))
    size = draw(st.integers(1, 40)), draw(st.integers(1, 120))
    some = draw(st.binary(min_size=1, max_size=64))
    length = size[0] * size[1] * BANDS[mode]
    return Image.frombytes(mode, size, (some * (length // len(some) + 1))[:length])


class Writing(SynchronousTestCase):
    @given(pictures())
    def test_what_is_read_back(self, image: Image.Image) -> None:
        read = Image.open(io.BytesIO(written(image)), formats=["PNG"])
        read.load()
        self.assertEqual((read.mode, read.size), (image.mode, image.size))
        self.assertEqual(read.tobytes(), image.tobytes())

    def test_more_than_a_strip(self) -> None:
        for mode in BANDS:
            image = gradient(900, 700).convert(mode)
            read = Image.open(io.BytesIO(written(image)))
            self.assertEqual(read.tobytes(), image.tobytes())

    def test_photographs_and_drawings(self) -> None:
        smooth = gradient(400, 300)
        drawn = Image.new("RGB", (400, 300), "white")
        for x in range(0, 400, 7):
            drawn.paste((x % 256, 0, 255 - x % 256), (x, 0, x + 3, 300))
        for image in (smooth, drawn):
            out = io.BytesIO()
            image.save(out, "PNG", compress_level=2)
            self.assertLess(len(written(image)), len(out.getvalue()) * 1.4)

    def test_metadata(self) -> None:
        exif = Image.Exif()
        exif[0x8298] = "somebody"
        data = written(
            gradient(8, 8), exif=exif.tobytes(), xmp=b"<x:xmpmeta/>", icc_profile=b"profile"
        )
        read = Image.open(io.BytesIO(data))
        read.load()
        self.assertEqual(read.getexif()[0x8298], "somebody")
        self.assertEqual(read.info["xmp"], b"<x:xmpmeta/>")
        self.assertEqual(read.info["icc_profile"], b"profile")


class Compression(SynchronousTestCase):
    def test_where_isa_l_is_not(self) -> None:
        others = {name: module for name, module in sys.modules.items() if name[:4] != "isal"}
        self.patch(sys, "modules", {**others, "isal": None})
        spec = importlib.util.spec_from_file_location("without", deflate.__file__)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.assertEqual(module.NAME, "zlib")
        stream = module.compressor()
        data = stream.compress(b"a" * 1000) + stream.flush()
        self.assertEqual(zlib.decompress(data), b"a" * 1000)
