"""Answers that break off after their head: nothing is repeated, but the peer has failed."""

from __future__ import annotations

from typing import Any

from imagefarm.http.headers import Headers
from imagefarm.http.upstream import ExchangeRules, Outgoing, UpstreamError
from imagefarm.proxy.connection import HttpConnector
from imagefarm.proxy.group import Group
from imagefarm.proxy.peer import Address, Peer

from .support import Sink, Transport, make_request
from .test_group import GroupTestCase

BEGUN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"


class BrokenAnswerTests(GroupTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.peer = Peer(Address("10.0.0.1", 81), max_fails=2)
        self.backend: Group = self.group(self.peer, Peer(Address("10.0.0.2", 82), backup=True))

    def begin(self) -> tuple[Transport, Any, Sink]:
        """An answer of the peer's that has begun."""
        answer = self.exchange(self.backend)
        self.assertEqual(self.ports[-1], 81)
        transport = self.accept()
        transport.protocol.dataReceived(BEGUN)
        body: Any = self.successResultOf(answer).body
        sink = Sink()
        body.start(sink)
        return transport, body, sink

    def test_counts_as_failure(self) -> None:
        for end in (self.lose, lambda _: self.reactor.pump([3.0, 0.1])):
            transport, _, sink = self.begin()
            end(transport)
            self.assertIsInstance(sink.error, UpstreamError)
        self.assertEqual(self.peer.counters.fails, 2)
        self.assertTrue(self.peer.failed_out)
        self.assertEqual(
            [line.partition(",")[0] for line in self.lines],
            [
                "upstream prematurely closed connection while reading upstream",
                "upstream timed out (110: Connection timed out) while reading upstream",
                "upstream server temporarily disabled",
            ],
        )

    def test_a_probe_is_judged_by_the_whole_answer(self) -> None:
        for _ in range(2):
            self.lose(self.begin()[0])
        for whole in (False, True):
            self.reactor.advance(11)
            transport, _, sink = self.begin()
            self.assertTrue(self.peer.failed_out)
            if whole:
                transport.protocol.dataReceived(b"cde")
                self.assertTrue(sink.ended)
            else:
                self.lose(transport)
            self.assertEqual(self.peer.failed_out, not whole)

    def test_a_client_that_leaves_is_not_the_peers_fault(self) -> None:
        transport, body, _ = self.begin()
        body.cancel()
        self.lose(transport)
        self.assertEqual((self.peer.counters.fails, self.peer.conns), (0, 0))

    def test_a_change_of_protocol_is_an_answer(self) -> None:
        for _ in range(2):
            self.lose(self.begin()[0])
        self.reactor.advance(11)
        outgoing = Outgoing(b"GET", b"/", Headers([(b"Host", b"h")]), upgrade=True)
        rules = ExchangeRules(HttpConnector(self.reactor))
        answer = self.backend.exchange(make_request(), outgoing, rules)
        self.accept().protocol.dataReceived(b"HTTP/1.1 101 Yes\r\nUpgrade: x\r\n\r\n")
        self.assertEqual(self.successResultOf(answer).status, 101)
        self.assertFalse(self.peer.failed_out)
