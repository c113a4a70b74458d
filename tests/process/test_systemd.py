"""What systemd and a service tell each other."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.process.sockets import Endpoint, open_socket
from imagefarm.process.systemd import Notifier, inherited


class NotifierTests(SynchronousTestCase):
    def listen(self, address: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(sock.close)
        sock.bind(address)
        sock.settimeout(5)
        return sock

    def test_messages(self) -> None:
        path = f"/tmp/imagefarm-notify-{os.getpid()}"
        self.addCleanup(os.unlink, path)
        sock = self.listen(path)
        notifier = Notifier({"NOTIFY_SOCKET": path}, 7)
        for tell, expected in (
            (lambda: notifier.ready(7), b"READY=1\nMAINPID=7"),
            (notifier.alive, b"WATCHDOG=1"),
            (notifier.stopping, b"STOPPING=1"),
        ):
            tell()
            self.assertEqual(sock.recv(1000), expected)
        notifier.reloading()
        self.assertRegex(sock.recv(1000), rb"\ARELOADING=1\nMONOTONIC_USEC=\d+\Z")

    def test_abstract_address(self) -> None:
        name = f"imagefarm-notify-{os.getpid()}"
        sock = self.listen(f"\0{name}")
        Notifier({"NOTIFY_SOCKET": f"@{name}"}, 7).stopping()
        self.assertEqual(sock.recv(1000), b"STOPPING=1")

    def test_nobody_listens(self) -> None:
        Notifier({}, 7).ready(7)
        Notifier({"NOTIFY_SOCKET": "/no/such"}, 7).ready(7)

    def test_watchdog(self) -> None:
        """Half the time; for the process that is meant, and the one that takes over from it."""
        given = {"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "3000000"}
        for pid, expected, left in (("7", 1.5, given), ("8", 0.0, {"NOTIFY_SOCKET": "/s"})):
            environment = {**given, "WATCHDOG_PID": pid}
            self.assertEqual(Notifier(environment, 7).interval, expected)
            self.assertEqual(environment, left)
        self.assertEqual(Notifier({"WATCHDOG_USEC": "3000000"}, 7).interval, 0.0)


class InheritedTests(SynchronousTestCase):
    def test_first_environment(self) -> None:
        """What has been taken away since is still there."""
        code = (
            "import os; from imagefarm.process.systemd import first_environment;"
            "del os.environ['LISTEN_PID']; print(first_environment(os.environ)['LISTEN_PID'])"
        )
        environment = {**os.environ, "LISTEN_PID": "a=b"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, check=True
        )
        self.assertEqual(done.stdout, b"a=b\n")

    def test_sockets(self) -> None:
        """By the address that they have, as "listen" has it."""
        path = str(Path(self.mktemp()).absolute())
        # Beyond all that other tests use: who waits in accept(2) has a number in reserve.
        first = 800
        endpoints = [Endpoint("127.0.0.1"), Endpoint("::1"), Endpoint(path=path)]
        names = []
        for fd, endpoint in enumerate(endpoints, first):
            sock = open_socket(endpoint)
            os.dup2(sock.fileno(), fd)
            self.addCleanup(os.close, fd)
            port = 0 if endpoint.path else sock.getsockname()[1]
            names.append(str(endpoint).replace(":0", f":{port}"))
            sock.close()
        environment = {"LISTEN_PID": "7", "LISTEN_FDS": "3"}
        self.assertEqual(
            inherited(environment, 7, first),
            "".join(f"{name}={fd};" for fd, name in enumerate(names, first)),
        )
        self.assertEqual(inherited(environment, 8, first), "")
        self.assertEqual(inherited({"LISTEN_PID": "7", "LISTEN_FDS": "1"}, 7, 999), "")
