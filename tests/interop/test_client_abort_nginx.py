"""Clients that leave, or close their half: what becomes of their requests in nginx and here."""

from __future__ import annotations

import select
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from imagefarm.fastcgi import records as fcgi
from tests.support import farmsite, rawhttp, tools
from tests.support.acceptor import Acceptor
from tests.support.processes import Daemon, free_ports
from tests.support.processes import imagefarm as start_imagefarm
from tests.support.stages import StagedCase

from .upstream.recorder import read_request

CONFIGURATION = """
worker_processes 1; error_log logs/{name}.log; pid logs/{name}.pid;
events {{ }}
http {{
    log_format facts "$request $status $upstream_status $body_bytes_sent";
    access_log logs/{name}-access.log facts;
    client_body_temp_path {directory}/temp;
    proxy_http_version 1.1;
    server {{
        listen 127.0.0.1:{port};
        location /proxy/off {{ {proxy} }}
        location /proxy/on {{ {proxy} proxy_ignore_client_abort on; }}
        location /fastcgi/off {{ {fastcgi} }}
        location /fastcgi/on {{ {fastcgi} fastcgi_ignore_client_abort on; }}
    }}
}}
"""
#: How long an answer takes, in seconds: by then who has gone is known to have.
PATIENCE = 0.4


class Slow(Acceptor):
    """Answers after its patience, if it is not left before; ``seen`` says which."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer = answer
        self.seen: list[str] = []
        #: How long it waits to be left, in seconds.
        self.patience = PATIENCE
        self.asked = threading.Semaphore(0)
        self.open()

    def serve(self, client: socket.socket) -> None:
        client.settimeout(10)
        request = read_request(client) if self._answer is http else client.recv(65536)
        self.asked.release()
        end = time.monotonic() + self.patience
        while (left := end - time.monotonic()) > 0:
            if select.select([client], [], [], left)[0] and ended(client):
                self.seen.append("left")
                return
        self.seen.append("answered")
        client.sendall(self._answer(request))


def ended(client: socket.socket) -> bool:
    try:
        return not client.recv(65536)
    except ConnectionResetError:
        return True


def http(request: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nslow"


def fastcgi(request: bytes) -> bytes:
    text = b"Content-Type: text/plain\r\nContent-Length: 4\r\n\r\nslow"
    return (
        fcgi.encode_stream(fcgi.RecordType.STDOUT, 1, text)
        + fcgi.encode_record(fcgi.RecordType.STDOUT, 1)
        + fcgi.encode_end(1, 0, fcgi.ProtocolStatus.REQUEST_COMPLETE)
    )


class ClientAbortTests(StagedCase):
    def setUp(self) -> None:
        program = tools.nginx()
        self.directory = Path(tempfile.mkdtemp(prefix="abort-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.directory.chmod(0o755)
        (self.directory / "logs").mkdir()
        (self.directory / "temp").mkdir()
        self.slow = Slow(http), Slow(fastcgi)
        for server in self.slow:
            self.addCleanup(server.close)
        self.ports = dict(zip(("nginx", "imagefarm"), free_ports(2), strict=True))
        daemons: list[Daemon] = []
        for name, port in self.ports.items():
            config = self.directory / f"{name}.conf"
            config.write_text(
                CONFIGURATION.format(
                    name=name, port=port, directory=self.directory,
                    proxy=f"proxy_pass http://127.0.0.1:{self.slow[0].port};",
                    fastcgi=f"fastcgi_pass 127.0.0.1:{self.slow[1].port};",
                )
            )  # fmt: skip
            if name == "nginx":
                daemons.append(farmsite.nginx(program, self.directory, config, [port]))
            else:
                words = ("--config", str(config))
                daemons.append(start_imagefarm("master", self.directory, *words, ports=[port]))
            self.addCleanup(daemons[-1].stop)
        for daemon in daemons:
            daemon.started()

    def test_same(self) -> None:
        for path in ("/proxy/off", "/proxy/on", "/fastcgi/off", "/fastcgi/on"):
            for leaves in (False, True):
                theirs, ours = (self.play(name, f"{path}?{leaves}", leaves) for name in self.ports)
                self.assertEqual(ours, theirs, (path, leaves))

    def play(self, name: str, path: str, leaves: bool) -> object:
        """What the client gets, what the upstream has seen, and the line of the log."""
        log = self.directory / "logs" / f"{name}-access.log"
        lines = len(self.lines(log))
        for server in self.slow:  # where it is to be left it need not answer soon
            server.patience = 8.0 if "/off" in path else PATIENCE
        data = rawhttp.request(path)
        with socket.create_connection(("127.0.0.1", self.ports[name]), 10) as client:
            client.sendall(data)
            if leaves:
                asked = self.slow[path.startswith("/fastcgi")].asked
                assert asked.acquire(timeout=10), path
                got = b""
            else:
                client.shutdown(socket.SHUT_WR)
                got = b"".join(iter(lambda: client.recv(65536), b""))
        end = time.monotonic() + 30
        while len(found := self.lines(log)) == lines or not any(s.seen for s in self.slow):
            assert time.monotonic() < end, (name, path, found, [s.seen for s in self.slow])
            time.sleep(0.01)
        seen = [word for server in self.slow for word in server.seen]
        for server in self.slow:
            server.seen.clear()
            while server.asked.acquire(blocking=False):
                pass
        return got.partition(b"\r\n")[0], got.rpartition(b"\r\n\r\n")[2], seen, found[lines:]

    @staticmethod
    def lines(log: Path) -> list[str]:
        return log.read_text().splitlines() if log.exists() else []
