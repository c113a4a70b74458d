"""USR2: another program takes over the sockets, or does not, and no request is lost."""

from __future__ import annotations

import os
import signal

from tests.functional.test_commands import QUICK_SECONDS
from tests.functional.test_reload import Client, ReloadCase
from tests.support.processes import Daemon, descendants, running, wait_until


class Upgrades(ReloadCase):
    def setUp(self) -> None:
        super().setUp()
        self.pidfile = self.prefix.logs / "status.pid"
        self.oldbin = self.prefix.logs / "status.pid.oldbin"

    def upgrade(self, daemon: Daemon) -> int:
        """The number of the new master."""
        daemon.signal(signal.SIGUSR2)
        wait_until(lambda: self.pid_in(self.pidfile) not in (0, daemon.pid), 30, "new pidfile")
        new = self.pid_in(self.pidfile)
        self.addCleanup(self._kill, new)
        self.assertEqual(self.pid_in(self.oldbin), daemon.pid)
        return new

    def _kill(self, pid: int) -> None:
        for one in [*descendants(pid), pid]:
            if running(one):
                os.kill(one, signal.SIGKILL)

    def test_new_program(self) -> None:
        """Both serve, then the new one alone."""
        daemon = self.begin()
        clients = [Client(self.port, kept) for kept in (1, 20)]
        self.addCleanup(lambda: [client.stop() for client in clients])
        self.configure(2)
        new = self.upgrade(daemon)
        served = {self.version() for _ in range(40)}
        self.assertIn("2", served)
        daemon.signal(signal.SIGQUIT)
        self.assertEqual(daemon.wait(), 0)
        self.assertFalse(self.oldbin.exists())
        self.assertEqual(self.pid_in(self.pidfile), new)
        self.assertEqual({self.version() for _ in range(10)}, {"2"})
        for client in clients:
            client.stop()
        self.assertEqual([failure for client in clients for failure in client.failures], [])
        os.kill(new, signal.SIGTERM)
        wait_until(lambda: not running(new), 30, "end")
        self.assertFalse(self.pidfile.exists())

    def test_rolled_back(self) -> None:
        """WINCH to the old, then the new one is found wanting: QUIT to it, all is as before."""
        daemon = self.begin()
        self.configure(2)
        new = self.upgrade(daemon)
        daemon.signal(signal.SIGWINCH)
        wait_until(lambda: {self.version() for _ in range(10)} == {"2"}, 30, "new workers only")
        self.configure(1)
        os.kill(new, signal.SIGQUIT)
        wait_until(lambda: not self.oldbin.exists(), 30, "pidfile's name")
        self.assertEqual(self.pid_in(self.pidfile), daemon.pid)
        self.assertEqual(self.version(), "1")
        self.assertIn("the new program exited with status 0, the old one goes on", self.errors())

    def test_new_program_fails(self) -> None:
        """What is wrong is on its stderr and in our log; the old one has its pidfile again."""
        daemon = self.begin()
        self.configure(2, "wrong 1;")
        daemon.signal(signal.SIGUSR2)
        wait_until(lambda: "the old one goes on" in self.errors(), 30, "end of the new program")
        self.assertIn("the new program exited with status 1, the old one goes on", self.errors())
        self.assertIn('unknown directive "wrong"', daemon.output.read_text())
        wait_until(lambda: not self.oldbin.exists(), 30, "pidfile's name")
        self.assertEqual(self.pid_in(self.pidfile), daemon.pid)
        self.assertEqual(self.version(), "1")
        self.assertLess(self.end(daemon), QUICK_SECONDS)
        self.assertFalse(self.pidfile.exists())
