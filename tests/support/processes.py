"""Real processes on loopback, started, awaited and ended by tests."""

from __future__ import annotations

import functools
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

START_SECONDS = 60.0
STOP_SECONDS = 15.0


#: Below the kernel's own ephemeral range, so that no client's connection takes a port between
#: one start of a daemon and the next.
PORTS = range(10_000, 32_000)
#: So many processes have ports of their own when they run tests at the same time.
SHARES = 4


@functools.cache
def _share() -> tuple[Iterator[int], socket.socket | None]:
    """Ports that no other process picks, in turn over and over, so that one that was given out
    does not come soon again; and the name that has them ours for as long as we live.
    """
    ports, holder = PORTS, None
    for number in range(SHARES):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            sock.bind(f"\0imagefarm-tests-ports-{number}")
        except OSError:
            sock.close()
        else:
            ports, holder = PORTS[number::SHARES], sock
            break
    return itertools.cycle(random.sample(ports, len(ports))), holder


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, and that nobody was told of lately."""
    ports, _ = _share()
    found: list[int] = []
    while len(found) < count:
        port = next(ports)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    return found


def accepts(port: int) -> bool:
    """Whether something listens on the port."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def wait_until(condition: object, seconds: float = START_SECONDS, what: str = "condition") -> None:
    """Poll until ``condition()`` is true. Raises AssertionError after ``seconds``."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"no {what} within {seconds} s")
        time.sleep(0.02)


class Daemon:
    """A process in a session of its own. ``output`` is where it writes stdout and stderr."""

    def __init__(
        self,
        command: Sequence[str],
        output: Path,
        ports: Iterable[int] = (),
        environment: dict[str, str] | None = None,
        cwd: Path | None = None,
        keep: Sequence[int] = (),
    ) -> None:
        self.output = output
        self.ports = tuple(ports)
        with output.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
                cwd=cwd,
                start_new_session=True,
                pass_fds=keep,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def started(self) -> Daemon:
        """Wait until all ports accept connections."""

        def ready() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(
                    f"exited with {self.process.returncode}: {self.output.read_text()[-4000:]}"
                )
            return all(map(accepts, self.ports))

        try:
            wait_until(ready, what=f"listening on {self.ports}")
        except AssertionError:
            self.stop()
            raise
        return self

    def signal(self, number: signal.Signals) -> None:
        """To the master; what stops and continues a process is for its workers too."""
        self.process.send_signal(number)
        if number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in descendants(self.pid):
                os.kill(pid, number)

    def kill(self) -> None:
        """At once: the master, its workers, and what these have started."""
        family = [self.pid, *descendants(self.pid)]
        for pid in family:
            os.kill(pid, signal.SIGKILL)
        self.process.wait(STOP_SECONDS)
        wait_until(lambda: not any(map(running, family)), STOP_SECONDS, "end of all")

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        return self.process.wait(seconds)

    def stop(self) -> int:
        """TERM, then KILL for the whole session if that does not help."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(STOP_SECONDS)
        return self.process.returncode


def running(pid: int) -> bool:
    """Whether the process is there and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def descendants(pid: int) -> list[int]:
    """The processes that ``pid`` started, and those that they started."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if words[0] not in "ZX":
            children.setdefault(int(words[1]), []).append(int(entry.parent.name))
    found = []
    waiting = [pid]
    while waiting:
        started = children.get(waiting.pop(), [])
        found += started
        waiting += started
    return sorted(found)


def resident(pid: int) -> int:
    """The memory that the process holds, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def twistd(*arguments: str) -> list[str]:
    """The command line of ``twistd ARGUMENTS`` under this interpreter, run in any directory."""
    code = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"
    return [sys.executable, "-c", code, *arguments]


def imagefarm(
    role: str,
    directory: Path,
    *options: str,
    ports: Iterable[int] = (),
    twistd_options: Sequence[str] = (),
    name: str = "",
) -> Daemon:
    """Start ``twistd -n imagefarm ROLE`` with ``directory`` as prefix; not yet awaited."""
    root = Path(__file__).parents[2]
    return Daemon(
        twistd(
            "-n",
            "--pidfile=",
            *twistd_options,
            "imagefarm",
            role,
            "--prefix",
            str(directory),
            *options,
        ),
        directory / f"{name or role}.out",
        ports,
        {"PYTHONPATH": str(root)},
        directory,
    )
