"""USR2: another program takes over the sockets, or does not, and no request is lost."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from tests.functional.test_commands import QUICK_SECONDS
from tests.functional.test_reload import Clients, ReloadCase
from tests.support.processes import Daemon, descendants, running, wait_until


class Watcher:
    """Reads files all the time; what each held, one thing after another (None: no file)."""

    def __init__(self, *paths: Path) -> None:
        self._seen: dict[Path, list[bytes | None]] = {path: [] for path in paths}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> dict[Path, list[bytes | None]]:
        self._thread.start()
        return self._seen

    def __exit__(self, *reason: object) -> None:
        self._ending.set()
        self._thread.join()

    def _watch(self) -> None:
        last = False
        while not last:
            last = self._ending.wait(0.0005)
            for path, contents in self._seen.items():
                try:
                    content = path.read_bytes()
                except FileNotFoundError:
                    content = None
                if not contents or contents[-1] != content:
                    contents.append(content)


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
        """Both serve, then the new one alone; no request is lost, and both pidfiles are whole at
        each moment: absent, or the number that belongs there."""
        with Watcher(self.pidfile, self.oldbin) as seen:
            daemon = self.begin()
            with Clients(self) as clients:
                self.configure(2)
                new = self.upgrade(daemon)
                served = {self.version() for _ in range(40)}
                self.assertIn("2", served)
                os.kill(new, signal.SIGUSR2)
                wait_until(lambda: f"end process {daemon.pid} first" in self.errors(), 30, "no")
                daemon.signal(signal.SIGWINCH)
                wait_until(lambda: self.served() == {"2"}, 30, "new workers only")
                self.assertEqual(self.pid_in(self.oldbin), daemon.pid)
                daemon.signal(signal.SIGQUIT)
                self.assertEqual(daemon.wait(), 0)
                self.assertFalse(self.oldbin.exists())
                self.assertEqual(self.pid_in(self.pidfile), new)
                self.assertEqual(self.served(), {"2"})
            os.kill(new, signal.SIGTERM)
            wait_until(lambda: not running(new), 30, "end")
            self.assertFalse(self.pidfile.exists())
        clients.assert_good(self)
        first, second = b"%d\n" % daemon.pid, b"%d\n" % new
        self.assertEqual(seen[self.pidfile], [None, first, None, second, None])
        self.assertEqual(seen[self.oldbin], [None, first, None])

    def served(self) -> set[str | None]:
        return {self.version() for _ in range(10)}

    def test_rolled_back(self) -> None:
        """WINCH to the old, then the new one is found wanting: QUIT to it, all is as before.

        The old one goes on by what it has read, whatever its file says now. HUP brings its
        workers back earlier.
        """
        daemon = self.begin()
        with Clients(self) as clients:
            self.configure(2)
            new = self.upgrade(daemon)
            daemon.signal(signal.SIGWINCH)
            wait_until(lambda: self.served() == {"2"}, 30, "new workers only")
            self.configure(3, "wrong 1;")
            daemon.signal(signal.SIGHUP)
            wait_until(lambda: self.served() == {"1", "2"}, 30, "both")
            daemon.signal(signal.SIGWINCH)
            wait_until(lambda: self.served() == {"2"}, 30, "new workers only")
            os.kill(new, signal.SIGQUIT)
            wait_until(lambda: not self.oldbin.exists(), 30, "pidfile's name")
            wait_until(lambda: self.served() == {"1"}, 30, "the old program only")
        clients.assert_good(self)
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
