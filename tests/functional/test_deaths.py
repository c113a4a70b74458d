"""Workers that are killed under load, and one that can't be started again."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections import Counter
from pathlib import Path

from tests.functional.test_commands import CommandCase
from tests.functional.test_reload import Clients
from tests.support import rawhttp
from tests.support.farmsite import noise
from tests.support.load import Answer
from tests.support.processes import Daemon, accepts, descendants, running, wait_until

CONFIGURATION = """
worker_processes {workers};
error_log  {logs}/error.log notice;
pid        run/status.pid;
events {{ }}
http {{
    access_log off;
    root images;
    server {{
        listen 127.0.0.1:{port};
        add_header X-Pid $pid;
        location /slow/ {{ limit_rate 100k; }}
        location / {{ }}
    }}
}}
"""
#: Three seconds' worth.
SLOW = noise(300_000, 7)
#: Until all clients know that a connection has gone, in seconds.
NEWS = 0.5
#: How long a new worker may take on a slow machine; on a usual one it is half a second.
SOON = 10.0


class DeathCase(CommandCase):
    def begin(self, workers: int) -> Daemon:
        (self.prefix.directory / "logs").mkdir()
        (self.images / "slow").mkdir()
        (self.images / "slow" / "a.bin").write_bytes(SLOW)
        self.prefix.write(
            "status.conf",
            CONFIGURATION.format(workers=workers, logs=self.prefix.logs, port=self.port),
        )
        daemon = self.start("slave", config="status.conf")
        pidfile = self.prefix.directory / "run" / "status.pid"
        wait_until(lambda: self.pid_in(pidfile) == daemon.pid, 30, "pid")
        return daemon


class Killed(DeathCase):
    def setUp(self) -> None:
        super().setUp()
        self.kills: list[float] = []

    def kill(self, daemon: Daemon, *victims: int) -> None:
        """Until there are new ones."""
        count = len(descendants(daemon.pid))
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        self.kills.append(time.monotonic())
        wait_until(lambda: not any(map(running, victims)), 30, "death")
        wait_until(lambda: len(descendants(daemon.pid)) == count, 30, "new workers")
        wait_until(lambda: accepts(self.port), 30, "answer")
        self.assertLess(time.monotonic() - self.kills[-1], SOON)

    def excused(self, answer: Answer) -> bool:
        """Whether it was under way when a worker was killed."""
        end = answer.asked + answer.took
        return any(answer.asked < kill + NEWS and end > kill - NEWS for kill in self.kills)

    def test_under_load(self) -> None:
        """Only what is under way in the one that is killed suffers."""
        daemon = self.begin(workers=2)
        with Clients(self) as clients:
            downloads = [rawhttp.connect(self.port) for _ in range(8)]
            for sock in downloads:
                self.addCleanup(sock.close)
                sock.sendall(rawhttp.request("/slow/a.bin", "Connection: close"))
            heads = [sock.recv(4096) for sock in downloads]
            pids = [int(re.findall(rb"X-Pid: (\d+)", head)[0]) for head in heads]
            self.assertEqual(set(pids) - set(descendants(daemon.pid)), set())
            victim = pids[0]
            self.kill(daemon, victim)
            for sock, head, pid in zip(downloads, heads, pids, strict=True):
                body = (head + rest(sock)).partition(b"\r\n\r\n")[2]
                if pid == victim:
                    self.assertLess(len(body), len(SLOW))
                else:
                    self.assertTrue(body == SLOW, len(body))
            self.kill(daemon, *descendants(daemon.pid))
            enough = clients.loads[2].count() + 100
            wait_until(lambda: clients.loads[2].count() > enough, 30, "answers")
        outcomes = Counter(
            answer.outcome.strip() for answer in clients.answers if not self.excused(answer)
        )
        self.assertEqual(set(outcomes), {"good"}, outcomes)
        self.assertGreater(outcomes["good"], 100)
        log = self.prefix.log("error.log")
        waits = re.findall(r"was killed by signal 9, restarting in ([\d.]+) s\n", log)
        self.assertEqual(sorted(waits), ["0.25", "0.25", "0.5"])  # one of them has died before


def rest(sock: socket.socket) -> bytes:
    """What comes until the end, whatever that is."""
    found = []
    try:
        while data := sock.recv(1 << 16):
            found.append(data)
    except ConnectionResetError:
        pass
    return b"".join(found)


class Hindered(DeathCase):
    def test_backs_off(self) -> None:
        """It says why, each time after twice as long, and serves as soon as it can."""
        daemon = self.begin(workers=1)
        logs, moved = self.prefix.logs, self.prefix.directory / "moved"
        logs.rename(moved)
        logs.write_text("not a directory")
        (victim,) = descendants(daemon.pid)
        os.kill(victim, signal.SIGKILL)
        why = re.escape(f'open() "{logs}/error.log" failed (20: Not a directory)')
        pattern = rf"\[alert\] {daemon.pid}#0: worker 1 exited with status 1 \({why}\), restarting"

        def told() -> list[str]:
            return re.findall(rf"{pattern} in ([\d.]+) s\n", (moved / "error.log").read_text())

        wait_until(lambda: len(told()) >= 3, 60, "three lines")
        self.assertEqual(told()[:3], ["0.5", "1", "2"])
        spent = processor_time(daemon.pid)
        wait_until(lambda: len(told()) >= 4, 60, "another line")
        self.assertLess(processor_time(daemon.pid) - spent, 1.5)  # in two seconds
        logs.unlink()
        moved.rename(logs)
        wait_until(lambda: bool(descendants(daemon.pid)), 60, "a worker")
        self.assertEqual(self.get().body, b"a file")
        self.end(daemon)

    def test_at_the_first_start(self) -> None:
        """Nothing is started, and one line says why."""
        self.prefix.write(
            "status.conf",
            CONFIGURATION.format(workers=2, logs=self.prefix.logs, port=self.port),
        )
        daemon = self.prefix.start(
            "slave", "--set", "worker_rlimit_nofile 8", ports=[], config="status.conf"
        )
        self.addCleanup(daemon.stop)
        self.assertEqual(daemon.wait(30), 1)
        lines = self.prefix.log("error.log").splitlines()
        self.assertIn(
            "worker 1 exited with status 1 before it was ready: Too many open files (24)",
            lines[-1],
        )
        self.assertEqual(
            ["[emerg]" in line for line in lines], [False] * (len(lines) - 1) + [True]
        )
        self.assertNotIn("Traceback", daemon.output.read_text())
        self.assertFalse((self.prefix.directory / "run" / "status.pid").exists())


def processor_time(pid: int) -> float:
    """Seconds that a process has used."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
