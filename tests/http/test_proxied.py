"""Connections that begin with a PROXY header, and sockets that serve several addresses."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.by_address import ByAddress
from imagefarm.http.connection import HttpConnection
from imagefarm.http.message import ForwardedPeer, Peer
from imagefarm.http.proxied import ProxiedConnection, ProxiedFactory
from imagefarm.http.proxy_protocol import ProxyHeader

from .fakes import Client, ClientTransport, ScriptedApplication, text

HEADER = b"PROXY TCP4 192.0.2.1 192.0.2.9 51000 443\r\n"
GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"


class Wire(ClientTransport):
    """A transport that hands what comes to the protocol of the moment, as real ones do."""

    protocol: Any = None

    def __init__(self, local: str = "127.0.0.1") -> None:
        super().__init__()
        self.socket = self
        self.getsockname = lambda: (local, 8080)
        self.peeking = False
        self.unread = b""

    def peek(self, on: bool) -> None:
        self.peeking = on

    def take(self, count: int) -> None:
        self.unread = self.unread[count:]

    def come(self, data: bytes) -> bytes:
        self.unread += data
        while shown := self.unread:
            peeking = self.peeking
            self.protocol.dataReceived(shown)
            if not peeking:
                self.unread = b""
            elif self.unread == shown:
                raise AssertionError("nothing was taken")
        sent: bytes = self.value()
        self.clear()
        return sent

    def leave(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))


class ProxiedTests(SynchronousTestCase):
    def setUp(self) -> None:
        client = Client(ScriptedApplication())
        client.leave()
        self.app, self.clock, self.http = client.app, client.clock, client.factory
        self.factory = ProxiedFactory(self.http, self.http)
        self.accepted = self.http.accepted

    def connect(self, factory: Any = None) -> Wire:
        wire = Wire()
        protocol = (factory or self.factory).buildProtocol(wire.getPeer())
        wire.protocol = protocol
        protocol.makeConnection(wire)
        return wire

    def test_the_request_follows_the_header(self) -> None:
        wire = self.connect()
        self.assertIn(b"GET /a", wire.come(HEADER + GET))
        peer = self.app.requests[0].peer
        assert isinstance(peer, ForwardedPeer)
        self.assertEqual(peer.proxy, ProxyHeader("192.0.2.1", 51000, "192.0.2.9", 443))
        self.assertEqual(peer.address, wire.getPeer().host)
        self.assertIn(b"GET /a", wire.come(GET))
        self.assertIsInstance(wire.protocol, HttpConnection)

    def test_byte_by_byte(self) -> None:
        wire = self.connect()
        data = HEADER + GET
        answers = [wire.come(data[i : i + 1]) for i in range(len(data))]
        self.assertEqual(answers[:-1], [b""] * (len(data) - 1))
        self.assertIn(b"GET /a", answers[-1])

    def test_header_alone_then_the_wait_for_a_request(self) -> None:
        wire = self.connect()
        self.clock.advance(50)
        wire.come(HEADER)
        self.assertEqual(self.http.states(), (0, 0, 1))
        self.clock.advance(50)
        self.assertFalse(wire.disconnecting)
        self.clock.advance(20)
        self.assertTrue(wire.disconnecting)

    def test_a_broken_header_closes(self) -> None:
        wire = self.connect()
        self.assertEqual(wire.come(GET), b"")
        self.assertTrue(wire.disconnecting)
        self.assertEqual(wire.come(HEADER + GET), b"")
        self.assertEqual(self.app.requests, [])
        wire.leave()
        self.assertEqual(self.http.connections, set())

    def test_a_client_that_says_nothing(self) -> None:
        wire = self.connect()
        self.clock.advance(59)
        self.assertFalse(wire.disconnecting)
        wire.come(HEADER[:5])  # the time is the whole header's
        self.clock.advance(2)
        self.assertTrue(wire.disconnecting)

    def test_counted_once(self) -> None:
        wire = self.connect()
        self.assertEqual(self.http.accepted, self.accepted + 1)
        self.assertEqual(self.http.states(), (1, 0, 0))
        self.assertIn("ProxiedConnection", repr(wire.protocol))
        wire.come(HEADER)
        self.assertEqual(self.http.accepted, self.accepted + 1)
        self.assertEqual(len(self.http.connections), 1)
        wire.leave()
        self.assertEqual(self.http.connections, set())

    def test_worker_connections_count_it(self) -> None:
        self.http.places.limit = 1
        wire = self.connect()
        self.assertIsNone(self.factory.buildProtocol(wire.getPeer()))
        self.assertEqual(self.http.refused, 1)
        self.assertIn(b"GET /a", wire.come(HEADER + GET))

    def test_draining_closes_those_that_wait(self) -> None:
        wire = self.connect()
        done: list[object] = []
        self.http.drain().addCallback(done.append)
        self.assertTrue(wire.disconnecting)
        self.assertEqual(done, [])
        wire.leave()
        self.assertEqual(done, [None])

    def test_aborting(self) -> None:
        wire = self.connect()
        self.http.abort()
        self.assertTrue(wire.aborted)

    def test_left_in_the_middle(self) -> None:
        wire = self.connect()
        wire.come(HEADER[:9])
        wire.leave()
        self.assertEqual(self.http.connections, set())
        self.clock.advance(100)  # and no timer is left for it

    def test_what_follows_may_be_wrapped(self) -> None:
        """As TLS is: its factory gets the bytes after the header, and the header's address."""
        built: list[Any] = []

        class Wrapper:
            def buildProtocol(_, address: Any) -> Any:
                built.append(address)
                return self.http.buildProtocol(address)

        wire = self.connect(ProxiedFactory(self.http, Wrapper()))
        wire.come(HEADER[:-1])
        self.assertEqual(built, [])
        self.assertIn(b"GET /a", wire.come(HEADER[-1:] + GET))
        self.assertEqual(built[0].proxy.source, "192.0.2.1")


class ByAddressTests(SynchronousTestCase):
    def factory(self, name: str) -> Any:
        client = Client()
        client.leave()
        client.factory.server = (name, 8080)
        client.app.answers[b"/a"] = text(name.encode())
        return client.factory

    def serve(self, local: str) -> bytes:
        factory = ByAddress(
            self.factory("any"),
            {"127.0.0.2": self.factory("two"), "fe80::1": self.factory("link")},
        )
        wire = Wire(local)
        wire.protocol = factory.buildProtocol(wire.getPeer())
        wire.protocol.makeConnection(wire)
        return wire.come(GET)

    def test_by_local_address(self) -> None:
        for local, name in {
            "127.0.0.1": b"any", "127.0.0.2": b"two", "fe80::1%lo": b"link", "fe80::2": b"any",
        }.items():  # fmt: skip
            self.assertTrue(self.serve(local).endswith(name), local)

    def test_the_peer_names_the_address_that_was_configured(self) -> None:
        factory = self.factory("two")
        wire = Wire("127.0.0.2")
        wire.protocol = ByAddress(self.factory("any"), {"127.0.0.2": factory}).buildProtocol(
            wire.getPeer()
        )
        wire.protocol.makeConnection(wire)
        peer: Peer = wire.protocol.peer
        self.assertEqual(peer.server, ("two", 8080))
        self.assertNotIsInstance(peer, ForwardedPeer)

    def test_turned_away(self) -> None:
        factory = self.factory("any")
        factory.places.limit = 1
        self.assertTrue(factory.places.take())
        wire = Wire()
        wire.protocol = ByAddress(factory, {}).buildProtocol(wire.getPeer())
        wire.protocol.makeConnection(wire)
        self.assertTrue(wire.disconnecting)
        self.assertEqual(wire.come(GET), b"")
        wire.leave()

    def test_with_a_proxy_header(self) -> None:
        http = self.factory("any")
        wire = Wire()
        wire.protocol = ByAddress(ProxiedFactory(http, http), {}).buildProtocol(wire.getPeer())
        wire.protocol.makeConnection(wire)
        self.assertIsInstance(wire.protocol, ProxiedConnection)
        self.assertTrue(wire.come(HEADER + GET).endswith(b"any"))
