"""Decoded pictures kept for the next size: the same bytes, bounded memory, no stale ones."""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path

from attrs import evolve
from PIL import Image, ImageCms
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image.disk import DiskStore
from imagefarm.image.formats import Offer
from imagefarm.image.intermediates import Intermediates, Key
from imagefarm.image.job import Job, Rendered, read_answer
from imagefarm.image.limits import Limits
from imagefarm.image.query import parse_query
from imagefarm.image.source import Identity
from imagefarm.image.worker import answer, intermediates
from tests.support.similarity import ssim

from .pictures import corners, gradient, opened, saved

QUERIES = (
    "w=50", "w=40&fmt=webp", "w=30&h=30&fit=cover&g=smart", "", "blur=2&radius=5", "fmt=png",
    "trim=3", "rotate=90&w=44", "keep=icc,exif", "w=50&bg=ff0000", "tone=gray", "fmt=avif",
)  # fmt: skip


class Rendering(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.root.mkdir()
        self.store = Intermediates(1 << 20)

    def make(self, query: str, store: Intermediates | None, limits: Limits | None = None) -> bytes:
        job = Job(os.fsencode(self.root), parse_query(b"src=a&" + query.encode()), Offer())
        made = read_answer(answer(job, limits or Limits(), time.monotonic, store))
        assert isinstance(made, Rendered), made
        return made.data

    def test_the_same_bytes_with_and_without(self) -> None:
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        clear = gradient(200, 100).convert("RGBA")
        clear.putalpha(Image.linear_gradient("L").resize((200, 100)))
        for data in (
            saved(gradient(200, 100), "JPEG", icc_profile=srgb), saved(clear, "PNG"),
            saved(gradient(200, 100).convert("P"), "PNG"), saved(clear, "WEBP", icc_profile=srgb),
            saved(corners().convert("CMYK"), "JPEG"),
            saved(corners(), "GIF", save_all=True, append_images=[gradient(64, 48)]),
        ):  # fmt: skip
            (self.root / "a").write_bytes(data)
            for query in QUERIES + QUERIES[::-1]:
                with self.subTest(query=query, head=data[:4]):
                    self.assertEqual(self.make(query, self.store), self.make(query, None))

    def test_the_same_bytes_from_disk(self) -> None:
        (self.root / "a").write_bytes(saved(gradient(200, 100), "JPEG"))
        limits = Limits(intermediates=0, intermediates_path=self.mktemp())
        for query in QUERIES:
            plain = self.make(query, None)
            self.assertEqual(self.make(query, intermediates(limits)), plain)
            self.assertEqual(self.make(query, intermediates(limits)), plain)

    def test_it_is_used(self) -> None:
        (self.root / "a").write_bytes(saved(gradient(200, 100), "JPEG"))
        self.make("w=36", self.store)
        (kept,) = self.store._pictures.values()
        kept.paste("red", (0, 0, *kept.size))
        image = opened(self.make("w=40&fmt=png", self.store))
        self.assertEqual(image.getpixel((20, 10)), (255, 0, 0))
        self.make("w=190", self.store)
        self.assertEqual(len(self.store), 2, "another factor is another picture")

    def test_once_for_all_sizes(self) -> None:
        (self.root / "a").write_bytes(saved(gradient(400, 200), "JPEG"))

        def make(query: str, derive: bool) -> Rendered:
            recipe = parse_query(b"src=a&" + query.encode())
            job = Job(os.fsencode(self.root), recipe, Offer(), derive=derive)
            made = read_answer(answer(job, Limits(), time.monotonic, self.store))
            assert isinstance(made, Rendered), made
            return made

        self.assertEqual(make("w=300", True).derived, 0, "there is nothing to take yet")
        self.assertEqual(make("w=30", False).derived, 0, "it was not asked for")
        self.assertEqual(len(self.store), 2)
        self.assertEqual(make("w=30&fmt=png", True).derived, 0, "its own is there")
        small = make("w=130&fmt=png", True)
        self.assertEqual((small.derived, small.width, small.height), (1, 130, 65))
        self.assertEqual(len(self.store), 2)
        plain = opened(self.make("w=130&fmt=png", None))
        self.assertGreater(ssim(plain, opened(small.data)), 0.99)

    def test_a_changed_source_is_decoded_anew(self) -> None:
        (self.root / "a").write_bytes(saved(Image.new("RGB", (90, 60), "red"), "PNG"))
        self.make("w=9", self.store)
        (self.root / "a").write_bytes(saved(Image.new("RGB", (90, 60), "blue"), "PNG"))
        os.utime(self.root / "a", ns=(1, 1))
        self.assertEqual(opened(self.make("w=9", self.store)).getpixel((3, 3)), (0, 0, 255))

    def test_it_goes_where_memory_is_short(self) -> None:
        (self.root / "a").write_bytes(saved(gradient(200, 100), "PNG"))
        self.make("w=9", self.store)
        self.assertEqual(len(self.store), 1)
        self.make("w=9", self.store, Limits(memory=140_000))
        self.assertLessEqual(self.store.bytes, 80_000)


class Disk(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())

    def store(self, limit: int = 1 << 20) -> DiskStore:
        return DiskStore(self.directory, limit)

    def test_there_and_back(self) -> None:
        for mode in ("L", "LA", "RGB", "RGBA", "CMYK"):
            for icc in (b"", b"profile\n{}"):
                picture = gradient(30, 20).convert("L" if mode == "LA" else "RGB").convert(mode)
                picture.info = {"icc_profile": icc} if icc else {}
                self.store().put("a", picture)
                found = self.store().get("a")
                assert found is not None
                self.assertEqual((found.mode, found.size), (mode, (30, 20)))
                self.assertEqual(found.tobytes(), picture.tobytes())
                self.assertEqual(found.info, picture.info)
        self.assertIsNone(self.store().get("b"))
        self.assertEqual(self.directory.stat().st_mode & 0o777, 0o700)

    def test_what_is_not_whole_is_deleted(self) -> None:
        store = self.store()
        store.put("a", gradient(30, 20))
        (path,) = self.directory.iterdir()
        good = path.read_bytes()
        for bad in (
            b"", b"{}", good[:-1], good + b"x", b"x" + good, b"[]\n", b"1\n", b"\xff\n",
            good.replace(b'"RGB"', b'"XYZ"'), good.replace(b'"w": 30', b'"w": -1'),
            good.replace(b'"icc": 0', b'"icc": -9'), b"x" * 999,
        ):  # fmt: skip
            path.write_bytes(bad)
            self.assertIsNone(store.get("a"), bad[:60])
            self.assertFalse(path.exists())

    def test_bounded(self) -> None:
        picture = Image.new("L", (100, 100))
        store = self.store(100_000)
        store.put("large", Image.new("L", (1000, 100)))
        self.assertEqual(list(self.directory.iterdir()), [])
        for number in range(30):
            store.put(str(number), picture)
            for age, path in enumerate(sorted(self.directory.iterdir())):
                os.utime(path, (age, age))
            store.get("0")
            sizes = sum(path.stat().st_size for path in self.directory.iterdir())
            self.assertLessEqual(sizes, 111_000)
        self.assertIsNotNone(store.get("0"), "used each time")

    def test_no_directory(self) -> None:
        self.patch(sys, "stderr", io.StringIO())
        self.directory.write_bytes(b"a file")
        store = self.store()
        store.put("a", gradient(30, 20))
        self.assertIsNone(store.get("a"))

    def test_behind_the_memory(self) -> None:
        key = Key(b"/r", b"/a", Identity(1, 2), 1)
        Intermediates(1 << 20, self.store()).put(key, gradient(30, 20))
        second = Intermediates(1 << 20, self.store())
        found = second.get(key)
        assert found is not None
        self.assertEqual(found.tobytes(), gradient(30, 20).tobytes())
        self.assertEqual(len(second), 1)
        self.assertIsNone(second.get(evolve(key, source=Identity(1, 3))))


class Store(SynchronousTestCase):
    def key(self, name: str) -> Key:
        return Key(b"/r", name.encode(), Identity(1, 2), 1)

    def test_bounded(self) -> None:
        store = Intermediates(1000)
        picture = Image.new("RGB", (10, 10))
        for name in "abc":
            store.put(self.key(name), picture)
            store.get(self.key("a"))
        self.assertEqual(repr(store), "<Intermediates 2 pictures, 800 of 1000 bytes>")
        self.assertIsNone(store.get(self.key("b")), "used the longest time ago")
        store.put(self.key("d"), Image.new("L", (100, 100)))
        self.assertIsNone(store.get(self.key("d")), "more than half of the store")
        store.clear()
        self.assertEqual((len(store), store.bytes), (0, 0))
        none = Intermediates(0)
        none.put(self.key("a"), picture)
        self.assertEqual(len(none), 0)
