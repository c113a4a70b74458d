"""nginx and a slave of ours with the same configuration and the same files, on loopback."""

from __future__ import annotations

import multiprocessing
import os
import re
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.pairs import Load, Reading, wrk
from tests.support import farmsite
from tests.support.processes import (
    Daemon,
    descendants,
    free_ports,
    imagefarm,
    resident,
    wait_until,
)
from tests.support.tools import nginx, tool

TICK = os.sysconf("SC_CLK_TCK")

#: What is changed in the farm's slave configuration for connections that stay.
KEPT = (("keepalive_requests 5;", "keepalive_requests 10000000;"),)


def _machine() -> float:
    """CPU seconds spent or stolen so far, all cores (proc(5), /proc/stat)."""
    words = Path("/proc/stat").read_text().splitlines()[0].split()
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, words[1:9])
    return (user + nice + system + irq + softirq + steal) / TICK


def _used(pid: int) -> float:
    """User and system time of a process, in seconds (proc(5), /proc/PID/stat)."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICK


def _used_by_all(pid: int) -> float:
    """The same, and that of its children that have ended."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, words[11:15])) / TICK


def _clients() -> float:
    """CPU seconds of this process, its helpers, and the clients that were run and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    helpers = [child.pid for child in multiprocessing.active_children() if child.pid]
    return usage.ru_utime + usage.ru_stime + sum(map(_used, [os.getpid(), *helpers]))


def measure(processes: Callable[[], list[int]], action: Callable[[], Reading]) -> Reading:
    """Do ``action`` and add what ``processes`` spent meanwhile, and all others."""
    everything, client = _machine(), _clients()
    before = {pid: _used_by_all(pid) for pid in processes()}
    reading = action()
    after = {pid: _used_by_all(pid) for pid in processes()}
    # What has ended meanwhile is in the sum of its parent.
    spent = {pid: after.get(pid, 0.0) - before.get(pid, 0.0) for pid in before | after}
    others = _machine() - everything - (_clients() - client) - sum(spent.values())
    return replace(reading, cpu=tuple(spent.values()), others=max(0.0, others))


@dataclass(frozen=True)
class Setting:
    """What a case changes in the farm's slave configuration: texts, workers, TLS or not.

    ``role`` is ``slave``, or ``master`` for the farm's other configuration.
    """

    changes: tuple[tuple[str, str], ...] = ()
    workers: int = 1
    tls: bool = False
    role: str = "slave"


@dataclass(frozen=True)
class Server:
    """A running one."""

    name: str
    daemon: Daemon
    port: int
    tls: bool

    def url(self, path: str) -> str:
        """Where it serves ``path``."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}{path}"

    def _processes(self) -> list[int]:
        return [self.daemon.pid, *descendants(self.daemon.pid)]

    def memory(self) -> int:
        """Resident bytes of all its processes."""
        return sum(map(resident, self._processes()))

    def measure(self, action: Callable[[], Reading]) -> Reading:
        """Do ``action`` and add what the server's processes spent meanwhile."""
        return measure(self._processes, action)

    def load(self, path: str, load: Load) -> Reading:
        """Run wrk against it."""
        return self.measure(lambda: wrk(self.url(path), load))


@contextmanager
def directory() -> Iterator[Path]:
    """A directory that servers may read, removed in the end."""
    path = Path(tempfile.mkdtemp(prefix="bench-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def certificate(where: Path) -> None:
    """``where/bench.pem`` and ``.key``: RSA 2048, so that a handshake costs what it used to."""
    command = [
        tool("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        "-subj", "/CN=localhost", "-keyout", f"{where}/bench.key", "-out", f"{where}/bench.pem",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)


class Site:
    """A directory with the farm's files, from which servers are started."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._farm = farmsite.FarmSite(path, farmsite.Ports.free())
        self.ports = self._farm.ports
        self._texts = {
            "slave": self._farm.slaves[0].read_text(), "master": self._farm.master.read_text()
        }  # fmt: skip
        self.images = path / "images"
        certificate(path / "ssl")

    def _config(self, name: str, port: int, setting: Setting) -> Path:
        listen = f"listen 127.0.0.1:{port}"
        if setting.tls:
            ssl = self.path / "ssl/bench"
            listen += (
                f" ssl; ssl_certificate {ssl}.pem; ssl_certificate_key {ssl}.key;"
                " ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:SSL:10m"
            )
        text = re.sub(r"listen\s+\d+;", f"{listen};", self._texts[setting.role], count=1)
        # The master's second server, for TLS.
        (second,) = free_ports(1)
        text = re.sub(r"listen\s+\d+;", f"listen 127.0.0.1:{second};", text)
        workers = f"worker_processes  {setting.workers};"
        pid = re.search(r"logs/\w+\.pid", text)
        assert pid
        always = (("worker_processes  8;", workers), (pid[0], f"logs/{name}.pid"))
        for old, new in (*always, *setting.changes):
            assert old in text, old
            text = text.replace(old, new)
        # One and the same access log for both would make each write into the other's.
        text = text.replace("logs/access.log", f"logs/{name}.access.log")
        text = text.replace(f"{self.path}/cache", f"{self.path}/cache-{name}")
        path = self.path / f"conf/{name}.conf"
        path.write_text(text)
        return path

    @contextmanager
    def running(
        self, kind: str, setting: Setting, name: str = "", port: int = 0
    ) -> Iterator[Server]:
        """``nginx`` or ``imagefarm``, started, and ended on the way out."""
        port = port or free_ports(1)[0]
        config = self._config(name or kind, port, setting)
        pidfile = self.path / f"logs/{name or kind}.pid"
        pidfile.unlink(missing_ok=True)
        if kind == "nginx":
            daemon = farmsite.nginx(nginx(), self.path, config, [port])
        else:
            daemon = imagefarm(
                setting.role, self.path, "--config", str(config), ports=[port], name=name or kind
            )
        try:
            daemon.started()
            # Our supervisor listens before its workers do: the pidfile says that all are ready.
            wait_until(pidfile.exists, what="pidfile")
            yield Server(name or kind, daemon, port, setting.tls)
        finally:
            daemon.stop()

    @contextmanager
    def slaves(self, setting: Setting) -> Iterator[list[Server]]:
        """Two slaves, which the farm's master knows; nginx both."""
        ports = (self.ports.slave1, self.ports.slave2)
        with ExitStack() as stack:
            yield [
                stack.enter_context(self.running("nginx", setting, f"slave-{port}", port))
                for port in ports
            ]

    @contextmanager
    def contest(self, setting: Setting) -> Iterator[tuple[Server, Server]]:
        """Both."""
        with ExitStack() as stack:
            theirs = stack.enter_context(self.running("nginx", setting))
            ours = stack.enter_context(self.running("imagefarm", setting))
            time.sleep(0.2)  # nginx's workers and ours begin their first timers
            yield theirs, ours
