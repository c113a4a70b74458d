"""The responder against scripted bytes, and against our own client in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.fastcgi import records as fcgi
from imagefarm.fastcgi.answer import UnsafeField, encode_head
from imagefarm.fastcgi.client import ConnectionFactory
from imagefarm.fastcgi.records import EndRequest, ProtocolStatus, Record, RecordType
from imagefarm.fastcgi.responder import ResponderConnection, ResponderFactory
from imagefarm.fastcgi.session import FastCGIRequest, ResponderLimits
from imagefarm.http.headers import Headers
from imagefarm.http.message import BodyStream, FileBody, OpenFile, PartsBody, Response
from imagefarm.http.upstream import Outgoing, Timeouts

from .fakes import Instant, Sink, Stream, Wire, content, lost, request
from .strategies import each_byte, split


class ResponderCase(SynchronousTestCase):
    limits = ResponderLimits(
        requests=3, connections=2, params=300, stdin=1000, discarded=3000, timeout=10, keepalive=50
    )

    def setUp(self) -> None:
        self.clock = Clock()
        self.seen: list[FastCGIRequest] = []
        self.pending: list[Deferred[Response]] = []
        self.cancelled = 0
        self.answer: Response | None = Response(200, Headers([(b"A", b"b")]), b"hello")
        self.factory = ResponderFactory(self.handle, self.clock, self.limits)
        self.wire = Wire()
        self.connection = self.connect(self.wire)

    def connect(self, wire: Wire) -> ResponderConnection:
        connection = self.factory.buildProtocol(None)
        assert connection is not None
        connection.makeConnection(wire)
        return connection

    def handle(self, request: FastCGIRequest) -> Response | Deferred[Response]:
        self.seen.append(request)
        if self.answer is not None:
            return self.answer
        self.pending.append(Deferred(self.cancel))
        return self.pending[-1]

    def cancel(self, _: object) -> None:
        self.cancelled += 1

    def feed(self, *pieces: bytes) -> list[Record]:
        for piece in pieces:
            self.connection.dataReceived(piece)
        return self.wire.records()

    def ends(self, records: list[Record]) -> dict[int, EndRequest]:
        return {
            r.request_id: fcgi.decode_end(r.content)
            for r in records
            if r.type == RecordType.END_REQUEST
        }

    def assertDropped(self) -> None:
        self.assertTrue(self.wire.aborted)
        lost(self.connection)
        self.assertEqual(self.factory.active, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])


DONE = EndRequest(0, ProtocolStatus.REQUEST_COMPLETE)


class AnswerTests(ResponderCase):
    def test_a_request(self) -> None:
        found = self.feed(request([(b"A", b"1"), (b"B", b""), (b"A", b"2")], b"body"))
        self.assertEqual(
            self.seen, [FastCGIRequest({b"A": b"2", b"B": b""}, b"body", request_id=1)]
        )
        self.assertEqual(
            content(found, RecordType.STDOUT),
            b"Status: 200 OK\r\nA: b\r\nContent-Length: 5\r\n\r\nhello",
        )
        self.assertEqual([r.type for r in found], [RecordType.STDOUT, RecordType.STDOUT, 3])
        self.assertEqual(self.ends(found), {1: DONE})
        self.assertFalse(self.wire.disconnecting)
        self.assertEqual(self.factory.active, 0)

    def test_without_keep_conn_the_connection_is_closed(self) -> None:
        self.assertEqual(self.ends(self.feed(request(keep=False))), {1: DONE})
        self.assertTrue(self.wire.disconnecting)
        self.assertIsNone(self.wire.producer)

    def test_kept_connections_serve_again(self) -> None:
        for number in range(5):
            self.assertEqual(
                self.ends(self.feed(request(request_id=number + 1))), {number + 1: DONE}
            )
        self.assertEqual(len(self.seen), 5)

    def test_head(self) -> None:
        found = self.feed(request([(b"REQUEST_METHOD", b"HEAD")]))
        out = content(found, RecordType.STDOUT)
        self.assertTrue(out.endswith(b"Content-Length: 5\r\n\r\n"))
        self.answer = Response(200, length=77)
        out = content(self.feed(request([(b"REQUEST_METHOD", b"HEAD")])), RecordType.STDOUT)
        self.assertTrue(out.endswith(b"Content-Length: 77\r\n\r\n"))

    def test_head_releases_the_body(self) -> None:
        body = Stream(10)
        self.answer = Response(200, body=body)
        self.feed(request([(b"REQUEST_METHOD", b"HEAD")]))
        self.assertTrue(body.cancelled)

    def test_not_modified(self) -> None:
        self.answer = Response(304, Headers([(b"ETag", b'"x"')]), b"")
        out = content(self.feed(request()), RecordType.STDOUT)
        self.assertEqual(out, b'Status: 304 Not Modified\r\nETag: "x"\r\n\r\n')

    def test_a_handler_that_fails(self) -> None:
        self.answer = None
        self.feed(request())
        self.pending[0].errback(ZeroDivisionError())
        found = self.wire.records()
        self.assertTrue(content(found, RecordType.STDOUT).startswith(b"Status: 500 "))
        self.assertEqual(self.ends(found), {1: EndRequest(1, 0)})
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_handler_that_raises(self) -> None:
        self.factory.handler = lambda _: 1 // 0  # type: ignore[assignment,return-value]
        out = content(self.feed(request()), RecordType.STDOUT)
        self.assertTrue(out.startswith(b"Status: 500 "))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_field_cannot_split_the_head(self) -> None:
        for name, value in ((b"A", b"b\r\nC: d"), (b"A", b"\n"), (b"A\n", b""), (b"", b"x")):
            with self.assertRaises(UnsafeField):
                encode_head(Response(200, Headers([(name, value)])), None)
        self.answer = Response(302, Headers([(b"Location", b"/\r\nSet-Cookie: x")]))
        out = content(self.feed(request()), RecordType.STDOUT)
        self.assertEqual(out, b"Status: 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(len(self.flushLoggedErrors(UnsafeField)), 1)

    def test_unknown_statuses_have_no_reason(self) -> None:
        self.assertEqual(encode_head(Response(299), None), b"Status: 299\r\n\r\n")


class BodyTests(ResponderCase):
    def body(self, response: Response) -> bytes:
        self.answer = response
        found = self.feed(request())
        while self.connection.paused:
            self.connection.resumeProducing()
            found += self.wire.records()
        self.assertEqual(self.ends(found), {1: DONE})
        return content(found, RecordType.STDOUT).partition(b"\r\n\r\n")[2]

    def file(self, data: bytes) -> OpenFile:
        path = self.mktemp()
        with open(path, "wb") as out:
            out.write(data)
        return OpenFile(os.open(path, os.O_RDONLY), len(data), 0.0, os.fsencode(path))

    def test_large_bytes(self) -> None:
        data = bytes(range(256)) * 1000
        self.assertEqual(self.body(Response(200, body=data)), data)

    def test_a_file(self) -> None:
        opened = self.file(b"0123456789" * 20000)
        body = FileBody(opened, 5, 150000)
        self.assertEqual(self.body(Response(200, body=body)), (b"0123456789" * 20000)[5:150005])
        self.assertEqual(opened.fd, -1)

    def test_parts(self) -> None:
        opened = self.file(b"0123456789")
        parts = PartsBody((b"--a", FileBody(opened, 2, 3), b"--b", FileBody(opened, 0, 1)), 10)
        self.assertEqual(self.body(Response(206, body=parts)), b"--a234--b0")
        self.assertEqual(opened.fd, -1)

    def test_a_file_that_shrinks_breaks_the_connection(self) -> None:
        opened = self.file(b"0123456789")
        self.answer = Response(200, body=FileBody(opened, 0, 11))
        self.assertEqual(self.ends(self.feed(request())), {})
        self.assertEqual(opened.fd, -1)
        self.assertDropped()

    def test_a_stream(self) -> None:
        body = Stream()
        self.answer = Response(200, body=body)
        found = self.feed(request())
        self.assertEqual(content(found, RecordType.STDOUT), b"Status: 200 OK\r\n\r\n")
        assert body.sink is not None
        body.sink.data(b"abc")
        self.assertEqual(content(self.wire.records(), RecordType.STDOUT), b"abc")
        self.connection.pauseProducing()
        self.assertTrue(body.paused)
        self.connection.resumeProducing()
        self.assertFalse(body.paused)
        body.sink.end()
        self.assertEqual(self.ends(self.wire.records()), {1: DONE})

    def test_a_stream_that_starts_while_paused(self) -> None:
        body = Stream()
        self.answer = None
        self.feed(request())
        self.connection.pauseProducing()
        self.pending[0].callback(Response(200, body=body))
        self.assertTrue(body.paused)

    def test_a_stream_that_fails_breaks_the_connection(self) -> None:
        body = Stream(5)
        self.answer = Response(200, body=body)
        self.feed(request())
        assert body.sink is not None
        body.sink.fail(OSError("gone"))
        self.assertEqual(self.ends(self.wire.records()), {})
        self.assertDropped()

    def test_backpressure_of_bytes(self) -> None:
        data = bytes(1000000)
        self.answer = None
        self.feed(request())
        self.connection.pauseProducing()
        self.pending[0].callback(Response(200, body=data))
        first = self.wire.records()
        self.assertLess(len(content(first, RecordType.STDOUT)), 70000)
        self.connection.resumeProducing()
        self.assertEqual(self.ends(self.wire.records()), {1: DONE})

    def test_a_lost_connection_releases_bodies(self) -> None:
        body = Stream()
        self.answer = Response(200, body=body)
        self.feed(request())
        lost(self.connection)
        self.assertTrue(body.cancelled)
        self.assertEqual((self.factory.active, self.clock.getDelayedCalls()), (0, []))


class MultiplexingTests(ResponderCase):
    def test_requests_interleave(self) -> None:
        self.answer = None
        one, two = request(request_id=1), request(request_id=2)
        self.feed(one[:16], two[:16], one[16:], two[16:])
        self.assertEqual([r.request_id for r in self.seen], [1, 2])
        self.pending[1].callback(Response(200, body=b"two"))
        found = self.wire.records()
        self.assertEqual(self.ends(found), {2: DONE})
        self.assertTrue(content(found, RecordType.STDOUT, 2).endswith(b"two"))
        self.pending[0].callback(Response(200, body=b"one"))
        self.assertEqual(self.ends(self.wire.records()), {1: DONE})

    def test_the_connection_closes_after_the_last(self) -> None:
        self.answer = None
        self.feed(request(request_id=1, keep=False), request(request_id=2))
        self.pending[0].callback(Response(200))
        self.assertFalse(self.wire.disconnecting)
        self.pending[1].callback(Response(200))
        self.assertTrue(self.wire.disconnecting)

    def test_an_abort_cancels(self) -> None:
        self.answer = None
        self.feed(request())
        found = self.feed(fcgi.encode_record(RecordType.ABORT_REQUEST, 1))
        self.assertEqual(self.cancelled, 1)
        self.assertEqual(self.ends(found), {1: EndRequest(1, 0)})
        self.assertEqual(self.ends(self.feed(request(request_id=2))), {})
        self.assertEqual(self.factory.active, 1)

    def test_an_abort_of_a_streaming_answer(self) -> None:
        body = Stream()
        self.answer = Response(200, body=body)
        self.feed(request())
        found = self.feed(fcgi.encode_record(RecordType.ABORT_REQUEST, 1))
        self.assertTrue(body.cancelled)
        self.assertEqual(self.ends(found), {1: EndRequest(1, 0)})

    def test_an_abort_before_the_request_is_whole(self) -> None:
        found = self.feed(request()[:16], fcgi.encode_record(RecordType.ABORT_REQUEST, 1))
        self.assertEqual(self.ends(found), {1: EndRequest(0, 0)})
        self.assertEqual((self.seen, self.factory.active), ([], 0))

    def test_a_lost_connection_cancels_everything(self) -> None:
        self.answer = None
        self.feed(request(request_id=1), request(request_id=2), request(request_id=3)[:30])
        self.assertEqual(self.factory.active, 3)
        lost(self.connection)
        self.assertEqual((self.cancelled, self.factory.active), (2, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(repr(self.factory), "<ResponderFactory 0 connections, 0 requests>")


class ManagementTests(ResponderCase):
    def ask(self, *names: bytes) -> Mapping[bytes, bytes]:
        body = fcgi.encode_pairs((name, b"") for name in names)
        (record,) = self.feed(fcgi.encode_record(RecordType.GET_VALUES, 0, body))
        self.assertEqual((record.type, record.request_id), (RecordType.GET_VALUES_RESULT, 0))
        return dict(fcgi.decode_pairs(record.content))

    def test_get_values(self) -> None:
        self.assertEqual(
            self.ask(b"FCGI_MAX_CONNS", b"FCGI_MAX_REQS", b"FCGI_MPXS_CONNS", b"OTHER"),
            {b"FCGI_MAX_CONNS": b"2", b"FCGI_MAX_REQS": b"3", b"FCGI_MPXS_CONNS": b"1"},
        )
        self.assertEqual(self.ask(), {})

    def test_an_unknown_type(self) -> None:
        (record,) = self.feed(fcgi.encode_record(99, 0, b"x"))
        self.assertEqual((record.type, record.request_id), (RecordType.UNKNOWN_TYPE, 0))
        self.assertEqual(fcgi.decode_unknown(record.content), 99)

    def test_large_get_values(self) -> None:
        self.feed(fcgi.encode_record(RecordType.GET_VALUES, 0, bytes(5000)))
        self.assertDropped()


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
