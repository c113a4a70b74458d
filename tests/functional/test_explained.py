"""Each kind of 5xx on a real farm: the id in the answer leads to one line that says why."""

import contextlib
import re
import shutil
import socket
import socketserver
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tests.support import rawhttp
from tests.support.farm import Prefix
from tests.support.processes import free_ports, wait_until
from tests.support.stages import Cleanup, StagedCase, shared

LOCATIONS = """
server {{
    listen 127.0.0.1:{port};
    add_header X-Request-ID $request_id always;
    proxy_set_header X-Request-ID $request_id;
    proxy_next_upstream off;
    location /refused {{ proxy_pass http://127.0.0.1:{refused}; }}
    location /none {{ proxy_pass http://none; }}
    location /garbage {{ proxy_pass http://127.0.0.1:{garbage}; }}
    location /silent {{ proxy_pass http://127.0.0.1:{silent}; proxy_read_timeout 200ms; }}
    location /busy {{ proxy_pass http://127.0.0.1:{busy}; }}
    location /static {{ proxy_pass http://127.0.0.1:{slave}/none; }}
    location /mounted {{ resource tests.support.mounts.broken; }}
    location /cycle {{ rewrite ^ /cycle last; }}
    location /told {{ return 507; }}
    location /resize {{ include resize.conf; }}
    location /own {{ error_log logs/own.log; proxy_pass http://127.0.0.1:{refused}; }}
    location /json {{ error_log logs/json.log format=json; return 500; }}
}}
upstream none {{ server 127.0.0.1:{refused} down; }}
"""
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"


class Upstream(socketserver.ThreadingTCPServer):
    """Answers each request with ``answer``; never, if that is empty."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        super().__init__(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self.thread.start()

    @property
    def port(self) -> int:
        port: int = self.server_address[1]
        return port

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join()


class Handler(socketserver.BaseRequestHandler):
    server: Upstream
    request: socket.socket

    def handle(self) -> None:
        self.server.heads.append(self.request.recv(65536))
        if self.server.answer:
            self.request.sendall(self.server.answer)
        else:
            with contextlib.suppress(ConnectionResetError):
                self.request.recv(65536)


class Stage:
    def __init__(self, cleanup: Cleanup) -> None:
        directory = Path(tempfile.mkdtemp(prefix="explained-"))
        cleanup(shutil.rmtree, directory, True)
        self.prefix = prefix = Prefix(directory)
        prefix.images.mkdir()
        prefix.logs.mkdir(exist_ok=True)
        Image.radial_gradient("L").resize((3000, 3000)).convert("RGB").save(
            prefix.images / "a.png", "PNG", compress_level=1
        )
        self.port, refused = free_ports(2)
        self.upstreams: dict[str, Upstream] = {}
        for name, answer in (("garbage", b"garbage\r\n\r\n"), ("silent", b""), ("busy", BUSY)):
            self.upstreams[name] = Upstream(answer)
            cleanup(self.upstreams[name].close)
        ports = {name: upstream.port for name, upstream in self.upstreams.items()}
        prefix.write(
            "explained.conf",
            LOCATIONS.format(port=self.port, refused=refused, slave=prefix.ports.slave1, **ports),
        )
        prefix.edit("master.conf", ("client_max_body_size  100m;", "include explained.conf;"))
        prefix.edit(
            "resizer.conf",
            ("processes  auto;", "processes 1;"),
            ("queue      64;", "queue 1;"),
            ("deadline          10s;", "deadline 100ms;"),
        )
        self.daemons: dict[str, Any] = {}
        for role, used in (
            ("resizer", [prefix.ports.fastcgi]),
            ("slave", [prefix.ports.slave1]),
            ("master", [prefix.ports.http, self.port]),
        ):
            self.daemons[role] = prefix.start(role, ports=used)
            cleanup(self.daemons[role].stop)
        for daemon in self.daemons.values():
            daemon.started()

    def get(self, target: str, *fields: str) -> rawhttp.Answer:
        data = rawhttp.request(target, "Connection: close", *fields)
        answer = rawhttp.exchange(self.port, data)
        assert answer is not None
        return answer

    def lines(self, name: str, log: str = "") -> list[str]:
        logs = [self.prefix.log(log)] if log else [
            self.prefix.log(f"{role}_error.log") for role in ("master", "slave", "resizer")
        ]  # fmt: skip
        return [line for text in logs for line in text.splitlines() if name in line]


stage = shared(Stage)


class ExplainedTests(StagedCase):
    def setUp(self) -> None:
        self.stage = stage()

    def explain(
        self, target: str, status: int, *why: str, log: str = "", fields: Sequence[str] = ()
    ) -> str:
        """The one line of level error or more that has the id of the answer."""
        answer = self.stage.get(target, *fields)
        self.assertEqual(answer.status, status)
        return self.explained(answer, *why, log=log)

    def explained(self, answer: rawhttp.Answer, *why: str, log: str = "") -> str:
        name = answer.header("x-request-id") or ""
        self.assertRegex(name, "^[0-9a-f]{32}$")
        wait_until(lambda: self.stage.lines(name, log), what="line")
        lines = [
            line
            for line in self.stage.lines(name, log)
            if re.search(r"\[(error|crit)\]|\"level\": \"(error|crit)\"", line)
        ]
        found = [line for line in lines if all(word in line for word in why)]
        self.assertEqual(len(found), 1, lines)
        return found[0]

    def test_502_refused(self) -> None:
        line = self.explain(
            "/refused?a=b", 502, "connect() failed (111: Connection refused)",
            fields=["Referer: http://a/"],
        )  # fmt: skip
        self.assertIn('request: "GET /refused?a=b HTTP/1.1", upstream: "http://127.0.0.1:', line)
        self.assertIn(', client: 127.0.0.1, server: , request: "', line)
        self.assertIn('host: "localhost", referrer: "http://a/", request_id: "', line)

    def test_502_bad_answer(self) -> None:
        self.explain("/garbage", 502, "upstream", "while reading response header")

    def test_502_no_live_upstreams(self) -> None:
        self.explain("/none", 502, "no live upstreams while connecting to upstream")

    def test_504_timeout(self) -> None:
        self.explain("/silent", 504, "timed out", "while reading response header from upstream")

    def test_503_of_an_upstream(self) -> None:
        line = self.explain("/busy", 503, "answered 503, as upstream 127.0.0.1:")
        name = line.rpartition('"')[0].rpartition('"')[2].encode()
        self.assertIn(b"X-Request-ID: " + name, self.stage.upstreams["busy"].heads[-1])

    def test_500_of_a_mounted_resource(self) -> None:
        line = self.explain("/mounted/", 500, "a mounted resource failed: ZeroDivisionError: ")
        self.assertIn("[crit]", line)

    def test_500_of_a_cycle(self) -> None:
        self.explain("/cycle", 500, "rewrite or internal redirection cycle")

    def test_507_of_the_configuration(self) -> None:
        self.explain("/told", 507, 'answered 507 by the configuration of location "/told"')

    def test_what_could_not_be_read(self) -> None:
        for status, data in (
            (501, b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
            (505, b"GET / HTTP/3.1\r\nHost: a\r\n\r\n"),
        ):
            answer = rawhttp.exchange(self.stage.port, data)
            assert answer is not None
            self.assertEqual(answer.status, status)
            self.explained(answer, "client sent invalid request: ")

    def test_504_of_the_resizer(self) -> None:
        line = self.explain("/resize?src=/a.png&w=2900&fmt=webp", 504, "answered 504: the image")
        self.assertIn('request: "GET /resize?src=/a.png&w=2900&fmt=webp HTTP/1.1"', line)

    def test_503_of_the_resizer(self) -> None:
        answers: list[rawhttp.Answer] = []

        def ask(number: int) -> None:
            answers.append(self.stage.get(f"/resize?src=/a.png&w={2000 + number}&fmt=avif"))

        def overloaded() -> bool:
            threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return any(answer.status == 503 for answer in answers)

        wait_until(overloaded, 30, "overload")
        answer = next(answer for answer in answers if answer.status == 503)
        self.assertEqual(answer.header("retry-after"), "1")
        self.explained(answer, "answered 503: ", "image", "client: 127.0.0.1")

    def test_a_location_s_own_log(self) -> None:
        line = self.explain("/own", 502, "Connection refused", log="own.log")
        name = line.rpartition('"')[0].rpartition('"')[2]
        self.assertEqual(self.stage.lines(name), [])

    def test_json(self) -> None:
        line = self.explain("/json", 500, '"message": "answered 500', log="json.log")
        self.assertIn('"client": "127.0.0.1"', line)

    def test_a_slave_names_it_too(self) -> None:
        answer = self.stage.get("/static")
        name = answer.header("x-request-id") or ""
        self.assertEqual(answer.status, 404)
        wait_until(lambda: self.stage.lines(name, "slave_error.log"), what="slave's error")
        wait_until(lambda: self.stage.lines(name, "slave_access.log"), what="slave's line")

    def test_error_page_and_access_log(self) -> None:
        """The shipped configuration: the page says the id, and so does the access log."""
        self.stage.daemons["slave"].stop()
        answer = self.stage.prefix.get("/a.txt")
        self.assertEqual(answer.status, 502)
        for port in (self.stage.prefix.ports.slave1, self.stage.prefix.ports.slave2):
            self.explained(answer, "Connection refused", f'"http://127.0.0.1:{port}/a.txt"')
        name = answer.header("x-request-id") or ""
        wait_until(lambda: self.stage.lines(name, "master_access.log"), what="access line")
