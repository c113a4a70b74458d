"""The pipeline: real pictures through every step, in process."""

from __future__ import annotations

import logging
import random
import struct
import tempfile
import time
import warnings
import zlib
from typing import BinaryIO

from PIL import Image, ImageChops, ImageCms, ImageStat
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image.errors import Broken, ImageError, NotFound, Unsupported
from imagefarm.image.formats import Format, Offer
from imagefarm.image.job import Rendered
from imagefarm.image.limits import Limits
from imagefarm.image.pipeline import Clock, Opener, Surroundings, render
from imagefarm.image.plan import make_plan
from imagefarm.image.probe import Header
from imagefarm.image.query import parse_query

from .pictures import (
    NO_SHARED,
    SHARED,
    corner_colours,
    corners,
    gradient,
    opened,
    saved,
)

PLAIN = Offer()
logging.getLogger("PIL").addHandler(logging.NullHandler())


def make(
    data: bytes,
    query: str = "",
    *,
    offer: Offer = PLAIN,
    limits: Limits | None = None,
    clock: Clock = time.monotonic,
    also: Opener | None = None,
) -> Rendered:
    recipe = parse_query(b"src=x&" + query.encode())
    with tempfile.TemporaryFile() as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about damaged files
        file.write(data)
        file.seek(0)
        around = Surroundings(limits or Limits(), clock, also or nothing_else)
        return render(file, recipe, offer, around)


def nothing_else(path: bytes) -> BinaryIO:
    raise NotFound("there is no such source")


def difference(one: Image.Image, other: Image.Image) -> float:
    """The mean difference of all channels, 0 to 255."""
    delta = ImageChops.difference(one.convert("RGB"), other.convert("RGB"))
    return sum(ImageStat.Stat(delta).mean) / 3


class Formats(SynchronousTestCase):
    def test_every_source_into_every_format(self) -> None:
        source = corners()
        sources = {
            "JPEG": {"quality": 95, "subsampling": 0}, "PNG": {}, "WEBP": {"lossless": True},
            "GIF": {}, "AVIF": {"quality": 95}, "TIFF": {}, "BMP": {}, "JPEG2000": {},
        }  # fmt: skip
        for kind, options in sources.items():
            data = saved(source, kind, **options)
            for fmt in Format:
                with self.subTest(source=kind, fmt=fmt):
                    made = make(data, f"w=32&fmt={fmt.value}")
                    self.assertIs(made.format, fmt)
                    image = opened(made.data)
                    self.assertEqual(image.format, fmt.name)
                    self.assertEqual(image.size, (32, 24))
                    self.assertEqual((made.width, made.height, made.frames), (32, 24, 1))
                    self.assertEqual(corner_colours(image), list("RGBW"))

    def test_the_format_without_a_word(self) -> None:
        source = corners()
        for kind, made in [
            ("JPEG", Format.JPEG), ("PNG", Format.PNG), ("WEBP", Format.WEBP),
            ("GIF", Format.GIF), ("AVIF", Format.AVIF), ("TIFF", Format.JPEG),
            ("BMP", Format.JPEG), ("JPEG2000", Format.JPEG),
        ]:  # fmt: skip
            self.assertIs(make(saved(source, kind)).format, made, kind)
        self.assertIs(make(saved(source.convert("RGBA"), "TIFF")).format, Format.PNG)

    def test_auto(self) -> None:
        jpeg, both = saved(corners(), "JPEG"), Offer(avif=True, webp=True)
        self.assertIs(make(jpeg, "fmt=auto", offer=both).format, Format.AVIF)
        self.assertIs(make(jpeg, "fmt=auto", offer=Offer(webp=True)).format, Format.WEBP)
        self.assertIs(make(jpeg, "fmt=auto").format, Format.JPEG)
        webp = saved(corners().convert("RGBA"), "WEBP", exact=True)
        self.assertIs(make(webp, "fmt=auto").format, Format.JPEG, "an alpha of no use is dropped")
        moving = saved(corners(), "GIF", save_all=True, append_images=[gradient(64, 48)])
        self.assertIs(make(moving, "fmt=auto", offer=both).format, Format.WEBP)
        self.assertIs(make(moving, "fmt=auto").format, Format.GIF)

    def test_modes(self) -> None:
        half = 128
        for mode, colour, kind, expected in [
            ("1", 1, "PNG", (255, 255, 255)), ("L", half, "PNG", (half,) * 3),
            ("L", half, "JPEG", (half,) * 3), ("I;16", half * 257, "PNG", (half,) * 3),
            ("I", half * 257, "TIFF", (half,) * 3), ("F", 128.0, "TIFF", (half,) * 3),
            ("CMYK", (0, 255, 255, 0), "TIFF", (255, 0, 0)),
            ("YCbCr", (76, 85, 255), "TIFF", (255, 0, 0)),
            ("LA", (half, 255), "PNG", (half,) * 3),
        ]:  # fmt: skip
            data = saved(Image.new(mode, (40, 40), colour), kind)
            for fmt in Format:
                with self.subTest(mode=mode, fmt=fmt):
                    pixel = opened(make(data, f"w=20&fmt={fmt.value}").data).convert("RGB")
                    found = pixel.getpixel((10, 10))
                    assert isinstance(found, tuple)
                    for a, b in zip(found, expected, strict=True):
                        self.assertLessEqual(abs(a - b), 4, found)

    def test_grey_stays_grey(self) -> None:
        data = saved(Image.linear_gradient("L"), "JPEG")
        self.assertEqual(opened(make(data, "w=50").data).mode, "L")

    def test_an_mpo_is_a_jpeg(self) -> None:
        data = saved(corners(), "MPO", save_all=True, append_images=[gradient(64, 48)])
        made = make(data, "w=32")
        self.assertIs(made.format, Format.JPEG)
        self.assertEqual(corner_colours(opened(made.data)), list("RGBW"))

    def test_formats_not_on_the_list(self) -> None:
        for kind in ("PPM", "ICO", "TGA", "EPS", "PDF", "PCX", "SGI"):
            with self.subTest(kind=kind):
                self.assertRaises(Unsupported, make, saved(corners(), kind), "w=9")
        for data in (b"x", b"RIFF1234WEAVE", b"<svg/>", b"%PDF-1.7", b"\xff\xd8", b"P6 1 1 255 "):
            with self.subTest(data=data):
                self.assertRaises(Unsupported, make, data)


class Looks(SynchronousTestCase):
    def test_orientation(self) -> None:
        upright = corners(64, 48)
        turns = [
            None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180,
            Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.TRANSPOSE,
            Image.Transpose.ROTATE_90, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_270,
        ]  # fmt: skip
        for orientation, turn in enumerate(turns, 1):
            stored = upright if turn is None else upright.transpose(turn)
            exif = Image.Exif()
            exif[0x0112] = orientation
            for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
                data = saved(stored, kind, exif=exif, quality=95)
                for query in ("w=32", "w=16&h=24&fit=cover", "w=32&h=12&fit=fill"):
                    with self.subTest(orientation=orientation, kind=kind, query=query):
                        image = opened(make(data, query + "&fmt=png").data)
                        sizes = {"w=32": (32, 24), "w=16&h=24&fit=cover": (16, 24)}
                        self.assertEqual(image.size, sizes.get(query, (32, 12)))
                        self.assertEqual(corner_colours(image), list("RGBW"))
                        self.assertNotIn("exif", image.info)

    def test_nonsense_orientation_is_none(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 99
        made = make(saved(corners(), "JPEG", exif=exif))
        self.assertEqual(corner_colours(opened(made.data)), list("RGBW"))
        broken = saved(corners(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
        self.assertEqual(corner_colours(opened(make(broken).data)), list("RGBW"))

    def test_cover_shows_the_middle(self) -> None:
        source = Image.new("RGB", (300, 100), "red")
        source.paste("lime", (100, 0, 200, 100))
        image = opened(make(saved(source, "PNG"), "w=50&h=50&fit=cover").data)
        # At the cut the filter still sees a little of what was cut off.
        for x in (0, 10, 25, 40, 49):
            red, green, blue = image.getpixel((x, 25))  # type: ignore[misc]
            self.assertTrue(red < 20 and green > 235 and blue == 0, (x, red, green, blue))

    def test_shrinking_in_the_decoder_looks_like_resampling_it_all(self) -> None:
        source = gradient(800, 600)
        reference = source.resize((100, 75), Image.Resampling.LANCZOS)
        image = opened(make(saved(source, "JPEG", quality=95), "w=100&fmt=png").data)
        self.assertLess(difference(image, reference), 1.0)
        box = (100, 0, 700, 600)
        square = source.resize((64, 64), Image.Resampling.LANCZOS, box=box)
        query = "w=64&h=64&fit=cover&fmt=png"
        image = opened(make(saved(source, "JPEG", quality=95), query).data)
        self.assertLess(difference(image, square), 1.0)

    def test_transparent_colours_do_not_bleed(self) -> None:
        source = Image.new("RGBA", (400, 400), (255, 0, 0, 0))
        source.paste((0, 0, 255, 255), (0, 0, 200, 400))
        image = opened(make(saved(source, "PNG"), "w=37").data)
        self.assertEqual(image.mode, "RGBA")
        for x in range(37):
            red, _, _, alpha = image.getpixel((x, 18))  # type: ignore[misc]
            self.assertTrue(alpha == 0 or red <= 2, (x, red, alpha))

    def test_transparency_becomes_white_in_jpeg(self) -> None:
        for mode, colour in [("RGBA", (255, 0, 0, 0)), ("LA", (0, 0))]:
            made = make(saved(Image.new(mode, (20, 20), colour), "PNG"), "fmt=jpeg")
            white = opened(made.data).convert("RGB").getpixel((9, 9))
            self.assertEqual(white, (255, 255, 255))

    def test_one_transparent_colour(self) -> None:
        palette = Image.new("P", (30, 30), 0)
        palette.putpalette([9, 9, 9, 200, 100, 50])
        for image in (palette, Image.new("RGB", (30, 30), "red"), Image.new("L", (30, 30), 7)):
            key: object = 0 if image is palette else (image.getpixel((0, 0)))
            made = make(saved(image, "PNG", transparency=key), "w=10")
            self.assertEqual(opened(made.data).convert("RGBA").getpixel((5, 5))[3], 0)  # type: ignore[index]

    def test_one_transparent_colour_of_any_depth(self) -> None:
        """It is said in the file's samples, of which a pixel may have 1, 2, 4, 8 or 16 bits."""
        for kind, depth, sample in (
            (0, 1, 0), (0, 1, 1), (0, 2, 1), (0, 2, 3), (0, 4, 1), (0, 4, 14), (0, 8, 1),
            (0, 16, 0x1234), (0, 16, 0xFFFF), (2, 8, 1), (2, 16, 0x1234), (2, 16, 0xFFFF),
        ):  # fmt: skip
            most, channels = (1 << depth) - 1, 1 if kind == 0 else 3
            bits = "".join(f"{n:0{depth}b}" * channels for n in (sample, most - sample))
            row = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8))
            data = b"\x89PNG\r\n\x1a\n" + b"".join(
                len(content).to_bytes(4) + name + content + zlib.crc32(name + content).to_bytes(4)
                for name, content in (
                    (b"IHDR", struct.pack(">IIBBBBB", 2, 1, depth, kind, 0, 0, 0)),
                    (b"tRNS", struct.pack(">H", sample) * channels),
                    (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b""),
                )
            )  # fmt: skip
            image = opened(make(data, "fmt=png").data).convert("RGBA")
            alphas = list(image.getchannel("A").tobytes())
            self.assertEqual(alphas, [0, 255], (kind, depth, sample))

    def test_a_profile_is_applied(self) -> None:
        lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        data = saved(corners(), "PNG", icc_profile=srgb)
        image = opened(make(data, "w=32").data)
        self.assertEqual(corner_colours(image), list("RGBW"))
        self.assertNotIn("icc_profile", image.info)
        # The same with its red and blue primaries exchanged: so must the picture's colours be.
        swapped = srgb.replace(b"rXYZ", b"....").replace(b"bXYZ", b"rXYZ")
        swapped = swapped.replace(b"....", b"bXYZ")
        for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
            data = saved(corners(), kind, icc_profile=swapped, quality=95)
            image = opened(make(data, "w=32&fmt=png").data)
            self.assertEqual(corner_colours(image), list("BGRW"), kind)
        clear = corners().convert("RGBA")
        clear.putalpha(77)
        image = opened(make(saved(clear, "PNG", icc_profile=swapped)).data)
        self.assertEqual(corner_colours(image), list("BGRW"))
        self.assertEqual(image.getpixel((3, 3))[3], 77)  # type: ignore[index]
        for profile in (b"rubbish", lab):  # broken, or of other pixels: ignored
            image = opened(make(saved(corners(), "PNG", icc_profile=profile)).data)
            self.assertEqual(corner_colours(image), list("RGBW"))

    def test_metadata_is_gone(self) -> None:
        exif = Image.Exif()
        exif[0x010E] = "SECRET"
        options = {"exif": exif, "xmp": b"SECRET", "comment": b"SECRET", "icc_profile": b"SECRET"}
        for kind in ("JPEG", "PNG", "WEBP", "GIF", "AVIF"):
            used = dict(options)
            if kind == "AVIF":
                srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
                used["icc_profile"] = srgb
            data = saved(corners(), kind, **used)
            self.assertIn(b"SECRET", data)
            for fmt in Format:
                for query in ("", "w=32&"):
                    self.assertNotIn(b"SECRET", make(data, f"{query}fmt={fmt.value}").data)

    def test_quality(self) -> None:
        data = saved(gradient(300, 200), "PNG")
        for fmt in ("jpeg", "webp", "avif"):
            low, high = (len(make(data, f"fmt={fmt}&q={q}").data) for q in (10, 95))
            self.assertLess(low * 1.5, high, fmt)

    def test_noise_in_the_best_quality(self) -> None:
        """A JPEG of it takes more bytes than Pillow has room for: several a pixel."""
        noise = Image.frombytes("RGB", (300, 200), random.Random(7).randbytes(180_000))
        data = saved(noise, "PNG", compress_level=0)
        for quality in (80, 89, 90, 94, 95, 100):
            for scans in ("", "&progressive=1"):
                with self.subTest(quality=quality, scans=scans):
                    made = make(data, f"fmt=jpeg&q={quality}{scans}")
                    image = opened(made.data)
                    self.assertEqual(image.size, (300, 200))
                    self.assertEqual("progressive" in image.info, bool(scans))
        fitted = make(data, "fmt=jpeg&q=100&max_bytes=100000").data
        self.assertLessEqual(len(fitted), 100_000)


class Plans(SynchronousTestCase):
    def test_a_turned_jpeg_is_shrunk_by_its_stored_axes(self) -> None:
        header = Header("JPEG", 4000, 3000, orientation=6)
        plan = make_plan(header, parse_query(b"src=x&w=300"), PLAIN, Limits())
        self.assertEqual((plan.width, plan.height, plan.factor), (400, 300, 8))

    def test_small_sources_are_shrunk_carefully(self) -> None:
        for width, height, factor in ((1024, 1024, 1), (1025, 1024, 2)):
            plan = make_plan(
                Header("JPEG", width, height), parse_query(b"src=x&w=400"), PLAIN, Limits()
            )
            self.assertEqual(plan.factor, factor, (width, height))

    def test_only_jpeg_shrinks_in_the_decoder(self) -> None:
        header = Header("PNG", 4000, 3000)
        plan = make_plan(header, parse_query(b"src=x&w=300"), PLAIN, Limits())
        self.assertEqual(plan.factor, 1)


class SharedImages(SynchronousTestCase):
    if NO_SHARED:
        skip = NO_SHARED

    def test_real_and_odd_ones(self) -> None:
        for path in sorted(SHARED.iterdir()):
            if path.suffix == ".svg" or path.is_dir():
                continue
            with self.subTest(name=path.name):
                made = make(path.read_bytes(), "w=60&h=60&fit=cover")
                image = opened(made.data)
                self.assertEqual(image.size, (made.width, made.height))

    def test_orientations_agree(self) -> None:
        one = opened(make((SHARED / "photo-600x450-orient1.jpg").read_bytes(), "w=300").data)
        six = opened(make((SHARED / "photo-600x450-orient6.jpg").read_bytes(), "w=300").data)
        self.assertEqual(one.size, six.size)

    def test_a_long_animation(self) -> None:
        """A bomb for those who lay its frames one above another."""
        made = make((SHARED / "bomb/big-height.webp").read_bytes(), "w=60&h=60")
        self.assertEqual((made.width, made.height), opened(made.data).size)
        self.assertGreater(made.frames, 50)

    def test_truncated_at_every_kilobyte(self) -> None:
        for name in (
            "photo-600x450-orient1.jpg", "grey.jpg", "grey-alpha-16bit.png", "palette.png",
            "animated-squares.webp", "photo-1024x772.webp", "photo.avif", "photo.jp2",
        ):  # fmt: skip
            data = (SHARED / name).read_bytes()
            for length in range(1024, len(data), 1024):
                with self.subTest(name=name, length=length):
                    error = self.assertRaises(Broken, make, data[:length], "w=40")
                    self.assertEqual(error.status, 422)

    def test_a_gif_truncated_at_every_kilobyte(self) -> None:
        """Many in the wild have no end: one that stops between two frames is as long as that."""
        data = (SHARED / "animated-squares.gif").read_bytes()
        frames, refused = [], 0
        for length in range(1024, len(data), 1024):
            try:
                frames.append(make(data[:length], "w=40").frames)
            except Broken:
                refused += 1
        self.assertEqual(frames, sorted(frames))
        self.assertGreater(refused, 20)

    def test_broken_and_bombs(self) -> None:
        for name, status in [
            ("broken/corrupt-header.jpg", 422), ("broken/truncated.jpg", 422),
            ("broken/truncated.png", 422), ("bomb/65536-uint32-limit.png", 413),
            ("bomb/giant-image.jpg", 413), ("circle.svg", 415),
        ]:  # fmt: skip
            started = time.monotonic()
            error = self.assertRaises(ImageError, make, (SHARED / name).read_bytes(), "w=60")
            self.assertEqual(error.status, status, name)
            self.assertLess(time.monotonic() - started, 2.0)
