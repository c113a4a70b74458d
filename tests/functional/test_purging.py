"""Thumbnails follow their originals, and one call drops all of one, in real processes."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from PIL import Image

from tests.functional.test_tools import run
from tests.support import rawhttp
from tests.support.farm import Prefix
from tests.support.processes import wait_until
from tests.support.stages import StagedCase

TOKEN = "0123456789abcdef"


def draw(path: Path, colour: str) -> None:
    """A picture, put into place whole."""
    Image.new("RGB", (40, 30), colour).save(path.with_suffix(".new"), "PNG")
    path.with_suffix(".new").rename(path)


class PurgingTests(StagedCase):
    def setUp(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix="imagefarm-purging-"))
        self.addCleanup(shutil.rmtree, directory, True)
        self.prefix = Prefix(directory)
        self.prefix.images.mkdir()
        self.prefix.logs.mkdir(exist_ok=True)
        draw(self.prefix.images / "a b.png", "red")
        draw(self.prefix.images / "c.png", "green")
        token = self.prefix.write("token", TOKEN)
        os.chmod(token, 0o600)
        ports = self.prefix.ports
        (directory / "conf" / "purge.conf").write_text(
            f"server {{ listen 127.0.0.1:{ports.slave1};"
            f" location /purge {{ cache_api token_file={token}; }} }}"
        )
        self.prefix.edit("master.conf", ("client_max_body_size  100m;", "include purge.conf;"))
        self.prefix.edit("resize.conf", ("200 302 1m", "200 302 1h"))
        resizer = self.prefix.start("resizer", ports=[ports.fastcgi])
        self.addCleanup(resizer.stop)
        master = self.prefix.start("master", ports=[ports.http, ports.slave1])
        self.addCleanup(master.stop)
        resizer.started()
        master.started()

    def get(self, name: str, width: int) -> tuple[str, bytes]:
        answer = self.prefix.get(f"/resize?src=/{name}&w={width}&fmt=png")
        self.assertEqual(answer.status, 200)
        return str(answer.header("x-cache-status")), answer.body

    def settled(self, name: str, width: int) -> bytes:
        """The body of a hit. An original that is seconds old is looked at again."""
        wait_until(lambda: self.get(name, width)[0] == "HIT", what="hit")
        return self.get(name, width)[1]

    def purge(self, args: str, token: str = TOKEN) -> rawhttp.Answer:
        return self.prefix.get(
            f"/purge?{args}", f"Authorization: Bearer {token}", method="POST",
            port=self.prefix.ports.slave1,
        )  # fmt: skip

    def test_an_original_s_thumbnails(self) -> None:
        for width in (10, 20, 30):
            self.settled("a%20b.png", width)
        self.settled("c.png", 10)
        self.assertEqual(self.purge("source=/a%20b.png", "x" * 16).status, 401)
        answer = self.purge("source=/a%20b.png")
        self.assertEqual((answer.status, json.loads(answer.body)["purged"]), (200, 3))
        self.assertEqual(self.get("a%20b.png", 10)[0], "MISS")
        self.assertEqual(self.get("c.png", 10)[0], "HIT")
        answer = self.purge("source=/c.png&mode=soft&zone=thumbnails")
        self.assertEqual(json.loads(answer.body)["purged"], 1)
        self.assertEqual(self.get("c.png", 10)[0], "STALE")
        wait_until(lambda: self.get("c.png", 10)[0] == "HIT", what="refresh")

    def test_by_command(self) -> None:
        ports, given = self.prefix.ports, str(self.prefix.conf("master.conf"))
        options = ("purge", "-c", given, "-p", str(self.prefix.directory))
        for width in (10, 20):
            self.settled("a%20b.png", width)
        self.settled("c.png", 10)
        url = f"http://localhost:{ports.http}/resize?src=/a%20b.png&w=10&fmt=png"
        done = run(*options, url)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        told = json.loads(done.stdout)
        self.assertEqual((told["purged"], told["mode"]), (1, "hard"))
        self.assertEqual(self.get("a%20b.png", 10)[0], "MISS")
        self.assertEqual(self.get("a%20b.png", 20)[0], "HIT")
        done = run(
            *options, "--soft", "-z", "thumbnails", "--source", "/c.png", "--source", "/\udcff"
        )
        counts = [json.loads(line)["purged"] for line in done.stdout.splitlines()]
        self.assertEqual((done.returncode, counts), (0, [1, 0]))
        self.assertEqual(self.get("c.png", 10)[0], "STALE")
        api = f"http://127.0.0.1:{ports.slave1}/purge"
        token = self.prefix.conf("token")
        done = run("purge", "-u", api, "-t", str(token), "--prefix", "http")
        self.assertEqual((done.returncode, json.loads(done.stdout)["purged"]), (0, None))
        self.assertEqual(self.get("a%20b.png", 20)[0], "MISS")
        for words, why in (
            (("-u", api, "--key", "k"), "401 "),
            ((*options[1:], "-z", "none", "--key", "k"), "404 zone not found"),
            (("-u", f"http://127.0.0.1:{ports.http}/none", "--key", "k"), "this is no cache_api"),
            (("-u", "http://unix:/nonexistent:/purge", "--key", "k"), "No such file"),
        ):
            done = run("purge", *words)
            self.assertEqual((done.returncode, done.stdout), (1, ""), words)
            self.assertIn(why, done.stderr)

    def test_another_original(self) -> None:
        before = self.settled("c.png", 10)
        draw(self.prefix.images / "c.png", "blue")
        status, body = self.get("c.png", 10)
        self.assertEqual(status, "EXPIRED")
        self.assertNotEqual(body, before)
        self.assertEqual(self.settled("c.png", 10), body)
