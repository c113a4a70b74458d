"""HUP: new workers by a new configuration, while clients see nothing of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from tests.functional.test_commands import LARGE, QUICK_SECONDS, CommandCase, SlowDownload
from tests.support import farm
from tests.support.load import Answer, Load, make_body
from tests.support.processes import (
    Daemon,
    accepts,
    descendants,
    free_ports,
    resident,
    running,
    wait_until,
)
from tests.support.stages import StagedCase

#: Of the second case. Ask for a hundred to look for leaks.
RELOADS = int(os.environ.get("IMAGEFARM_TEST_RELOADS", "50"))
FEW_RELOADS = 10
#: What a process may have grown by, in bytes, when it has done all reloads but the first few.
SLACK = 2 << 20

CONFIGURATION = """
worker_processes {workers};
worker_shutdown_timeout 2s;
error_log  logs/error.log notice;
pid        logs/status.pid;
events {{ }}
http {{
    access_log  logs/access.log;
    root        images;
    server {{
        {listen}
        add_header X-Version {version};
        location = /status {{ status; access_log off; }}
        location / {{ }}
    }}
}}
"""


class Clients:
    """Those that ask all the time, in processes of their own: with a connection for each request,
    with one for five, and for ever."""

    def __init__(self, case: CommandCase) -> None:
        targets = [f"/load/{number}.bin" for number in range(10)]
        (case.images / "load").mkdir()
        for number, target in enumerate(targets):
            (case.images / target[1:]).write_bytes(make_body(target, 3000 * number))
        self.loads = [
            Load(case.port, rate, targets, kept=kept) for rate, kept in ((40, 1), (40, 5), (80, 0))
        ]

    def __enter__(self) -> Clients:
        with ExitStack() as stack:
            for load in self.loads:
                stack.enter_context(load)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *reason: object) -> None:
        self._stack.close()

    @property
    def answers(self) -> list[Answer]:
        """After the end: of all of them."""
        return [answer for load in self.loads for answer in load.answers]

    def assert_good(self, case: StagedCase) -> None:
        """There were some, and no request was lost."""
        outcomes = Counter(answer.outcome.strip() for answer in self.answers)
        case.assertEqual(set(outcomes), {"good"}, outcomes)


class ReloadCase(CommandCase):
    workers = 1

    def configure(self, version: int = 1, listen: str = "", more: str = "") -> Path:
        text = CONFIGURATION.format(
            workers=self.workers, listen=listen or f"listen 127.0.0.1:{self.port};",
            version=version,
        )  # fmt: skip
        return self.prefix.write("status.conf", more + text)

    def begin(self, more: str = "") -> Daemon:
        self.configure(more=more)
        daemon = self.start("slave", config="status.conf")
        wait_until(lambda: self.pid_in(self.prefix.logs / "status.pid") == daemon.pid, 30, "pid")
        return daemon

    def version(self) -> str | None:
        return self.get().header("x-version")

    def await_version(self, version: str) -> None:
        """The old workers accept until they know that they are the old ones."""
        wait_until(lambda: self.version() == version, 10, f"version {version}")

    def errors(self) -> str:
        return self.prefix.log("error.log")

    def reload(self, daemon: Daemon, word: str = "reconfigured") -> None:
        before = self.errors().count(f"] {daemon.pid}#0: {word}")
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: self.errors().count(f"] {daemon.pid}#0: {word}") > before, 30, word)

    def status(self) -> dict[str, object]:
        found = json.loads(self.get("/status").body)["configuration"]
        assert isinstance(found, dict)
        return found


class Changes(ReloadCase):
    """What the workers are to see nothing of."""

    reloads = FEW_RELOADS

    def test_under_load(self) -> None:
        """No request is lost, no old worker stays, descriptors and memory stay level.

        Old workers stay for ``worker_shutdown_timeout`` where a client does not go on.
        """
        with (self.images / "large.bin").open("wb") as file:
            file.truncate(LARGE)
        daemon = self.begin()
        with Clients(self) as clients:
            stalled = SlowDownload(self.port, "/large.bin")
            self.addCleanup(stalled.sock.close)
            level = (0, 0)
            for version in range(self.reloads):
                self.configure(version)
                self.reload(daemon)
                if version == self.reloads // 3:
                    level = self._level(daemon)
            self.await_version(str(self.reloads - 1))
            # The last old worker's descriptors are closed a moment after it is gone.
            wait_until(lambda: self._level(daemon)[0] <= level[0], 30, "descriptors")
            after = self._level(daemon)
        clients.assert_good(self)
        self.assertLessEqual(after[0], level[0])
        self.assertLess(after[1] - level[1], SLACK)
        status = self.status()
        self.assertEqual((status["generation"], status["last_reload"]), (self.reloads + 1, "ok"))
        self.assertEqual(status["workers"], descendants(daemon.pid))

    def _level(self, daemon: Daemon) -> tuple[int, int]:
        wait_until(lambda: len(descendants(daemon.pid)) == self.workers, 30, "end of old workers")
        return len(os.listdir(f"/proc/{daemon.pid}/fd")), resident(daemon.pid)

    def test_listens_come_and_go(self) -> None:
        daemon = self.begin()
        first, second = self.port, free_ports(1)[0]
        path = self.prefix.directory / "sock"
        self.configure(2, f"listen 127.0.0.1:{first}; listen 127.0.0.1:{second}; "
                          f"listen unix:{path};")  # fmt: skip
        self.reload(daemon)
        for port in (first, second):
            self.port = port
            self.await_version("2")
        self.assertTrue(path.is_socket())
        self.configure(3, f"listen 127.0.0.1:{second} reuseport;")
        self.reload(daemon)
        wait_until(lambda: not accepts(first), 30, "closed port")
        self.await_version("3")
        self.assertFalse(path.exists())


class ChangesOfSeveral(Changes):
    """The same with two workers."""

    workers = 2
    reloads = RELOADS


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler for the signal."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        caught = next(line for line in lines if line.startswith("SigCgt:")).split()[1]
        return bool(int(caught, 16) >> (number - 1) & 1)
    return False


class Masters(ReloadCase):
    """What the master does about it."""

    def test_what_is_wrong_changes_nothing(self) -> None:
        """Syntax, files, certificates, ports: the old configuration serves, and says why not."""
        daemon = self.begin()
        workers = descendants(daemon.pid)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            here = f"listen 127.0.0.1:{self.port};"
            for listen, why in (
                (f"{here} wrong 1;", 'unknown directive "wrong" in'),
                (f"{here} include none.conf;", "none.conf"),
                (f"{here} listen 127.0.0.1:{port};", f"bind() to 127.0.0.1:{port} failed (98"),
                (f"{here} listen 127.0.0.1:{free_ports(1)[0]} ssl; ssl_certificate a.pem; "
                 "ssl_certificate_key a.key;", "a.pem"),
                (f"{here} access_log /proc/none/a.log;", "/proc/none"),
            ):  # fmt: skip
                self.configure(2, listen)
                self.reload(daemon, "reconfiguring failed")
                self.assertIn(why, self.errors())
                status = self.status()
                self.assertEqual(status["last_reload"], "failed", why)
                self.assertIn(why, str(status["errors"]))
                self.assertEqual(self.version(), "1")
                self.assertEqual(descendants(daemon.pid), workers)
        self.configure(3)
        self.reload(daemon)
        self.await_version("3")
        self.assertEqual(self.status()["errors"], [])

    def test_pid_and_logs_move(self) -> None:
        """The pidfile is never without our number while there is one."""
        daemon = self.begin()
        text = self.configure(2).read_text()
        self.prefix.write("status.conf", text.replace("logs/status.pid", "/proc/a.pid"))
        self.reload(daemon, "reconfiguring failed")
        self.assertIn('open() "/proc/a.pid" failed (', self.errors())
        self.assertEqual(self.version(), "1")
        self.prefix.write(
            "status.conf",
            text.replace("logs/status.pid", "run/new.pid").replace("error.log", "other.log"),
        )
        daemon.signal(signal.SIGHUP)
        new = self.prefix.directory / "run" / "new.pid"
        wait_until(lambda: self.pid_in(new) == daemon.pid, 30, "new pidfile")
        wait_until(lambda: not (self.prefix.logs / "status.pid").exists(), 30, "old one's end")
        wait_until(lambda: "reconfigured" in self.prefix.log("other.log"), 30, "notice")
        self.end(daemon)
        self.assertFalse(new.exists())
        self.assertIn("exiting", self.prefix.log("other.log"))
        self.assertNotIn(f"{daemon.pid}#0: exiting", self.errors())

    def test_while_it_starts(self) -> None:
        """HUP waits until the first workers serve; then there are others, and the pidfile."""
        self.configure()
        daemon = self.prefix.start("slave", ports=[], config="status.conf")
        self.addCleanup(farm.end_farm, daemon)
        wait_until(lambda: catches(daemon.pid, signal.SIGHUP), 30, "handler")
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: f"] {daemon.pid}#0: reconfigured" in self.errors(), 30, "reload")
        lines = [line for line in self.errors().splitlines() if f"{daemon.pid}#0: re" in line]
        words = [line.rpartition(": ")[2] for line in lines]
        self.assertEqual(words, ["ready", "reconfiguring", "reconfigured"])
        self.assertEqual(self.pid_in(self.prefix.logs / "status.pid"), daemon.pid)

    def test_logs_are_rotated_meanwhile(self) -> None:
        """A worker that is being started when it is told to reopen its logs does so."""
        daemon = self.begin()
        current = [self.prefix.logs / name for name in ("access.log", "error.log")]
        for number in range(8):
            daemon.signal(signal.SIGHUP)
            wait_until(lambda: f"] {daemon.pid}#0: reconfiguring" in self.errors(), 30, "HUP")
            time.sleep(0.04 * number)  # somewhere in the life of the new one
            for path in current:
                path.rename(f"{path}.{number}")
            daemon.signal(signal.SIGUSR1)
            wait_until(lambda: all(path.exists() for path in current), 30, "new logs")
            wait_until(lambda: self.settled(daemon), 30, "one worker")
            wait_until(lambda: not self.renamed(daemon), 30, "end of the renamed ones")

    def settled(self, daemon: Daemon) -> bool:
        """Whether no reload is under way."""
        found = descendants(daemon.pid)
        return len(found) == self.workers and self.status()["workers"] == found

    def renamed(self, daemon: Daemon) -> set[str]:
        """Renamed logs that are open still."""
        found = set()
        for pid in (daemon.pid, *descendants(daemon.pid)):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    found.add(os.path.basename(os.readlink(link)))
        return {name for name in found if ".log." in name}

    def test_a_dead_worker_keeps_to_what_was_checked(self) -> None:
        """The file has changed and is wrong now; a second later there is a worker again."""
        daemon = self.begin()
        (victim,) = descendants(daemon.pid)
        self.configure(2, "wrong 1;")
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: not running(victim), 30, "death")
        self.assertEqual(self.version(), "1")
        self.assertNotEqual(descendants(daemon.pid), [victim])

    def test_winch(self) -> None:
        """The workers end, the master stays; HUP brings new ones."""
        daemon = self.begin()
        daemon.signal(signal.SIGWINCH)
        wait_until(lambda: descendants(daemon.pid) == [], 30, "end of workers")
        self.assertEqual(self.pid_in(self.prefix.logs / "status.pid"), daemon.pid)
        self.reload(daemon)
        self.assertEqual(self.version(), "1")
        self.end(daemon, signal.SIGINT)

    def test_without_master(self) -> None:
        """One process does all, and says that it doesn't reread."""
        daemon = self.begin("master_process off;")
        self.assertEqual(descendants(daemon.pid), [])
        self.configure(2)
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: "signal HUP" in self.errors(), 30, "warning")
        self.assertEqual(self.version(), "1")
        self.assertLess(self.end(daemon), QUICK_SECONDS)
