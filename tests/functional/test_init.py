"""The init scripts with the real daemons behind them."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.functional.test_commands import CommandCase
from tests.functional.test_reload import Clients
from tests.support import farm, tools
from tests.support.processes import accepts, descendants, running, wait_until

TWISTD = """#!/bin/sh
exec {python} -c 'import sys; sys.argv[0] = "twistd"
from twisted.scripts.twistd import run; run()' --umask=022 "$@"
"""


class InitCase(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        top = self.prefix.directory
        twistd = top / "twistd"
        twistd.write_text(TWISTD.format(python=sys.executable))
        twistd.chmod(0o755)
        (top / "defaults").write_text(
            f"TWISTD={twistd}\nCONFIG_DIR={top}/conf\nPREFIX={top}\nPID_DIR={top}/run\n"
            f"slave01_OPTIONS='--port {self.port}'\n"
            f"slave02_OPTIONS='--port {self.prefix.ports.slave2}'\n"
        )
        self.pidfile = top / "run" / "slave01.pid"
        self.addCleanup(self._end_daemons)

    def _end_daemons(self) -> None:
        for path in self.pidfile.parent.glob("*.pid"):
            pid = self.pid_in(path)
            for one in filter(running, [*descendants(pid), pid]):
                os.kill(one, signal.SIGKILL)

    def service(self, action: str, name: str = "slave01") -> int:
        init = farm.SHIPPED / "init.d"
        return subprocess.run(
            ["sh", str(init / f"imagefarm-{name}"), action],
            env={
                **os.environ, "PYTHONPATH": str(farm.REPOSITORY),
                "IMAGEFARM_DEFAULTS": str(self.prefix.directory / "defaults"),
                "IMAGEFARM_INIT_DIR": str(init),
                "IMAGEFARM_FUNCTIONS": str(init / "imagefarm-functions"),
            },
            cwd=self.prefix.directory, stdin=subprocess.DEVNULL, capture_output=True, check=False,
            timeout=120,
        ).returncode  # fmt: skip


class InitScript(InitCase):
    """That of a slave."""

    def logrotate(self) -> list[str]:
        """The command that rotates, as a rule in the night."""
        program = tools.tool("logrotate", "/usr/sbin/logrotate")
        top = self.prefix.directory
        text = (farm.SHIPPED / "logrotate.d" / "imagefarm").read_text()
        for old, new in (
            ("/var/lib/imagefarm/logs", str(self.prefix.logs)), ("/run/imagefarm", f"{top}/run"),
        ):  # fmt: skip
            self.assertIn(old, text)
            text = text.replace(old, new)
        config = top / "logrotate"
        config.write_text(text)
        config.chmod(0o644)
        return [program, "--force", "--state", f"{top}/state", str(config)]

    def await_answers(self, log: Path, clients: Clients) -> None:
        wait_until(log.exists, 30, "new log")
        enough = clients.loads[0].count() + 20
        wait_until(lambda: clients.loads[0].count() > enough, 30, "answers")

    def test_a_life(self) -> None:
        """Stale pidfile, start, double start, reload, logs rotated under load, stop.

        The logs are rotated by our file for logrotate, and by the script's own action.
        """
        logrotate = self.logrotate()
        self.pidfile.parent.mkdir()
        self.pidfile.write_text("999999\n")
        self.assertEqual([self.service(action) for action in ("status", "reload")], [1, 7])
        self.assertEqual(self.service("start"), 0)
        pid = self.pid_in(self.pidfile)
        self.assertTrue(running(pid))
        self.assertEqual([self.service(action) for action in ("start", "status")], [0, 0])
        self.assertEqual(self.pid_in(self.pidfile), pid)

        log, errors = self.prefix.logs / "slave_access.log", self.prefix.logs / "slave_error.log"
        with Clients(self) as clients:
            before = descendants(pid)
            self.assertEqual(self.service("reload"), 0)
            wait_until(lambda: set(descendants(pid)) - set(before), 30, "new worker")
            wait_until(lambda: not set(descendants(pid)) & set(before), 30, "end of the old one")
            for _ in range(3):
                subprocess.run(logrotate, check=True)
                self.await_answers(log, clients)
            log.rename(f"{log}.old")
            errors.rename(f"{errors}.old")
            self.assertEqual(self.service("reopen"), 0)
            self.await_answers(log, clients)
        clients.assert_good(self)
        self.assertEqual(self.service("stop"), 0)
        self.assertEqual([self.service(action) for action in ("status", "stop")], [3, 0])
        self.assertFalse(accepts(self.port))
        files = list(self.prefix.logs.glob("slave_access.log*"))
        names = {path.name.removeprefix("slave_access.log") for path in files}
        self.assertEqual(names, {"", ".1", ".2.gz", ".3.gz", ".old"})
        lines = b"".join(
            gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            for path in files
        )
        self.assertEqual(lines.count(b'"GET /load/'), len(clients.answers))


class FarmScript(InitCase):
    def test_a_life(self) -> None:
        """All that a master needs is there before it, and until it has ended."""
        Image.new("RGB", (400, 300), (200, 0, 0)).save(self.images / "photo.jpg")
        self.assertEqual(self.service("status", "farm"), 3)
        self.assertEqual(self.service("start", "farm"), 0)
        names = ("slave01", "slave02", "resizer", "master")
        written = [(self.pidfile.parent / f"{name}.pid").stat().st_mtime_ns for name in names]
        self.assertEqual(written, sorted(written))
        for target in ("/photo.jpg", "/resize?src=/photo.jpg&w=100"):
            self.assertEqual(self.prefix.get(target).status, 200)
        self.assertEqual([self.service(action, "farm") for action in ("status", "reload")], [0, 0])
        self.assertEqual(self.service("stop", "farm"), 0)
        self.assertEqual(self.service("status", "farm"), 3)
        self.assertEqual(list(self.pidfile.parent.glob("*.pid")), [])
