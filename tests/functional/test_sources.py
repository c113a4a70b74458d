"""Sources that are broken, hostile or no images, through master and resizer."""

from __future__ import annotations

import json
import os
import signal
import struct
import threading
import zlib
from pathlib import Path

from PIL import Image

from tests.image.pictures import opened
from tests.support import farm
from tests.support.farmsite import noise
from tests.support.processes import descendants, wait_until
from tests.support.stages import StagedCase


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk."""
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def png(width: int, height: int, data: bytes, extra: bytes = b"") -> bytes:
    """An 8 bit grey PNG with ``data`` for its compressed pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    start = b"\x89PNG\r\n\x1a\n" + header + extra
    return start + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def gif_bomb(frames: int) -> bytes:
    """Many frames of a large canvas, each a few bytes."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 4000, 4000, 0x80, 0, 0) + bytes(6)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return screen + frame * frames + b";"


class Sources(StagedCase):
    def setUp(self) -> None:
        self.prefix = farm.parts().prefix
        self.images = self.prefix.images

    def hostile(self) -> dict[str, bytes]:
        photo = (self.images / "photos" / "landscape.jpg").read_bytes()
        testcard = (self.images / "graphics" / "testcard.png").read_bytes()
        webp = (self.images / "photos" / "dawn.webp").read_bytes()
        avif = (self.images / "photos" / "dusk.avif").read_bytes()
        text_bomb = chunk(b"zTXt", b"c\0\0" + zlib.compress(bytes(40_000_000), 9))
        return {
            "zero.jpg": b"",
            "one.jpg": b"\xff",
            "text.jpg": b"this is no image\n" * 50,
            "page.jpg": b"<html><script>alert(1)</script></html>",
            "noise.jpg": noise(20_000, 3),
            "head-only.jpg": photo[:20],
            "cut.jpg": photo[: len(photo) // 2],
            "cut.png": testcard[: len(testcard) // 2],
            "cut.webp": webp[: len(webp) // 2],
            "cut.avif": avif[: len(avif) // 2],
            "rotten.png": testcard[:60] + noise(2_000, 4) + testcard[2_060:],
            "bomb.png": png(60_000, 60_000, zlib.compress(bytes(100_000))),
            "huge.png": png(2**31 - 1, 2**31 - 1, b""),
            "empty.png": png(0, 0, b""),
            "text-bomb.png": png(8, 8, b"junk", text_bomb),
            "bomb.gif": gif_bomb(30_000),
            "script.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>',
            "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        }

    def test_refused_and_not_kept(self) -> None:
        """A 4xx with one line that says why; the next request is not a hit; nobody dies."""
        place = self.images / "hostile"
        place.mkdir(exist_ok=True)
        files = self.hostile()
        for name, content in files.items():
            (place / name).write_bytes(content)
        parts = farm.parts()
        before = parts.pids(), self._image_workers()
        for name in files:
            target = f"/resize?src=/hostile/{name}&w=50"
            for _ in range(2):
                answer = self.prefix.get(target)
                self.assertIn(answer.status, (413, 415, 422), f"{name}: {answer.body!r}")
                self.assertTrue(str(answer.header("content-type")).startswith("text/plain"))
                self.assertRegex(answer.body, rb"\A[ -~]{5,200}\n\Z")
                self.assertNotIn(b"/", answer.body.replace(b"image/", b""))
                self.assertEqual(answer.header("cache-status"), "imagefarm; fwd=miss")
        self.assertEqual((parts.pids(), self._image_workers()), before)
        for daemon in parts.running.values():
            self.assertIsNone(daemon.process.poll())
        self.assertEqual(self.prefix.get("/resize?src=/photos/grey.jpg&w=51").status, 200)

    def _image_workers(self) -> list[int]:
        return descendants(farm.parts().running["resizer"].pid)

    def test_what_is_no_file_of_the_farm(self) -> None:
        """Neither read nor waited for, and what the file system has is not told."""
        place = self.images / "odd"
        place.mkdir()
        (place / "dir.jpg").mkdir()
        os.mkfifo(place / "fifo.jpg")
        (place / "out.jpg").symlink_to("/etc/passwd")
        (place / "etc").symlink_to("/etc")
        (place / "loop.jpg").symlink_to("loop.jpg")
        (place / "nowhere.jpg").symlink_to("none.jpg")
        missing = b"there is no such source\n"
        outside = b"the source lies outside the image root\n"
        for name, status, line in (
            ("dir.jpg", 404, missing),
            ("fifo.jpg", 404, missing),
            ("out.jpg", 403, outside),
            ("etc/passwd", 403, outside),
            ("loop.jpg", 404, missing),
            ("nowhere.jpg", 404, missing),
            ("none.jpg", 404, missing),
            (f"{'long' * 80}.jpg", 404, missing),
        ):
            answer = self.prefix.get(f"/resize?src=/odd/{name}&w=50")
            self.assertEqual((answer.status, answer.body), (status, line), name)
            mark = self.prefix.get(f"/resize?src=/photos/grey.jpg&w=50&wm=/odd/{name}")
            self.assertEqual((mark.status, mark.body), (status, b"watermark: " + line), name)

    def test_large_ones(self) -> None:
        """Whole pictures beyond the limits are refused by their headers; a long one is made."""
        place = self.images / "large"
        place.mkdir()
        Image.new("L", (20_000, 14_000)).save(place / "giant.jpg")
        Image.new("L", (65_536, 1)).save(place / "long.png")
        dot = Image.new("P", (8, 8))
        frames = [dot.copy() for _ in range(1000)]
        for number, frame in enumerate(frames):
            frame.putpixel((number % 8, number // 8 % 8), 1 + number % 255)
        frames[0].save(place / "movie.gif", save_all=True, append_images=frames[1:])
        for query, line in (
            ("giant.jpg&w=50", b"the source has more than 100000000 pixels\n"),
            ("movie.gif&w=5", b"the source has more than 500 frames\n"),
            ("movie.gif&w=5&fmt=jpeg", b"the source has more than 500 frames\n"),
            (
                "long.png",
                b"the result would be 65536 x 1 pixels, more than 8192 x 8192: give w or h\n",
            ),
        ):
            answer = self.prefix.get(f"/resize?src=/large/{query}")
            self.assertEqual((answer.status, answer.body), (413, line), query)
        small = self.prefix.get("/resize?src=/large/long.png&w=320")
        self.assertEqual(opened(small.body).size, (320, 1))

    def test_a_codec_that_dies(self) -> None:
        """It costs the request that it worked for; the next one has another process."""
        answers = []
        target = "/resize?src=/photos/landscape.jpg"

        def ask() -> None:
            answers.append(self.prefix.get(f"{target}&w=3000&enlarge=1&fmt=avif"))

        def used(pid: int) -> int:
            return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])

        def image_workers() -> list[int]:
            """When all of them are ready: to start takes time, too."""
            answer = self.prefix.get("/resizer", port=self.prefix.ports.dashboard)
            found = [one for one in json.loads(answer.body)["processes"] if one["role"] == "image"]
            return [one["pid"] for one in found] * all(one["state"] == "idle" for one in found)

        wait_until(image_workers, what="workers that wait")
        workers = {pid: used(pid) for pid in image_workers()}

        def at_work() -> list[int]:
            return [pid for pid, before in workers.items() if used(pid) > before + 10]

        asking = threading.Thread(target=ask)
        asking.start()
        # Killed while it works: a job that was not begun is done by another one.
        wait_until(lambda: bool(at_work()), what="the job under way")
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        asking.join()
        self.assertEqual(answers[0].status, 500)
        self.assertRegex(answers[0].body, rb"\A[ -~]{5,200}\n\Z")
        self.assertEqual(answers[0].header("cache-control"), "no-store")
        self.assertEqual(self.prefix.get(f"{target}&w=77").status, 200)
        self.assertFalse(set(workers) & set(self._image_workers()))

    def test_bad_recipes(self) -> None:
        """Parameters that make no sense: 400, naming the one that is wrong."""
        for query, word in (
            ("", b"src"),
            ("w=10", b"src"),
            ("src=/photos/grey.jpg&w=-1", b"w"),
            ("src=/photos/grey.jpg&w=0", b"w"),
            ("src=/photos/grey.jpg&w=1e9", b"w"),
            ("src=/photos/grey.jpg&w=NaN", b"w"),
            ("src=/photos/grey.jpg&w[]=9", b"w[]"),
            ("src=/photos/grey.jpg&w=10&dpr=inf", b"dpr"),
            ("src=/photos/grey.jpg&w=10&blur=nan", b"blur"),
            ("src=/photos/grey.jpg&w=10&g=nan,nan", b"g"),
            ("src=/photos/grey.jpg&crop=pct:nan,0,1,1", b"crop"),
            ("src=/photos/grey.jpg&crop=99999,0,9,9", b"crop"),
            ("src=/photos/grey.jpg&w=8000&dpr=10", b"dpr"),
            ("src=/photos/grey.jpg&fmt=avif&lossless=1", b"lossless"),
            ("src=/../etc/passwd&w=10", b"src"),
            ("src=/photos/grey.jpg&w=99999", b"w"),
            ("src=/photos/grey.jpg&w=10&fit=mangle", b"fit"),
            ("src=/photos/grey.jpg&w=10&q=101", b"q"),
            ("src=/photos/grey.jpg&w=10&fmt=exe", b"fmt"),
            ("src=/photos/grey.jpg&w=10&w=20", b"w"),
            ("src=/photos/grey.jpg&nonsense=1", b"nonsense"),
        ):
            answer = self.prefix.get(f"/resize?{query}")
            self.assertIn(answer.status, (400, 413), query)
            self.assertRegex(answer.body, rb"\A[ -~]+\n\Z")
            self.assertIn(word, answer.body, query)
            self.assertNotEqual(
                self.prefix.get(f"/resize?{query}").header("x-cache-status"), "HIT"
            )

    def test_repaired(self) -> None:
        """A source that was broken and is no more: seen at once, since errors are not kept."""
        path = self.images / "repaired.png"
        good = (self.images / "graphics" / "testcard.png").read_bytes()
        path.write_bytes(good[:3000])
        target = "/resize?src=/repaired.png&w=40"
        self.assertEqual(self.prefix.get(target).status, 422)
        path.write_bytes(good)
        self.assertEqual(self.prefix.get(target).status, 200)

    def test_all_samples(self) -> None:
        """Each kind of source, made into each format."""
        kinds = {
            "jpeg": b"\xff\xd8\xff", "png": b"\x89PNG", "gif": b"GIF8", "webp": b"RIFF",
            "avif": b"\0\0\0",
        }  # fmt: skip
        sources = [
            p for p in self.images.rglob("*.*")
            if p.parent.name in ("photos", "graphics", "motion")
        ]  # fmt: skip
        self.assertGreaterEqual(len(sources), 10)
        for i, path in enumerate(sorted(sources)):
            name, magic = sorted(kinds.items())[i % len(kinds)]
            source = path.relative_to(self.images)
            answer = self.prefix.get(f"/resize?src=/{source}&w=48&h=48&fit=cover&fmt={name}")
            self.assertEqual(answer.status, 200, (source, name, answer.body[:200]))
            self.assertTrue(answer.body.startswith(magic), (source, name))
            self.assertEqual(answer.header("content-type"), f"image/{name}")
