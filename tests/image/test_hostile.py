"""Sources that are too much, or damaged: clean errors in bounded time."""

from __future__ import annotations

import io
import time

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image.errors import Broken, DeadlineExceeded, ImageError, TooLarge
from imagefarm.image.formats import Format
from imagefarm.image.limits import Limits
from imagefarm.image.probe import count_gif_frames

from .pictures import corners, gif_of, gradient, opened, png_claiming, saved
from .test_pipeline import make


class LimitsHold(SynchronousTestCase):
    def test_bytes(self) -> None:
        data = saved(corners(), "PNG")
        make(data, limits=Limits(max_source_bytes=len(data)))
        error = self.assertRaises(
            TooLarge, make, data, limits=Limits(max_source_bytes=len(data) - 1)
        )
        self.assertIn(f"larger than {len(data) - 1} bytes", error.reason)

    def test_pixels(self) -> None:
        data = saved(corners(64, 48), "PNG")
        make(data, limits=Limits(max_pixels=64 * 48))
        self.assertRaises(TooLarge, make, data, limits=Limits(max_pixels=64 * 48 - 1))

    def test_a_huge_header_costs_nothing(self) -> None:
        for size in ((65_535, 65_535), (2**31 - 1, 1), (20_000, 14_000)):
            started = time.monotonic()
            self.assertRaises(TooLarge, make, png_claiming(*size), "w=10")
            self.assertLess(time.monotonic() - started, 1.0)

    def test_frames(self) -> None:
        make(gif_of(20), limits=Limits(max_frames=20))
        for fmt in ("gif", "jpeg"):
            error = self.assertRaises(
                TooLarge, make, gif_of(21), f"fmt={fmt}", limits=Limits(max_frames=20)
            )
            self.assertEqual(error.reason, "the source has more than 20 frames")
        started = time.monotonic()
        self.assertRaises(TooLarge, make, gif_of(200_000))
        self.assertLess(time.monotonic() - started, 1.0)

    def test_all_frames_together(self) -> None:
        data = saved(corners(), "GIF", save_all=True, append_images=[gradient(64, 48)])
        total = 2 * 64 * 48
        make(data, limits=Limits(max_total_pixels=total))
        self.assertRaises(TooLarge, make, data, limits=Limits(max_total_pixels=total - 1))

    def test_memory(self) -> None:
        for kind, least in [
            ("JPEG2000", 20),
            ("AVIF", 12),
            ("WEBP", 16),
            ("JPEG", 10),
            ("BMP", 4),
        ]:
            data = saved(corners(100, 100), kind)
            make(data, "fmt=png", limits=Limits(memory=least * 10_000))
            limits = Limits(memory=least * 10_000 - 1)
            error = self.assertRaises(TooLarge, make, data, "fmt=png", limits=limits)
            self.assertEqual(
                error.reason, "the image needs more memory than a worker may use", kind
            )
        data = saved(corners(100, 100), "PNG")
        for query, least in (("fmt=avif", 33), ("fmt=avif&radius=9", 40)):
            memory = (64 << 20) + least * 10_000
            make(data, query, limits=Limits(memory=memory))
            self.assertRaises(TooLarge, make, data, query, limits=Limits(memory=memory - 1))

    def test_the_result(self) -> None:
        data = saved(corners(64, 48), "PNG")
        error = self.assertRaises(TooLarge, make, data, limits=Limits(max_width=63))
        self.assertEqual(
            error.reason, "the result would be 64 x 48 pixels, more than 63 x 8192: give w or h"
        )
        make(data, "w=63", limits=Limits(max_width=63))
        for fmt in Format:
            self.assertRaises(
                TooLarge, make, data, f"fmt={fmt.value}", limits=Limits(max_output_bytes=40)
            )

    def test_the_deadline_is_looked_at_after_each_step(self) -> None:
        times: list[float] = []

        def clock() -> float:
            times.append(len(times) * 1.0)
            return times[-1]

        data = saved(corners(), "PNG")
        make(data, "w=9", limits=Limits(deadline=100), clock=clock)
        steps = len(times)
        self.assertGreater(steps, 8)
        for enough in range(1, steps - 1):
            times.clear()
            error = self.assertRaises(
                DeadlineExceeded, make, data, "w=9", limits=Limits(deadline=enough), clock=clock
            )
            self.assertEqual(error.reason, f"the image took longer than {enough} s")
            self.assertEqual(len(times), enough + 2)

    def test_timings(self) -> None:
        names = [name for name, _ in make(saved(corners(), "PNG"), "w=9").timings]
        self.assertEqual(names, ["probe", "decode", "resize", "colour", "effects", "encode"])


class Damage(SynchronousTestCase):
    def test_truncated_anywhere(self) -> None:
        for kind in ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "TIFF", "BMP", "JPEG2000"):
            data = saved(gradient(90, 60), kind)
            for length in range(1, len(data), max(1, len(data) // 24)):
                with self.subTest(kind=kind, length=length):
                    self.outcome(data[:length])

    def test_flipped_bytes(self) -> None:
        for kind in ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "TIFF", "BMP", "JPEG2000"):
            data = saved(gradient(40, 30), kind)
            for position in range(0, min(len(data), 400), 9):
                with self.subTest(kind=kind, position=position):
                    damaged = bytearray(data)
                    damaged[position] ^= 0xFF
                    self.outcome(bytes(damaged))

    def outcome(self, data: bytes) -> None:
        """A picture, or an error of the client's."""
        try:
            opened(make(data, "w=20&fmt=png").data)
        except ImageError as error:
            self.assertIn(error.status, (413, 415, 422), error.reason)
            self.assertNotIn("/", error.reason)

    def test_what_is_said(self) -> None:
        data = saved(gradient(90, 60), "JPEG")
        error = self.assertRaises(Broken, make, data[:-100])
        self.assertEqual(error.reason, "the source is damaged and cannot be decoded")
        error = self.assertRaises(Broken, make, data[:20])
        self.assertEqual(error.reason, "the header of the JPEG image cannot be read")


class GifFrames(SynchronousTestCase):
    def test_count(self) -> None:
        for frames in (0, 1, 7):
            self.assertEqual(count_gif_frames(io.BytesIO(gif_of(frames)), 100), frames)
        self.assertEqual(count_gif_frames(io.BytesIO(gif_of(100)), 10), 11)
        moving = saved(corners(), "GIF", save_all=True, append_images=[gradient(64, 48)] * 1)
        self.assertEqual(count_gif_frames(io.BytesIO(moving), 100), 2)

    def test_any_truncation_ends(self) -> None:
        data = gif_of(3)
        counts = [count_gif_frames(io.BytesIO(data[:end]), 9) for end in range(len(data))]
        self.assertEqual(counts, sorted(counts))
        self.assertEqual(counts[-1], 3)
