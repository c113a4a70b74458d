"""Pieces swap with the real ones: nginx and php-fpm take our places in a farm, and we theirs.

The configuration is that of the farm being replaced, with ports and paths rewritten, and with
connections to the slaves kept open.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from tests.support import farmsite, rawhttp, tools
from tests.support.processes import Daemon
from tests.support.processes import imagefarm as start_imagefarm
from tests.support.stages import Cleanup, StagedCase, shared

#: What the farm's own script did, with GD.
RESIZE = """<?php
$image = @imagecreatefromjpeg("IMAGES" . ($_GET["src"] ?? ""));
if (!$image) { http_response_code(404); exit("no such image"); }
$w = (int)$_GET["w"];
$h = (int)round($w * imagesy($image) / imagesx($image));
$small = imagecreatetruecolor($w, $h);
imagecopyresampled($small, $image, 0, 0, 0, 0, $w, $h, imagesx($image), imagesy($image));
header("Content-Type: image/jpeg");
imagejpeg($small, null, 85);
"""

RESIZER = "error_log resizer.log notice;\nresizer { listen 127.0.0.1:PORT; root IMAGES; }\n"

PASS = "proxy_redirect          off;"
KEPT = PASS + ' proxy_http_version 1.1; proxy_set_header Connection "";'

SIZE = (600, 400)
RED, BLUE = (200, 0, 0), (0, 0, 200)


class Farm:
    """A farm of both kinds, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.site = farmsite.FarmSite(directory, farmsite.Ports.free())
        self.images = self.site.directory / "images"
        text = self.site.master.read_text()
        for old, new in ((PASS, KEPT), ("SSLv2 SSLv3 TLSv1;", "TLSv1.2 TLSv1.3;")):
            assert old in text
            text = text.replace(old, new)
        self.site.master.write_text(text)
        # Red on the left, blue on the right: mirrored or cut, it would be noticed.
        picture = Image.new("RGB", SIZE, RED)
        picture.paste(BLUE, (SIZE[0] // 2, 0, *SIZE))
        picture.save(self.images / "photo.jpg", quality=95)
        self.resizer = self.start_resizer()
        self.others = [*self.start_slaves(), self.start_master()]

    def started(self) -> None:
        for daemon in (self.resizer, *self.others):
            daemon.started()

    def stop(self) -> None:
        for daemon in (*self.others, self.resizer):
            daemon.stop()

    def start_resizer(self) -> Daemon:
        raise NotImplementedError

    def start_slaves(self) -> list[Daemon]:
        raise NotImplementedError

    def start_master(self) -> Daemon:
        raise NotImplementedError

    def nginx(self, config: Path, *ports: int) -> Daemon:
        return farmsite.nginx(tools.nginx(), self.site.directory, config, list(ports))

    def imagefarm(self, role: str, config: Path, *ports: int) -> Daemon:
        words = ["--config", str(config), "--set", "worker_processes 1;"]
        return start_imagefarm(
            role, self.site.directory, *words, ports=ports, name=f"{config.stem}-{role}"
        )


class OurMaster(Farm):
    """Our master before two nginx slaves and php-fpm."""

    def start_resizer(self) -> Daemon:
        script = RESIZE.replace("IMAGES", str(self.images))
        (self.site.directory / "app" / "resize.php").write_text(script)
        directory = self.site.directory
        return farmsite.php_fpm(tools.php_fpm(), directory, self.site.ports.fastcgi, 2)

    def start_slaves(self) -> list[Daemon]:
        ports = self.site.ports
        one, two = self.site.slaves
        return [self.nginx(one, ports.slave1), self.nginx(two, ports.slave2)]

    def start_master(self) -> Daemon:
        ports = self.site.ports
        return self.imagefarm("master", self.site.master, ports.http, ports.https)


class OurSlaves(Farm):
    """nginx as the master before our two slaves and our resizer."""

    def start_resizer(self) -> Daemon:
        config = self.site.directory / "resizer.conf"
        text = RESIZER.replace("PORT", str(self.site.ports.fastcgi))
        config.write_text(text.replace("IMAGES", str(self.images)))
        return self.imagefarm("resizer", config, self.site.ports.fastcgi)

    def start_slaves(self) -> list[Daemon]:
        ports = self.site.ports
        one, two = self.site.slaves
        return [
            self.imagefarm("slave", one, ports.slave1),
            self.imagefarm("slave", two, ports.slave2),
        ]

    def start_master(self) -> Daemon:
        return self.nginx(self.site.master, self.site.ports.http, self.site.ports.https)


@shared
def running(cleanup: Cleanup, kind: type[Farm]) -> Farm:
    """The farm of that kind: started by the first test that wants it."""
    directory = Path(tempfile.mkdtemp(prefix="swaps-"))
    cleanup(shutil.rmtree, directory, True)
    directory.chmod(0o755)
    farm = kind(directory / "farm")
    cleanup(farm.stop)
    farm.started()
    return farm


class Swaps:
    """What is asked of either farm."""

    kind: type[Farm]
    addCleanup: Callable[..., None]
    assertEqual: Callable[..., Any]
    assertIn: Callable[..., Any]

    def setUp(self) -> None:
        tools.nginx()
        tools.php_fpm()
        self.farm = running(self.kind)
        self.site, self.images = self.farm.site, self.farm.images

    def without_resizer(self) -> None:
        """Stop it until the test is over."""

        def again() -> None:
            self.farm.resizer = self.farm.start_resizer().started()

        self.farm.resizer.stop()
        self.addCleanup(again)

    # What is asked.

    def get(
        self, target: str, *fields: str, method: str = "GET", tls: bool = False
    ) -> rawhttp.Answer:
        port = self.site.ports.https if tls else self.site.ports.http
        data = rawhttp.request(target, "Connection: close", *fields, method=method)
        answer = rawhttp.exchange(port, data, tls=tls)
        assert answer is not None
        return answer

    def check_picture(self, answer: rawhttp.Answer, size: tuple[int, int]) -> None:
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.header("content-type"), "image/jpeg")
        picture = Image.open(io.BytesIO(answer.body)).convert("RGB")
        self.assertEqual(picture.size, size)
        for x, colour in ((0.2, RED), (0.8, BLUE)):
            got: Any = picture.getpixel((int(size[0] * x), size[1] // 2))
            self.assertEqual(
                [abs(a - b) < 12 for a, b in zip(got, colour, strict=True)], [True] * 3
            )

    def test_files(self) -> None:
        """By way of the slaves, over connections that are used again and again."""
        for tls in (False, True):
            for name in ("a.jpg", "b.png", "big.jpg", "photo.jpg", "zero.jpg", "data.txt") * 3:
                answer = self.get(f"/{name}", tls=tls)
                expected = (200, (self.images / name).read_bytes())
                self.assertEqual((answer.status, answer.body), expected, name)

    def test_head_ranges_and_conditions(self) -> None:
        whole = (self.images / "a.jpg").read_bytes()
        head = self.get("/a.jpg", method="HEAD")
        length = head.header("content-length")
        self.assertEqual((head.status, length, head.body), (200, str(len(whole)), b""))
        part = self.get("/a.jpg", "Range: bytes=10-19")
        self.assertEqual((part.status, part.body), (206, whole[10:20]))
        self.assertEqual(part.header("content-range"), f"bytes 10-19/{len(whole)}")
        several = self.get("/a.jpg", "Range: bytes=0-1,-2")
        self.assertEqual(several.status, 206)
        self.assertIn("multipart/byteranges", several.header("content-type"))
        self.assertIn(b"\r\n\r\n" + whole[-2:] + b"\r\n--", several.body)
        self.assertEqual(self.get("/a.jpg", "Range: bytes=99999-").status, 416)
        tag = head.header("etag")
        same = self.get("/a.jpg", f"If-None-Match: {tag}")
        self.assertEqual((same.status, same.body), (304, b""))

    def test_error_pages(self) -> None:
        self.assertEqual(self.get("/missing.jpg").status, 404)
        self.assertEqual(self.get("/thumbnail/missing.jpg").status, 400)
        self.assertEqual(self.get("/thumbnail/ch1.jpg").status, 200)
        default = self.images / "theme/micro/common/img/player/profile_thmb_default.gif"
        answer = self.get("/upload/fe/profile/none.gif")
        self.assertEqual((answer.status, answer.body), (200, default.read_bytes()))
        self.without_resizer()
        self.assertIn(self.get("/resize.php?src=/photo.jpg&w=33").status, (502, 504))

    def test_resizing_and_the_cache(self) -> None:
        """The second answer comes from the cache: the resizer is gone by then."""
        target = "/resize.php?src=/photo.jpg&w=150"
        first = self.get(target)
        self.check_picture(first, (150, 100))
        self.check_picture(self.get("/resize.php?src=/photo.jpg&w=60"), (60, 40))
        self.assertEqual(self.get("/resize.php?src=/none.jpg&w=60").status, 404)
        self.without_resizer()
        again = self.get(target)
        self.check_picture(again, (150, 100))
        self.assertEqual(again.body, first.body)
        head = self.get(target, method="HEAD")
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertIn(self.get("/resize.php?src=/photo.jpg&w=61").status, (502, 504))


class OurMasterTests(Swaps, StagedCase):
    kind = OurMaster


class OurSlavesTests(Swaps, StagedCase):
    kind = OurSlaves
