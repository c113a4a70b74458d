"""Thousands of idle connections: they cost little, and are what they were when they ask again."""

from __future__ import annotations

import json
import select
import shutil
import signal
import socket
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.support import rawhttp
from tests.support.processes import (
    Daemon,
    descendants,
    free_ports,
    imagefarm,
    resident,
    wait_until,
)
from tests.support.stages import StagedCase

MANY = 2000
SOME = 400
KEEP = 2.0
#: A deadline is met up to one tick of the wheel late; what a busy machine may add.
TICK = 0.5
SLACK = 3.0
#: Bytes of memory for each of `MANY`: a quarter of what one takes that is not parked.
LIGHT = 500
SMALL = b"picture" * 100

CONFIGURATION = """
worker_processes 1;
error_log logs/error.log;
pid logs/daemon.pid;
events {{ worker_connections 4000; }}
http {{
    log_format numbers "$remote_addr $remote_port $proxy_protocol_addr "
                       "$connection $connection_requests $request_uri $status";
    access_log logs/access.log numbers;
    client_header_timeout 30s;
    keepalive_timeout 60s;
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{proxied} proxy_protocol;
        real_ip_header proxy_protocol;
        set_real_ip_from 127.0.0.1;
        location / {{ root files; }}
        location /short/ {{ root files; keepalive_timeout 2s; }}
        location = /status {{ status; }}
    }}
}}
"""


class Idle(StagedCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="idle-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.directory.chmod(0o755)
        for name in ("conf", "logs", "files/short"):
            (self.directory / name).mkdir(parents=True)
        for name in ("small.jpg", "short/small.jpg"):
            (self.directory / "files" / name).write_bytes(SMALL)
        self.port, self.proxied = free_ports(2)
        config = self.directory / "conf/idle.conf"
        config.write_text(CONFIGURATION.format(port=self.port, proxied=self.proxied))
        self.daemon: Daemon = imagefarm(
            "slave", self.directory, "--config", str(config), ports=[self.port, self.proxied]
        ).started()
        self.addCleanup(self.daemon.stop)

    def open(self, count: int, port: int) -> list[socket.socket]:
        made = [rawhttp.connect(port) for _ in range(count)]
        for sock in made:
            self.addCleanup(sock.close)
        return made

    def ask(self, sock: socket.socket, target: str = "/small.jpg", first: bytes = b"") -> None:
        sock.sendall(first + rawhttp.request(target))
        answer = rawhttp.Reader(sock).answer()
        assert answer is not None
        self.assertEqual((answer.status, answer.body), (200, SMALL))

    def waiting(self) -> int:
        answer = rawhttp.exchange(self.port, rawhttp.request("/status", "Connection: close"))
        assert answer is not None
        counts = json.loads(answer.body)["connections"]
        self.assertEqual(counts["active"], counts["waiting"] + 1)
        return int(counts["waiting"])

    def lines(self) -> list[list[str]]:
        text = (self.directory / "logs/access.log").read_text()
        return [words for words in map(str.split, text.splitlines()) if words[5] != "/status"]

    def closed(self, clients: list[socket.socket]) -> int:
        poll = select.poll()
        for client in clients:
            poll.register(client, select.POLLIN)
        return len(poll.poll(0))

    def test_asked_again(self) -> None:
        for client in self.open(MANY, self.port):  # what is taken once, whoever comes
            self.ask(client)
            client.close()
        wait_until(lambda: self.waiting() == 0, 30, "closed")
        (worker,) = descendants(self.daemon.pid)
        before = resident(worker)
        clients = self.open(MANY, self.port)
        for client in clients:
            self.ask(client)
        self.assertEqual(self.waiting(), MANY)
        self.assertLess((resident(worker) - before) / MANY, LIGHT)
        for client in clients:
            self.ask(client)
        self.assertEqual((self.waiting(), self.closed(clients)), (MANY, 0))
        self.daemon.signal(signal.SIGQUIT)
        self.assertEqual(self.daemon.wait(), 0)
        self.assertEqual(self.closed(clients), MANY)
        for client in clients:
            self.assertEqual(client.recv(1), b"")  # an orderly end
        lines = self.lines()[MANY:]
        self.assertEqual({words[0] for words in lines}, {"127.0.0.1"})
        ports = [str(client.getsockname()[1]) for client in clients]
        self.assertEqual([words[1] for words in lines], ports * 2)
        self.assertEqual([words[4] for words in lines], ["1"] * MANY + ["2"] * MANY)
        self.assertEqual(
            [words[3] for words in lines[:MANY]], [words[3] for words in lines[MANY:]]
        )

    def test_proxied(self) -> None:
        """Behind a proxy that speaks the PROXY protocol, and until the timeout."""
        clients = self.open(SOME, self.proxied)
        addresses = [f"192.0.2.{number % 250}" for number in range(SOME)]
        for client, address in zip(clients, addresses, strict=True):
            header = f"PROXY TCP4 {address} 192.0.2.255 1234 80\r\n".encode()
            self.ask(client, "/short/small.jpg", header)
        ends = []
        for client in clients:
            ends.append(time.monotonic() + KEEP)
            self.ask(client, "/short/small.jpg")
        self.assertEqual(self.closed(clients) if time.monotonic() < ends[0] else 0, 0)
        wait_until(lambda: self.closed(clients) == SOME, KEEP + TICK + SLACK, "closed")
        self.assertGreaterEqual(time.monotonic(), ends[-1])
        self.assertEqual(self.waiting(), 0)
        seen = Counter((words[0], words[1], words[2], words[4]) for words in self.lines())
        expected = Counter(
            (address, "1234", address, number) for address in addresses for number in "12"
        )
        self.assertEqual(seen, expected)
