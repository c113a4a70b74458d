"""What the tests of groups share."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.headers import Headers
from imagefarm.http.message import BodyStream, Request, Response
from imagefarm.http.upstream import (
    ExchangeRules,
    Outgoing,
    Timeouts,
)
from imagefarm.proxy.connection import HttpConnector
from imagefarm.proxy.group import Group
from imagefarm.proxy.peer import Address, Peer
from imagefarm.proxy.peers import Peers
from imagefarm.proxy.policies import RoundRobin
from imagefarm.proxy.pool import KeepaliveSettings

from .support import Transport, make_request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ERROR = b"HTTP/1.1 500 Oops\r\nContent-Length: 1\r\n\r\nx"
DEFAULT = frozenset({"error", "timeout"})


class GroupTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: dict[str, Any]) -> None:
        if event["log_level"] in (LogLevel.error, LogLevel.warn):
            self.lines.append(formatEvent(event))

    def group(self, *peers: Peer, **keepalive: float) -> Group:
        every = peers or (Peer(Address("10.0.0.1", 81)), Peer(Address("10.0.0.2", 82)))
        settings = KeepaliveSettings(**keepalive)  # type: ignore[arg-type]
        return Group(self.reactor, b"backend", Peers(every), RoundRobin(), settings)

    def exchange(
        self,
        group: Group,
        request: Request | None = None,
        body: BodyStream | None = None,
        words: frozenset[str] = DEFAULT,
        **rules: Any,
    ) -> Deferred[Response]:
        self.request = request if request is not None else make_request()
        outgoing = Outgoing(
            self.request.head.method, b"/up", Headers([(b"Host", b"h")]), body=body
        )
        return group.exchange(
            self.request,
            outgoing,
            ExchangeRules(
                HttpConnector(self.reactor),
                timeouts=Timeouts(1.0, 2.0, 3.0),
                next_upstream=words,
                **rules,
            ),
        )

    def refuse(self, index: int = -1) -> None:
        factory = self.reactor.tcpClients[index][2]
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError(111)))

    def accept(self, index: int = -1) -> Transport:
        factory = self.reactor.tcpClients[index][2]
        transport = Transport()
        protocol = factory.buildProtocol(None)
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return transport

    def lose(self, transport: Transport) -> None:
        transport.protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def ports(self) -> list[int]:
        return [client[1] for client in self.reactor.tcpClients]

    @property
    def attempts(self) -> list[tuple[bytes, int]]:
        return [(a.address, a.status) for a in self.request.outcome.attempts]
