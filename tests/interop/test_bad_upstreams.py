"""Bad upstream answers: a table of them against us, and against nginx for comparison."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support import farmsite, rawhttp, tools
from tests.support.acceptor import Acceptor
from tests.support.processes import Daemon, free_ports, wait_until
from tests.support.processes import imagefarm as start_imagefarm
from tests.support.stages import StagedCase

from .upstream.bad import REUSED, VECTORS, Vector

CONFIGURATION = """
worker_processes 1;
error_log logs/{name}.log;
pid logs/{name}.pid;
events {{ }}
http {{
    access_log off;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_read_timeout 1s;
    proxy_next_upstream off;
    {upstreams}
    server {{
        listen 127.0.0.1:{port};
        {locations}
    }}
}}
"""
NEXT = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext"


class BadServer(Acceptor):
    """Answers a connection's first request with the vector, and all after it with `NEXT`."""

    def __init__(self, vector: Vector) -> None:
        self.vector = vector
        #: Connections that got a request after the vector was sent on them.
        self.reused = 0
        self._first = True
        self.open()

    def serve(self, client: socket.socket) -> None:
        client.settimeout(20)
        bad, self._first = self._first, False
        spoiled = False
        while request := client.recv(65536):
            if b"\r\n\r\n" not in request:
                continue
            self.reused += spoiled
            client.sendall(self.vector.data if bad else NEXT)
            if bad and not self.vector.open:
                return
            spoiled, bad = spoiled or bad, False


class Side:
    """One of the two servers, with a bad upstream for each vector."""

    def __init__(self, directory: Path, name: str) -> None:
        self.name = name
        self.servers = [BadServer(vector) for vector in VECTORS]
        (self.port,) = free_ports(1)
        self.log = directory / "logs" / f"{name}.log"
        self.config = directory / f"{name}.conf"
        self.config.write_text(
            CONFIGURATION.format(
                name=name, port=self.port,
                upstreams="\n".join(
                    f"upstream u{number} {{ server 127.0.0.1:{server.port} max_fails=0; "
                    "keepalive 4; }" for number, server in enumerate(self.servers)
                ),
                locations="\n".join(
                    f"location /{number}/ {{ proxy_pass http://u{number}; }}"
                    for number in range(len(self.servers))
                ),
            )
        )  # fmt: skip

    def play(self, number: int) -> tuple[str, str]:
        """What comes of the vector, and of the next request."""
        return self._ask(f"/{number}/a"), self._ask(f"/{number}/b")

    def _ask(self, target: str) -> str:
        with rawhttp.connect(self.port) as sock:
            sock.sendall(rawhttp.request(target, "Connection: close"))
            data = b""
            with contextlib.suppress(ConnectionResetError):
                while more := sock.recv(65536):
                    data += more
        return outcome(data)


def outcome(data: bytes) -> str:
    """An answer in the words of the table."""
    if not data.startswith(b"HTTP/1.1 "):
        return "raw"
    head, _, body = data.partition(b"\r\n\r\n")
    status = head[9:12].decode()
    fields = head.lower()
    whole = True
    if b"transfer-encoding: chunked" in fields:
        whole = body.endswith(b"0\r\n\r\n")
        pieces = body.split(b"\r\n")[1::2] if whole else [body.partition(b"\r\n")[2].strip()]
        body = b"".join(pieces)
    elif b"content-length:" in fields and status != "304":
        whole = len(body) == int(fields.partition(b"content-length:")[2].split()[0])
    if b"<center>" in body and int(status) >= 400:
        return status
    return f"{status} {body!r}" + ("" if whole else " cut")


class BadUpstreamTests(StagedCase):
    def test_table(self) -> None:
        program = tools.nginx()
        directory = Path(tempfile.mkdtemp(prefix="bad-upstreams-"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        directory.chmod(0o755)
        (directory / "logs").mkdir()
        nginx, ours = Side(directory, "nginx"), Side(directory, "imagefarm")
        for server in (*nginx.servers, *ours.servers):
            self.addCleanup(server.close)
        daemons: list[Daemon] = [
            farmsite.nginx(program, directory, nginx.config, [nginx.port]),
            start_imagefarm("master", directory, "--config", str(ours.config), ports=[ours.port]),
        ]
        for daemon in daemons:
            self.addCleanup(daemon.stop)
        for daemon in daemons:
            daemon.started()
        with ThreadPoolExecutor(32) as pool:
            theirs = list(pool.map(nginx.play, range(len(VECTORS))))
            got = list(pool.map(ours.play, range(len(VECTORS))))
        found = []
        for number, vector in enumerate(VECTORS):
            if got[number] != (vector.ours, "200 b'next'"):
                found.append(f"{vector.name}: ours {got[number]}, not {vector.ours}")
            if theirs[number][0] != vector.theirs:
                found.append(f"{vector.name}: nginx {theirs[number]}, not {vector.theirs}")
            if ours.servers[number].reused != (vector.name in REUSED):
                found.append(f"{vector.name}: reused {ours.servers[number].reused}")
        self.assertEqual(found, [], "\n" + "\n".join(found))
        wait_until(lambda: not self._untold(ours), 30, "reasons and peers in the log")

    @staticmethod
    def _untold(side: Side) -> list[str]:
        """The vectors whose reason and peer the error log does not have."""
        log = [
            line
            for line in side.log.read_text().splitlines()
            if "upstream" in line.partition(", client:")[0]
        ]
        return [
            vector.name
            for number, (vector, server) in enumerate(zip(VECTORS, side.servers, strict=True))
            if vector.name not in REUSED
            and not any(f'upstream: "http://127.0.0.1:{server.port}/{number}/a"' in x for x in log)
        ]
