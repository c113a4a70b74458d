"""Large bodies through the master, both ways, over HTTP and FastCGI: whole, in little memory.

Nobody holds them: see `tests.support.streams`.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.support import rawhttp
from tests.support.acceptor import Acceptor
from tests.support.processes import Daemon, descendants, free_ports, imagefarm, wait_until
from tests.support.stages import Cleanup, StagedCase, shared
from tests.support.streams import Checker, pieces

GIGABYTE = 1 << 30
LARGE = 32 << 20
MEDIUM = 24 << 20
#: More than the kernel's buffers of two connections hold (up to 32 MB to receive, 4 to send).
ENDLESS = 128 << 20
#: How much more memory than idle the master may have.
MEMORY = 20 << 20
#: ``proxy_max_temp_file_size`` in /limited.
LIMIT = 2 << 20
TIMEOUT = 60.0

CONFIGURATION = """
worker_processes 1;
error_log logs/error.log warn;
events {{ }}
http {{
    log_format short "$request_uri $status $request_length $upstream_addr";
    access_log logs/access.log short;
    client_max_body_size 0;
    upstream origin {{ server 127.0.0.1:{http}; keepalive 4; }}
    upstream halved {{ server 127.0.0.1:{closing} max_fails=0; server 127.0.0.1:{http} backup; }}
    server {{
        listen 127.0.0.1:{port};
        location /on/ {{ proxy_pass http://origin/; }}
        location /off/ {{
            proxy_pass http://origin/;
            proxy_buffering off;
            proxy_request_buffering off;
        }}
        location /trailers/ {{ proxy_pass http://origin/; proxy_pass_trailers on; }}
        location /limited/ {{ proxy_pass http://origin/; proxy_max_temp_file_size {limit}; }}
        location /nofile/ {{ proxy_pass http://origin/; proxy_max_temp_file_size 0; }}
        location /nowhere/ {{
            proxy_pass http://origin/;
            proxy_temp_path {directory}/file/x;
            client_body_temp_path {directory}/file/x;
        }}
        location /halved/ {{
            proxy_pass http://halved/;
            proxy_next_upstream error timeout non_idempotent;
        }}
        location /halved/off/ {{
            proxy_pass http://halved/;
            proxy_request_buffering off;
            proxy_next_upstream error timeout non_idempotent;
        }}
        location /old/ {{
            proxy_pass http://origin/;
            proxy_http_version 1.0;
            proxy_request_buffering off;
        }}
        location /fcgi/ {{
            rewrite ^/fcgi(.*)$ $1 break;
            fastcgi_pass 127.0.0.1:{fastcgi};
            fastcgi_param PATH $uri;
        }}
        location /fcgioff/ {{
            rewrite ^/fcgioff(.*)$ $1 break;
            fastcgi_pass 127.0.0.1:{fastcgi};
            fastcgi_param PATH $uri;
            fastcgi_buffering off;
            fastcgi_request_buffering off;
        }}
    }}
}}
"""


class Closing(Acceptor):
    """A server that reads some of a request and closes."""

    def serve(self, client: socket.socket) -> None:
        client.recv(1000)


class Site:
    def __init__(self, cleanup: Cleanup) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="imagefarm-streaming-"))
        cleanup(shutil.rmtree, self.directory, True)
        (self.directory / "logs").mkdir()
        (self.directory / "file").touch()
        self.port, self.http, self.fastcgi = free_ports(3)
        self.closing = Closing()
        self.closing.open()
        cleanup(self.closing.close)
        config = self.directory / "master.conf"
        config.write_text(
            CONFIGURATION.format(
                port=self.port, http=self.http, fastcgi=self.fastcgi, limit=LIMIT,
                closing=self.closing.port, directory=self.directory,
            )
        )  # fmt: skip
        root = Path(__file__).parents[2]
        origin = Daemon(
            [sys.executable, "-m", "tests.support.streams", str(self.http), str(self.fastcgi)],
            self.directory / "origin.out",
            [self.http, self.fastcgi],
            {"PYTHONPATH": str(root)},
        ).started()
        cleanup(origin.stop)
        self.master = imagefarm(
            "master", self.directory, "--config", str(config), ports=[self.port]
        ).started()
        cleanup(self.master.stop)
        rawhttp.exchange(self.port, rawhttp.request("/on/requests"))
        (self.worker,) = descendants(self.master.pid)
        self.idle = self.memory()

    def memory(self) -> int:
        """The worker's share of the machine's memory (Pss), in bytes."""
        lines = Path(f"/proc/{self.worker}/smaps_rollup").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) << 10

    def temporary(self) -> list[int]:
        """The sizes of the master's open files that have no name."""
        found = []
        for link in Path(f"/proc/{self.worker}/fd").iterdir():
            try:
                if "_temp/" in os.readlink(link):
                    found.append(link.stat().st_size)
            except OSError:
                pass
        return found

    def left(self) -> list[Path]:
        """Files in the directories of temporary files."""
        return [
            path
            for name in ("proxy_temp", "fastcgi_temp", "client_body_temp")
            for path in (self.directory / name).rglob("*")
            if path.is_file()
        ]

    def active(self) -> int:
        """Requests that the origin is answering."""
        answer = rawhttp.exchange(self.http, rawhttp.request("/requests"))
        assert answer is not None
        return int(answer.body.split()[1])

    def errors(self) -> str:
        return (self.directory / "logs" / "error.log").read_text()


@shared
def site(cleanup: Cleanup) -> Site:
    return Site(cleanup)


class StreamingCase(StagedCase):
    def setUp(self) -> None:
        self.site = site()

    def tearDown(self) -> None:
        """Nothing is left of it, whatever happened."""
        wait_until(lambda: self.site.active() == 0, 30, "idle origin")
        wait_until(lambda: not self.site.temporary(), 30, "end of temporary files")
        self.assertEqual(self.site.left(), [])

    @contextmanager
    def watched(self) -> Iterator[None]:
        """The master's memory stays what it is."""
        end = threading.Event()
        most = 0

        def sample() -> None:
            nonlocal most
            while not end.wait(0.05):
                most = max(most, self.site.memory())

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()
        self.assertLess(most - self.site.idle, MEMORY)

    def connect(self, target: str, *fields: str, method: str = "GET") -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.site.port), TIMEOUT)
        self.addCleanup(sock.close)
        sock.sendall(rawhttp.request(target, *fields, method=method))
        return sock

    def head(self, sock: socket.socket) -> tuple[bytes, bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            more = sock.recv(4096)
            assert more, data
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        return head, rest

    def receive(self, sock: socket.socket, count: int) -> Checker:
        """Read an answer of ``count`` bytes, or as many as there are."""
        _, rest = self.head(sock)
        checker = Checker()
        checker.feed(rest)
        buffer = memoryview(bytearray(1 << 18))
        while checker.count < count:
            size = sock.recv_into(buffer)
            if not size:
                break
            checker.feed(buffer[:size])
        return checker

    def download(self, target: str, count: int) -> None:
        with self.watched():
            checker = self.receive(self.connect(target), count)
        self.assertEqual((checker.count, checker.good), (count, True), target)

    def upload(self, target: str, count: int, *, chunked: bool = False) -> str:
        """What the origin says of a body."""
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {count}"
        with self.watched():
            sock = self.connect(target, framing, method="POST")
            for piece in pieces(count):
                sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            if chunked:
                sock.sendall(b"0\r\nIgnored: trailer\r\n\r\n")
            answer = rawhttp.Reader(sock).answer("POST")
        assert answer is not None
        self.assertEqual(answer.status, 200, answer)
        return answer.body.decode()


class SizeTests(StreamingCase):
    def test_a_gigabyte_down(self) -> None:
        self.download(f"/on/bytes/{GIGABYTE}", GIGABYTE)

    def test_a_gigabyte_up(self) -> None:
        self.assertEqual(self.upload("/off/upload", GIGABYTE), f"{GIGABYTE} good length")

    def test_all_ways_down(self) -> None:
        for target in (
            "/off/bytes", "/limited/bytes", "/nofile/bytes", "/fcgi/bytes", "/fcgioff/bytes",
        ):  # fmt: skip
            self.download(f"{target}/{LARGE}", LARGE)

    def test_all_ways_up(self) -> None:
        for target, chunked, framing in (
            ("/on/upload", False, "length"),
            ("/on/upload", True, "length"),
            ("/off/upload", True, "chunked"),
            ("/old/upload", True, "length"),
            ("/fcgi/upload", False, "fastcgi"),
            ("/fcgioff/upload", False, "fastcgi"),
            ("/fcgioff/upload", True, "fastcgi"),
        ):
            verdict = self.upload(target, LARGE, chunked=chunked)
            self.assertEqual(verdict, f"{LARGE} good {framing}", target)

    def test_chunks(self) -> None:
        """Chunked in, chunked out, whatever the sizes."""
        for target in ("/on/chunked", "/off/chunked", "/on/close"):
            sock = self.connect(f"{target}/{MEDIUM}")
            answer = rawhttp.Reader(sock).answer()
            assert answer is not None
            checker = Checker()
            checker.feed(answer.body)
            self.assertEqual((checker.count, checker.good), (MEDIUM, True))
            self.assertEqual(answer.header("transfer-encoding"), "chunked")

    def test_trailers(self) -> None:
        """Of the upstream's, the one that may be there; for a client that asks for them."""
        sent = "trailer=Sum:%209&trailer=Content-Length:%201"
        for target, te, last in (
            ("/trailers", "trailers", b"\r\n0\r\nSum: 9\r\n\r\n"),
            ("/trailers", "gzip", b"\r\n0\r\n\r\n"),
            ("/on", "trailers", b"\r\n0\r\n\r\n"),
        ):
            for size in (10, MEDIUM):
                sock = self.connect(f"{target}/chunked/{size}?{sent}", f"TE: {te}")
                data = b""
                while b"\r\n0\r\n" not in data or not data.endswith(b"\r\n\r\n"):
                    more = sock.recv(1 << 18)
                    assert more
                    data = data[-100:] + more
                self.assertTrue(data.endswith(last), (target, te, data[-100:]))


class SlowTests(StreamingCase):
    def test_a_slow_client_does_not_hold_the_upstream(self) -> None:
        for target in ("/on/bytes", "/fcgi/bytes"):
            with self.watched():
                sock = self.connect(f"{target}/{MEDIUM}")
                wait_until(self.site.temporary, 30, "temporary file")
                wait_until(lambda: self.site.active() == 0, 30, "end of the upstream's part")
                time.sleep(0.1)
                checker = self.receive(sock, MEDIUM)
            self.assertEqual((checker.count, checker.good), (MEDIUM, True))
        self.assertIn("buffered to a temporary file while reading upstream", self.site.errors())

    def test_without_buffering_it_does(self) -> None:
        for target in ("/off/bytes", "/nofile/bytes", "/nowhere/bytes"):
            with self.watched():
                sock = self.connect(f"{target}/{ENDLESS}")
                wait_until(self.site.active, 30, "request")
                time.sleep(0.3)
                self.assertEqual((self.site.active(), self.site.temporary()), (1, []), target)
                checker = self.receive(sock, ENDLESS)
            self.assertEqual((checker.count, checker.good), (ENDLESS, True))
        self.assertIn("failed (20: Not a directory) while reading upstream", self.site.errors())

    def test_the_limit_is_kept(self) -> None:
        sock = self.connect(f"/limited/bytes/{ENDLESS}")
        wait_until(lambda: LIMIT in self.site.temporary(), 30, "full temporary file")
        time.sleep(0.1)
        self.assertEqual((self.site.active(), self.site.temporary()), (1, [LIMIT]))
        checker = self.receive(sock, ENDLESS)
        self.assertEqual((checker.count, checker.good), (ENDLESS, True))

    def is_active(self, count: int) -> bool:
        return self.site.active() == count

    def test_the_upstream_may_say_so(self) -> None:
        for target, said, active, size in (("/on", "no", 1, ENDLESS), ("/off", "yes", 0, MEDIUM)):
            sock = self.connect(f"{target}/bytes/{size}?field=X-Accel-Buffering:%20{said}")
            wait_until(partial(self.is_active, active), 30, "state")
            time.sleep(0.2)
            self.assertEqual(self.site.active(), active)
            self.assertEqual(self.receive(sock, size).count, size)

    def test_a_slow_upstream(self) -> None:
        """A client that sends faster than the upstream reads has to wait, and nobody keeps it."""
        for target in ("/off/upload", "/on/upload"):
            verdict = self.upload(f"{target}?rate=40000000", LARGE // 4)
            self.assertEqual(verdict, f"{LARGE // 4} good length")
        self.download(f"/on/bytes/{1 << 20}?rate=8000000", 1 << 20)


class BrokenTests(StreamingCase):
    def test_a_client_that_leaves(self) -> None:
        """While it waits, and in the middle; reset or not."""
        for target in ("/on", "/off", "/limited"):
            for read, reset in ((0, False), (100_000, False), (100_000, True)):
                sock = self.connect(f"{target}/bytes/{GIGABYTE}")
                if read:
                    self.receive(sock, read)
                else:
                    wait_until(self.site.active, 30, "request")
                if reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
                wait_until(lambda: self.site.active() == 0, 30, "end of the upstream's work")

    def test_a_client_that_leaves_its_upload(self) -> None:
        for target in ("/on/upload", "/off/upload", "/fcgi/upload"):
            sock = self.connect(target, "Content-Length: 100000000", method="POST")
            sock.sendall(bytes(1 << 20))
            sock.close()

    def test_a_short_answer_never_looks_whole(self) -> None:
        for target in ("/on", "/off"):
            for size in (1000, MEDIUM):
                sock = self.connect(f"{target}/bytes/{size}?short=10")
                try:
                    self.assertLess(self.receive(sock, size).count, size)
                except (ConnectionResetError, AssertionError):
                    pass  # not even the head was left
                sock = self.connect(f"{target}/chunked/{size}?short=10")
                data = b""
                try:
                    while more := sock.recv(1 << 18):
                        data = data[-100:] + more
                except ConnectionResetError:
                    pass
                self.assertFalse(data.endswith(b"0\r\n\r\n"))
        self.assertIn("upstream prematurely closed connection while reading", self.site.errors())

    def test_a_long_answer_is_cut(self) -> None:
        """And what came too much is nobody's answer."""
        sock = self.connect("/on/bytes/1000?more=200")
        self.assertEqual(self.receive(sock, 1000).count, 1000)
        sock.sendall(rawhttp.request("/on/bytes/10"))
        self.assertEqual(self.receive(sock, 10).count, 10)

    def test_no_place_for_a_request(self) -> None:
        sock = self.connect("/nowhere/upload", "Content-Length: 200000", method="POST")
        sock.sendall(bytes(200_000))
        answer = rawhttp.Reader(sock).answer("POST")
        assert answer is not None
        self.assertEqual(answer.status, 500)
        self.assertIn(
            "failed (20: Not a directory) while reading client request body", self.site.errors()
        )

    def test_the_next_peer_gets_all_of_it(self) -> None:
        """If the body was kept: in memory or in a file."""
        for size in (1000, 5_000_000):
            self.assertEqual(self.upload("/halved/upload", size), f"{size} good length")
        sock = self.connect("/halved/off/upload", "Content-Length: 5000000", method="POST")
        try:
            sock.sendall(bytes(5_000_000))
        except OSError:
            pass  # it has been answered
        answer = rawhttp.Reader(sock).answer("POST")
        assert answer is not None
        self.assertEqual(answer.status, 502)
