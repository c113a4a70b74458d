"""Protocols changed with 101 through the master: WebSocket, and bytes that nobody understands."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import rawhttp, tools
from tests.support.acceptor import Acceptor
from tests.support.certificates import self_signed
from tests.support.processes import Daemon, free_ports, imagefarm, wait_until
from tests.support.stages import Cleanup, StagedCase, shared

IDLE = 1
TIMEOUT = 20.0

CONFIGURATION = """
worker_processes 1;
error_log logs/error.log info;
events {{ }}
http {{
    log_format tunnel "$request_uri $status $body_bytes_sent $upstream_status";
    access_log logs/access.log tunnel;
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection "upgrade";
    upstream peers {{ server 127.0.0.1:{peer}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls} ssl;
        ssl_certificate {directory}/cert.pem;
        ssl_certificate_key {directory}/cert.key;
        location / {{ proxy_pass http://peers; }}
        location /idle {{ proxy_pass http://peers; proxy_read_timeout {idle}s; }}
        location /inner {{ proxy_pass https://127.0.0.1:{tls}/deep; }}
        location /unset {{ proxy_pass http://peers; proxy_set_header Connection ""; }}
        location /websocket {{ proxy_pass http://127.0.0.1:{websocket}; }}
    }}
}}
"""

ASK = "Connection: keep-alive, Upgrade", "Upgrade: test"


class Peer(Acceptor):
    """Switches to a protocol of a test's choice, if asked to; else it answers with the head."""

    def __init__(self) -> None:
        self.speak: Callable[[socket.socket, bytes], None] = lambda sock, early: None
        self.early = b""
        self.force = False

    def serve(self, client: socket.socket) -> None:
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                more = client.recv(65536)
                if not more:
                    return
                data += more
            head, _, data = data.partition(b"\r\n\r\n")
            if b"\r\nupgrade: test" in head.lower() or self.force:
                client.sendall(
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n"
                    b"Upgrade: test\r\nX-Peer: yes\r\n\r\n" + self.early
                )
                self.speak(client, data)
                return
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(head), head))


@shared
def websocket_server(cleanup: Cleanup) -> int:
    """An echo server of the ``websockets`` library; 0 without it."""
    try:
        from websockets.sync.server import serve
    except ImportError:
        return 0

    def echo(connection: Any) -> None:
        for message in connection:
            connection.send(message)

    server = serve(echo, "127.0.0.1", 0, max_size=None)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    cleanup(server.shutdown)
    port: int = server.socket.getsockname()[1]
    return port


class Site:
    def __init__(self, cleanup: Cleanup) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="imagefarm-tunnel-"))
        cleanup(shutil.rmtree, self.directory, True)
        (self.directory / "logs").mkdir()
        self_signed(self.directory, "cert")
        self.peer = Peer()
        self.peer.open()
        cleanup(self.peer.close)
        self.port, self.tls = free_ports(2)
        config = self.directory / "master.conf"
        config.write_text(
            CONFIGURATION.format(
                port=self.port, tls=self.tls, peer=self.peer.port, directory=self.directory,
                idle=IDLE, websocket=websocket_server() or 1,
            )
        )  # fmt: skip
        self.daemon: Daemon = imagefarm(
            "master", self.directory, "--config", str(config), ports=[self.port]
        ).started()
        cleanup(self.daemon.stop)

    def line(self, target: str) -> str | None:
        """The access log's last line for ``target``."""
        log = (self.directory / "logs" / "access.log").read_text()
        return next(
            (line for line in log.splitlines()[::-1] if line.startswith(target + " ")), None
        )


@shared
def site(cleanup: Cleanup) -> Site:
    return Site(cleanup)


class TunnelCase(StagedCase):
    def setUp(self) -> None:
        self.site = site()
        self.peer = self.site.peer
        self.peer.early, self.peer.force = b"", False

    def open(self, target: str, *, tls: bool = False, first: bytes = b"") -> Any:
        """A tunnel: the socket, and what came behind the head."""
        sock = rawhttp.connect(self.site.tls if tls else self.site.port, tls=tls)
        self.addCleanup(sock.close)
        sock.settimeout(TIMEOUT)
        sock.sendall(rawhttp.request(target, *ASK) + first)
        data = b""
        while b"\r\n\r\n" not in data:
            more = sock.recv(65536)
            assert more, data
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"), head)
        for field in (b"Connection: upgrade", b"Upgrade: test", b"X-Peer: yes"):
            self.assertIn(field, head.split(b"\r\n"))
        self.assertNotIn(b"Content-Length", head)
        self.assertNotIn(b"Transfer-Encoding", head)
        return sock, rest

    def all_of(self, sock: Any, data: bytes = b"") -> bytes:
        while more := sock.recv(1 << 18):
            data += more
        return data

    def logged(self, target: str) -> str:
        wait_until(lambda: self.site.line(target), 30, f"log line of {target}")
        return self.site.line(target) or ""


class TunnelTests(TunnelCase):
    def test_both_ways_and_what_came_early(self) -> None:
        """What either side sends along with its head is the first of what the other gets."""

        def speak(sock: socket.socket, data: bytes) -> None:
            while len(data) < 10:
                data += sock.recv(100)
            sock.sendall(b"got " + data)

        for number, tls in enumerate((False, True)):
            self.peer.early, self.peer.speak = b"early ", speak
            sock, rest = self.open(f"/both{number}", tls=tls, first=b"first")
            sock.sendall(b"-more")
            self.assertEqual(self.all_of(sock, rest), b"early got first-more")
            sock.close()
            self.assertEqual(self.logged(f"/both{number}"), f"/both{number} 101 20 101")

    def test_through_tls_to_the_upstream(self) -> None:
        def speak(sock: socket.socket, data: bytes) -> None:
            while len(data) < 5:
                data += sock.recv(100)
            sock.sendall(data[::-1])

        self.peer.speak = speak
        sock, rest = self.open("/inner")
        sock.sendall(b"abcde")
        self.assertEqual(self.all_of(sock, rest), b"edcba")

    def test_the_client_ends_first(self) -> None:
        """Its end is passed on, and the answer to it still comes."""

        def speak(sock: socket.socket, data: bytes) -> None:
            while more := sock.recv(65536):
                data += more
            sock.sendall(b"%d bytes" % len(data))

        self.peer.speak = speak
        sock, rest = self.open("/client-first")
        sock.sendall(b"x" * 300_000)
        sock.shutdown(socket.SHUT_WR)
        self.assertEqual(self.all_of(sock, rest), b"300000 bytes")
        self.assertEqual(self.logged("/client-first"), "/client-first 101 12 101")

    def test_the_upstream_ends_first(self) -> None:
        got: list[bytes] = []
        done = threading.Event()

        def speak(sock: socket.socket, data: bytes) -> None:
            sock.sendall(b"the end")
            sock.shutdown(socket.SHUT_WR)
            while more := sock.recv(65536):
                data += more
            got.append(data)
            done.set()

        self.peer.speak = speak
        sock, rest = self.open("/upstream-first")
        self.assertEqual(self.all_of(sock, rest), b"the end")
        sock.sendall(b"good bye")
        sock.close()
        self.assertTrue(done.wait(TIMEOUT))
        self.assertEqual(got, [b"good bye"])
        self.logged("/upstream-first")

    def test_much_both_ways_at_once_to_slow_readers(self) -> None:
        """Neither side reads until both are stuck; then everything arrives."""
        size = 8 << 20
        body = os.urandom(1 << 20) * 8
        digest = hashlib.sha256(body).digest()
        got: list[bytes] = []
        done = threading.Event()

        def push(sock: Any) -> threading.Thread:
            thread = threading.Thread(target=sock.sendall, args=(body,), daemon=True)
            thread.start()
            return thread

        def speak(sock: socket.socket, data: bytes) -> None:
            push(sock)
            time.sleep(0.3)
            total = hashlib.sha256(data)
            count = len(data)
            while count < size:
                more = sock.recv(1 << 18)
                total.update(more)
                count += len(more)
            got.append(total.digest())
            done.set()

        self.peer.speak = speak
        sock, rest = self.open("/much")
        push(sock)
        time.sleep(0.3)
        data = bytearray(rest)
        while len(data) < size:
            data += sock.recv(1 << 18)
        self.assertEqual(hashlib.sha256(data).digest(), digest)
        self.assertTrue(done.wait(TIMEOUT))
        self.assertEqual(got, [digest])

    def test_idle(self) -> None:
        """proxy_read_timeout is how long neither side may say anything."""
        self.peer.speak = lambda sock, data: self.all_of(sock) and None
        sock, _ = self.open("/idle")
        began = time.monotonic()
        for _ in range(4):
            time.sleep(IDLE / 2)
            sock.sendall(b"x")
        alive = time.monotonic() - began
        try:
            self.assertEqual(self.all_of(sock), b"")
        except ConnectionResetError:
            pass
        self.assertGreater(alive, IDLE * 1.5)
        self.assertLess(time.monotonic() - began - alive, IDLE + 5)
        self.assertEqual(self.logged("/idle"), "/idle 101 0 101")

    def test_a_client_that_goes(self) -> None:
        gone = threading.Event()

        def speak(sock: socket.socket, data: bytes) -> None:
            try:
                while sock.recv(65536):
                    pass
            except OSError:
                pass
            gone.set()

        self.peer.speak = speak
        sock, _ = self.open("/goes", tls=True)
        sock.sendall(b"x")
        sock.close()
        self.assertTrue(gone.wait(TIMEOUT))
        self.assertEqual(self.logged("/goes"), "/goes 101 0 101")

    def test_an_upstream_that_breaks_off(self) -> None:
        def speak(sock: socket.socket, data: bytes) -> None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

        self.peer.speak = speak
        sock, rest = self.open("/breaks")
        with self.assertRaises(ConnectionResetError):
            self.all_of(sock, rest)
            raise ConnectionResetError  # an end is as good
        self.logged("/breaks")


class RefusalTests(TunnelCase):
    def ask(self, target: str, *fields: str, version: str = "HTTP/1.1") -> rawhttp.Answer:
        data = rawhttp.request(target, *fields).replace(b"HTTP/1.1", version.encode(), 1)
        answer = rawhttp.exchange(self.site.port, data)
        assert answer is not None
        return answer

    def test_not_for_clients_that_did_not_ask(self) -> None:
        for fields, version in (
            ((), "HTTP/1.1"),
            (("Upgrade: test",), "HTTP/1.1"),
            (("Connection: upgrade",), "HTTP/1.1"),
            (ASK, "HTTP/1.0"),
        ):
            answer = self.ask("/", *fields, version=version)
            self.assertEqual(answer.status, 200, (fields, version))
            self.assertNotIn(b"upgrade", answer.body.lower())

    def test_not_for_locations_that_do_not_ask(self) -> None:
        answer = self.ask("/unset", *ASK)
        self.assertEqual(answer.status, 200)
        self.assertNotIn(b"connection: upgrade", answer.body.lower())

    def test_an_upstream_that_was_not_asked(self) -> None:
        self.peer.force = True
        self.peer.early = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsmuggle"
        answer = self.ask("/forced")
        self.assertEqual(answer.status, 502)
        log = (self.site.directory / "logs" / "error.log").read_text()
        self.assertIn("upstream switched protocols unasked while reading response header", log)

    def test_an_upstream_that_declines(self) -> None:
        """An ordinary answer is one, and the connection goes on."""
        sock = rawhttp.connect(self.site.port)
        self.addCleanup(sock.close)
        reader = rawhttp.Reader(sock)
        for _ in range(2):
            sock.sendall(rawhttp.request("/", "Connection: upgrade", "Upgrade: other"))
            answer = reader.answer()
            assert answer is not None
            self.assertEqual(answer.status, 200)


class WebSocketTests(TunnelCase):
    def test_messages(self) -> None:
        """The websockets library on both sides."""
        if not websocket_server():
            raise tools.missing("websockets")
        from websockets.sync.client import connect

        url = f"ws://127.0.0.1:{self.site.port}/websocket"
        with connect(url, max_size=None, proxy=None) as client:
            for message in ("hello", b"\0\1\2", "x" * 70_000, os.urandom(3 << 20)):
                client.send(message)
                self.assertEqual(client.recv(TIMEOUT), message)
            client.ping().wait(TIMEOUT)
        self.assertIn("/websocket 101 ", self.logged("/websocket"))
