"""nginx as slave: large bodies in both directions, and kept connections that it closes."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

from tests.support import farmsite, rawhttp, tools
from tests.support.processes import descendants, free_ports
from tests.support.processes import imagefarm as start_imagefarm
from tests.support.stages import StagedCase
from tests.support.streams import Checker, pieces

LARGE = 48 << 20
#: How much more memory than idle the master may have.
MEMORY = 20 << 20

SLAVE = """
worker_processes 1;
{user}
error_log logs/slave.log;
pid logs/slave.pid;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path {directory}/temp/body;
    keepalive_requests 3;
    server {{
        listen 127.0.0.1:{slave};
        location / {{ root {directory}/files; dav_methods PUT DELETE; }}
    }}
}}
"""
MASTER = """
worker_processes 1;
error_log logs/master.log;
events {{ }}
http {{
    access_log off;
    client_max_body_size 0;
    proxy_temp_path {directory}/temp/proxy;
    client_body_temp_path {directory}/temp/spool;
    upstream slave {{ server 127.0.0.1:{slave}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://slave; }}
        location /through/ {{
            proxy_pass http://slave;
            proxy_buffering off;
            proxy_request_buffering off;
        }}
    }}
}}
"""


class NginxSlaveTests(StagedCase):
    def setUp(self) -> None:
        program = tools.nginx()
        self.directory = Path(tempfile.mkdtemp(prefix="slaves-nginx-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.directory.chmod(0o755)
        for name in ("logs", "temp", "files/through"):
            (self.directory / name).mkdir(parents=True)
        self.port, slave = free_ports(2)
        user = "user root;" if os.geteuid() == 0 else ""
        words = {"directory": self.directory, "port": self.port, "slave": slave, "user": user}
        for name, text in (("slave", SLAVE), ("master", MASTER)):
            (self.directory / f"{name}.conf").write_text(text.format(**words))
        nginx = farmsite.nginx(program, self.directory, self.directory / "slave.conf", [slave])
        self.addCleanup(nginx.stop)
        config = ("--config", str(self.directory / "master.conf"))
        self.master = start_imagefarm("master", self.directory, *config, ports=[self.port])
        self.addCleanup(self.master.stop)
        nginx.started()
        self.master.started()

    def most(self) -> int:
        """The most memory that the master has had, in bytes."""
        (worker,) = descendants(self.master.pid)
        status = Path(f"/proc/{worker}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) << 10

    def put(self, target: str, size: int, *, chunked: bool) -> int:
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
        with rawhttp.connect(self.port) as sock:
            sock.sendall(rawhttp.request(target, framing, "Connection: close", method="PUT"))
            for piece in pieces(size):
                sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            if chunked:
                sock.sendall(b"0\r\n\r\n")
            answer = rawhttp.Reader(sock).answer("PUT")
        assert answer is not None
        return answer.status

    def fetch(self, target: str, *, slow: bool) -> Checker:
        checker = Checker()
        with rawhttp.connect(self.port) as sock:
            sock.sendall(rawhttp.request(target, "Connection: close"))
            if slow:
                time.sleep(0.5)
            data = b""
            while b"\r\n\r\n" not in data:
                data += sock.recv(65536)
            head, _, rest = data.partition(b"\r\n\r\n")
            self.assertIn(b"Content-Length: %d" % LARGE, head)
            checker.feed(rest)
            while piece := sock.recv(1 << 18):
                checker.feed(piece)
        return checker

    def test_large_bodies(self) -> None:
        """Stored by the slave as they were sent, and fetched again, in little memory."""
        rawhttp.exchange(self.port, rawhttp.request("/none", "Connection: close"))
        idle = self.most()
        for place in ("", "/through"):
            for chunked in (False, True):
                target = f"{place}/{chunked}.bin"
                self.assertEqual(self.put(target, LARGE, chunked=chunked), 201)
                checker = self.fetch(target, slow=chunked)
                self.assertEqual((checker.count, checker.good), (LARGE, True), target)
                (self.directory / "files" / target[1:]).unlink()
        self.assertLess(self.most() - idle, MEMORY)

    def test_connections_that_end(self) -> None:
        """nginx closes each after three requests: nobody notices, whatever the method."""
        with contextlib.ExitStack() as stack:
            sock = stack.enter_context(rawhttp.connect(self.port))
            reader = rawhttp.Reader(sock)

            def ask(method: str, target: str, body: bytes = b"") -> rawhttp.Answer:
                fields = [f"Content-Length: {len(body)}"] if method == "PUT" else []
                sock.sendall(rawhttp.request(target, *fields, method=method) + body)
                answer = reader.answer(method)
                assert answer is not None
                return answer

            for number in range(60):
                target = f"/{number % 7}.jpg"
                body = target.encode() * 1000
                self.assertIn(ask("PUT", target, body).status, (201, 204), number)
                for _ in range(number % 4 + 1):
                    answer = ask("GET", target)
                    self.assertEqual((answer.status, answer.body), (200, body), number)
                if number % 5 == 4:
                    self.assertEqual(ask("DELETE", target).status, 204, number)
