"""A group with scripted connections: what is kept, and what is given back."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from imagefarm.http.headers import Headers
from imagefarm.http.upstream import (
    ExchangeRules,
    NoLivePeers,
    Outgoing,
    UpstreamError,
)
from imagefarm.proxy.connection import HttpConnector
from imagefarm.proxy.group import Group
from imagefarm.proxy.peer import Address, Peer

from .group_case import OK, GroupTestCase
from .support import Sink, Source, Transport, make_request


class KeepaliveTests(GroupTestCase):
    def one(self) -> Peer:
        return Peer(Address("10.0.0.1", 81))

    def serve(self, group: Group) -> Transport:
        answer = self.exchange(group)
        transport = self.accept()
        transport.protocol.dataReceived(OK)
        self.successResultOf(answer)
        return transport

    def test_reuse(self) -> None:
        group = self.group(self.one())
        transport = self.serve(group)
        transport.clear()
        answer = self.exchange(group)
        self.assertTrue(transport.value().startswith(b"GET /up"))
        transport.protocol.dataReceived(OK)
        self.assertEqual(self.successResultOf(answer).status, 200)
        self.assertEqual(self.ports, [81])
        self.assertEqual(self.request.outcome.attempts[0].connect_time, 0.0)

    def test_not_kept(self) -> None:
        for settings in ({"connections": 0}, {"requests": 1}):
            self.setUp()
            transport = self.serve(self.group(self.one(), **settings))
            self.assertTrue(transport.disconnecting)

    def test_idle_ones_are_closed_in_time(self) -> None:
        group = self.group(self.one(), timeout=5.0)
        transport = self.serve(group)
        self.reactor.advance(4.9)
        self.assertFalse(transport.disconnecting)
        self.reactor.advance(0.1)
        self.assertTrue(transport.disconnecting)
        self.lose(transport)
        self.assertEqual(repr(group), "<Group backend links=0 idle=0>")

    def test_locations_share_unless_local(self) -> None:
        for local in (False, True):
            self.setUp()
            group = self.group(self.one(), local=local)
            self.serve(group)
            self.exchange(group)
            self.assertEqual(len(self.ports), 2 if local else 1)

    def test_replaced_peers(self) -> None:
        """What is idle there is closed at once, what is busy when it has finished."""
        group = self.group()
        idle = self.serve(group)
        answer = self.exchange(group)
        busy = self.accept()
        self.assertEqual(self.ports, [81, 82])
        group.replace([Peer(Address("10.0.0.3", 83))])
        self.assertTrue(idle.disconnecting)
        self.assertFalse(busy.disconnecting)
        busy.protocol.dataReceived(OK)
        self.assertEqual(self.successResultOf(answer).body, b"ok")
        self.assertTrue(busy.disconnecting)
        self.exchange(group)
        self.assertEqual(self.ports[-1], 83)

    def test_one_closed_by_the_peer_is_not_used(self) -> None:
        group = self.group(self.one())
        self.lose(self.serve(group))
        self.assertEqual(repr(group), "<Group backend links=0 idle=0>")
        self.exchange(group)
        self.assertEqual(self.ports, [81, 81])

    def test_other_kinds_of_connection_are_not_mixed(self) -> None:
        group = self.group(self.one())
        self.serve(group)
        group.exchange(
            make_request(), Outgoing(b"GET"), ExchangeRules(HttpConnector(self.reactor, 99))
        )
        self.assertEqual(self.ports, [81, 81])

    def test_stale_is_retried_on_the_same_peer_for_free(self) -> None:
        group = self.group()
        self.serve(group)
        answer = self.exchange(group)  # the other peer's turn
        self.accept().protocol.dataReceived(OK)
        self.successResultOf(answer)
        transport = self.serve_stale(group)
        transport.protocol.dataReceived(OK)
        self.assertEqual(self.ports, [81, 82, 81])
        self.assertEqual(self.attempts, [(b"10.0.0.1:81", 200)])
        self.assertEqual([peer.fails for peer in group.peers.primary], [0, 0])
        self.assertEqual([peer.conns for peer in group.peers.primary], [0, 0])
        self.assertEqual(self.lines, [])

    def serve_stale(self, group: Group) -> Transport:
        """Use a kept connection and close it: a new one is made to the same peer."""
        links = [link for link in group._links.values() if link.peer.address.port == 81]
        connection: Any = links[0].connection
        self.exchange(group)
        connection.connectionLost(Failure(ConnectionDone()))
        return self.accept()

    def test_a_stale_post_is_not_repeated(self) -> None:
        group = self.group(self.one())
        transport = self.serve(group)
        answer = self.exchange(group, make_request(b"POST"), Source([b"x"]))
        self.lose(transport)
        self.failureResultOf(answer, UpstreamError)
        self.assertEqual(self.ports, [81])

    def test_stop(self) -> None:
        group = self.group(self.one())
        idle = self.serve(group)
        answer = self.exchange(group)
        transport = idle
        busy = self.exchange(group)
        second = self.accept()
        group.stop()
        second.protocol.dataReceived(OK)
        transport.protocol.dataReceived(OK)
        self.assertEqual(self.successResultOf(answer).status, 200)
        self.assertEqual(self.successResultOf(busy).status, 200)
        self.assertTrue(second.disconnecting)
        self.assertTrue(transport.disconnecting)


class ResourceTests(GroupTestCase):
    def test_max_conns_holds_until_the_body_is_read(self) -> None:
        group = self.group(Peer(Address("10.0.0.1", 81), max_conns=1))
        answer = self.exchange(group)
        transport = self.accept()
        transport.protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na")
        body: Any = self.successResultOf(answer).body
        self.failureResultOf(self.exchange(group), NoLivePeers)
        self.assertEqual(group.peers.primary[0].conns, 1)
        body.start(Sink())
        transport.protocol.dataReceived(b"b")
        self.assertEqual(group.peers.primary[0].conns, 0)

    def test_response_time_is_that_of_the_whole_body(self) -> None:
        answer = self.exchange(self.group())
        transport = self.accept()
        transport.protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na")
        body: Any = self.successResultOf(answer).body
        body.start(Sink())
        self.reactor.advance(1.5)
        transport.protocol.dataReceived(b"b")
        (attempt,) = self.request.outcome.attempts
        self.assertEqual((attempt.header_time, attempt.response_time), (0.0, 1.5))

    def test_cancel_while_connecting(self) -> None:
        group = self.group()
        body = Source([b"x"])
        answer = self.exchange(group, body=body)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual(group.peers.primary[0].conns, 0)
        self.assertTrue(body.cancelled)
        transport = self.accept()
        self.assertTrue(transport.disconnecting, "a connection that comes too late is dropped")
        self.assertEqual(self.attempts, [(b"10.0.0.1:81", 0)])

    def test_client_gone_while_waiting(self) -> None:
        group = self.group()
        answer = self.exchange(group)
        transport = self.accept()
        for gone in self.request.on_gone:
            gone()
        self.failureResultOf(answer, CancelledError)
        self.assertTrue(transport.aborted)
        self.assertEqual((self.ports, group.peers.primary[0].fails), ([81], 0))
        self.lose(transport)
        self.assertEqual(group.peers.primary[0].conns, 0)

    def test_a_client_that_has_gone_may_be_ignored(self) -> None:
        answer = self.exchange(self.group(), ignore_client_abort=True)
        transport = self.accept()
        for gone in self.request.on_gone:
            gone()
        transport.protocol.dataReceived(OK)
        self.assertEqual(self.successResultOf(answer).status, 200)

    def test_client_gone_after_the_answer_changes_nothing(self) -> None:
        answer = self.exchange(self.group())
        self.accept().protocol.dataReceived(OK)
        for gone in self.request.on_gone:
            gone()
        self.assertEqual(self.successResultOf(answer).status, 200)

    def test_unix_socket(self) -> None:
        self.exchange(self.group(Peer(Address(path="/run/peer"))))
        self.assertEqual(self.reactor.unixClients[0][0], "/run/peer")

    def test_upstream_headers_are_remembered(self) -> None:
        answer = self.exchange(self.group())
        self.accept().protocol.dataReceived(b"HTTP/1.1 204 X\r\nServer: s\r\n\r\n")
        self.successResultOf(answer)
        self.assertEqual(self.request.outcome.upstream_headers, Headers([(b"Server", b"s")]))
