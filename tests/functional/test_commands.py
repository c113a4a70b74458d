"""``twistd imagefarm ROLE``: options, daemons, pidfiles, signals, workers."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

from tests.support import farm, rawhttp
from tests.support.farmsite import noise
from tests.support.processes import (
    Daemon,
    accepts,
    descendants,
    free_ports,
    running,
    wait_until,
)
from tests.support.stages import StagedCase

#: More than the socket buffers of both sides hold.
LARGE = 24_000_000
QUICK_SECONDS = 10.0

#: A server that says which process answers.
STATUS = """
error_log  logs/error.log notice;
pid        logs/status.pid;
events {{ }}
http {{
    access_log  logs/access.log;
    root        images;
    server {{
        listen  127.0.0.1:{port};
        location = /status {{ status; access_log off; }}
        location / {{ }}
    }}
}}
"""


class SlowDownload:
    """A client that has read no more than the first bytes of a large file."""

    def __init__(self, port: int, target: str) -> None:
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        self.sock.settimeout(rawhttp.TIMEOUT)
        self.sock.connect(("127.0.0.1", port))
        self.sock.sendall(rawhttp.request(target))
        self.start = self.sock.recv(4096)

    def rest(self) -> bytes:
        """All that is still to come."""
        data = [self.start]
        while piece := self.sock.recv(1 << 20):
            data.append(piece)
        self.sock.close()
        return b"".join(data)


class CommandCase(StagedCase):
    def setUp(self) -> None:
        self.prefix = farm.temporary_prefix(self.addCleanup)
        self.images = self.prefix.images
        self.images.mkdir()
        (self.images / "a.txt").write_text("a file")
        self.port = self.prefix.ports.slave1

    def start(self, role: str, *options: str, config: str = "") -> Daemon:
        daemon = self.prefix.start(role, *options, ports=[self.port], config=config)
        self.addCleanup(farm.end_farm, daemon)
        return daemon.started()

    def start_status(self, *options: str) -> Daemon:
        self.prefix.write("status.conf", STATUS.format(port=self.port))
        daemon = self.start("slave", *options, config="status.conf")
        wait_until(lambda: self.pid_in(self.prefix.logs / "status.pid") == daemon.pid, 30, "pid")
        return daemon

    def get(self, target: str = "/a.txt") -> rawhttp.Answer:
        return self.prefix.get(target, port=self.port)

    def pid_in(self, path: Path) -> int:
        return int(path.read_text()) if path.exists() else 0

    def end(self, daemon: Daemon, number: signal.Signals = signal.SIGTERM) -> float:
        """Send it the signal; the seconds until it has exited with status 0."""
        begin = time.monotonic()
        daemon.signal(number)
        self.assertEqual(daemon.wait(), 0, daemon.output.read_text())
        return time.monotonic() - begin


class Options(CommandCase):
    def test_root_port_and_set(self) -> None:
        """--root and --port replace what the file says, --set adds and replaces."""
        other = self.prefix.directory / "other"
        other.mkdir()
        (other / "b.txt").write_text("elsewhere")
        self.port = free_ports(1)[0]
        daemon = self.start(
            "slave", "--root", str(other), "--port", str(self.port),
            "--set", "pid run/mine.pid;", "--set", "worker_shutdown_timeout 3s",
        )  # fmt: skip
        self.assertEqual(self.get("/b.txt").body, b"elsewhere")
        self.assertEqual(self.get("/a.txt").status, 404)
        self.assertFalse(accepts(self.prefix.ports.slave1))
        pidfile = self.prefix.directory / "run" / "mine.pid"
        wait_until(lambda: self.pid_in(pidfile) == daemon.pid, 30, "pidfile")
        self.assertFalse((self.prefix.logs / "slave.pid").exists())
        self.assertLess(self.end(daemon), QUICK_SECONDS)
        self.assertFalse(pidfile.exists())

    def test_shipped_configuration(self) -> None:
        """Without --config a role's file comes with the package."""
        self.port = self.prefix.ports.slave2
        words = ["-n", "--pidfile=", "imagefarm", "slave", "--prefix", ".", "--port"]
        daemon = Daemon(
            farm.twistd(*words, str(self.port)),
            self.prefix.directory / "out",
            [self.port],
            {"PYTHONPATH": str(farm.REPOSITORY)},
            self.prefix.directory,
        )
        self.addCleanup(daemon.stop)
        daemon.started()
        self.assertEqual(self.get().body, b"a file")


class Daemonized(CommandCase):
    """Without -n, as an init script starts it."""

    def launch(self, role: str, *options: str) -> int:
        """Start it; the daemon's number. The command is back once the daemon is on its way."""
        pidfile = self.prefix.directory / f"{role}-twistd.pid"
        done = self.prefix.run(
            f"--pidfile={pidfile}", "--logfile", f"{role}.twistd.log", "imagefarm", role,
            "--prefix", str(self.prefix.directory),
            "--config", str(self.prefix.conf(f"{role}.conf")), *options,
        )  # fmt: skip
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        wait_until(lambda: self.pid_in(pidfile) > 0, what="twistd's pidfile")
        pid = self.pid_in(pidfile)
        self.addCleanup(self._kill, pid)
        return pid

    def _kill(self, pid: int) -> None:
        for one in [*descendants(pid), pid]:
            if running(one):
                os.kill(one, signal.SIGKILL)

    def test_slave(self) -> None:
        pid = self.launch("slave")
        own = self.prefix.logs / "slave.pid"
        wait_until(lambda: self.pid_in(own) == pid, what="pid directive's file")
        self.assertEqual(self.get().body, b"a file")
        self.assertNotEqual(os.getsid(pid), os.getsid(0))
        refused = self.prefix.run(
            "-n", "--pidfile=", "imagefarm", "slave", "--prefix", str(self.prefix.directory),
            "--config", str(self.prefix.conf("slave.conf")), "--port", str(free_ports(1)[0]),
        )  # fmt: skip
        self.assertEqual(refused.returncode, 1)
        line = f'imagefarm: [emerg] already running as process {pid} (pidfile "{own}")\n'
        self.assertEqual(refused.stderr, line)
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not running(pid), 30, "end")
        self.assertEqual(list(self.prefix.directory.rglob("*.pid")), [])
        self.assertNotIn("Traceback", (self.prefix.directory / "slave.twistd.log").read_text())

    def test_resizer(self) -> None:
        """Its image workers are started after it detached, and end with it."""
        self.port = self.prefix.ports.fastcgi
        pid = self.launch("resizer")
        wait_until(lambda: accepts(self.port), what="listening")
        wait_until(lambda: len(descendants(pid)) > 0, what="image workers")
        family = [pid, *descendants(pid)]
        os.kill(pid, signal.SIGQUIT)
        wait_until(lambda: not any(map(running, family)), 30, "end")
        self.assertEqual(list(self.prefix.directory.rglob("*.pid")), [])

    def test_stale_pidfile(self) -> None:
        """The file of a process that is gone is replaced, with a warning."""
        stale = self.prefix.logs / "slave.pid"
        self.prefix.logs.mkdir()
        child = os.posix_spawn("/bin/true", ["true"], {})
        os.waitpid(child, 0)
        stale.write_text(f"{child}\n")
        daemon = self.start("slave")
        wait_until(lambda: self.pid_in(stale) == daemon.pid, 30, "new pidfile")
        self.assertIn("[warn]", self.prefix.log("slave_error.log"))
        self.assertIn(f"is stale: process {child} is dead", self.prefix.log("slave_error.log"))


class Signals(CommandCase):
    def test_quit_finishes_what_is_under_way(self) -> None:
        content = noise(1 << 20, 5) * 24
        (self.images / "large.bin").write_bytes(content)
        daemon = self.start("slave")
        idle = rawhttp.connect(self.port)
        self.addCleanup(idle.close)
        idle.sendall(rawhttp.request("/a.txt"))
        self.assertEqual(rawhttp.Reader(idle).answer().status, 200)
        download = SlowDownload(self.port, "/large.bin")
        daemon.signal(signal.SIGQUIT)
        wait_until(lambda: not accepts(self.port), 30, "closed port")
        self.assertEqual(idle.recv(1), b"")  # nothing was under way there
        self.assertIsNone(daemon.process.poll())
        _, _, body = download.rest().partition(b"\r\n\r\n")
        self.assertTrue(body == content, len(body))
        self.assertEqual(daemon.wait(), 0)
        self.assertFalse((self.prefix.logs / "slave.pid").exists())
        self.assertIn(
            f'"GET /large.bin HTTP/1.1" 200 {len(content)} ', self.prefix.log("slave_access.log")
        )

    def test_term_does_not_wait(self) -> None:
        """Neither for a download, nor when it comes after QUIT."""
        with (self.images / "large.bin").open("wb") as file:
            file.truncate(LARGE)
        daemon = self.start("slave")
        download = SlowDownload(self.port, "/large.bin")
        daemon.signal(signal.SIGQUIT)
        wait_until(lambda: not accepts(self.port), 30, "closed port")
        self.assertLess(self.end(daemon), QUICK_SECONDS)
        download.sock.close()
        self.assertNotIn("Traceback", daemon.output.read_text())

    def test_usr1_reopens_logs(self) -> None:
        """Rename, signal: new lines in the new file, none lost, none twice."""
        daemon = self.start_status()
        rotated = []
        for i in range(30):
            self.get(f"/a.txt?{i}")
            if i in (9, 19):
                for name in ("access.log", "error.log"):
                    old = self.prefix.logs / f"{name}.{i}"
                    (self.prefix.logs / name).rename(old)
                rotated.append(self.prefix.logs / f"access.log.{i}")
                daemon.signal(signal.SIGUSR1)
                wait_until(lambda: (self.prefix.logs / "access.log").exists(), 30, "new log")
        self.end(daemon)
        kept = [path.read_text() for path in (*rotated, self.prefix.logs / "access.log")]
        for n, text in enumerate(kept):
            found = [line.split()[6] for line in text.splitlines()]
            self.assertEqual(found, [f"/a.txt?{i}" for i in range(n * 10, n * 10 + 10)])
        self.assertIn("reopened logs", self.prefix.log("error.log"))
        self.assertIn("ready", self.prefix.log("error.log.9"))
        self.assertNotIn("ready", self.prefix.log("error.log"))

    def test_usr1_with_a_directory_gone(self) -> None:
        """What cannot be opened anew is reported; the old file is written on."""
        daemon = self.start_status("--set", "error_log other.log notice")
        self.get("/a.txt?1")
        self.prefix.logs.rename(self.prefix.directory / "moved")
        self.prefix.logs.write_text("no directory")
        daemon.signal(signal.SIGUSR1)
        errors = self.prefix.directory / "other.log"
        wait_until(lambda: "reopened" in errors.read_text(), 30, "notice")
        self.assertEqual(self.get("/a.txt?2").status, 200)
        self.end(daemon)
        self.assertIn('open() "', errors.read_text())
        self.assertIn("access.log", errors.read_text())
        self.assertNotIn("Traceback", errors.read_text())
        lines = (self.prefix.directory / "moved" / "access.log").read_text().splitlines()
        self.assertEqual(len(lines), 2)


class Workers(CommandCase):
    """``worker_processes 2``: a parent with the sockets and the pidfile, two that serve."""

    def start_workers(self, *options: str) -> Daemon:
        return self.start_status("--set", "worker_processes 2", *options)

    def served_by(self) -> set[int]:
        """Who answers: connections held open at the same time spread over the processes."""
        found = set()
        socks = [rawhttp.connect(self.port) for _ in range(12)]
        for sock in socks:
            sock.sendall(rawhttp.request("/status"))
        for sock in socks:
            answer = rawhttp.Reader(sock).answer()
            assert answer is not None
            found.add(json.loads(answer.body)["pid"])
            sock.close()
        return found

    def await_workers(self, daemon: Daemon, count: int = 2) -> set[int]:
        found: set[int] = set()

        def all_served() -> bool:
            found.update(self.served_by())
            return len(found & set(descendants(daemon.pid))) >= count

        wait_until(all_served, 30, f"{count} processes that serve")
        return found

    def test_what_a_worker_has_of_its_own(self) -> None:
        """Processors, priority, current directory; its master keeps what it was started with."""
        daemon = self.start_workers(
            "--set", "worker_cpu_affinity auto", "--set", "worker_priority 3",
            "--set", f"working_directory {self.images}",
        )  # fmt: skip
        workers = self.await_workers(daemon) & set(descendants(daemon.pid))
        found = [os.sched_getaffinity(pid) for pid in workers]
        self.assertEqual([len(processors) for processors in found], [1, 1])
        everything = os.sched_getaffinity(daemon.pid)
        self.assertEqual(set().union(*found), set(sorted(everything)[:2]))
        for pid in workers:
            self.assertEqual(os.getpriority(os.PRIO_PROCESS, pid), 3)
            self.assertEqual(os.readlink(f"/proc/{pid}/cwd"), str(self.images))
        own = os.getpriority(os.PRIO_PROCESS, 0)
        self.assertEqual(os.getpriority(os.PRIO_PROCESS, daemon.pid), own)
        self.assertNotEqual(os.readlink(f"/proc/{daemon.pid}/cwd"), str(self.images))

    def test_life(self) -> None:
        """Two processes serve; a killed one is replaced and the other serves meanwhile; logs
        are reopened by all; QUIT to the parent is graceful."""
        daemon = self.start_workers()
        workers = self.await_workers(daemon)
        self.assertNotIn(daemon.pid, workers)
        victim = min(workers)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: not running(victim), 30, "death")
        for _ in range(40):
            self.assertEqual(self.get().status, 200)
        wait_until(lambda: len(set(descendants(daemon.pid))) == 2, 30, "replacement")
        self.assertNotIn(victim, descendants(daemon.pid))
        self.await_workers(daemon)

        log = self.prefix.logs / "access.log"
        before = len(log.read_text().splitlines())
        log.rename(self.prefix.logs / "access.old")
        daemon.signal(signal.SIGUSR1)
        notices = self.prefix.logs / "error.log"
        wait_until(lambda: notices.read_text().count("reopened logs") == 3, 30, "reopening")
        for _ in range(20):
            self.get("/a.txt?after")
        with (self.images / "large.bin").open("wb") as file:
            file.truncate(LARGE)
        download = SlowDownload(self.port, "/large.bin")
        daemon.signal(signal.SIGQUIT)
        wait_until(lambda: not accepts(self.port), 30, "closed port")
        self.assertEqual(len(download.rest().partition(b"\r\n\r\n")[2]), LARGE)
        self.assertEqual(daemon.wait(), 0)
        self.assertEqual(descendants(daemon.pid), [])
        self.assertEqual(log.read_text().count("/a.txt?after"), 20)
        self.assertEqual(before, 40)
        self.assertFalse((self.prefix.logs / "status.pid").exists())

    def test_term_cuts_quit_short(self) -> None:
        """And when the parent is killed, the workers end by themselves."""
        with (self.images / "large.bin").open("wb") as file:
            file.truncate(LARGE)
        daemon = self.start_workers()
        download = SlowDownload(self.port, "/large.bin")
        daemon.signal(signal.SIGQUIT)
        wait_until(lambda: not accepts(self.port), 30, "closed port")
        self.assertLess(self.end(daemon), QUICK_SECONDS)
        download.sock.close()
        daemon = self.start_workers()
        family = descendants(daemon.pid)
        daemon.process.kill()
        daemon.wait()
        wait_until(lambda: not any(map(running, family)), 30, "end of the workers")
