"""The shipped configuration on free ports: a supervised farm, or its parts one by one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from . import rawhttp
from .processes import Daemon, descendants, imagefarm, running, twistd, wait_until
from .stages import Cleanup, shared

SHIPPED = Path(__file__).parents[2] / "etc"
REPOSITORY = Path(__file__).parents[2]
COMMAND_SECONDS = 60.0
RECOVERY_SECONDS = 30.0

#: Stillshots are served for this host, everything else for any other.
STILLSHOTS = "stillshot-origin.localhost"


class Prefix:
    """A directory to run roles in, with ``conf/`` holding etc/*.conf on ports of their own."""

    def __init__(self, directory: Path) -> None:
        from .farmsite import Ports

        self.directory = directory
        self.ports = Ports.free()
        self.images = directory / "images"
        self.logs = directory / "logs"
        (directory / "conf").mkdir(parents=True)
        directory.chmod(0o755)
        for file in SHIPPED.glob("*.conf"):
            shutil.copy(file, directory / "conf")
        self.edit(
            "master.conf",
            (f"listen       {8080}", f"listen  127.0.0.1:{self.ports.http}"),
            (f"listen       {8443}", f"listen  127.0.0.1:{self.ports.https}"),
            ("127.0.0.1:8081", f"127.0.0.1:{self.ports.slave1}"),
            ("127.0.0.1:8082", f"127.0.0.1:{self.ports.slave2}"),
            ("127.0.0.1:8091", f"127.0.0.1:{self.ports.dashboard}"),
            ("127.0.0.1:9000", f"127.0.0.1:{self.ports.fastcgi}"),
        )
        self.edit("slave.conf", ("127.0.0.1:8081", f"127.0.0.1:{self.ports.slave1}"))
        self.edit("resizer.conf", ("127.0.0.1:9000", f"127.0.0.1:{self.ports.fastcgi}"))
        self.edit(
            "farm.conf",
            ("port=8081", f"port={self.ports.slave1}"),
            ("port=8082", f"port={self.ports.slave2}"),
        )

    def conf(self, name: str) -> Path:
        return self.directory / "conf" / name

    def edit(self, name: str, *changes: tuple[str, str]) -> None:
        """Replace text that must be there."""
        content = self.conf(name).read_text()
        for old, new in changes:
            if old not in content:
                raise AssertionError(f"no {old!r} in {name}")
            content = content.replace(old, new)
        self.conf(name).write_text(content)

    def write(self, name: str, content: str) -> Path:
        """A configuration file of the test's own."""
        self.conf(name).write_text(content)
        return self.conf(name)

    def log(self, name: str) -> str:
        """What a log file holds; empty if there is none."""
        path = self.logs / name
        return path.read_text() if path.exists() else ""

    def start(
        self,
        role: str,
        *options: str,
        ports: Iterable[int],
        config: str = "",
        name: str = "",
        twistd_options: Sequence[str] = (),
    ) -> Daemon:
        """Start a role in the foreground; not yet awaited."""
        words = ["--config", str(self.conf(config or f"{role}.conf")), *options]
        return imagefarm(
            role, self.directory, *words, ports=ports, name=name, twistd_options=twistd_options
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``twistd ARGUMENTS`` to its end in the prefix's directory."""
        return subprocess.run(
            twistd(*arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            start_new_session=True,
            check=False,
        )

    def get(
        self,
        target: str,
        *fields: str,
        host: str = "localhost",
        method: str = "GET",
        tls: bool = False,
        port: int = 0,
    ) -> rawhttp.Answer:
        """One request to the master on a connection of its own."""
        data = rawhttp.request(target, "Connection: close", *fields, host=host, method=method)
        default = self.ports.https if tls else self.ports.http
        answer = rawhttp.exchange(port or default, data, tls=tls)
        assert answer is not None, f"no answer to {target}"
        return answer

    def answers(self, target: str, status: int = 200, host: str = "localhost") -> bool:
        """Whether the master gives that status now."""
        try:
            return self.get(target, host=host).status == status
        except (OSError, AssertionError):
            return False

    def await_answer(self, target: str, status: int = 200) -> None:
        wait_until(lambda: self.answers(target, status), RECOVERY_SECONDS, f"{status} {target}")


def start_farm(prefix: Prefix) -> Daemon:
    """``twistd -n imagefarm farm``, awaited until it says that it runs."""
    daemon = prefix.start("farm", ports=[prefix.ports.http, prefix.ports.https]).started()
    wait_until(lambda: "The farm runs" in daemon.output.read_text(), what="announcement")
    return daemon


def end_farm(daemon: Daemon) -> None:
    """Stop it, and leave nothing of it whatever happened."""
    family = descendants(daemon.pid)
    daemon.stop()
    for pid in filter(running, family):
        os.kill(pid, signal.SIGKILL)


def temporary_prefix(cleanup: Cleanup) -> Prefix:
    """A prefix in a directory that ``cleanup`` (a test's ``addCleanup``) removes."""
    directory = Path(tempfile.mkdtemp(prefix="imagefarm-functional-"))
    cleanup(shutil.rmtree, directory, True)
    return Prefix(directory)


@shared
def supervised(cleanup: Cleanup) -> tuple[Prefix, Daemon]:
    """A farm that is started by the first test that wants it."""
    prefix = temporary_prefix(cleanup)
    daemon = start_farm(prefix)
    cleanup(end_farm, daemon)
    return prefix, daemon


class Parts:
    """Master, slaves and resizer as processes of their own, to be killed and started again."""

    def __init__(self, prefix: Prefix) -> None:
        self.prefix = prefix
        self.running: dict[str, Daemon] = {}
        ports = prefix.ports
        self._how: dict[str, tuple[str, tuple[str, ...], int]] = {
            "resizer": ("resizer", (), ports.fastcgi),
            "slave1": ("slave", ("--set", "pid logs/slave1.pid"), ports.slave1),
            "slave2": (
                "slave",
                ("--port", str(ports.slave2), "--set", "pid logs/slave2.pid"),
                ports.slave2,
            ),
            "master": ("master", (), ports.http),
        }

    def start(self, *names: str) -> None:
        """Start these (all, if none is named) at the same time."""
        for name in names or tuple(self._how):
            role, options, port = self._how[name]
            self.running[name] = self.prefix.start(role, *options, ports=[port], name=name)
        for name in names or tuple(self._how):
            self.running[name].started()

    def kill(self, *names: str) -> None:
        """At once: masters, workers, and what these have started."""
        for name in names:
            self.running[name].kill()

    def pids(self) -> dict[str, int]:
        return {name: daemon.pid for name, daemon in self.running.items()}

    def stop(self) -> None:
        for daemon in self.running.values():
            daemon.signal(signal.SIGCONT)
            daemon.process.terminate()
        for daemon in self.running.values():
            daemon.stop()


def write_samples(root: Path) -> None:
    """The farm's own sample images and some files of other kinds."""
    from imagefarm.image.samples import draw

    from .farmsite import FILES, write_files

    root.mkdir(parents=True, exist_ok=True)
    draw(root)
    names = ("big.jpg", "page.html", "style.css", "app.js", "data.txt", "small.html", "zero.jpg")
    write_files(root, {name: FILES[name] for name in names})


@shared
def parts(cleanup: Cleanup) -> Parts:
    """The parts of a farm with quick time-outs, started by the first test that wants them."""
    prefix = temporary_prefix(cleanup)
    write_samples(prefix.images)
    prefix.edit(
        "master.conf",
        ("proxy_read_timeout     30s;", "proxy_read_timeout     500ms;"),
        ("max_fails=1 fail_timeout=2s", "max_fails=1 fail_timeout=1s"),
    )
    made = Parts(prefix)
    cleanup(made.stop)
    made.start()
    return made
