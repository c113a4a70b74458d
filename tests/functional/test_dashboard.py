"""The shipped farm's dashboard: the figures, the page in a browser, the same in a terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from tests.functional.test_farm import LANDSCAPE
from tests.resources.test_metrics import read
from tests.support import browser, farm
from tests.support.processes import descendants, running, wait_until
from tests.support.stages import StagedCase

INSTANCES = ["master", "slave01", "slave02", "resizer"]


class DashboardTests(StagedCase):
    def setUp(self) -> None:
        self.prefix, self.daemon = farm.supervised()
        self.port = self.prefix.ports.dashboard
        self.url = f"http://127.0.0.1:{self.port}/"

    def figures(self, query: str = "?data") -> dict[str, Any]:
        answer = self.prefix.get(f"/{query}", port=self.port)
        self.assertEqual(answer.status, 200)
        found: dict[str, Any] = json.loads(answer.body)
        return found

    def well(self) -> dict[str, Any]:
        """The figures, once nothing is wrong any more."""
        wait_until(lambda: not self.figures()["problems"], 60, "a farm that is well")
        return self.figures()

    def made(self) -> int:
        """How many pictures the resizer has made, as far as it is up."""
        resizer = self.figures()["instances"][3]
        return resizer["status"]["resizer"]["jobs"]["done"] if resizer["up"] else 0

    def work(self) -> None:
        for width in (100, 200):
            for _ in range(2):
                self.prefix.get(f"/resize?src={LANDSCAPE}&w={width}")
        self.prefix.get(LANDSCAPE)
        self.prefix.get("/none.jpg")

    # Figures

    def test_all_instances_and_processes(self) -> None:
        self.work()
        wait_until(lambda: self.made() >= 2, 60, "two pictures in the figures")
        found = self.well()
        self.assertEqual([each["name"] for each in found["instances"]], INSTANCES)
        statuses = [each["status"] for each in found["instances"]]
        pids = {process["pid"] for status in statuses for process in status["processes"]}
        self.assertEqual(pids, {self.daemon.pid, *descendants(self.daemon.pid)})
        resizer = found["instances"][3]["status"]["resizer"]
        self.assertIn(LANDSCAPE, [each["original"] for each in resizer["originals"]])
        self.assertIn("encode", resizer["steps"])
        roles = [process["role"] for process in found["instances"][3]["status"]["processes"]]
        self.assertIn("image", roles)
        texts = [error["text"] for status in statuses for error in status["errors"]]
        self.assertTrue(any("/none.jpg" in text for text in texts), texts)
        history = self.figures("?data=all")["history"]
        self.assertEqual(set(history[-1]["of"]), set(INSTANCES))

    def test_metrics(self) -> None:
        self.work()
        samples = read(self.prefix.get("/metrics", port=self.port).body)
        servers = {labels["server"] for _, labels, _ in samples if "server" in labels}
        self.assertIn("image-origin.*", servers)
        found = read(self.prefix.get("/resizer?prometheus", port=self.port).body)
        done = {labels["event"]: value for name, labels, value in found
                if name == "imagefarm_resizer_jobs_total"}  # fmt: skip
        self.assertGreaterEqual(done["done"], 2)
        for some in (samples, found):
            names = [(name, tuple(sorted(labels.items()))) for name, labels, _ in some]
            self.assertEqual(len(names), len(set(names)))

    def test_other_names_get_nothing(self) -> None:
        """Whoever has a name lead to this address must not read along (DNS rebinding)."""
        for host, status in (("localhost", 200), ("127.0.0.1:8091", 200), ("example.org", 403)):
            answer = self.prefix.get("/?data", port=self.port, host=host)
            self.assertEqual(answer.status, status, host)

    def test_an_instance_that_is_down(self) -> None:
        """It is told on the page and by the exit status, and the others are shown."""
        self.well()
        victim = int((self.prefix.logs / "slave01.pid").read_text())
        family = [victim, *descendants(victim)]
        for pid in family:
            os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: not self.figures()["instances"][1]["up"], 30, "the slave down")
            found = self.figures()
            slave = found["instances"][1]
            self.assertEqual((slave["up"], slave["error"]), (False, "no answer within 3 s"))
            self.assertTrue(found["instances"][2]["up"])
            done = self.status()
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn("!! slave01 does not answer: no answer within 3 s", done.stdout)
            self.assertRegex(done.stdout, r"(?m)^slave01 +DOWN ")
        finally:
            for pid in family:
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(running, family)), 20, "end of the slave")
        self.well()

    def test_a_failed_reload(self) -> None:
        """What is wrong with the file is told where an operator looks, until it is mended."""
        self.well()
        conf = self.prefix.conf("master.conf")
        good = conf.read_text()
        master = int((self.prefix.logs / "master.pid").read_text())
        line = good.count("\n") + 1
        why = (
            "master: the last reload failed, the former configuration is in force: "
            f'unknown directive "nonsense" in {conf}:{line}'
        )
        conf.write_text(good + "nonsense on;\n")
        try:
            os.kill(master, signal.SIGHUP)
            wait_until(lambda: self.figures()["problems"], 60, "a problem")
            self.assertEqual(self.figures()["problems"], [{"level": "bad", "text": why}])
            done = self.status()
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn(f"!! {why}\n", done.stdout)
            self.assertEqual(self.prefix.get(LANDSCAPE).status, 200)
        finally:
            conf.write_text(good)
            os.kill(master, signal.SIGHUP)
        self.well()

    # The terminal

    def status(self, *words: str) -> subprocess.CompletedProcess[str]:
        code = "import sys; from imagefarm.command import main; sys.exit(main())"
        return subprocess.run(
            [sys.executable, "-c", code, "status", "-u", self.url, *words],
            capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "PYTHONPATH": str(farm.REPOSITORY)},
        )  # fmt: skip

    def test_terminal(self) -> None:
        self.work()
        wait_until(lambda: self.made() >= 2, 60, "two pictures in the figures")
        self.well()
        done = self.status()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        for name in INSTANCES:
            self.assertRegex(done.stdout, rf"(?m)^{name} +up ")
        self.assertIn("all is well", done.stdout)
        self.assertRegex(done.stdout, rf"(?m)^{LANDSCAPE} ")
        self.assertEqual(len(re.findall(r"(?m)^\w+ +farm +\d+ ", done.stdout)), 1)
        self.assertEqual(json.loads(self.status("--json").stdout)["problems"], [])
        one = self.status("-u", f"{self.url}status")
        self.assertEqual((one.returncode, "worker 1" in one.stdout), (0, True), one.stderr)

    def test_no_answer(self) -> None:
        done = self.status("-u", "http://127.0.0.1:1/")
        self.assertEqual((done.returncode, done.stdout), (3, ""))
        self.assertEqual(done.stderr, "imagefarm: http://127.0.0.1:1/: Connection refused\n")
        self.assertEqual(self.status("-u", "http://example.org/").returncode, 2)

    # The browser

    def test_page(self) -> None:
        """Chromium runs it: every section shows what the figures say."""
        self.work()
        wait_until(lambda: self.made() >= 2, 60, "two pictures in the figures")
        self.well()
        text = browser.document(self.url)
        self.assertIn("all is well", text)
        rows = re.sub(r"<[^>]+>", " ", text)
        for name in (*INSTANCES, "slaves", "thumbnails", "image-origin.*", LANDSCAPE, "encode",
                     "farm", "worker 1", f"127.0.0.1:{self.prefix.ports.slave1}"):  # fmt: skip
            self.assertIn(name, rows)
        self.assertEqual(text.count("<canvas"), 4)

    def test_picture(self) -> None:
        """On a phone: the plots are painted, with the lines of what they show."""
        self.well()
        path = Path(self.mktemp()).resolve().with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        browser.screenshot(self.url, path, 360, 1400)
        with Image.open(path) as picture:
            self.assertEqual(picture.size, (360, 1400))
            colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or ()}
        for line in ((0x25, 0x63, 0xEB), (0xEC, 0xEF, 0xF3)):
            near = min(max(abs(a - b) for a, b in zip(line, c, strict=True)) for c in colours)
            self.assertLess(near, 8, f"nothing is painted in {line}")
