"""``worker_connections``: who is served, who has to go, who is turned away; what is said."""

from __future__ import annotations

import socket

from tests.functional.test_commands import CommandCase
from tests.support import rawhttp
from tests.support.processes import Daemon, descendants, wait_until

PLACES = 20
CONFIGURATION = """
error_log  logs/error.log warn;
pid        logs/status.pid;
worker_rlimit_nofile {files};
events {{ worker_connections {places}; }}
http {{
    access_log off;
    root images;
    server {{
        listen 127.0.0.1:{port};
        location = /up {{ proxy_pass http://127.0.0.1:{upstream}; }}
        location / {{ }}
    }}
}}
"""
BEGIN = b"GET /%b HTTP/1.1\r\nHost: a\r\nA: "
END = b"\r\n\r\n"


class ConnectionsCase(CommandCase):
    """A server, real nginx as well (tests.interop.test_worker_connections_nginx)."""

    #: What the configuration says for `PLACES`.
    limit = PLACES
    files = 64

    def serve(self) -> Daemon:
        return self.start("slave", config="status.conf")

    def begin(self) -> None:
        self.upstream = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.upstream.close)
        self.upstream.settimeout(rawhttp.TIMEOUT)
        self.prefix.write(
            "status.conf",
            CONFIGURATION.format(
                places=self.limit,
                files=self.files,
                port=self.port,
                upstream=self.upstream.getsockname()[1],
            ),
        )
        self.daemon = self.serve()
        # The connections by which it was found to listen have gone when this has.
        rawhttp.exchange(self.port, rawhttp.request("/a.txt", "Connection: close"))

    def connect(self, sent: bytes) -> rawhttp.Reader:
        sock = rawhttp.connect(self.port)
        self.addCleanup(sock.close)
        sock.sendall(sent)
        return rawhttp.Reader(sock)

    def status(self, reader: rawhttp.Reader) -> int:
        """0: the connection was closed instead."""
        try:
            answer = reader.answer()
        except (BrokenPipeError, ConnectionResetError):
            return 0
        return answer.status if answer is not None else 0

    def errors(self, text: str) -> None:
        wait_until(lambda: text in self.prefix.log("error.log"), 30, text)

    def scenario(self) -> None:
        self.begin()
        idle = [self.connect(rawhttp.request("/a.txt")) for _ in range(PLACES - 4)]
        self.assertEqual({self.status(reader) for reader in idle}, {200})
        # Each of these takes the place of one that waits. They have begun another request as
        # soon as they have their answer.
        busy = []
        for target in [b"a.txt"] * (PLACES - 1) + [b"up"]:
            busy.append(self.connect(rawhttp.request("/a.txt") + BEGIN % target))
            self.assertEqual(self.status(busy[-1]), 200)
        few = f"{self.limit} worker_connections are not enough"
        self.assertEqual({self.status(reader) for reader in idle}, {0})
        self.errors(f": {few}, reusing connections\n")
        for _ in range(PLACES):
            self.assertEqual(self.status(self.connect(rawhttp.request("/a.txt"))), 0)
        self.errors(f": {few}\n")
        # An upstream needs a place, too.
        busy[-1].sock.sendall(END)
        self.assertEqual(self.status(busy.pop()), 500)
        self.errors(f"{few} while connecting to upstream")
        leaving = busy.pop()
        leaving.sock.sendall(b"\r\nConnection: close" + END)
        self.assertEqual([self.status(leaving), self.status(leaving)], [200, 0])
        asking = self.connect(rawhttp.request("/up"))
        peer, _ = self.upstream.accept()
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nup")
        peer.close()
        self.assertEqual(self.status(asking), 200)
        for reader in busy:
            reader.sock.sendall(END)
        self.assertEqual([self.status(reader) for reader in busy].count(200), PLACES - 2)


class Connections(ConnectionsCase):
    def test_places(self) -> None:
        self.scenario()
        (worker,) = descendants(self.daemon.pid)
        errors = self.prefix.log("error.log")
        for level, more in ("warn", ", reusing connections"), ("alert", ""):
            line = f"[{level}] {worker}#0: {PLACES} worker_connections are not enough{more}\n"
            self.assertIn(line, errors)

    def test_more_than_there_can_be_files(self) -> None:
        self.begin()
        self.assertNotIn("exceed", self.prefix.log("error.log"))
        checked = self.prefix.run(
            "-n", "--pidfile=", "imagefarm", "slave", "--prefix", str(self.prefix.directory),
            "--config", str(self.prefix.conf("status.conf")), "--check",
            "--set", "worker_rlimit_nofile 19",
        )  # fmt: skip
        self.assertEqual(checked.returncode, 0)
        self.assertIn(
            f"[warn] {PLACES} worker_connections exceed open file resource limit: 19",
            checked.stderr,
        )


class Descriptors(ConnectionsCase):
    """Fewer than there may be connections."""

    limit = 512
    files = 40

    def test_out_of_them(self) -> None:
        """A file that can't be opened is 500, as in nginx; until there is room again."""
        self.begin()
        served = self.connect(rawhttp.request("/a.txt"))
        self.assertEqual(self.status(served), 200)
        others = [self.connect(b"") for _ in range(self.files)]
        (worker,) = descendants(self.daemon.pid)
        self.errors(f"[crit] {worker}#0: accept4() failed (24: Too many open files)\n")
        served.sock.sendall(rawhttp.request("/a.txt"))
        self.assertEqual(self.status(served), 500)
        self.errors(f'open() "{self.images}/a.txt" failed (24: Too many open files), client: ')
        for reader in others:
            reader.sock.close()

        def room() -> bool:
            return self.status(self.connect(rawhttp.request("/a.txt"))) == 200

        wait_until(room, 30, "room for one more")
        self.assertNotIn("Traceback", self.prefix.log("error.log"))
