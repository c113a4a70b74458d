"""The responder's refusals, timeouts and end, and the responder against our own client."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.fastcgi import records as fcgi
from imagefarm.fastcgi.client import ConnectionFactory
from imagefarm.fastcgi.records import EndRequest, ProtocolStatus, RecordType
from imagefarm.fastcgi.responder import ResponderFactory
from imagefarm.fastcgi.session import FastCGIRequest
from imagefarm.http.headers import Headers
from imagefarm.http.message import BodyStream, Response
from imagefarm.http.upstream import Outgoing, Timeouts

from .fakes import Instant, Sink, Wire, content, lost, request
from .responding import DONE, ResponderCase
from .strategies import each_byte, split


class RefusalTests(ResponderCase):
    def test_overload(self) -> None:
        self.answer = None
        self.feed(*(request(request_id=n) for n in (1, 2, 3)))
        found = self.feed(request(request_id=4, stdin=b"x" * 500))
        self.assertEqual(self.ends(found), {4: EndRequest(0, ProtocolStatus.OVERLOADED)})
        self.pending[0].callback(Response(200))
        self.feed(request(request_id=5))
        self.assertEqual(len(self.seen), 4)

    def test_the_bound_is_the_process_s(self) -> None:
        self.answer = None
        self.feed(request(request_id=1), request(request_id=2), request(request_id=3))
        other = Wire()
        second = self.connect(other)
        second.dataReceived(request())
        self.assertEqual(self.ends(other.records()), {1: EndRequest(0, ProtocolStatus.OVERLOADED)})
        self.assertIsNone(self.factory.buildProtocol(None))
        lost(second)
        self.assertIsNotNone(self.factory.buildProtocol(None))

    def test_roles(self) -> None:
        for role in (fcgi.Role.AUTHORIZER, fcgi.Role.FILTER, 77):
            found = self.feed(request(role=role))
            self.assertEqual(self.ends(found), {1: EndRequest(0, ProtocolStatus.UNKNOWN_ROLE)})
        self.assertEqual((self.seen, self.factory.active), ([], 0))

    def test_too_many_params(self) -> None:
        found = self.feed(request([(b"A", bytes(300))]))
        self.assertTrue(content(found, RecordType.STDOUT).startswith(b"Status: 431 "))
        self.assertEqual((self.ends(found), self.seen), ({1: DONE}, []))

    def test_too_much_stdin(self) -> None:
        found = self.feed(request(stdin=bytes(1000)))
        self.assertEqual(len(self.seen), 1)
        found = self.feed(request(stdin=bytes(1001)))
        self.assertTrue(content(found, RecordType.STDOUT).startswith(b"Status: 413 "))
        self.assertEqual((self.ends(found), len(self.seen)), ({1: DONE}, 1))
        self.assertEqual(self.ends(self.feed(request())), {1: DONE})

    def test_stdin_without_end(self) -> None:
        piece = fcgi.encode_record(RecordType.STDIN, 1, bytes(500))
        self.feed(request()[:-8], *[piece] * 8)
        self.assertFalse(self.wire.aborted)
        self.feed(piece)
        self.assertDropped()

    def test_malformed_params(self) -> None:
        raw = request().replace(b"\x01\x01Ab", b"\x01\x7fAb")
        found = self.feed(raw)
        self.assertTrue(content(found, RecordType.STDOUT).startswith(b"Status: 400 "))

    def test_broken_protocol(self) -> None:
        begin = fcgi.encode_begin(1, 1, keep=True)
        params_end = fcgi.encode_record(RecordType.PARAMS, 1)
        for raw in (
            b"GET / HTTP/1.0\r\n\r\n",
            begin + begin,
            begin + fcgi.encode_record(RecordType.STDIN, 1),
            begin + fcgi.encode_record(RecordType.STDOUT, 1, b"x"),
            begin + params_end + params_end,
            begin + fcgi.encode_record(RecordType.DATA, 1, b"x"),
            fcgi.encode_record(RecordType.BEGIN_REQUEST, 1, b"short"),
            begin + fcgi.encode_begin(2, 9, keep=True) + fcgi.encode_begin(3, 9, keep=True)
            + fcgi.encode_begin(4, 9, keep=True) + fcgi.encode_begin(5, 9, keep=True),
        ):  # fmt: skip
            self.setUp()
            self.feed(raw)
            self.assertDropped()

    def test_records_of_unknown_requests_are_ignored(self) -> None:
        found = self.feed(
            fcgi.encode_record(RecordType.STDIN, 9, b"x"),
            fcgi.encode_record(RecordType.ABORT_REQUEST, 9),
            request(),
        )
        self.assertEqual(self.ends(found), {1: DONE})


class TimeTests(ResponderCase):
    def test_an_idle_connection(self) -> None:
        self.feed(request())
        self.clock.pump([10] * 4)
        self.assertFalse(self.wire.aborted)
        self.clock.advance(10)
        self.assertDropped()

    def test_a_request_that_stops_arriving(self) -> None:
        self.feed(request()[:20])
        self.clock.advance(9)
        self.feed(request()[20:30])
        self.clock.advance(9)
        self.assertFalse(self.wire.aborted)
        self.clock.advance(1)
        self.assertDropped()

    def test_a_slow_handler_has_time(self) -> None:
        self.answer = None
        self.feed(request())
        self.clock.pump([10] * 100)
        self.assertFalse(self.wire.aborted)

    def test_an_answer_that_is_not_read(self) -> None:
        self.answer = None
        self.feed(request())
        self.connection.pauseProducing()
        self.assertEqual(self.wire.producerState, "paused")
        self.clock.advance(10)
        self.assertDropped()


class DrainTests(ResponderCase):
    def test_nothing_to_wait_for(self) -> None:
        lost(self.connection)
        self.successResultOf(self.factory.drain())
        self.assertIsNone(self.factory.buildProtocol(None))

    def test_an_idle_connection_is_closed(self) -> None:
        drained = self.factory.drain()
        self.assertTrue(self.wire.disconnecting)
        self.assertNoResult(drained)
        lost(self.connection)
        self.successResultOf(drained)

    def test_requests_in_progress_are_answered(self) -> None:
        self.answer = None
        self.feed(request())
        drained = self.factory.drain()
        self.assertFalse(self.wire.disconnecting)
        found = self.feed(request(request_id=2))
        self.assertEqual(self.ends(found), {2: EndRequest(0, ProtocolStatus.OVERLOADED)})
        self.pending[0].callback(Response(200))
        self.assertEqual(self.ends(self.wire.records()), {1: DONE})
        self.assertTrue(self.wire.disconnecting)
        lost(self.connection)
        self.successResultOf(drained)

    def test_a_request_that_crosses_the_end(self) -> None:
        """The web server could not know."""
        self.answer = None
        drained = self.factory.drain(1.0)
        self.clock.advance(0.9)
        self.assertFalse(self.wire.disconnecting)
        self.feed(request(keep=True))
        self.clock.advance(5)
        self.assertFalse(self.wire.disconnecting)
        self.pending[0].callback(Response(200))
        self.assertEqual(self.ends(self.wire.records()), {1: DONE})
        self.assertTrue(self.wire.disconnecting)
        lost(self.connection)
        self.successResultOf(drained)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_none_comes(self) -> None:
        drained = self.factory.drain(1.0)
        self.clock.pump([0.5] * 4)
        self.assertTrue(self.wire.disconnecting)
        lost(self.connection)
        self.successResultOf(drained)

    def test_part_of_one_comes(self) -> None:
        self.factory.drain(1.0)
        self.feed(request()[:4])
        self.clock.pump([0.5] * 4)
        self.assertTrue(self.wire.disconnecting)
        lost(self.connection)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SplitTests(ResponderCase):
    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.integers(0, 500), max_size=10))
    def test_any_split(self, cuts: list[int]) -> None:
        raw = request([(b"A", b"1")], b"one") + request([(b"B", b"2" * 200)], b"two", request_id=2)
        for pieces in (split(raw, cuts), each_byte(raw)):
            self.setUp()
            found = self.feed(*pieces)
            self.assertEqual([r.stdin for r in self.seen], [b"one", b"two"])
            self.assertEqual(self.ends(found), {1: DONE, 2: DONE})
            self.assertFalse(self.connection._session.arriving)

    @settings(deadline=None)
    @given(st.binary(max_size=120), st.lists(st.integers(0, 120), max_size=4))
    def test_noise(self, noise: bytes, cuts: list[int]) -> None:
        self.setUp()
        for piece in split(noise, cuts):
            if not self.wire.aborted:
                self.connection.dataReceived(piece)
        lost(self.connection)
        self.assertEqual((self.factory.active, self.clock.getDelayedCalls()), (0, []))


class PairTests(SynchronousTestCase):
    """Client and responder against each other."""

    def run_pair(
        self,
        cuts: list[int],
        response: Response,
        body: BodyStream | None,
        method: bytes = b"POST",
    ) -> tuple[FastCGIRequest, Response]:
        clock = Clock()
        seen: list[FastCGIRequest] = []

        def handle(request: FastCGIRequest) -> Response:
            seen.append(request)
            return response

        server = ResponderFactory(handle, clock).buildProtocol(None)
        assert server is not None
        client = ConnectionFactory(clock, keep=True)()
        near, far = Wire(), Wire()
        client.makeConnection(near)
        server.makeConnection(far)
        idle: list[object] = []
        client.on_idle = idle.append
        outgoing = Outgoing(
            method, params=((b"REQUEST_METHOD", method), (b"X", b"y" * 200)), body=body
        )
        waiting = client.send(outgoing, Timeouts(), reused=False)
        for _ in range(100):
            ahead, back = near.value(), far.value()
            near.clear()
            far.clear()
            for piece in split(ahead, cuts):
                server.dataReceived(piece)
            for piece in split(back, cuts):
                client.dataReceived(piece)
            if idle:
                break
        self.assertEqual(idle, [client])
        answer = self.successResultOf(waiting)
        lost(client)
        lost(server)
        self.assertEqual(clock.getDelayedCalls(), [])
        return seen[0], answer

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(st.integers(0, 100000), max_size=6),
        st.binary(max_size=300),
        st.integers(0, 100000).map(lambda n: b"z" * n),
        st.booleans(),
    )
    def test_what_is_sent_arrives(
        self, cuts: list[int], small: bytes, large: bytes, known: bool
    ) -> None:
        body = Instant([b"up" * 100, b"load"], 204)
        answer = Instant([piece for piece in (small, large) if piece])
        if known:
            answer.length = len(small) + len(large)
        response = Response(201, Headers([(b"X-A", b"1"), (b"X-A", b"2")]), answer)
        request, got = self.run_pair(cuts, response, body)
        self.assertEqual(request.stdin, b"up" * 100 + b"load")
        self.assertEqual(request.params[b"X"], b"y" * 200)
        self.assertEqual(got.status, 201)
        self.assertEqual(list(got.headers), [(b"X-A", b"1"), (b"X-A", b"2")])
        sink = Sink()
        if isinstance(got.body, bytes):
            sink.data(got.body) if got.body else None
            sink.end()
        else:
            self.assertEqual(got.body.length, answer.length)
            got.body.start(sink)  # type: ignore[union-attr]
        self.assertEqual((sink.bytes, sink.outcome), (small + large, "end"))

    def test_head(self) -> None:
        _, got = self.run_pair([], Response(200, body=b"12345"), None, b"HEAD")
        self.assertEqual((got.length, got.body), (5, b""))

    def test_cancelling_reaches_the_handler(self) -> None:
        clock = Clock()
        pending: list[Deferred[Response]] = []

        def handle(request: FastCGIRequest) -> Deferred[Response]:
            pending.append(Deferred())
            return pending[0]

        server = ResponderFactory(handle, clock).buildProtocol(None)
        assert server is not None
        client = ConnectionFactory(clock)()
        near, far = Wire(), Wire()
        client.makeConnection(near)
        server.makeConnection(far)
        waiting = client.send(Outgoing(b"GET"), Timeouts(), reused=False)
        server.dataReceived(near.value())
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertTrue(near.aborted)
        lost(server)
        self.assertTrue(pending[0].called)
