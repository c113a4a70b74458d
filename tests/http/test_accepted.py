"""Connections that are accepted, with protocols that fail or know nothing of half-close."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.trial.unittest import TestCase

from imagefarm.http.transport import listen


class Whole:
    """A protocol that has no use for half a connection."""

    def __init__(self) -> None:
        self.lost: Deferred[Any] = Deferred()

    def makeConnection(self, transport: Any) -> None:
        """It has begun."""

    def connectionLost(self, reason: Any) -> None:
        """It is over."""
        self.lost.errback(reason)


class Small(Whole):
    """A protocol that tells whether small packets are sent at once."""

    def __init__(self) -> None:
        super().__init__()
        self.nodelay: bool | None = None

    def makeConnection(self, transport: Any) -> None:
        self.nodelay = bool(transport.getTcpNoDelay())


class Failing(Whole):
    """A protocol that fails at the end of what it reads."""

    def readConnectionLost(self) -> None:
        raise ValueError("meant to fail")


class Unlucky:
    """A factory that fails as often as told, and then makes ``protocol`` of a connection."""

    def __init__(self, protocol: Whole, failures: int = 0) -> None:
        self.protocol = protocol
        self.failures = failures

    def doStart(self) -> None:
        """A port uses it."""

    def doStop(self) -> None:
        """No more."""

    def buildProtocol(self, address: Any) -> Whole:
        """Or not."""
        if self.failures:
            self.failures -= 1
            raise ValueError("meant to fail")
        return self.protocol


class EndTests(TestCase):
    timeout = 30

    def visit(self, factory: Unlucky, **settings: bool) -> None:
        """Connect, and end what is sent."""
        sock = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(sock.close)
        sock.setblocking(False)
        port = listen(reactor, sock, factory, **settings)
        self.addCleanup(port.stopListening)
        self.port = port
        client = socket.create_connection(sock.getsockname())
        self.addCleanup(client.close)
        client.shutdown(socket.SHUT_WR)

    @inlineCallbacks
    def test_without_half_close(self) -> Any:
        protocol = Whole()
        self.visit(Unlucky(protocol))
        yield self.assertFailure(protocol.lost, ConnectionDone)

    @inlineCallbacks
    def test_tcp_nodelay(self) -> Any:
        for settings, wanted in (({}, True), ({"nodelay": False}, False)):
            protocol = Small()
            self.visit(Unlucky(protocol), **settings)
            yield self.assertFailure(protocol.lost, ConnectionDone)
            self.assertEqual(protocol.nodelay, wanted)

    @inlineCallbacks
    def test_failing(self) -> Any:
        protocol = Failing()
        self.visit(Unlucky(protocol))
        yield self.assertFailure(protocol.lost, ConnectionLost)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    @inlineCallbacks
    def test_a_factory_that_fails(self) -> Any:
        """Of the lean loop: the port goes on."""
        protocol = Whole()
        factory = Unlucky(protocol)
        self.visit(factory)
        yield self.assertFailure(protocol.lost, ConnectionDone)
        protocol.lost = Deferred()
        factory.failures = 1
        self.port.stopReading()
        for _ in range(2):
            client = socket.create_connection(self.port.socket.getsockname())
            self.addCleanup(client.close)
        self.port.read_ready()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.port.read_ready()
        client.shutdown(socket.SHUT_WR)
        yield self.assertFailure(protocol.lost, ConnectionDone)
