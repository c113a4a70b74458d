"""Animations in and out, and what a GIF can hold of a picture."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

from PIL import Image, ImageChops, ImageStat
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image import pipeline
from imagefarm.image.errors import DeadlineExceeded
from imagefarm.image.frames import hundredths
from imagefarm.image.limits import Limits
from imagefarm.image.plan import Plan

from .pictures import gif_of_dots, gradient, opened, saved
from .test_pipeline import make


class Animations(SynchronousTestCase):
    def source(self, kind: str, **options: object) -> bytes:
        colours = ["red", "lime", "blue"]
        frames = [Image.new("RGB", (40, 30), colour) for colour in colours]
        return saved(
            frames[0], kind, save_all=True, append_images=frames[1:],
            duration=[100, 250, 400], **options,
        )  # fmt: skip

    def frames(self, data: bytes) -> Iterator[Image.Image]:
        image = Image.open(io.BytesIO(data))
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()
            yield image

    def test_in_and_out(self) -> None:
        for kind in ("GIF", "WEBP"):
            data = self.source(kind, loop=0)
            for fmt in ("gif", "webp"):
                with self.subTest(source=kind, fmt=fmt):
                    made = make(data, f"w=20&fmt={fmt}")
                    self.assertEqual((made.width, made.height, made.frames), (20, 15, 3))
                    frames = [
                        (f.convert("RGB").getpixel((10, 7)), f.info["duration"], f.size)
                        for f in self.frames(made.data)
                    ]
                    self.assertEqual([d for _, d, _ in frames], [100, 250, 400])
                    self.assertEqual({size for _, _, size in frames}, {(20, 15)})
                    for (pixel, _, _), channel in zip(frames, range(3), strict=True):
                        assert isinstance(pixel, tuple)
                        self.assertEqual(max(range(3), key=pixel.__getitem__), channel)
                    self.assertEqual(opened(made.data).info["loop"], 0)

    def test_a_gif_counts_in_hundredths(self) -> None:
        self.assertEqual(hundredths([33] * 6), [30, 40, 30, 30, 40, 30])
        self.assertEqual(hundredths([16] * 4), [20] * 4)  # 10 would be shown for 100
        self.assertEqual(hundredths([10, 0, 20, 1000, 65_000]), [10, 0, 20, 1000, 65_000])
        frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "lime", "blue")]
        data = saved(
            frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=[33, 33, 34]
        )
        made = make(data, "fmt=gif").data
        self.assertEqual([f.info["duration"] for f in self.frames(made)], [30, 40, 30])

    def test_half_transparent_in_a_still_gif(self) -> None:
        picture = Image.new("RGBA", (30, 20), (200, 0, 0, 255))
        picture.paste((0, 0, 0, 60), (10, 0, 20, 20))
        picture.paste((0, 200, 0, 190), (20, 0, 30, 20))
        image = opened(make(saved(picture, "PNG"), "fmt=gif").data).convert("RGBA")
        self.assertEqual(
            [image.getpixel((x, 9)) for x in (5, 15, 25)],
            [(200, 0, 0, 255), (0, 0, 0, 0), (0, 200, 0, 255)],
        )

    def test_a_still_format_takes_the_first_frame(self) -> None:
        for fmt in ("jpeg", "png", "avif"):
            made = make(self.source("GIF"), f"fmt={fmt}")
            self.assertEqual(made.frames, 1)
            pixel = opened(made.data).convert("RGB").getpixel((9, 9))
            assert isinstance(pixel, tuple)
            self.assertGreater(pixel[0], 200)

    def test_a_gif_that_plays_once(self) -> None:
        self.assertNotIn("loop", opened(make(self.source("GIF")).data).info)
        self.assertEqual(opened(make(self.source("GIF"), "fmt=webp").data).info["loop"], 1)
        once = make(self.source("WEBP", loop=1), "fmt=gif").data
        self.assertNotIn("loop", opened(once).info)

    def test_an_animation_that_plays_so_many_times(self) -> None:
        # A GIF's number is that of the repetitions, WebP's that of all.
        for again, times in ((0, 0), (3, 4), (65_534, 65_535)):
            for kind, loop in (("GIF", again), ("WEBP", times)):
                data = self.source(kind, loop=loop)
                for fmt, expected in (("gif", again), ("webp", times)):
                    found = opened(make(data, f"fmt={fmt}").data).info["loop"]
                    self.assertEqual(found, expected, (kind, loop, fmt))

    def test_transparent_frames_do_not_pile_up(self) -> None:
        frames = []
        for number in range(3):
            frame = Image.new("RGBA", (60, 20))
            frame.paste((255, 0, 0, 255), (20 * number, 0, 20 * number + 20, 20))
            frames.append(frame)
        data = saved(
            frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50, disposal=2
        )
        for fmt in ("gif", "webp"):
            last = [f.convert("RGBA") for f in self.frames(make(data, f"w=30&fmt={fmt}").data)][-1]
            self.assertEqual(last.getpixel((5, 5))[3], 0, fmt)  # type: ignore[index]
            self.assertEqual(last.getpixel((25, 5))[3], 255, fmt)  # type: ignore[index]

    def shown(self, data: bytes, each: int) -> list[Image.Image]:
        """What is to be seen after each so many milliseconds."""
        shown = []
        for frame in self.frames(data):
            shown += [frame.convert("RGBA")] * (frame.info["duration"] // each)
        return shown

    def test_half_transparent_frames(self) -> None:
        """As they are in WebP, one or the other in GIF; in all colours and as grey."""
        frames = []
        for number in range(6):
            frame = Image.new("RGBA", (48, 40), (0, 255, 0, 100 if number else 160))
            for place in range(6):
                colour = (0, 210, 255, 255) if place == number else (88, 124, 156, 255)
                left, top = 4 + place % 3 * 14, 4 + place // 3 * 18
                frame.paste(colour, (left, top, left + 10, top + 12))
            frames.append(frame)
        data = saved(
            frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=50,
            lossless=True, exact=True,
        )  # fmt: skip
        for query in ("fmt=webp", "fmt=webp&tone=gray", "fmt=gif", "fmt=gif&tone=gray"):
            made = self.shown(make(data, query).data, 50)
            self.assertEqual(len(made), len(frames), query)
            for number, (frame, result) in enumerate(zip(frames, made, strict=True)):
                alpha = frame.getchannel("A")
                if "gif" in query:
                    alpha = alpha.point([0] * 128 + [255] * 128)
                off = ImageChops.difference(alpha, result.getchannel("A")).getextrema()[1]
                self.assertEqual(off, 0, (query, number))

    def test_grey_frames(self) -> None:
        frames = [Image.new("RGB", (60, 40), "white")]
        for number in range(3):
            frames.append(frames[-1].copy())
            frames[-1].paste(gradient(30, 20), (10 * number, 5 * number))
        data = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
        for query in ("fmt=gif&tone=gray", "fmt=gif&tone=gray&bg=ffffff", "fmt=webp&tone=gray"):
            for frame, result in zip(frames, self.frames(make(data, query).data), strict=True):
                off = ImageChops.difference(frame.convert("L"), result.convert("L"))
                self.assertLess(ImageStat.Stat(off).mean[0], 4, query)


class Trimming(SynchronousTestCase):
    """The box around what all frames have; the border's colour is the first one's."""

    def setUp(self) -> None:
        #: Frames that have been decoded.
        self.decoded = 0
        self.patch(pipeline, "decode", self.counting(pipeline.decode))

    def counting(
        self, decode: Callable[[Image.Image, Plan], Image.Image]
    ) -> Callable[[Image.Image, Plan], Image.Image]:
        def counted(image: Image.Image, plan: Plan) -> Image.Image:
            self.decoded += 1
            return decode(image, plan)

        return counted

    def moving(self, kind: str, *boxes: tuple[int, int, int, int], **options: object) -> bytes:
        """White frames of 60 x 40 with a gradient at each of ``boxes``; none at empty ones."""
        if kind == "WEBP":
            options |= {"lossless": True}
        frames = []
        for number, box in enumerate(boxes):
            frames.append(Image.new("RGB", (60, 40), "white"))
            frames[-1].putpixel((59, 39), (255, 255, 255 - number))  # none is like another
            size = box[2] - box[0], box[3] - box[1]
            if all(size):
                frames[-1].paste(Image.new("RGB", size, (40 * number, 0, 90)), box)
        return saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)

    def frames(self, data: bytes) -> list[Image.Image]:
        image, found = Image.open(io.BytesIO(data)), []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            found.append(image.convert("RGB"))
        return found

    def test_what_wanders(self) -> None:
        boxes = (5, 20, 15, 30), (30, 8, 40, 18), (20, 25, 44, 27)
        for kind in ("GIF", "WEBP"):
            for disposal in (0, 1, 2, 3) if kind == "GIF" else (None,):
                with self.subTest(kind=kind, disposal=disposal):
                    more = {} if disposal is None else {"disposal": disposal}
                    data = self.moving(kind, *boxes, duration=[100, 250, 400], loop=2, **more)
                    made = make(data, "trim=9&fmt=webp&lossless=1")
                    self.assertEqual((made.width, made.height, made.frames), (39, 22, 3))
                    whole = self.frames(make(data, "fmt=webp&lossless=1").data)
                    for before, after in zip(whole, self.frames(made.data), strict=True):
                        self.assertEqual(before.crop((5, 8, 44, 30)).tobytes(), after.tobytes())
                    self.assertEqual(opened(made.data).info["loop"], 3 if kind == "GIF" else 2)

    def test_crop_and_size_count_from_what_is_left(self) -> None:
        data = self.moving("GIF", (5, 20, 15, 30), (30, 8, 40, 18))
        made = make(data, "trim=9&crop=25,0,10,10&w=5")
        self.assertEqual((made.width, made.height, made.frames), (5, 5, 2))
        red, _, blue = self.frames(made.data)[1].getpixel((2, 2))  # type: ignore[misc]
        self.assertLess(max(abs(red - 40), abs(blue - 90)), 12)

    def test_a_change_of_the_whole_frame(self) -> None:
        boxes = (5, 5, 9, 9), (0, 0, 60, 40), (7, 7, 8, 8), (7, 7, 9, 9)
        for kind in ("GIF", "WEBP"):
            data = self.moving(kind, *boxes, duration=[50, 60, 70, 80])
            whole = make(data)
            self.decoded = 0
            made = make(data, "trim=9")
            self.assertEqual(made.data, whole.data)
            self.assertEqual(self.decoded, 4 + 1, "there is no more to find after the second")

    def test_frames_without_content(self) -> None:
        nothing = (0, 0, 0, 0)
        for kind in ("GIF", "WEBP"):
            data = self.moving(kind, nothing, nothing, nothing)
            self.assertEqual(make(data, "trim=9").data, make(data).data)
            for boxes in ((nothing, (5, 6, 25, 36), nothing), ((5, 6, 25, 36), nothing)):
                made = make(self.moving(kind, *boxes), "trim=9")
                self.assertEqual((made.width, made.height, made.frames), (20, 30, len(boxes)))

    def test_transparent_borders(self) -> None:
        frames = []
        for number in range(3):
            frames.append(Image.new("RGBA", (50, 20)))
            frames[-1].paste((200, 0, 0, 255), (5 + 10 * number, 4, 12 + 10 * number, 15))
        for kind, options in (("GIF", {"disposal": 2}), ("WEBP", {"lossless": True})):
            data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
            made = make(data, "trim=0")
            self.assertEqual((made.width, made.height, made.frames), (27, 11, 3), kind)

    def test_frames_with_offsets(self) -> None:
        for disposal in (0, 1, 2, 3):
            data = gif_of_dots(20, 10, (3, 4), (10, 6), (7, 1), disposal=disposal)
            made = make(data, "trim=9")
            self.assertEqual((made.width, made.height, made.frames), (8, 6, 4))

    def test_a_frame_beyond_the_picture(self) -> None:
        made = make(gif_of_dots(20, 10, (3, 4), (10, 6), (50, 2), (4, 30)), "trim=9")
        self.assertEqual((made.width, made.height, made.frames), (8, 3, 5))

    def test_stored_turned(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        data = self.moving("WEBP", (5, 20, 15, 30), (30, 8, 40, 18), exif=exif)
        made = make(data, "trim=9&lossless=1")
        self.assertEqual((made.width, made.height, made.frames), (22, 35, 2))

    def test_of_a_still_the_first_frame_counts(self) -> None:
        data = self.moving("GIF", (5, 20, 15, 30), (30, 8, 40, 18))
        for fmt in ("jpeg", "png"):
            self.decoded = 0
            made = make(data, f"trim=9&fmt={fmt}")
            self.assertEqual((made.width, made.height, made.frames), (10, 10, 1))
            self.assertEqual(self.decoded, 1)

    def test_the_deadline_holds_while_frames_are_looked_at(self) -> None:
        data = self.moving("WEBP", *[(number, 5, 30, 30) for number in range(1, 9)])
        self.assertRaises(
            DeadlineExceeded, make, data, "trim=9",
            limits=Limits(deadline=3), clock=lambda: float(self.decoded),
        )  # fmt: skip
        self.assertEqual(self.decoded, 4)
