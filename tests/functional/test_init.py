"""The init script of a slave with the real daemon behind it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests.functional.test_commands import CommandCase
from tests.functional.test_reload import Client
from tests.support import farm
from tests.support.processes import accepts, descendants, running, wait_until

TWISTD = """#!/bin/sh
exec {python} -c 'import sys; sys.argv[0] = "twistd"
from twisted.scripts.twistd import run; run()' --umask=022 "$@"
"""


class InitScript(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        top = self.prefix.directory
        twistd = top / "twistd"
        twistd.write_text(TWISTD.format(python=sys.executable))
        twistd.chmod(0o755)
        (top / "defaults").write_text(
            f"TWISTD={twistd}\nCONFIG_DIR={top}/conf\nPREFIX={top}\nPID_DIR={top}/run\n"
            f"slave01_OPTIONS='--port {self.port}'\n"
        )
        self.pidfile = top / "run" / "slave01.pid"
        self.addCleanup(self._end_daemon)

    def _end_daemon(self) -> None:
        pid = self.pid_in(self.pidfile)
        for one in [*descendants(pid), pid] if pid else ():
            if running(one):
                os.kill(one, signal.SIGKILL)

    def service(self, action: str) -> int:
        init = farm.SHIPPED / "init.d"
        return subprocess.run(
            ["sh", str(init / "imagefarm-slave01"), action],
            env={
                **os.environ, "PYTHONPATH": str(farm.REPOSITORY),
                "IMAGEFARM_DEFAULTS": str(self.prefix.directory / "defaults"),
                "IMAGEFARM_FUNCTIONS": str(init / "imagefarm-functions"),
            },
            cwd=self.prefix.directory, stdin=subprocess.DEVNULL, capture_output=True, check=False,
            timeout=60,
        ).returncode  # fmt: skip

    def await_answers(self, client: Client) -> None:
        enough = client.answers + 20
        wait_until(lambda: client.answers > enough, 30, "answers")

    def test_a_life(self) -> None:
        """Stale pidfile, start, double start, reload, logs rotated under load, stop."""
        self.pidfile.parent.mkdir()
        self.pidfile.write_text("999999\n")
        self.assertEqual([self.service(action) for action in ("status", "reload")], [1, 7])
        self.assertEqual(self.service("start"), 0)
        pid = self.pid_in(self.pidfile)
        self.assertTrue(running(pid))
        self.assertEqual([self.service(action) for action in ("start", "status")], [0, 0])
        self.assertEqual(self.pid_in(self.pidfile), pid)

        client = Client(self.port, 3)
        self.addCleanup(client.stop)
        before = descendants(pid)
        self.assertEqual(self.service("reload"), 0)
        log, errors = self.prefix.logs / "slave_access.log", self.prefix.logs / "slave_error.log"
        wait_until(lambda: set(descendants(pid)) - set(before), 30, "new worker")
        wait_until(lambda: not set(descendants(pid)) & set(before), 30, "end of the old one")
        for number in range(2):
            log.rename(f"{log}.{number}")
            errors.rename(f"{errors}.{number}")
            self.assertEqual(self.service("reopen"), 0)
            wait_until(log.exists, 30, "new log")
            self.await_answers(client)
        client.stop()
        self.assertEqual(client.failures, [])
        self.assertEqual(self.service("stop"), 0)
        self.assertEqual([self.service(action) for action in ("status", "stop")], [3, 0])
        self.assertFalse(accepts(self.port))
        kept = "".join(path.read_text() for path in self.prefix.logs.glob("slave_access.log*"))
        self.assertEqual(kept.count("GET /a.txt "), client.answers)
