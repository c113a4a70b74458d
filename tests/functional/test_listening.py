"""Listening sockets and their options, PROXY headers and real clients, with real processes."""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from pathlib import Path

from tests.support import rawhttp
from tests.support.processes import Daemon, descendants, free_ports, wait_until
from tests.support.processes import imagefarm as start_imagefarm
from tests.support.stages import StagedCase

ADDRESS = "PROXY TCP4 192.0.2.1 192.0.2.9 51000 443\r\n"


def listening(port: int) -> int:
    """How many sockets listen on the IPv4 port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    words = [line.split() for line in lines]
    return sum(w[1].endswith(f":{port:04X}") and w[3] == "0A" for w in words)


class ListeningTests(StagedCase):
    def setUp(self) -> None:
        self.here = Path(tempfile.mkdtemp(prefix="listening-"))
        self.addCleanup(shutil.rmtree, self.here, ignore_errors=True)
        self.here.chmod(0o755)
        (self.here / "a.txt").write_text("a\n")
        self.port, self.other = free_ports(2)

    def start(self, http: str, main: str = "", *, awaited: bool = True) -> Daemon:
        config = self.here / "server.conf"
        text = (
            f"error_log HERE/error.log info; {main}\nevents {{ }}\nhttp {{ root HERE;\n"
            f"log_format who '$remote_addr $realip_remote_addr $request_uri';\n"
            f"access_log HERE/access.log who;\n{http}\n}}\n"
        )
        for name, value in ("HERE", self.here), ("PORT", self.port), ("OTHER", self.other):
            text = text.replace(name, str(value))
        config.write_text(text)
        ports = [self.port] if awaited else []
        daemon = start_imagefarm("slave", self.here, "--config", str(config), ports=ports)
        self.addCleanup(daemon.stop)
        return daemon.started() if awaited else daemon

    def log(self, count: int) -> list[str]:
        path = self.here / "access.log"
        wait_until(lambda: len(path.read_text().splitlines()) >= count, 30, "log lines")
        return path.read_text().splitlines()

    def errors(self, text: str) -> None:
        log = self.here / "error.log"
        wait_until(lambda: text in log.read_text(), 30, f"{text!r} in the error log")

    def test_a_socket_for_each_worker(self) -> None:
        daemon = self.start(
            "server { listen 127.0.0.1:PORT reuseport so_keepalive=60:5:3 deferred backlog=64;"
            " listen 127.0.0.1:OTHER; }",
            "worker_processes 3;",
        )
        wait_until(lambda: len(descendants(daemon.pid)) == 3, what="three workers")
        self.assertEqual((listening(self.port), listening(self.other)), (3, 1))
        for port in (self.port, self.other):
            for _ in range(20):
                answer = rawhttp.exchange(port, rawhttp.request("/a.txt"))
                assert answer is not None
                self.assertEqual((answer.status, answer.body), (200, b"a\n"))
        daemon.stop()
        self.assertEqual(listening(self.port), 0)

    def test_conflicts_end_the_start(self) -> None:
        for http, message in {
            "server { listen PORT backlog=5; } server { listen PORT rcvbuf=8k; }": (
                f"duplicate listen options for 0.0.0.0:{self.port}"
            ),
            "server { listen PORT default_server; } server { listen *:PORT default_server; }": (
                f"a duplicate default server for 0.0.0.0:{self.port}"
            ),
        }.items():
            daemon = self.start(http, awaited=False)
            self.assertEqual(daemon.wait(), 1)
            self.assertIn(message, daemon.output.read_text())

    def test_both_families_by_one_socket(self) -> None:
        self.start(
            "server { listen [::]:PORT ipv6only=off;"
            " location / { deny 127.0.0.1; } location /a.txt { deny ::1; } }"
        )
        for host, statuses in ("127.0.0.1", (403, 200)), ("::1", (404, 403)):
            for path, status in zip(("/b.txt", "/a.txt"), statuses, strict=True):
                with socket.create_connection((host, self.port), 5) as sock:
                    sock.sendall(rawhttp.request(path))
                    answer = rawhttp.Reader(sock).answer()
                    assert answer is not None
                    self.assertEqual(answer.status, status, (host, path))

    def test_a_header_that_does_not_come(self) -> None:
        self.start("client_header_timeout 1s; server { listen 127.0.0.1:PORT proxy_protocol; }")
        with rawhttp.connect(self.port) as slow, rawhttp.connect(self.port) as wrong:
            slow.sendall(b"PROXY TCP4 ")
            wrong.sendall(rawhttp.request("/a.txt"))
            begun = time.monotonic()
            self.assertIsNone(rawhttp.Reader(wrong).answer())
            self.assertIsNone(rawhttp.Reader(slow).answer())
            self.assertGreaterEqual(time.monotonic() - begun, 0.9)
        where = f"while reading PROXY protocol, client: 127.0.0.1, server: 127.0.0.1:{self.port}"
        self.errors(f'broken header: "GET /a.txt HTTP/1.1" {where}')
        self.errors(f"client timed out (110: Connection timed out) {where}")

    def test_the_header_in_pieces(self) -> None:
        self.start(
            "server { listen 127.0.0.1:PORT proxy_protocol;"
            " set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol; }"
        )
        with rawhttp.connect(self.port) as sock:
            for byte in ADDRESS.encode() + b"GET":
                sock.sendall(bytes([byte]))
                time.sleep(0.002)
            sock.sendall(rawhttp.request("/a.txt")[3:])
            answer = rawhttp.Reader(sock).answer()
            assert answer is not None
            self.assertEqual(answer.status, 200)
        self.assertIn("192.0.2.1 127.0.0.1 /a.txt", self.log(1))

    def test_repeated_answers_know_their_clients(self) -> None:
        """The fast path: the same target from many, its log lines and its errors."""
        self.start(
            "set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For;"
            "server { listen 127.0.0.1:PORT; }"
            "server { listen 127.0.0.1:OTHER proxy_protocol; real_ip_header proxy_protocol; }"
        )
        expected = []
        for number in [*range(1, 6), *range(1, 6)]:
            for path in ("/a.txt", "/missing"):
                fields = [f"X-Forwarded-For: 192.0.2.{number}"] if number % 2 else []
                address = f"192.0.2.{number}" if fields else "127.0.0.1"
                with rawhttp.connect(self.port) as sock:
                    reader = rawhttp.Reader(sock)
                    for _ in range(3):
                        sock.sendall(rawhttp.request(path, *fields))
                        reader.answer()
                        expected.append(f"{address} 127.0.0.1 {path}")
                with rawhttp.connect(self.other) as sock:
                    reader = rawhttp.Reader(sock)
                    sock.sendall(ADDRESS.replace("192.0.2.1", f"198.51.100.{number}").encode())
                    for _ in range(3):
                        sock.sendall(rawhttp.request(path, *fields))
                        reader.answer()
                        expected.append(f"198.51.100.{number} 127.0.0.1 {path}")
        self.assertEqual(self.log(len(expected)), expected)

        def missing() -> list[str]:
            lines = (self.here / "error.log").read_text().splitlines()
            return [line for line in lines if "/missing" in line]

        wait_until(lambda: len(missing()) >= len(expected) // 2, 30, "lines")
        self.assertEqual(len(missing()), len(expected) // 2)
        for number in range(1, 6):
            self.assertEqual(
                sum(f"client: 198.51.100.{number}," in line for line in missing()), 6, number
            )
