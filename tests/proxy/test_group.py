"""The group's decisions, on a fake reactor: who is tried, when to give up, what is kept."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError, TimeoutError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.headers import Headers
from imagefarm.http.message import BodyStream, Request, Response
from imagefarm.http.spool import SpooledBody
from imagefarm.http.upstream import (
    ExchangeRules,
    Fault,
    NoLivePeers,
    Outgoing,
    Timeouts,
    UpstreamError,
)
from imagefarm.proxy.connection import HttpConnector
from imagefarm.proxy.group import Group
from imagefarm.proxy.peer import Address, Peer
from imagefarm.proxy.peers import Peers
from imagefarm.proxy.policies import RoundRobin
from imagefarm.proxy.pool import KeepaliveSettings

from .support import Sink, Source, Transport, make_request

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


class FailoverTests(GroupTestCase):
    def test_connection_refused(self) -> None:
        group = self.group()
        answer = self.exchange(group)
        self.refuse()
        self.reactor.advance(0.5)
        transport = self.accept()
        self.reactor.advance(0.25)
        transport.protocol.dataReceived(OK)
        self.assertEqual(self.successResultOf(answer).body, b"ok")
        self.assertEqual(self.ports, [81, 82])
        self.assertEqual(self.attempts, [(b"10.0.0.1:81", 502), (b"10.0.0.2:82", 200)])
        last = self.request.outcome.attempts[1]
        self.assertEqual(
            (last.connect_time, last.header_time, last.response_time), (0.5, 0.75, 0.75)
        )
        self.assertEqual(
            self.lines,
            [
                "connect() failed (111: Connection refused) while connecting to upstream, client: "
                '192.0.2.1, request: "GET / HTTP/1.1", upstream: "http://10.0.0.1:81/up"',
                "upstream server temporarily disabled, client: 192.0.2.1, request: "
                '"GET / HTTP/1.1", upstream: "http://10.0.0.1:81/up"',
            ],
        )
        self.assertEqual([peer.conns for peer in group.peers.primary], [0, 0])

    def test_connect_timeout_is_asked_for_and_reported(self) -> None:
        answer = self.exchange(self.group(Peer(Address("10.0.0.1", 81))))
        self.assertEqual(self.reactor.tcpClients[0][3], 1.0)
        self.reactor.tcpClients[0][2].clientConnectionFailed(None, Failure(TimeoutError()))
        error = self.failureResultOf(answer, UpstreamError).value
        assert isinstance(error, UpstreamError)
        self.assertEqual((error.fault, error.unsent), (Fault.TIMEOUT, True))
        self.assertEqual(self.attempts, [(b"10.0.0.1:81", 504)])

    def test_all_refuse_then_nobody_is_live_then_recovery(self) -> None:
        group = self.group()
        answer = self.exchange(group)
        self.refuse()
        self.refuse()
        self.failureResultOf(answer, UpstreamError)
        self.failureResultOf(self.exchange(group), NoLivePeers)
        self.assertEqual(self.attempts, [(b"backend", 502)])
        self.assertIn("no live upstreams while connecting to upstream", self.lines[-1])
        self.reactor.advance(10.1)
        answer = self.exchange(group)
        self.accept().protocol.dataReceived(OK)
        self.assertEqual(self.successResultOf(answer).status, 200)

    def test_tries(self) -> None:
        answer = self.exchange(self.group(), tries=1)
        self.refuse()
        self.failureResultOf(answer, UpstreamError)
        self.assertEqual(self.ports, [81])

    def test_time_for_tries(self) -> None:
        answer = self.exchange(self.group(), next_timeout=5.0)
        self.reactor.advance(5.0)
        self.refuse()
        self.failureResultOf(answer, UpstreamError)

    def test_off(self) -> None:
        answer = self.exchange(self.group(), words=frozenset())
        self.refuse()
        self.failureResultOf(answer, UpstreamError)
        self.assertEqual(self.ports, [81])

    def test_timeout_only_if_named(self) -> None:
        for words, ports in ((DEFAULT, [81, 82]), (frozenset({"error"}), [81])):
            self.setUp()
            answer = self.exchange(self.group(), words=words)
            self.accept()
            self.reactor.advance(3.0)
            self.assertEqual(self.ports, ports)
            self.assertEqual(self.attempts, [(b"10.0.0.1:81", 504)])
            if len(ports) == 1:
                self.failureResultOf(answer, UpstreamError)
            else:
                self.assertNoResult(answer)

    def test_invalid_header_only_if_named(self) -> None:
        for words, ports in ((DEFAULT, [81]), (frozenset({"invalid_header"}), [81, 82])):
            self.setUp()
            answer = self.exchange(self.group(), words=words)
            self.accept().protocol.dataReceived(b"garbage")
            self.assertEqual(self.ports, ports)
            if len(ports) == 1:
                error = self.failureResultOf(answer, UpstreamError).value
                self.assertIs(getattr(error, "fault", None), Fault.INVALID_HEADER)

    def test_post_goes_on_only_before_it_was_sent(self) -> None:
        for words, sent, ports in (
            (DEFAULT, False, [81, 82]),
            (DEFAULT, True, [81]),
            (DEFAULT | {"non_idempotent"}, True, [81, 82]),
        ):
            self.setUp()
            answer = self.exchange(
                self.group(), make_request(b"POST"), SpooledBody(b"x"), words=frozenset(words)
            )
            if sent:
                self.lose(self.accept())
            else:
                self.refuse()
            self.assertEqual(self.ports, ports)
            if len(ports) == 1:
                self.failureResultOf(answer, UpstreamError)
            else:
                self.assertTrue(self.accept().value().endswith(b"\r\n\r\nx"))

    def test_a_large_body_is_sent_once(self) -> None:
        body = Source([b"x" * 20000], length=30000, held=True)
        answer = self.exchange(self.group(), make_request(b"PUT"), body)
        self.lose(self.accept())
        self.failureResultOf(answer, UpstreamError)
        self.assertEqual((self.ports, body.cancelled), ([81], True))

    def test_a_client_whose_body_breaks_off_is_not_the_peers_fault(self) -> None:
        group = self.group()
        body = Source([b"x"], length=3, held=True)
        answer = self.exchange(group, make_request(b"PUT"), body)
        transport = self.accept()
        assert body.sink is not None
        body.sink.fail(KeyError("too large"))
        self.failureResultOf(answer, KeyError)
        self.assertTrue(transport.aborted)
        self.assertEqual((group.peers.primary[0].fails, self.ports), (0, [81]))

    def test_an_answer_that_has_begun_is_final(self) -> None:
        answer = self.exchange(self.group())
        transport = self.accept()
        transport.protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
        body: Any = self.successResultOf(answer).body
        sink = Sink()
        body.start(sink)
        self.lose(transport)
        self.assertIsInstance(sink.error, UpstreamError)
        self.assertEqual(self.ports, [81])

    def test_backup(self) -> None:
        group = self.group(
            Peer(Address("10.0.0.1", 81)), Peer(Address("10.0.0.9", 89), backup=True)
        )
        answer = self.exchange(group)
        self.refuse()
        self.accept().protocol.dataReceived(OK)
        self.assertEqual(self.successResultOf(answer).status, 200)
        self.assertEqual(self.ports, [81, 89])


class StatusTests(GroupTestCase):
    def test_goes_to_the_next_peer_and_counts(self) -> None:
        group = self.group()
        answer = self.exchange(group, words=frozenset({"http_500"}))
        self.accept().protocol.dataReceived(ERROR)
        self.accept().protocol.dataReceived(OK)
        self.assertEqual(self.successResultOf(answer).status, 200)
        self.assertEqual(self.attempts, [(b"10.0.0.1:81", 500), (b"10.0.0.2:82", 200)])
        self.assertEqual(group.peers.primary[0].fails, 1)

    def test_the_last_peers_answer_is_passed_on(self) -> None:
        answer = self.exchange(self.group(), words=frozenset({"http_500"}))
        self.accept().protocol.dataReceived(ERROR)
        self.accept().protocol.dataReceived(ERROR)
        response = self.successResultOf(answer)
        self.assertEqual((response.status, response.body), (500, b"x"))

    def test_with_nobody_else_live_the_answer_is_passed_on(self) -> None:
        group = self.group()
        group.peers.primary[1].failed(0.0)
        answer = self.exchange(group, words=frozenset({"http_500"}))
        self.accept().protocol.dataReceived(ERROR)
        self.assertEqual(self.successResultOf(answer).status, 500)

    def test_not_found_is_no_failure(self) -> None:
        group = self.group()
        self.exchange(group, words=frozenset({"http_404"}))
        transport = self.accept()
        transport.protocol.dataReceived(b"HTTP/1.1 404 X\r\nContent-Length: 9\r\n\r\nab")
        self.assertEqual((self.ports, group.peers.primary[0].fails), ([81, 82], 0))
        self.assertTrue(transport.aborted, "its body is not wanted")

    def test_post_stays(self) -> None:
        answer = self.exchange(self.group(), make_request(b"POST"), words=frozenset({"http_500"}))
        self.accept().protocol.dataReceived(ERROR)
        self.assertEqual(self.successResultOf(answer).status, 500)


class CountingTests(GroupTestCase):
    def test_what_peers_have_done(self) -> None:
        group = self.group()
        first, second = group.peers.primary
        answer = self.exchange(group)
        self.refuse()
        self.reactor.advance(0.5)
        transport = self.accept()
        sent = len(transport.value())
        head, body = OK[:-2], OK[-2:]
        transport.protocol.dataReceived(head)
        self.assertEqual(second.counters.responses, [0, 0, 1, 0, 0, 0])
        self.assertEqual((second.counters.completed, second.conns), (0, 1))
        self.reactor.advance(0.25)
        transport.protocol.dataReceived(body)
        self.successResultOf(answer)
        counters = second.counters
        self.assertEqual((counters.completed, second.conns), (1, 0))
        self.assertEqual((counters.header_time, counters.response_time), (0.5, 0.75))
        self.assertEqual((counters.sent, counters.received), (sent, len(OK)))
        self.assertEqual((first.counters.requests, first.counters.fails), (1, 1))
        self.assertEqual(first.counters.unavail, 1)
        self.assertIn("111: Connection refused", first.counters.last_reason)

    def test_an_answer_in_one_piece(self) -> None:
        group = self.group(Peer(Address("10.0.0.1", 81)))
        answer = self.exchange(group)
        self.accept().protocol.dataReceived(OK)
        self.successResultOf(answer)
        counters = group.peers.primary[0].counters
        self.assertEqual((counters.completed, counters.received), (1, len(OK)))

    def test_a_status_that_goes_on_is_a_failure(self) -> None:
        group = self.group()
        self.exchange(group, words=frozenset({"http_500"}))
        self.accept().protocol.dataReceived(ERROR)
        counters = group.peers.primary[0].counters
        self.assertEqual((counters.responses[5], counters.fails), (1, 1))
        self.assertEqual(counters.last_reason, "status 500")


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
