"""A group with scripted connections: choosing, failing over, counting."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import TimeoutError
from twisted.python.failure import Failure

from imagefarm.http.spool import SpooledBody
from imagefarm.http.upstream import (
    Fault,
    NoLivePeers,
    UpstreamError,
)
from imagefarm.proxy.peer import Address, Peer

from .group_case import DEFAULT, ERROR, OK, GroupTestCase
from .support import Sink, Source, make_request


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
        whose = (
            'client: 192.0.2.1, server: , request: "GET / HTTP/1.1", '
            'upstream: "http://10.0.0.1:81/up", '
        )
        self.assertEqual(
            [line.partition("request_id: ")[0] for line in self.lines],
            [
                "connect() failed (111: Connection refused) while connecting to upstream, "
                + whose,
                "upstream server temporarily disabled, " + whose,
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

    def test_with_nobody_else_live(self) -> None:
        """As in nginx: the answer is given up before there is another."""
        group = self.group()
        first, second = group.peers.primary
        second.failed(0.0)
        request = make_request()
        answer = self.exchange(group, request, words=frozenset({"http_500"}))
        self.accept().protocol.dataReceived(ERROR)
        self.failureResultOf(answer, NoLivePeers)
        tried = [(attempt.address, attempt.status) for attempt in request.outcome.attempts]
        self.assertEqual(tried, [(first.name, 500), (b"backend", 502)])
        self.assertEqual((first.fails, first.conns), (1, 0))

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
