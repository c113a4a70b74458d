"""Plans: what is estimated, and what is refused before a pixel is decoded."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image.errors import OutsidePicture, TooLarge
from imagefarm.image.formats import Offer
from imagefarm.image.limits import Limits
from imagefarm.image.plan import estimate, make_plan
from imagefarm.image.probe import Header
from imagefarm.image.query import parse_query

LIMITS = Limits()


def seconds(header: Header, query: str, limits: Limits = LIMITS) -> float:
    recipe = parse_query(b"src=x&" + query.encode())
    return estimate(make_plan(header, recipe, Offer(), limits), limits)


class Estimates(SynchronousTestCase):
    def test_thumbnails_are_cheap(self) -> None:
        for header in (
            Header("JPEG", 2725, 2225), Header("JPEG", 8000, 6000), Header("PNG", 1024, 768),
            Header("WEBP", 1024, 768), Header("GIF", 100, 100, frames=50),
        ):  # fmt: skip
            self.assertLess(seconds(header, "w=320"), LIMITS.expensive, header)
        self.assertLess(seconds(Header("JPEG", 2725, 2225), "w=1600&fmt=avif"), LIMITS.expensive)

    def test_what_is_expensive(self) -> None:
        for header, query in [
            (Header("AVIF", 8000, 6000), "w=320"), (Header("JPEG", 5000, 4000), "fmt=avif"),
            (Header("GIF", 500, 500, frames=300), "w=200"), (Header("PNG", 8000, 8000), "w=10"),
            (Header("JPEG", 10, 10), "w=8192&enlarge=1&h=8192&fit=fill&fmt=webp"),
        ]:  # fmt: skip
            self.assertGreater(seconds(header, query), LIMITS.expensive, (header, query))

    def test_more_work_is_more(self) -> None:
        header = Header("JPEG", 2000, 2000)
        self.assertLess(seconds(header, "w=100"), seconds(header, "w=200"))
        self.assertLess(seconds(header, "w=100"), seconds(header, "w=100&fmt=avif"))
        self.assertLess(seconds(header, "w=100"), seconds(header, "w=100&max_bytes=900"))
        still = Header("WEBP", 90, 90)
        moving = Header("WEBP", 90, 90, frames=3)
        self.assertLess(seconds(still, ""), seconds(moving, ""))

    def test_trim_looks_at_all_frames_of_an_animation(self) -> None:
        moving = Header("WEBP", 500, 500, frames=60)
        self.assertGreater(seconds(moving, "w=9&trim=5"), 1.9 * seconds(moving, "w=9"))
        self.assertEqual(seconds(moving, "w=9&trim=5&fmt=png"), seconds(moving, "w=9&fmt=png"))
        still = Header("WEBP", 500, 500)
        self.assertEqual(seconds(still, "w=9&trim=5"), seconds(still, "w=9"))


class Refusals(SynchronousTestCase):
    def test_a_result_beyond_the_limits(self) -> None:
        narrow = Header("PNG", 1, 1000)
        self.assertRaises(TooLarge, seconds, narrow, "w=100&enlarge=1")
        self.assertRaises(OutsidePicture, seconds, narrow, "crop=1,0,1,1")

    def test_an_animation_enlarged_beyond_the_limits(self) -> None:
        moving = Header("GIF", 100, 100, frames=100)
        error = self.assertRaises(TooLarge, seconds, moving, "w=2000&enlarge=1")
        self.assertEqual(error.reason, "the result's frames have more than 100000000 pixels")
