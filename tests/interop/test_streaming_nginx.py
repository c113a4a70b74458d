"""How bodies pass through: the same on nginx and on imagefarm, in front of one origin.

Each scenario is played on both sides with one configuration; what the client and the origin saw
must be equal.
"""

from __future__ import annotations

import shutil
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.functional.test_streaming import Closing
from tests.functional.test_tunnel import Peer
from tests.support import rawhttp, tools
from tests.support.processes import Daemon, free_ports
from tests.support.processes import imagefarm as start_imagefarm
from tests.support.stages import StagedCase
from tests.support.streams import Checker

#: More than the kernel's buffers of two connections hold (up to 32 MB to receive, 4 to send).
MEDIUM = 96 << 20
#: By then a slow client's answer has gone wherever it goes, in seconds.
SETTLED = 3.0

CONFIGURATION = """
worker_processes 1;
error_log logs/error.log;
pid logs/daemon.pid;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_max_body_size 0;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_temp_path {directory}/proxy;
    client_body_temp_path {directory}/body 1;
    upstream halved {{ server 127.0.0.1:{closing} max_fails=0; server 127.0.0.1:{http} backup; }}
    server {{
        listen 127.0.0.1:{port};
        location /on/ {{ proxy_pass http://127.0.0.1:{http}/; }}
        location /off/ {{
            proxy_pass http://127.0.0.1:{http}/;
            proxy_buffering off;
            proxy_request_buffering off;
        }}
        location /limited/ {{
            proxy_pass http://127.0.0.1:{http}/;
            proxy_max_temp_file_size 1m;
        }}
        location /ignored/ {{
            proxy_pass http://127.0.0.1:{http}/;
            proxy_ignore_headers X-Accel-Buffering;
        }}
        location /paced/ {{ proxy_pass http://127.0.0.1:{http}/; proxy_limit_rate 40k; }}
        location /paced/small/ {{ proxy_pass http://127.0.0.1:{http}/; proxy_limit_rate 20k; }}
        location /filed/ {{
            proxy_pass http://127.0.0.1:{http}/;
            client_body_in_file_only on;
            proxy_set_header Content-File $request_body_file;
        }}
        location /old/ {{
            proxy_pass http://127.0.0.1:{http}/;
            proxy_http_version 1.0;
            proxy_request_buffering off;
        }}
        location /halved/ {{
            proxy_pass http://halved/;
            proxy_next_upstream error timeout non_idempotent;
        }}
        location /halved/idempotent/ {{ proxy_pass http://halved/; }}
        location /fallback/ {{
            proxy_pass http://127.0.0.1:{closing};
            error_page 502 = @origin;
        }}
        location @origin {{
            rewrite ^/fallback(.*)$ $1 break;
            proxy_pass http://127.0.0.1:{http};
        }}
        location /halved/off/ {{
            proxy_pass http://halved/;
            proxy_request_buffering off;
            proxy_next_upstream error timeout non_idempotent;
        }}
        location /tunnel {{
            proxy_pass http://127.0.0.1:{peer};
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_read_timeout 1s;
        }}
    }}
}}
"""


class Site:
    """One side, and an origin of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "logs").mkdir(parents=True)
        self.port, self.http, fastcgi = free_ports(3)
        self.peer, self.closing = Peer(), Closing()
        self.peer.open()
        self.closing.open()
        self.config = directory / "server.conf"
        self.config.write_text(
            CONFIGURATION.format(
                directory=directory, port=self.port, http=self.http, peer=self.peer.port,
                closing=self.closing.port,
            )
        )  # fmt: skip
        self.origin = Daemon(
            [sys.executable, "-m", "tests.support.streams", str(self.http), str(fastcgi)],
            directory / "origin.out",
            [self.http, fastcgi],
            {"PYTHONPATH": str(Path(__file__).parents[2])},
        )

    def connect(self, target: str, *fields: str, method: str = "GET") -> socket.socket:
        sock = rawhttp.connect(self.port)
        sock.sendall(rawhttp.request(target, *fields, method=method))
        return sock

    def active(self) -> int:
        answer = rawhttp.exchange(self.http, rawhttp.request("/requests"))
        assert answer is not None
        return int(answer.body.split()[1])

    def answer(self, sock: socket.socket, method: str = "GET") -> Any:
        """What is compared of an answer; None where it broke off."""
        with sock:
            try:
                answer = rawhttp.Reader(sock).answer(method)
            except (AssertionError, OSError):
                return None
        if answer is None:
            return None
        if answer.status >= 400:
            return answer.status, answer.header("connection")
        checker = Checker()
        checker.feed(answer.body)
        names = ("content-length", "transfer-encoding", "connection")
        body = f"{checker.count} {checker.good}" if checker.count > 99 else answer.body
        return answer.status, [answer.header(name) for name in names], body


Scenario = Callable[[Site], Any]


def slow(target: str) -> Scenario:
    """Whether the origin has to wait for a client that does not read; and what it gets then."""

    def play(site: Site) -> Any:
        sock = site.connect(target)
        sock.recv(1, socket.MSG_PEEK)
        # Where nobody has to wait for the client, the origin is done at some time.
        end = time.monotonic() + SETTLED
        while (active := site.active()) and time.monotonic() < end:
            time.sleep(0.05)
        checker, head = Checker(), b""
        with sock:
            while b"\r\n\r\n" not in head:
                head += sock.recv(65536)
            checker.feed(head.partition(b"\r\n\r\n")[2])
            while checker.count < MEDIUM:
                checker.feed(sock.recv(1 << 18))
        return active, checker.count, checker.good

    return play


def get(target: str, method: str = "GET") -> Scenario:
    return lambda site: site.answer(site.connect(target, method=method), method)


def post(target: str, count: int, *, chunked: bool = False, method: str = "POST") -> Scenario:
    def play(site: Site) -> Any:
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {count}"
        sock = site.connect(target, framing, method=method)
        body = bytes(count)
        try:
            sock.sendall(b"%x\r\n%b\r\n0\r\nT: x\r\n\r\n" % (count, body) if chunked else body)
        except OSError:
            pass  # it may have been answered
        return site.answer(sock, method)

    return play


def paced(target: str) -> Scenario:
    def play(site: Site) -> Any:
        began = time.monotonic()
        answer = site.answer(site.connect(target))
        return answer, time.monotonic() - began > 1

    return play


def filed(site: Site) -> Any:
    answer = post("/filed/upload", 1000)(site)
    return answer, [path.stat().st_size for path in (site.directory / "body").glob("*/*")]


def leaves(target: str, *, reset: bool) -> Scenario:
    """Whether the origin goes on for a client that has gone before the answer."""

    def play(site: Site) -> Any:
        sock = site.connect(f"{target}/bytes/{MEDIUM}?rate={MEDIUM}")
        sock.recv(1000)
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        time.sleep(0.5)
        return site.active()

    return play


def tunnel(site: Site) -> Any:
    """An echo with something early from both sides; then nobody says anything."""

    def speak(sock: socket.socket, data: bytes) -> None:
        while True:
            sock.sendall(data)
            data = sock.recv(65536)
            if not data:
                return

    site.peer.early, site.peer.speak = b"early ", speak
    sock = rawhttp.connect(site.port)
    head = rawhttp.request("/tunnel", "Connection: upgrade", "Upgrade: test")
    sock.sendall(head + b"first ")
    data = b""
    while b"first " not in data:
        data += sock.recv(65536)
    sock.sendall(b"x" * 100_000)
    count = 0
    while count < 100_000:
        count += len(sock.recv(65536))
    began = time.monotonic()
    try:
        end = sock.recv(65536)
    except ConnectionResetError:
        end = b""
    sock.close()
    fields = data.lower().partition(b"\r\n\r\n")
    kept = [
        line for line in fields[0].split(b"\r\n") if not line.startswith((b"server:", b"date:"))
    ]
    return kept[0], sorted(kept[1:]), fields[2], end, time.monotonic() - began > 0.8


SCENARIOS: dict[str, Scenario] = {
    "slow client": slow(f"/on/bytes/{MEDIUM}"),
    "slow client, unbuffered": slow(f"/off/bytes/{MEDIUM}"),
    "slow client, small file": slow(f"/limited/bytes/{MEDIUM}"),
    "slow client, upstream says no": slow(f"/on/bytes/{MEDIUM}?field=X-Accel-Buffering:%20no"),
    "slow client, upstream says yes": slow(f"/off/bytes/{MEDIUM}?field=X-Accel-Buffering:%20yes"),
    "slow client, upstream is ignored": slow(
        f"/ignored/bytes/{MEDIUM}?field=X-Accel-Buffering:%20no"
    ),
    "chunks": get("/on/chunked/100000"),
    "chunks, unbuffered": get("/off/chunked/100000"),
    "until the end": get("/on/close/100000"),
    "HEAD of chunks": get("/on/chunked/100000", "HEAD"),
    "short": get("/on/bytes/1000?short=10"),
    "short chunks": get("/on/chunked/1000?short=10"),
    "short chunks, unbuffered": get("/off/chunked/1000?short=10"),
    "pace": paced("/paced/bytes/100000"),
    "pace of what comes in one read": paced("/paced/small/bytes/50000"),
    "upload": post("/on/upload", 100_000),
    "chunked upload": post("/on/upload", 100_000, chunked=True),
    "upload, unbuffered": post("/off/upload", 100_000),
    "chunked upload, unbuffered": post("/off/upload", 100_000, chunked=True),
    "chunked upload over HTTP/1.0": post("/old/upload", 100_000, chunked=True),
    "empty upload": post("/on/upload", 0),
    "body in a file": filed,
    "next peer": post("/halved/upload", 100_000),
    "next peer, small": post("/halved/upload", 10),
    "next peer, PUT": post("/halved/idempotent/upload", 100_000, method="PUT"),
    "next peer, POST": post("/halved/idempotent/upload", 100_000),
    "another location": post("/fallback/upload", 100_000),
    "another location, small": post("/fallback/upload", 10, chunked=True),
    "next peer, unbuffered": post("/halved/off/upload", 100_000),
    "leaving": leaves("/on", reset=True),
    "leaving, unbuffered": leaves("/off", reset=True),
    "leaving without a reset": leaves("/on", reset=False),
    "tunnel": tunnel,
}


class StreamingTests(StagedCase):
    def setUp(self) -> None:
        nginx = tools.nginx()
        directory = Path(tempfile.mkdtemp(prefix="imagefarm-streaming-nginx-"))
        self.addCleanup(shutil.rmtree, directory, True)
        directory.chmod(0o755)
        self.theirs, self.ours = Site(directory / "nginx"), Site(directory / "imagefarm")
        for site in (self.theirs, self.ours):
            for stop in (site.peer.close, site.closing.close, site.origin.stop):
                self.addCleanup(stop)
            site.origin.started()
        words = ["-p", str(self.theirs.directory), "-c", str(self.theirs.config)]
        daemon = Daemon(
            [nginx, *words, "-g", "daemon off; user root;"],
            self.theirs.directory / "nginx.out",
            [self.theirs.port],
        )
        self.addCleanup(daemon.stop)
        ours = start_imagefarm(
            "master", self.ours.directory, "--config", str(self.ours.config),
            ports=[self.ours.port],
        )  # fmt: skip
        self.addCleanup(ours.stop)
        daemon.started()
        ours.started()

    def test_same(self) -> None:
        different = []
        with ThreadPoolExecutor(2) as pool:
            for name, scenario in SCENARIOS.items():
                theirs, ours = pool.map(scenario, (self.theirs, self.ours))
                if theirs != ours:
                    different.append(f"{name}\n  nginx {theirs}\n  ours  {ours}")
        self.assertEqual(different, [], "\n" + "\n".join(different))
