"""What a recipe may ask for besides a size: each parameter on pictures that show it."""

from __future__ import annotations

import io
import os
import time

from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageStat
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image.errors import Expensive, ImageError, NotFound, OutsidePicture, TooLarge
from imagefarm.image.formats import Format, Offer
from imagefarm.image.limits import Limits
from imagefarm.image.pipeline import Surroundings, render
from imagefarm.image.query import parse_query
from imagefarm.image.recipe import Fit, Recipe, fold

from .pictures import corner_colours, corners, gradient, opened, saved
from .test_pipeline import make
from .test_recipe import RECIPES

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def pixel(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    found = image.getpixel((x, y))
    return tuple(int(v) for v in found) if isinstance(found, tuple) else (int(found or 0),)


class Cutting(SynchronousTestCase):
    def corners_of(self, query: str, source: Image.Image | None = None) -> str:
        data = saved(source or corners(), "PNG")
        return "".join(corner_colours(opened(make(data, query).data)))

    def size_of(self, query: str, source: Image.Image | None = None) -> tuple[int, int]:
        return opened(make(saved(source or corners(), "PNG"), query).data).size

    def test_crop(self) -> None:
        self.assertEqual(self.corners_of("crop=0,0,32,24"), "RRRR")
        self.assertEqual(self.corners_of("crop=32,0,32,48"), "GGWW")
        self.assertEqual(self.corners_of("crop=pct:0,50,100,50"), "BWBW")
        self.assertEqual(self.size_of("crop=60,40,100,100"), (4, 8))
        error = self.assertRaises(OutsidePicture, self.size_of, "crop=64,0,1,1")
        self.assertEqual(error.status, 400)

    def test_crop_of_a_picture_stored_turned(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        stored = corners().transpose(Image.Transpose.ROTATE_90)
        data = saved(stored, "JPEG", exif=exif, quality=95)
        image = opened(make(data, "crop=32,0,32,48&fmt=png").data)
        self.assertEqual(image.size, (32, 48))
        self.assertEqual(corner_colours(image), list("GGWW"))

    def test_turns(self) -> None:
        for query, expected in [
            ("flip=h", "GRWB"), ("flip=v", "BWRG"), ("flip=hv", "WBGR"), ("rotate=90", "BRWG"),
            ("rotate=180", "WBGR"), ("rotate=270", "GWRB"), ("flip=h&rotate=90", "WGBR"),
        ]:  # fmt: skip
            self.assertEqual(self.corners_of(query), expected, query)
        self.assertEqual(self.size_of("rotate=90&w=24"), (24, 32))
        self.assertEqual(self.size_of("rotate=90&w=20&h=10&fit=cover"), (20, 10))

    def test_crop_comes_before_turning_and_the_box_after(self) -> None:
        query = "crop=0,0,64,24&rotate=90&w=12&h=12&fit=cover&g=north"
        self.assertEqual(self.corners_of(query), "RRRR")
        self.assertEqual(self.corners_of(query.replace("north", "south")), "GGGG")

    def test_gravity(self) -> None:
        for g, expected in [
            ("west", "RRBB"), ("east", "GGWW"), ("0,0", "RRBB"), ("0.9,0.1", "GGWW"),
        ]:  # fmt: skip
            self.assertEqual(self.corners_of(f"w=16&h=48&fit=cover&g={g}"), expected, g)

    def test_smart_finds_what_there_is_to_see(self) -> None:
        for x, y in ((330, 20), (30, 160), (200, 90)):
            picture = Image.new("RGB", (400, 200), (120, 140, 120))
            picture.paste(gradient(40, 30), (x, y))
            picture.paste("red", (x + 10, y + 5, x + 25, y + 20))
            image = opened(make(saved(picture, "PNG"), "w=60&h=200&fit=cover&g=smart").data)
            reds = [column for column in range(60) if pixel(image, column, y + 12)[0] > 200]
            self.assertTrue(reds, (x, y))
            middle = sum(reds) / len(reds)
            self.assertTrue(5 < middle < 55, middle)

    def test_smart_on_nothing_is_the_middle(self) -> None:
        plain = saved(Image.new("RGB", (400, 100), "teal"), "PNG")
        smart = make(plain, "w=50&h=50&fit=cover&g=smart").data
        self.assertEqual(smart, make(plain, "w=50&h=50&fit=cover").data)

    def test_smart_in_shrunk_and_turned_jpegs(self) -> None:
        picture = Image.new("RGB", (1600, 400), (90, 90, 90))
        picture.paste(gradient(200, 200), (1350, 100))
        exif = Image.Exif()
        exif[0x0112] = 6
        stored = picture.transpose(Image.Transpose.ROTATE_90)
        data = saved(stored, "JPEG", exif=exif, quality=95)
        image = opened(make(data, "w=40&h=40&fit=cover&g=smart&fmt=png").data)
        self.assertGreater(ImageStat.Stat(image.convert("L")).stddev[0], 15)

    def test_trim(self) -> None:
        framed = Image.new("RGB", (100, 80), (250, 250, 250))
        framed.paste(corners(), (20, 10))
        self.assertEqual(self.size_of("trim=5", framed), (64, 48))
        self.assertEqual(self.corners_of("trim=5", framed), "RGBW")
        self.assertEqual(self.size_of("trim=5&w=32", framed), (32, 24))
        self.assertEqual(self.size_of("trim=5&crop=32,0,32,48", framed), (32, 48))
        self.assertEqual(self.corners_of("trim=5&w=16&h=48&fit=cover&g=smart", framed)[:1], "R")
        plain = Image.new("RGB", (30, 20), "red")
        self.assertEqual(self.size_of("trim=9", plain), (30, 20), "nothing would be left")
        clear = Image.new("RGBA", (50, 50), (9, 9, 9, 0))
        clear.paste((1, 2, 3, 0), (0, 0, 9, 50))
        clear.paste((255, 0, 0, 255), (10, 20, 40, 45))
        self.assertEqual(self.size_of("trim=0", clear), (30, 25))

    def test_trim_of_a_jpeg_stored_turned(self) -> None:
        framed = Image.new("RGB", (400, 200), "white")
        framed.paste("navy", (240, 40, 400, 200))
        exif = Image.Exif()
        exif[0x0112] = 8
        data = saved(framed.transpose(Image.Transpose.ROTATE_270), "JPEG", exif=exif)
        made = make(data, "trim=40&fmt=png")
        self.assertEqual((made.width // 8, made.height // 8), (20, 20))
        self.assertLess(sum(pixel(opened(made.data), 5, 5)), 200)


class Enlarging(SynchronousTestCase):
    def test_only_when_asked(self) -> None:
        data = saved(corners(), "PNG")
        for query, plain, enlarged in [
            ("w=128", (64, 48), (128, 96)), ("w=128&h=128", (64, 48), (128, 96)),
            ("w=128&h=128&fit=cover", (48, 48), (128, 128)),
            ("w=128&h=128&fit=fill", (48, 48), (128, 128)),
            ("w=128&h=128&fit=outside", (64, 48), (171, 128)),
            ("w=128&h=128&fit=pad", (128, 128), (128, 128)),
        ]:  # fmt: skip
            with self.subTest(query=query):
                self.assertEqual(opened(make(data, query).data).size, plain)
                image = opened(make(data, query + "&enlarge=1").data)
                self.assertEqual(image.size, enlarged)

    def test_out_of_bounds(self) -> None:
        data = saved(Image.new("RGB", (1, 100)), "PNG")
        self.assertRaises(TooLarge, make, data, "w=8000&enlarge=1")


class Backgrounds(SynchronousTestCase):
    def test_pad(self) -> None:
        data = saved(Image.new("RGB", (40, 20), "red"), "PNG")
        image = opened(make(data, "w=40&h=40&fit=pad&bg=00ff00").data)
        self.assertEqual((image.size, image.mode), ((40, 40), "RGB"))
        self.assertEqual(pixel(image, 20, 2), (0, 255, 0))
        self.assertEqual(pixel(image, 20, 20), (255, 0, 0))
        image = opened(make(data, "w=40&h=40&fit=pad").data)
        self.assertEqual(pixel(image, 20, 2), (0, 0, 0, 0))
        image = opened(make(data, "w=40&h=40&fit=pad&g=north&bg=0000ff80").data)
        self.assertEqual(pixel(image, 20, 2), (255, 0, 0, 255))
        self.assertEqual(pixel(image, 20, 38), (0, 0, 255, 128))
        image = opened(make(data, "w=40&h=40&fit=pad&fmt=jpeg&q=100").data)
        self.assertEqual(pixel(image, 20, 2), (255, 255, 255))

    def test_pad_with_the_picture_itself(self) -> None:
        data = saved(Image.new("RGB", (40, 20), "red"), "PNG")
        image = opened(make(data, "w=60&h=60&fit=pad&bg=blur").data)
        self.assertEqual(image.size, (60, 60))
        self.assertEqual(pixel(image, 30, 1), (255, 0, 0))
        for size in ((1, 300), (300, 1)):
            thin = saved(Image.new("RGB", size, "blue"), "PNG")
            image = opened(make(thin, "w=50&h=50&fit=pad&bg=blur").data)
            self.assertEqual((image.size, pixel(image, 3, 3)), ((50, 50), (0, 0, 255)))
        for size, box in (((1, 7), (4, 9)), ((6, 29), (7, 36)), ((29, 6), (58, 11))):
            odd = saved(Image.new("RGB", size, "blue"), "PNG")
            image = opened(make(odd, f"w={box[0]}&h={box[1]}&fit=pad&bg=blur").data)
            self.assertEqual((image.size, pixel(image, 0, 0)), (box, (0, 0, 255)))

    def test_transparent_pictures(self) -> None:
        clear = saved(Image.new("RGBA", (20, 20), (255, 0, 0, 0)), "PNG")
        image = opened(make(clear, "bg=0000ff").data)
        self.assertEqual((image.mode, pixel(image, 5, 5)), ("RGB", (0, 0, 255)))
        image = opened(make(clear, "bg=0000ff80").data)
        self.assertEqual(pixel(image, 5, 5), (0, 0, 255, 128))
        image = opened(make(clear, "bg=0000ff80&fmt=jpeg&q=100").data)
        self.assertTrue(
            all(abs(a - b) < 3 for a, b in zip(pixel(image, 5, 5), (127, 127, 255), strict=True))
        )
        grey = saved(Image.new("LA", (20, 20), (0, 0)), "PNG")
        self.assertEqual(pixel(opened(make(grey, "bg=ff0000").data), 5, 5), (255, 0, 0))
        self.assertEqual(pixel(opened(make(grey, "bg=777777").data), 5, 5), (0x77,))


class Looks(SynchronousTestCase):
    def mean(self, query: str, mode: str = "RGB") -> list[float]:
        image = opened(make(saved(gradient(80, 60), "PNG"), query).data)
        return ImageStat.Stat(image.convert(mode)).mean

    def spread(self, query: str) -> float:
        image = opened(make(saved(gradient(80, 60), "PNG"), query).data)
        return sum(ImageStat.Stat(image).stddev)

    def test_brightness_contrast_saturation(self) -> None:
        plain = sum(self.mean(""))
        self.assertGreater(sum(self.mean("brightness=30")), plain * 1.1)
        self.assertLess(sum(self.mean("brightness=-30")), plain * 0.8)
        self.assertEqual(self.mean("brightness=-100"), [0, 0, 0])
        self.assertGreater(self.spread("contrast=50"), self.spread("") * 1.1)
        self.assertEqual(self.spread("contrast=-100"), 0)
        grey = opened(make(saved(gradient(80, 60), "PNG"), "saturation=-100").data)
        red, green, blue = grey.split()
        self.assertEqual(red.tobytes(), green.tobytes())
        self.assertEqual(red.tobytes(), blue.tobytes())
        self.assertGreater(self.mean("saturation=80", "HSV")[1], self.mean("", "HSV")[1])

    def test_tone(self) -> None:
        data = saved(gradient(80, 60), "PNG")
        grey = opened(make(data, "tone=gray").data)
        self.assertEqual(grey.mode, "L")
        self.assertEqual(grey.tobytes(), gradient(80, 60).convert("L").tobytes())
        bitonal = opened(make(data, "tone=bitonal").data)
        self.assertEqual({value for _, value in bitonal.getcolors() or []}, {0, 255})

    def test_blur_and_sharpen(self) -> None:
        edge = Image.new("RGB", (60, 40), "black")
        edge.paste("gray", (30, 0, 60, 40))
        data = saved(edge, "PNG")
        soft = opened(make(data, "blur=4").data)
        self.assertTrue(5 < pixel(soft, 27, 20)[0] < 64)
        sharp = opened(make(data, "sharpen=2").data)
        self.assertGreater(pixel(sharp, 31, 20)[0], 140)
        self.assertEqual(pixel(sharp, 58, 20)[0], 128)

    def test_alpha_survives(self) -> None:
        clear = Image.new("RGBA", (60, 40), (255, 0, 0, 0))
        clear.paste((0, 0, 255, 255), (0, 0, 30, 40))
        data = saved(clear, "PNG")
        for query in (
            "blur=3", "sharpen=2", "brightness=10", "contrast=10", "saturation=-50", "tone=gray",
        ):  # fmt: skip
            image = opened(make(data, query).data).convert("RGBA")
            self.assertEqual((pixel(image, 59, 5)[3], pixel(image, 0, 5)[3]), (0, 255), query)
            if query == "blur=3":
                self.assertLess(pixel(image, 30, 5)[0], 3, "no red bleeds")

    def test_rounded_corners(self) -> None:
        data = saved(Image.new("RGB", (60, 40), "red"), "PNG")
        image = opened(make(data, "radius=10").data)
        for x, y in ((0, 0), (59, 0), (0, 39), (59, 39)):
            self.assertEqual(pixel(image, x, y)[3], 0)
        for x, y in ((10, 0), (0, 10), (30, 20), (4, 4), (55, 35)):
            self.assertEqual(pixel(image, x, y)[3], 255, (x, y))
        circle = opened(make(data, "radius=9999&w=40&h=40&fit=cover").data)
        opaque = sum(v > 127 for v in circle.getchannel("A").tobytes())
        self.assertTrue(abs(opaque - 3.1416 * 400) < 15, opaque)
        image = opened(make(data, "radius=10&bg=00ff00&fmt=jpeg&q=100").data)
        self.assertGreater(pixel(image, 0, 0)[1], 240)


class Watermarks(SynchronousTestCase):
    def marked(self, query: str, mark: Image.Image | None = None) -> Image.Image:
        content = saved(mark or Image.new("RGB", (10, 10), "blue"), "PNG")

        def also(path: bytes) -> io.BufferedIOBase:
            self.assertEqual(path, b"/m.png")
            return open(self.path, "rb")

        self.path = self.mktemp()
        with open(self.path, "wb") as file:
            file.write(content)
        data = saved(Image.new("RGB", (100, 80), "red"), "PNG")
        return opened(make(data, "wm=m.png&" + query, also=also).data)  # type: ignore[arg-type]

    def blue(self, image: Image.Image) -> tuple[int, int, int, int] | None:
        return image.getchannel("B").point(lambda value: 255 if value > 40 else 0).getbbox()

    def test_position_and_scale(self) -> None:
        for query, box in [
            ("", (90, 70, 100, 80)), ("wm_pos=northwest", (0, 0, 10, 10)),
            ("wm_pos=center", (45, 35, 55, 45)), ("wm_pos=0,1&wm_scale=50", (0, 30, 50, 80)),
            ("wm_scale=100", (10, 0, 90, 80)), ("w=5", (1, 0, 5, 4)),
        ]:  # fmt: skip
            with self.subTest(query=query):
                image = self.marked(query)
                found = self.blue(image)
                assert found is not None
                if query == "wm_scale=100":
                    self.assertEqual((found[2] - found[0], found[3] - found[1]), (80, 80))
                else:
                    self.assertEqual(found, box)
                self.assertEqual(image.mode, "RGB")

    def test_opacity(self) -> None:
        image = self.marked("wm_pos=center&wm_opacity=50")
        red, _, blue = pixel(image, 50, 40)
        self.assertTrue(abs(red - 128) < 3 and abs(blue - 127) < 3)
        clear = Image.new("RGBA", (10, 10), (0, 0, 255, 0))
        self.assertIsNone(self.blue(self.marked("", clear)))

    def test_what_it_costs(self) -> None:
        """A picture with a large watermark is an expensive one."""
        path = self.mktemp()

        def also(_: bytes) -> io.BufferedReader:
            return open(path, "rb")

        def made(side: int) -> None:
            Image.new("1", (side, side)).save(path, "PNG")
            with also(b"") as file:
                around = Surroundings(Limits(), time.monotonic, also, most=0.05)
                render(file, parse_query(b"src=a&w=20&wm=m&wm_scale=20"), Offer(), around)

        made(40)
        self.assertRaises(Expensive, made, 1000)

    def test_what_is_said_of_a_bad_one(self) -> None:
        data = saved(corners(), "PNG")
        error = self.assertRaises(NotFound, make, data, "wm=none.png")
        self.assertEqual(error.reason, "watermark: there is no such source")


class Encodings(SynchronousTestCase):
    def test_max_bytes(self) -> None:
        data = saved(gradient(300, 200), "PNG")
        for fmt in ("jpeg", "webp", "avif"):
            full = len(make(data, f"fmt={fmt}&q=95").data)
            for budget in (full // 2, full - 1, full):
                made = make(data, f"fmt={fmt}&q=95&max_bytes={budget}")
                self.assertLessEqual(len(made.data), budget, fmt)
                opened(made.data)
            # As good as it can be: one step of quality more would not have fitted.
            budget = full // 2
            sizes = [len(make(data, f"fmt={fmt}&q={q}").data) for q in range(1, 96, 2)]
            chosen = len(make(data, f"fmt={fmt}&q=95&max_bytes={budget}").data)
            self.assertGreaterEqual(chosen * 1.15, max(s for s in sizes if s <= budget), fmt)

    def test_max_bytes_that_cannot_be(self) -> None:
        data = saved(gradient(300, 200), "PNG")
        for query in ("fmt=png", "fmt=gif", "fmt=webp&lossless=1", "fmt=jpeg", "fmt=avif"):
            error = self.assertRaises(TooLarge, make, data, query + "&max_bytes=200")
            self.assertEqual(error.reason, "the result has more bytes than max_bytes=200 allows")

    def test_lossless(self) -> None:
        picture = gradient(60, 40)
        data = saved(picture, "PNG")
        for query, offer, fmt in [
            ("fmt=webp&lossless=1", Offer(), Format.WEBP),
            ("fmt=auto&lossless=1", Offer(avif=True, webp=True), Format.WEBP),
            ("fmt=auto&lossless=1", Offer(avif=True), Format.PNG),
            ("lossless=1", Offer(), Format.PNG),
        ]:  # fmt: skip
            made = make(data, query, offer=offer)
            self.assertIs(made.format, fmt)
            self.assertEqual(opened(made.data).convert("RGB").tobytes(), picture.tobytes())
        self.assertIs(make(saved(picture, "JPEG"), "lossless=1").format, Format.PNG)

    def test_progressive(self) -> None:
        data = saved(gradient(60, 40), "PNG")
        for query, expected in (("", False), ("&progressive=1", True)):
            image = opened(make(data, "fmt=jpeg" + query).data)
            self.assertEqual(bool(image.info.get("progressive")), expected)

    def test_keep(self) -> None:
        exif = Image.Exif()
        exif[0x0112], exif[0x010E], exif[0x8298], exif[0x013B] = 6, "SECRET", "(c) Me", "Me"
        for kind in ("JPEG", "PNG", "WEBP", "AVIF"):
            data = saved(corners(), kind, exif=exif, xmp=b"<x/>", icc_profile=SRGB, quality=90)
            for fmt in ("jpeg", "png", "webp", "avif"):
                with self.subTest(source=kind, fmt=fmt):
                    image = opened(make(data, f"w=24&fmt={fmt}&keep=exif").data)
                    self.assertEqual(image.size, (24, 32))
                    self.assertEqual(image.getexif().get(0x010E), "SECRET")
                    self.assertEqual(image.getexif().get(0x0112, 1), 1)
                    self.assertNotIn("icc_profile", image.info)
                    made = make(data, f"fmt={fmt}&keep=copyright").data
                    self.assertNotIn(b"SECRET", made)
                    self.assertEqual(opened(made).getexif().get(0x8298), "(c) Me")
                    image = opened(make(data, f"fmt={fmt}&keep=icc").data)
                    self.assertEqual(image.info.get("icc_profile"), SRGB)
                    self.assertEqual(len(image.getexif()), 0)
                    if kind != "PNG":  # Pillow writes none into a PNG by that name
                        made = make(data, f"fmt={fmt}&keep=xmp").data
                        self.assertIn(b"<x/>", made)

    def test_a_tiff_keeps_no_more_than_its_exif_data(self) -> None:
        exif = Image.Exif()
        exif[0x010E], exif[0x02BC], exif[0x8773] = "SHOWN", b"<SECRET/>", SRGB
        data = saved(corners(), "TIFF", exif=exif)
        for fmt in ("jpeg", "png", "webp", "avif"):
            made = make(data, f"w=24&fmt={fmt}&keep=exif").data
            self.assertEqual(dict(opened(made).getexif()), {0x010E: "SHOWN"}, fmt)
            self.assertNotIn(b"SECRET", made)

    def test_colours_stay_only_with_their_profile(self) -> None:
        swapped = SRGB.replace(b"rXYZ", b"....").replace(b"bXYZ", b"rXYZ")
        swapped = swapped.replace(b"....", b"bXYZ")
        still = saved(corners(), "PNG", icc_profile=swapped)
        moving = saved(
            corners(), "WEBP", save_all=True, append_images=[gradient(64, 48)], lossless=True,
            icc_profile=swapped,
        )  # fmt: skip
        for name, data in (("still", still), ("moving", moving)):
            for fmt, kept in (("gif", False), ("webp", True), ("png", True), ("avif", True)):
                image = opened(make(data, f"fmt={fmt}&keep=icc").data)
                self.assertEqual("icc_profile" in image.info, kept, (name, fmt))
                self.assertEqual(
                    corner_colours(image), list("RGBW" if kept else "BGRW"), (name, fmt)
                )

    def test_a_broken_exif_is_not_kept(self) -> None:
        data = saved(corners(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
        self.assertEqual(
            corner_colours(opened(make(data, "keep=exif,icc,xmp").data)), list("RGBW")
        )


class Promises(SynchronousTestCase):
    """Any recipe on any picture gives what it promises, or says with a 4xx why not."""

    SOURCES: tuple[bytes, ...] = ()

    def sources(self) -> tuple[bytes, ...]:
        if not Promises.SOURCES:
            exif = Image.Exif()
            exif[0x0112] = 6
            small, frame = corners(70, 40), gradient(70, 40)
            clear = frame.convert("RGBA")
            clear.putalpha(Image.linear_gradient("L").resize((70, 40)))
            Promises.SOURCES = (
                saved(gradient(300, 200), "JPEG"), saved(small, "JPEG", exif=exif),
                saved(frame.convert("CMYK"), "JPEG"), saved(frame.convert("L"), "JPEG"),
                saved(clear, "PNG", icc_profile=SRGB), saved(clear.convert("LA"), "PNG"),
                saved(frame.convert("P"), "PNG"), saved(frame.convert("I;16"), "PNG"),
                saved(clear, "WEBP"), saved(frame, "AVIF"), saved(frame, "TIFF"),
                saved(frame, "JPEG2000"), saved(small.convert("1"), "BMP"),
                saved(small, "GIF", save_all=True, append_images=[frame]),
                saved(clear, "WEBP", save_all=True, append_images=[small.convert("RGBA")]),
                saved(Image.new("RGB", (1, 1)), "PNG"), saved(Image.new("L", (1, 90)), "PNG"),
            )  # fmt: skip
        return Promises.SOURCES

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(RECIPES, st.integers(0, 16), st.integers(1, 90), st.integers(1, 90), st.booleans())
    def test_any_recipe(self, recipe: Recipe, source: int, w: int, h: int, offer: bool) -> None:
        # Boxes about the size of the pictures, crops about theirs: else most would be refused.
        mark = recipe.mark and evolve(recipe.mark, src=b"/m")
        crop = recipe.crop
        if crop is not None and not crop.percent:
            crop = evolve(crop, left=crop.left % 80, top=crop.top % 50)
        recipe = fold(
            evolve(
                recipe,
                w=None if recipe.w is None else w,
                h=None if recipe.h is None else h,
                mark=mark,
                crop=crop,
            )
        )
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(self.sources()[source])
        mark_path = self.mktemp()
        with open(mark_path, "wb") as file:
            file.write(saved(corners(16, 12), "PNG"))
        try:
            with open(path, "rb") as opened_file:
                around = Surroundings(
                    Limits(),
                    time.monotonic,
                    lambda _: os.fdopen(os.open(mark_path, os.O_RDONLY), "rb"),
                )
                made = render(opened_file, recipe, Offer(avif=offer, webp=offer), around)
        except OutsidePicture:
            self.assertIsNotNone(crop)
            return
        except ImageError as error:
            self.assertEqual(error.status, 413, error.reason)
            self.assertTrue(recipe.max_bytes or recipe.enlarge, error.reason)
            return
        image = opened(made.data)
        self.assertEqual(image.size, (made.width, made.height))
        self.assertEqual(image.format, made.format.name)
        self.promised_size(recipe, *image.size)
        if recipe.max_bytes is not None:
            self.assertLessEqual(len(made.data), recipe.max_bytes)

    def promised_size(self, recipe: Recipe, width: int, height: int) -> None:
        w, h = recipe.w, recipe.h
        if recipe.fit is Fit.PAD or (
            w and h and recipe.enlarge and recipe.fit in (Fit.COVER, Fit.FILL)
        ):
            self.assertEqual((width, height), (w, h))
        elif recipe.fit is not Fit.OUTSIDE:
            self.assertLessEqual(width, w or 10_000)
            self.assertLessEqual(height, h or 10_000)
        if recipe.enlarge and (w or h) and recipe.fit is not Fit.PAD:
            self.assertTrue(width == w or height == h)
