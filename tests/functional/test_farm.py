"""``twistd -n imagefarm farm``: one command serves everything, and nothing is left of it."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

from tests.support import farm
from tests.support.processes import (
    Daemon,
    accepts,
    descendants,
    running,
    wait_until,
)
from tests.support.stages import StagedCase

LANDSCAPE = "/photos/landscape.jpg"
END_SECONDS = 10.0


class RunningFarm(StagedCase):
    """What a farm on an empty root does."""

    def setUp(self) -> None:
        self.prefix, self.daemon = farm.supervised()

    def test_samples(self) -> None:
        """Several formats and sizes were drawn into the empty root."""
        found = {path.suffix for path in self.prefix.images.rglob("*.*")}
        self.assertGreaterEqual(found, {".jpg", ".png", ".gif", ".webp", ".avif", ".html"})
        images = [p for p in self.prefix.images.rglob("*.*") if p.suffix != ".html"]
        self.assertGreaterEqual(len(images), 12)
        self.assertFalse([path for path in images if not path.stat().st_size])

    def test_announced_addresses(self) -> None:
        """Every URL that it prints works."""
        announced = re.findall(r"http://([^:/\s]+):(\d+)(\S+)", self.daemon.output.read_text())
        ports = self.prefix.ports
        self.assertEqual({int(port) for _, port, _ in announced}, {ports.http, ports.dashboard})
        kinds = []
        for host, port, target in announced:
            answer = self.prefix.get(target, host=f"{host}:{port}", port=int(port))
            self.assertEqual(answer.status, 200, target)
            kinds.append(str(answer.header("content-type")).partition(";")[0])
        expected = ["text/html", *["image/jpeg"] * 3, "text/html"]
        self.assertEqual(kinds, expected)

    def test_announced_stillshot(self) -> None:
        """The stillshot that it prints is one that the master itself serves."""
        urls = re.findall(r"http://([^:/\s]+):\d+/thumbnail/", self.daemon.output.read_text())
        self.assertEqual(urls, [farm.STILLSHOTS])

    def test_static_image(self) -> None:
        answer = self.prefix.get(LANDSCAPE)
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.header("content-type"), "image/jpeg")
        self.assertEqual(answer.header("cache-control"), "max-age=10")
        self.assertEqual(answer.body, (self.prefix.images / LANDSCAPE[1:]).read_bytes())

    def test_both_slaves_serve(self) -> None:
        """Round robin: each slave's access log gets its share."""
        for i in range(4):
            self.prefix.get(f"{LANDSCAPE}?share={i}")
        master = self.prefix.logs / "master_access.log"
        wait_until(lambda: "share=3" in master.read_text(), 30, "log lines")
        lines = [line for line in master.read_text().splitlines() if "share=" in line]
        for port in (self.prefix.ports.slave1, self.prefix.ports.slave2):
            self.assertEqual(sum(f" 127.0.0.1:{port} " in line for line in lines), 2, lines)

    def test_stillshot(self) -> None:
        """Served by the master from its own disk, five seconds old at most."""
        path = next((self.prefix.images / "thumbnail").iterdir())
        answer = self.prefix.get(f"/thumbnail/{path.name}", host=farm.STILLSHOTS)
        self.assertEqual((answer.status, answer.body), (200, path.read_bytes()))
        self.assertEqual(answer.header("cache-control"), "max-age=5")

    def test_missing_stillshot(self) -> None:
        """400 and not 404."""
        answer = self.prefix.get("/thumbnail/none.jpg", host=farm.STILLSHOTS)
        self.assertEqual(answer.status, 400)
        self.assertEqual(self.prefix.get("/other.jpg", host=farm.STILLSHOTS).status, 404)

    def test_thumbnail_and_cache(self) -> None:
        """Made once, then from the cache, and both headers say so."""
        target = f"/resize?src={LANDSCAPE}&w=123&fmt=png"
        first, second = self.prefix.get(target), self.prefix.get(target)
        self.assertEqual((first.status, second.status), (200, 200))
        self.assertIn("fwd=miss", str(first.header("cache-status")))
        self.assertIn("; hit", str(second.header("cache-status")))
        self.assertEqual(first.header("x-cache-status"), "MISS")
        self.assertEqual(second.header("x-cache-status"), "HIT")
        for answer in (first, second):
            self.assertIsNone(answer.header("x-imagefarm-source"))
        self.assertEqual(first.body, second.body)
        self.assertEqual(first.body[:8], b"\x89PNG\r\n\x1a\n")
        self.assertEqual(int.from_bytes(first.body[16:20], "big"), 123)

    def test_missing_file(self) -> None:
        answer = self.prefix.get("/none.jpg")
        self.assertEqual(answer.status, 404)
        self.assertIn(b"found", answer.body)

    def test_status(self) -> None:
        report = json.loads(self.prefix.get("/status").body)
        family = descendants(self.daemon.pid)
        self.assertIn(report["pid"], family)
        peers = [peer["server"] for peer in report["upstreams"]["slaves"]["peers"]]
        ports = self.prefix.ports
        self.assertEqual(peers, [f"127.0.0.1:{ports.slave1}", f"127.0.0.1:{ports.slave2}"])
        self.assertIn("thumbnails", report["caches"])

    def test_stub_status(self) -> None:
        """The form that nginx's monitoring plugins read."""
        answer = self.prefix.get("/nginx_status")
        self.assertRegex(
            answer.body.decode(),
            r"\AActive connections: \d+ \nserver accepts handled requests\n \d+ \d+ \d+ \n"
            r"Reading: \d+ Writing: \d+ Waiting: \d+ \n\Z",
        )

    def test_tls(self) -> None:
        """The certificate made at first start; both virtual hosts are there as well."""
        self.assertEqual(self.prefix.get(LANDSCAPE, tls=True).status, 200)
        path = next((self.prefix.images / "thumbnail").iterdir())
        answer = self.prefix.get(f"/thumbnail/{path.name}", host=farm.STILLSHOTS, tls=True)
        self.assertEqual((answer.status, answer.body), (200, path.read_bytes()))
        key = self.prefix.directory / "ssl" / "imagefarm.key"
        self.assertEqual(key.stat().st_mode & 0o777, 0o600)

    def test_favicon(self) -> None:
        for host in ("localhost", farm.STILLSHOTS):
            answer = self.prefix.get("/favicon.ico", host=host)
            self.assertEqual((answer.status, answer.body), (204, b""))

    def test_scripts_expire_later(self) -> None:
        (self.prefix.images / "site.js").write_text("1;")
        answer = self.prefix.get("/site.js")
        self.assertEqual((answer.status, answer.header("cache-control")), (200, "max-age=300"))

    def test_profile_fallback(self) -> None:
        """A picture that was never uploaded is the default one, with status 200."""
        default = self.prefix.images / "theme/micro/common/img/player/profile_thmb_default.gif"
        answer = self.prefix.get("/upload/fe/profile/nobody.png")
        self.assertEqual((answer.status, answer.body), (200, default.read_bytes()))
        own = next((self.prefix.images / "upload/fe/profile").iterdir())
        answer = self.prefix.get(f"/upload/fe/profile/{own.name}")
        self.assertEqual((answer.status, answer.body), (200, own.read_bytes()))

    def test_killed_children_come_back(self) -> None:
        """kill -9 of each process of the farm, at the same time: all are there again."""
        pids = {name: self._pid(name) for name in ("resizer", "slave01", "slave02", "master")}
        workers = [pid for pid in descendants(pids["resizer"]) if pid not in pids.values()]
        self.assertTrue(workers)
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)

        def restarted() -> bool:
            return all(self._pid(name) not in (0, pid) for name, pid in pids.items())

        wait_until(restarted, what="new processes")
        stamp = time.time()
        self.prefix.await_answer(LANDSCAPE)
        self.prefix.await_answer(f"/resize?src={LANDSCAPE}&w=50&q={int(stamp) % 60 + 20}")
        for port in (self.prefix.ports.slave1, self.prefix.ports.slave2):
            self.assertEqual(self.prefix.get(LANDSCAPE, port=port).status, 200)
        wait_until(lambda: not any(map(running, workers)), END_SECONDS, "end of image workers")
        log = self.prefix.log("farm_error.log")
        for name, pid in pids.items():
            self.assertIn(f"{name} was killed by signal 9, restarting in 0.25 s", log)
            self.assertNotEqual(self._pid(name), pid)

    def _pid(self, name: str) -> int:
        path = self.prefix.logs / f"{name}.pid"
        return int(path.read_text()) if path.exists() else 0


class FarmsEnd(StagedCase):
    """Each of these starts a farm of its own."""

    def setUp(self) -> None:
        self.prefix = farm.temporary_prefix(self.addCleanup)

    def _everything(self, daemon: Daemon) -> list[int]:
        family = descendants(daemon.pid)
        self.assertGreaterEqual(len(family), 5)  # four members and an image worker
        return family

    def _assert_gone(self, family: list[int]) -> None:
        wait_until(lambda: not any(map(running, family)), END_SECONDS, f"end of all of {family}")
        ports = self.prefix.ports
        for port in (ports.http, ports.https, ports.slave1, ports.slave2, ports.fastcgi):
            self.assertFalse(accepts(port))

    def test_interrupt_and_kill(self) -> None:
        """Ctrl-C stops all of it with status 0; killed, its processes end by themselves."""
        daemon = farm.start_farm(self.prefix)
        self.addCleanup(farm.end_farm, daemon)
        family = self._everything(daemon)
        daemon.signal(signal.SIGINT)
        self.assertEqual(daemon.wait(END_SECONDS), 0)
        self._assert_gone(family)
        self.assertEqual(list(self.prefix.logs.glob("*.pid")), [])
        output = daemon.output.read_text()
        self.assertNotIn("Traceback", output)
        daemon.output.unlink()

        daemon = farm.start_farm(self.prefix)
        self.addCleanup(farm.end_farm, daemon)
        family = self._everything(daemon)
        daemon.process.kill()
        daemon.wait()
        self._assert_gone(family)
        self.assertNotIn("Traceback", daemon.output.read_text())

    def test_port_taken(self) -> None:
        """A member that cannot start ends the farm: status 1, and one line that says why."""
        import socket

        self.prefix.images.mkdir()
        (self.prefix.images / "one.txt").write_text("no samples needed")
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", self.prefix.ports.slave2))
            taken.listen()
            daemon = self.prefix.start("farm", ports=())
            self.addCleanup(farm.end_farm, daemon)
            self.assertEqual(daemon.wait(farm.COMMAND_SECONDS), 1)
        output = daemon.output.read_text()
        place = f"127.0.0.1:{self.prefix.ports.slave2}"
        self.assertEqual(
            output.count(f"bind() to {place} failed (98: Address already in use)"), 1, output
        )
        self.assertNotIn("Traceback", output)
        self.assertNotIn("The farm runs", output)
        self._assert_gone([])
        self.assertEqual(list(self.prefix.logs.glob("*.pid")), [])

    def test_error_in_a_members_file(self) -> None:
        """All members' errors are reported with their places, and nothing is started."""
        for name in ("slave.conf", "master.conf"):
            path: Path = self.prefix.conf(name)
            path.write_text(f"wrong 1;\n{path.read_text()}")
        for options in (("-n",), ()):
            done = self.prefix.run(
                *options, "imagefarm", "farm", "--config", str(self.prefix.conf("farm.conf"))
            )
            expected = [
                f'imagefarm: [emerg] unknown directive "wrong" in {self.prefix.conf(name)}:1'
                for name in ("slave.conf", "master.conf")
            ]
            self.assertEqual(done.stderr.splitlines(), expected)
            self.assertEqual(done.returncode, 1)
        self.assertEqual(list(self.prefix.logs.glob("*")), [])
        self.assertFalse(self.prefix.images.exists())
