"""A server whose connections are parked, on real sockets and by a clock of the test's."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.task import Clock

from imagefarm.http.factory import HttpFactory
from imagefarm.http.message import TransferSettings
from imagefarm.http.proxied import ProxiedFactory
from imagefarm.http.transport import DirectServer, listen
from imagefarm.process.loop import streamline

from .fakes import NOW, ScriptedApplication

KEEP = 8.0
TICK = 0.5
#: Seconds between two looks at the clock.
STEP = 0.1
GET = b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n"


class Bench:
    """A factory on a listening socket of its own reactor, which turns when the test says so."""

    def __init__(self, awake: int, host: str = "127.0.0.1", *, proxied: bool = False) -> None:
        self.clock = Clock()
        self.reactor: Any = EPollReactor()
        assert streamline(self.reactor, (DirectServer,))
        self.app = ScriptedApplication(
            TransferSettings(keepalive_timeout=KEEP, keepalive_requests=6, keepalive_time=40.0)
        )
        self.factory = HttpFactory(
            self.app,
            self.clock,
            server=("", 80),
            transfer=self.app.transfer,
            client_header_timeout=3.0,
            now=lambda: NOW + self.clock.seconds(),
        )
        self.lot = self.factory.parked
        self.lot.awake = awake
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listening = socket.create_server((host, 0), family=family)
        self._listening.setblocking(False)
        factory: Any = ProxiedFactory(self.factory, self.factory) if proxied else self.factory
        self._port = listen(self.reactor, self._listening, factory)
        self._clients: list[socket.socket] = []

    def close(self) -> None:
        self._port.stopListening()
        self.reactor.runUntilCurrent()
        self.factory.abort()
        for reader in self.reactor.removeAll():
            reader.connectionLost(None)
        for reader in tuple(self.reactor._internalReaders):  # what wakes it up
            reader.connectionLost(None)
        for left in (*self._clients, self._listening, self.reactor._poller):
            left.close()

    def until(self, condition: Callable[[], object]) -> None:
        """Turn the loop until it is so."""
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end, condition
            self.reactor.doIteration(0.05)
            self.reactor.runUntilCurrent()

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP)):
            self.clock.advance(STEP)

    def connect(self) -> socket.socket:
        accepted = self.factory.accepted + 1
        client = socket.create_connection(self._listening.getsockname()[:2], timeout=10)
        self._clients.append(client)
        self.until(lambda: self.factory.accepted == accepted)
        return client

    def ask(self, client: socket.socket, data: bytes, answers: int = 1) -> bytes:
        """Send ``data``; what comes back, if it is finished."""
        self.send(client, data, answers)
        return client.recv(1 << 20)

    def send(self, client: socket.socket, data: bytes, answers: int = 1) -> None:
        """Send ``data``, and see so many requests finished."""
        done = len(self.app.done) + answers
        client.sendall(data)
        self.until(lambda: len(self.app.done) >= done)

    def parked(self, *clients: bytes) -> list[socket.socket]:
        """Connections that have asked for that each, and have been parked."""
        made = [self.connect() for _ in clients]
        for client, target in zip(made, clients, strict=True):
            self.ask(client, GET % target)
        while len(self.lot) < len(clients):
            assert self.clock.seconds() < KEEP, repr(self.lot)
            self.pass_time(TICK)
        return made

    def closed(self, client: socket.socket) -> bool:
        return bool(select.select([client], [], [], 0)[0]) and not client.recv(1)
