"""Animations in and out, and what a GIF can hold of a picture."""

from __future__ import annotations

import io
from collections.abc import Iterator

from PIL import Image, ImageChops, ImageStat
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image.frames import hundredths

from .pictures import gradient, opened, saved
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
