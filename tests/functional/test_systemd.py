"""What a service manager sees of a real daemon: readiness, reloads, the watchdog, its sockets."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.functional.test_reload import ReloadCase
from tests.support import farm, tools
from tests.support.processes import Daemon
from tests.support.stages import StagedCase

#: As systemd starts a service: the listening socket is descriptor 3, and the variables are set.
SERVICE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", WATCHDOG_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-m", "imagefarm.process", *sys.argv[2:]])
"""


class Service(ReloadCase):
    def test_service(self) -> None:
        self.configure()
        path = str(self.prefix.directory / "notify")
        notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(notices.close)
        notices.bind(path)
        notices.settimeout(30)
        listening = socket.create_server(("127.0.0.1", self.port))
        self.addCleanup(listening.close)
        listening.set_inheritable(True)
        daemon = Daemon(
            [
                sys.executable, "-c", SERVICE, str(listening.fileno()),
                "-n", "--pidfile=", "imagefarm", "slave", "--prefix", str(self.prefix.directory),
                "--config", str(self.prefix.conf("status.conf")),
            ],
            self.prefix.directory / "out",
            [],
            {"PYTHONPATH": str(farm.REPOSITORY), "NOTIFY_SOCKET": path,
             "WATCHDOG_USEC": "200000"},
            self.prefix.directory,
            keep=[listening.fileno()],
        )  # fmt: skip
        self.addCleanup(farm.end_farm, daemon)

        def told(what: bytes) -> bytes:
            while True:
                message = notices.recv(1000)
                if message.startswith(what):
                    return message

        self.assertEqual(told(b"READY"), b"READY=1\nMAINPID=%d" % daemon.pid)
        self.assertEqual(self.version(), "1")  # though the port was taken: by our own socket
        told(b"WATCHDOG=1")
        self.configure(2)
        daemon.signal(signal.SIGHUP)
        told(b"RELOADING=1")
        told(b"READY=1")
        self.await_version("2")
        self.configure(3, "wrong 1;")
        daemon.signal(signal.SIGHUP)
        told(b"RELOADING=1")
        told(b"READY=1")
        daemon.signal(signal.SIGTERM)
        told(b"STOPPING=1")
        self.assertEqual(daemon.wait(), 0)


class Units(StagedCase):
    def test_verified(self) -> None:
        """systemd has nothing to say about our units."""
        program = tools.tool("systemd-analyze")
        directory = Path(tempfile.mkdtemp(prefix="units-"))
        self.addCleanup(shutil.rmtree, directory)
        units = []
        for path in (farm.SHIPPED / "systemd").iterdir():
            text = path.read_text().replace("/opt/imagefarm/bin/twistd", sys.executable)
            units.append(directory / path.name)
            units[-1].write_text(text)
        self.assertEqual(len(units), 6)
        self.assertEqual(self.verify(program, *units), "")
        units[0].write_text("[Unit]\nDescription=x\nWhen=never\n")
        self.assertIn("'When'", self.verify(program, *units))

    def verify(self, program: str, *units: Path) -> str:
        done = subprocess.run(
            [program, "verify", "--man=no", *units], capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr
