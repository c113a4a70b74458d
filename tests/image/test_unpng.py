"""The PNG decoder: what Pillow makes of a file by itself is what comes out, pixels or error."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngImageFile
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image import unpng

from .pictures import gradient, opened, png_chunk, saved
from .test_pipeline import make

#: Depth and colour type of all that PNG has (section 11.2.1), and samples a pixel.
KINDS = [
    *((depth, 0, 1) for depth in (1, 2, 4, 8, 16)), (8, 2, 3), (16, 2, 3),
    *((depth, 3, 1) for depth in (1, 2, 4, 8)), (8, 4, 2), (16, 4, 2), (8, 6, 4), (16, 6, 4),
]  # fmt: skip


def png_of(
    stream: bytes, kind: tuple[int, int, int], size: tuple[int, int], cuts: Sequence[int] = ()
) -> bytes:
    """A file with that zlib stream, in IDAT chunks cut at ``cuts``."""
    head = struct.pack("!IIBBBBB", *size, *kind[:2], 0, 0, 0)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    data = b"".join(png_chunk(b"IDAT", stream[a:b]) for a, b in pairwise(places))
    palette = png_chunk(b"PLTE", bytes(range(48)) * 16) if kind[1] == 3 else b""
    return b"".join(
        (b"\x89PNG\r\n\x1a\n", png_chunk(b"IHDR", head), palette, data, png_chunk(b"IEND", b""))
    )


def rows_of(kind: tuple[int, int, int], size: tuple[int, int], filters: Sequence[int]) -> bytes:
    """Noise, with one of ``filters`` after the other."""
    noise = random.Random(repr((kind, size, filters)))
    length = (size[0] * kind[0] * kind[2] + 7) // 8
    some = noise.randbytes(max(1, length // 3))
    rows = ((some * 4)[noise.randrange(len(some)) :][:length] for _ in range(size[1]))
    return b"".join(
        bytes([filters[number % len(filters)]]) + row.ljust(length, b"\x11")
        for number, row in enumerate(rows)
    )


def by_pillow(image: PngImageFile) -> Image.Image:
    image.load()
    return image


def outcome(load: Callable[[PngImageFile], Image.Image], data: bytes) -> object:
    """What ``load`` makes of a file: what it sees of it, or what it says."""
    try:
        image = load(PngImageFile(io.BytesIO(data)))
        return image.mode, image.size, image.tobytes(), sorted(map(str, image.info.items()))
    except Exception as error:
        return type(error), str(error)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(KINDS))
    size = draw(st.integers(1, 40)), draw(st.integers(1, 30))
    unfiltered = [0] * draw(st.integers(0, 30))
    filters = unfiltered + draw(st.lists(st.integers(0, 4), min_size=1, max_size=9))
    stream = zlib.compress(rows_of(kind, size, filters), draw(st.sampled_from([0, 1, 6])))
    return png_of(stream, kind, size, draw(st.lists(st.integers(0, 4000), max_size=6)))


class Compared(SynchronousTestCase):
    def assert_same(self, data: bytes) -> None:
        found, wanted = outcome(unpng.load, data), outcome(by_pillow, data)
        self.assertTrue(found == wanted, f"{str(found)[:200]}, Pillow: {str(wanted)[:200]}")


class AsPillow(Compared):
    @given(files())
    def test_whole_files(self, data: bytes) -> None:
        image = PngImageFile(io.BytesIO(data))
        self.assertIs(unpng.load(image), image)  # without Pillow's help
        self.assert_same(data)

    @given(files(), st.floats(0, 1))
    def test_truncated(self, data: bytes, share: float) -> None:
        self.assert_same(data[: int(len(data) * share)])

    @given(files(), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
    def test_damaged(self, data: bytes, share: float, flip: int) -> None:
        damaged = bytearray(data)
        damaged[int(len(data) * share)] ^= flip
        self.assert_same(bytes(damaged))

    @given(st.binary(max_size=300), st.sampled_from(KINDS))
    def test_random_streams(self, stream: bytes, kind: tuple[int, int, int]) -> None:
        self.assert_same(png_of(b"\x78\x9c" + stream, kind, (9, 7)))

    def test_a_byte_at_a_time(self) -> None:
        for kind in KINDS:
            stream = zlib.compress(rows_of(kind, (13, 9), [0, 0, 0, 1, 2, 3, 4]))
            self.assert_same(png_of(stream, kind, (13, 9), range(len(stream))))

    def test_cut_anywhere(self) -> None:
        kind = (8, 6, 4)
        for filters in ([0], [0, 0, 0, 2], [1]):
            data = png_of(zlib.compress(rows_of(kind, (11, 9), filters)), kind, (11, 9), [50, 99])
            for length in range(len(data)):
                self.assert_same(data[:length])

    def test_more_than_a_strip(self) -> None:
        for filters in ([0], [4], [0] * 300 + [1, 2]):
            rows = rows_of((8, 6, 4), (500, 400), filters)
            for level in (0, 9):
                self.assert_same(
                    png_of(zlib.compress(rows, level), (8, 6, 4), (500, 400), [70000])
                )
        wide = rows_of((16, 6, 4), (70_000, 2), [0, 1])
        self.assert_same(png_of(zlib.compress(wide), (16, 6, 4), (70_000, 2)))


class WhatIsNotPerfect(Compared):
    KIND, SIZE = (8, 2, 3), (20, 10)

    def setUp(self) -> None:
        self.rows = rows_of(self.KIND, self.SIZE, [0, 0, 1])
        self.stream = zlib.compress(self.rows)

    def assert_same_for(self, stream: bytes, *cuts: int) -> None:
        self.assert_same(png_of(stream, self.KIND, self.SIZE, cuts))

    def test_checksums(self) -> None:
        wrong = self.stream[:-1] + bytes([self.stream[-1] ^ 1])
        self.assert_same_for(wrong)
        for cut in range(len(wrong) - 6, len(wrong)):
            self.assert_same_for(wrong, cut)
            self.assert_same_for(wrong[:cut])
            self.assert_same_for(self.stream[:cut])
        data = bytearray(png_of(self.stream, self.KIND, self.SIZE))
        data[data.index(b"IEND") - 5] ^= 1  # the last byte of the CRC of IDAT
        self.assert_same(bytes(data))

    def test_too_many_and_too_few(self) -> None:
        length = 1 + 3 * self.SIZE[0]
        for count in (0, 1, length - 1, length, 3 * length, 3 * length + 1, len(self.rows) - 1):
            self.assert_same_for(zlib.compress(self.rows[:count]))
            self.assert_same_for(zlib.compress(self.rows[:count], 0))
        for more in (1, length, 100_000):
            self.assert_same_for(zlib.compress(self.rows + bytes(more)))
        self.assert_same_for(self.stream + b"more", len(self.stream))

    def test_filters_that_are_none(self) -> None:
        for place in range(0, len(self.rows), 1 + 3 * self.SIZE[0]):
            rows = bytearray(self.rows)
            rows[place] = 5
            self.assert_same_for(zlib.compress(bytes(rows)))

    def test_streams_that_are_none(self) -> None:
        raw = zlib.compressobj(wbits=-15)
        gzip = zlib.compressobj(wbits=31)
        known = zlib.compressobj(zdict=self.rows[:64])
        for stream in (
            *(other.compress(self.rows) + other.flush() for other in (raw, gzip, known)),
            b"", b"\x78", b"\x78\x9c", b"\x78\x9d" + self.stream[2:], bytes(200),
        ):  # fmt: skip
            self.assert_same_for(stream)

    def test_chunks_that_do_not_belong(self) -> None:
        data = png_of(self.stream, self.KIND, self.SIZE, [40])
        between = data.index(b"IDAT", data.index(b"IDAT") + 4) - 4
        for kind in (b"tEXt", b"IEND", b"1234", b"zTXt"):
            self.assert_same(data[:between] + png_chunk(kind, b"a\0b") + data[between:])

    def test_what_is_kept_of_one_that_pillow_decodes(self) -> None:
        # Complete but for its last byte, which Pillow has no need of; and metadata after it.
        data = png_of(zlib.compress(self.rows)[:-1], self.KIND, self.SIZE)
        end = data.index(b"IEND") - 4
        exif = Image.Exif()
        exif[0x8298] = "somebody"
        late = png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
        made = opened(make(data[:end] + late + data[end:], "w=10&keep=copyright&fmt=png").data)
        self.assertEqual(made.getexif()[0x8298], "somebody")

    def test_metadata_that_comes_late(self) -> None:
        data = png_of(self.stream, self.KIND, self.SIZE)
        end = data.index(b"IEND") - 4
        self.assert_same(data[:end] + png_chunk(b"tEXt", b"Title\0late") + data[end:])


class Others(SynchronousTestCase):
    def same(self, data: bytes, image: ImageFile.ImageFile) -> None:
        loaded = unpng.load(image)
        with Image.open(io.BytesIO(data)) as wanted:
            self.assertEqual(loaded.tobytes(), wanted.tobytes())

    def test_other_formats(self) -> None:
        data = saved(gradient(30, 20), "BMP")
        image = Image.open(io.BytesIO(data))
        self.same(data, image)

    def test_interlaced_ones_are_pillows(self) -> None:
        # Pillow does not write them: one row of one pass, which is the first pixel.
        head = struct.pack("!IIBBBBB", 1, 1, 8, 2, 0, 0, 1)
        data = b"".join(
            (
                b"\x89PNG\r\n\x1a\n", png_chunk(b"IHDR", head),
                png_chunk(b"IDAT", zlib.compress(b"\0abc")), png_chunk(b"IEND", b""),
            )
        )  # fmt: skip
        image = PngImageFile(io.BytesIO(data))
        unpng.load(image)
        self.assertEqual(image.getpixel((0, 0)), (97, 98, 99))

    def test_animated_ones(self) -> None:
        data = saved(
            gradient(30, 20), "PNG", save_all=True, append_images=[gradient(30, 20).rotate(180)]
        )
        self.same(data, PngImageFile(io.BytesIO(data)))

    def test_without_isa_l(self) -> None:
        self.patch(unpng, "decompressor", None)
        data = saved(gradient(30, 20), "PNG")
        self.same(data, PngImageFile(io.BytesIO(data)))

    def test_no_memory_is_not_taken_for_a_broken_file(self) -> None:
        def exhausted(self: object, data: bytes) -> tuple[int, int]:
            raise MemoryError

        self.patch(unpng.PngDecoder, "decode", exhausted)
        data = saved(gradient(30, 20), "PNG")
        self.assertRaises(MemoryError, unpng.load, PngImageFile(io.BytesIO(data)))
