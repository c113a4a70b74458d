"""The client connection against scripted bytes."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.fastcgi import records as fcgi
from imagefarm.fastcgi.client import ConnectionFactory
from imagefarm.fastcgi.records import ProtocolStatus, RecordType
from imagefarm.http.message import BodyStream, Response, body_length, discard
from imagefarm.http.upstream import Fault, Outgoing, Timeouts, UpstreamError

from .fakes import Instant, Sink, Stream, Wire, content, end, lost, stderr, stdout, stdout_end
from .strategies import each_byte, split

OK = b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n"
PARAMS = ((b"REQUEST_METHOD", b"GET"), (b"A", b"1"), (b"A", b"2"))


class ClientCase(SynchronousTestCase):
    keep = True
    head_limit = 8192

    def setUp(self) -> None:
        self.clock = Clock()
        self.wire = Wire()
        factory = ConnectionFactory(self.clock, keep=self.keep, head_limit=self.head_limit)
        self.connection = factory()
        self.happened: list[str] = []
        self.connection.on_idle = lambda _: self.happened.append("idle")
        self.connection.on_closed = lambda _: self.happened.append("closed")
        self.notes: list[str] = []
        self.connection.on_note = lambda _, text: self.notes.append(text)
        self.connection.makeConnection(self.wire)

    def send(
        self, method: bytes = b"GET", body: BodyStream | None = None, reused: bool = False
    ) -> Deferred[Response]:
        outgoing = Outgoing(method, b"/x.php", params=PARAMS, body=body)
        return self.connection.send(outgoing, Timeouts(1, 5, 7), reused=reused)

    def feed(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.connection.dataReceived(piece)

    def failure(self, waiting: Deferred[Response]) -> UpstreamError:
        error = self.failureResultOf(waiting, UpstreamError).value
        assert isinstance(error, UpstreamError)
        return error

    def idle(self) -> None:
        """No timer is left behind."""
        self.assertEqual(self.clock.getDelayedCalls(), [])


class RequestTests(ClientCase):
    def test_a_request_without_a_body(self) -> None:
        self.send()
        begin, params, *rest = self.wire.records()
        self.assertEqual(fcgi.decode_begin(begin.content), fcgi.BeginRequest(1, True))
        self.assertEqual(begin.request_id, 1)
        self.assertEqual(fcgi.decode_pairs(params.content), list(PARAMS))
        self.assertEqual(
            [(r.type, r.content) for r in rest],
            [(RecordType.PARAMS, b""), (RecordType.STDIN, b"")],
        )

    def test_a_body_streams_in_records_of_32k(self) -> None:
        body = Stream(length=70000)
        self.send(b"POST", body)
        self.assertEqual(self.wire.records()[-1].type, RecordType.PARAMS)
        assert body.sink is not None
        body.sink.data(b"a" * 70000)
        sizes = [len(r.content) for r in self.wire.records()]
        self.assertEqual(sizes, [32768, 32768, 70000 - 65536])
        body.sink.end()
        (last,) = self.wire.records()
        self.assertEqual((last.type, last.content), (RecordType.STDIN, b""))
        self.assertIsNone(self.wire.producer)

    def test_an_application_that_takes_little_is_waited_for(self) -> None:
        body = Stream()
        waiting, wire = self.send(b"POST", body), cast(Any, self.wire)
        self.wire.producer.pauseProducing()
        for _ in range(5):
            self.clock.advance(3)
            wire.moved = self.clock.seconds()
        self.clock.advance(4.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.2)
        self.assertIs(self.failure(waiting).fault, Fault.TIMEOUT)
        self.idle()

    def test_backpressure_reaches_the_body(self) -> None:
        body = Stream()
        waiting = self.send(b"POST", body)
        producer = self.wire.producer
        producer.pauseProducing()
        self.assertTrue(body.paused)
        self.clock.advance(4.9)
        producer.resumeProducing()
        self.assertFalse(body.paused)
        self.clock.advance(60)
        self.assertNoResult(waiting)
        producer.pauseProducing()
        self.clock.advance(5)
        error = self.failure(waiting)
        self.assertIs(error.fault, Fault.TIMEOUT)
        self.assertEqual(
            error.reason,
            "upstream timed out (110: Connection timed out) while sending request to upstream",
        )
        self.assertTrue(body.cancelled)
        self.assertTrue(self.wire.aborted)
        self.idle()

    def test_a_body_that_breaks_off(self) -> None:
        body = Stream()
        waiting = self.send(b"POST", body)
        assert body.sink is not None
        body.sink.fail(OSError("gone"))
        self.assertIs(self.failure(waiting).fault, Fault.SEND)
        self.assertTrue(self.wire.aborted)
        self.idle()

    def test_an_early_answer_stops_the_body_and_ends_the_connection(self) -> None:
        body = Stream()
        waiting = self.send(b"POST", body)
        self.feed(stdout(b"Status: 413 Too Large\n\n") + end())
        self.assertEqual(self.successResultOf(waiting).status, 413)
        self.assertTrue(body.cancelled)
        self.assertTrue(self.wire.aborted)
        self.assertEqual(self.happened, [])
        self.idle()

    def test_a_body_that_is_there_at_once(self) -> None:
        waiting = self.send(b"POST", Instant([b"ab", b"cd"], 4))
        self.assertEqual(content(self.wire.records(), RecordType.STDIN), b"abcd")
        self.feed(stdout(OK) + end())
        self.assertEqual(self.successResultOf(waiting).status, 200)
        self.assertEqual(self.happened, ["idle"])


class AnswerTests(ClientCase):
    def test_a_small_answer_is_bytes(self) -> None:
        waiting = self.send()
        self.feed(stdout(OK + b"hello") + stdout_end() + end())
        response = self.successResultOf(waiting)
        self.assertEqual((response.status, response.body), (200, b"hello"))
        self.assertEqual(list(response.headers), [(b"Content-Type", b"text/plain")])
        self.assertEqual(self.happened, ["idle"])
        self.assertEqual(repr(self.connection), "<FastCGIConnection idle>")
        self.idle()

    def test_what_the_connection_derives_is_left_out(self) -> None:
        waiting = self.send()
        self.feed(
            stdout(
                b"Content-Length: 0\nConnection: close\nTransfer-Encoding: chunked\nDate: x\n"
                b"Server: y\nKeep-Alive: z\nX-Powered-By: PHP\nSet-Cookie: a\nSet-Cookie: b\n"
                b"Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\n\n"
            )
            + end()
        )
        response = self.successResultOf(waiting)
        self.assertEqual(
            [name for name, _ in response.headers],
            [b"X-Powered-By", b"Set-Cookie", b"Set-Cookie", b"Last-Modified"],
        )
        self.assertEqual(response.mtime, 784111777)

    def test_a_stream(self) -> None:
        waiting = self.send()
        self.feed(stdout(b"Content-Length: 6\n\nab"))
        response = self.successResultOf(waiting)
        body = response.body
        assert not isinstance(body, bytes)
        self.assertEqual(body.length, 6)
        self.assertEqual(self.wire.producerState, "paused")
        sink = Sink()
        body.start(sink)
        self.assertEqual(self.wire.producerState, "producing")
        self.feed(stdout(b"cd"), stdout(b"ef"))
        self.assertEqual((sink.bytes, sink.outcome), (b"abcdef", None))
        self.feed(stdout_end() + end())
        self.assertEqual(sink.outcome, "end")
        self.assertEqual(self.happened, ["idle"])
        self.idle()

    def test_backpressure(self) -> None:
        waiting = self.send()
        self.feed(stdout(OK + b"a"))
        body = self.successResultOf(waiting).body
        assert not isinstance(body, bytes)
        sink = Sink()
        body.start(sink)
        body.pause()
        self.assertEqual(self.wire.producerState, "paused")
        self.feed(stdout(b"b"))
        # A slow client is not the application's fault.
        self.clock.advance(100)
        self.assertEqual((sink.bytes, sink.outcome), (b"a", None))
        body.resume()
        self.assertEqual(self.wire.producerState, "producing")
        self.assertEqual(sink.bytes, b"ab")
        body.pause()
        self.feed(stdout(b"c") + end())
        # The connection is free although the body has not been taken.
        self.assertEqual(self.happened, ["idle"])
        self.assertEqual(self.wire.producerState, "producing")
        self.assertEqual((sink.bytes, sink.outcome), (b"ab", None))
        body.resume()
        self.assertEqual((sink.bytes, sink.outcome), (b"abc", "end"))
        body.cancel()
        self.assertFalse(self.wire.aborted)

    def test_cancelling_the_body_drops_the_connection(self) -> None:
        waiting = self.send()
        self.feed(stdout(OK + b"a"))
        body = self.successResultOf(waiting).body
        assert not isinstance(body, bytes)
        body.cancel()
        body.cancel()
        self.assertTrue(self.wire.aborted)
        self.idle()
        lost(self.connection)
        self.assertEqual(self.happened, ["closed"])

    def test_cancelling_the_wait_drops_the_connection(self) -> None:
        waiting = self.send()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertTrue(self.wire.aborted)
        self.idle()

    def test_the_connection_is_used_again(self) -> None:
        for number in range(3):
            waiting = self.send(reused=number > 0)
            self.feed(stdout(OK + b"%d" % number) + end())
            self.assertEqual(self.successResultOf(waiting).body, b"%d" % number)
        self.assertEqual(self.happened, ["idle"] * 3)
        self.assertFalse(self.wire.aborted)

    def test_used_again_from_within_on_idle(self) -> None:
        again: list[Deferred[Response]] = []
        first = self.send()
        self.connection.on_idle = lambda _: again.append(self.send(reused=True))
        self.feed(stdout(OK + b"1") + end())
        self.connection.on_idle = None
        self.feed(stdout(OK + b"2") + end())
        self.assertEqual(self.successResultOf(first).body, b"1")
        self.assertEqual(self.successResultOf(again[0]).body, b"2")

    def test_bytes_after_the_end_cost_the_connection(self) -> None:
        waiting = self.send()
        self.feed(stdout(OK) + end() + stdout(b"x"))
        self.assertEqual(self.successResultOf(waiting).body, b"")
        self.assertEqual((self.happened, self.wire.aborted), ([], True))

    def test_bytes_while_idle_cost_the_connection(self) -> None:
        self.feed(b"\x01")
        self.assertTrue(self.wire.aborted)

    @settings(deadline=None)
    @given(st.binary(max_size=200), st.lists(st.integers(0, 400), max_size=8))
    def test_any_split(self, payload: bytes, cuts: list[int]) -> None:
        raw = stdout(OK + payload[:50]) + stderr(b"oops") + stdout(payload[50:])
        raw += stdout_end() + end()
        for pieces in (split(raw, cuts), each_byte(raw)):
            self.setUp()
            waiting = self.send()
            sink = Sink()

            def take(response: Response, sink: Sink = sink) -> None:
                if isinstance(response.body, bytes):
                    sink.chunks.append(response.body)
                    sink.end()
                else:
                    response.body.start(sink)  # type: ignore[union-attr]

            waiting.addCallback(take)
            for piece in pieces:
                self.feed(piece)
            self.assertEqual((sink.bytes, sink.outcome), (payload, "end"))
            self.assertEqual(self.happened, ["idle"])
            self.idle()


class LengthTests(ClientCase):
    def test_head(self) -> None:
        waiting = self.send(b"HEAD")
        self.feed(stdout(b"Content-Length: 12\n\n") + end())
        response = self.successResultOf(waiting)
        self.assertEqual((response.length, response.body), (12, b""))
        self.assertEqual(self.happened, ["idle"])

    def test_head_of_an_unknown_length(self) -> None:
        """It is not 0, so there is no body of 0 bytes."""
        waiting = self.send(b"HEAD")
        self.feed(stdout(b"A: b\n\n") + end())
        response = self.successResultOf(waiting)
        self.assertEqual((response.length, body_length(response.body)), (None, None))
        discard(response.body)
        self.assertEqual(self.happened, ["idle"])

    def test_head_with_a_body(self) -> None:
        waiting = self.send(b"HEAD")
        self.feed(stdout(b"Content-Length: 3\n\nabc"))
        response = self.successResultOf(waiting)
        self.assertEqual((response.length, response.body), (3, b""))
        self.assertTrue(self.wire.aborted)

    def test_more_than_declared_is_dropped(self) -> None:
        waiting = self.send()
        self.feed(stdout(b"Content-Length: 3\n\nabcdef"))
        self.assertEqual(self.successResultOf(waiting).body, b"abc")
        self.assertTrue(self.wire.aborted)
        self.assertIn('more data than specified in "Content-Length"', self.notes[0])

    def test_less_than_declared_fails_the_wait(self) -> None:
        waiting = self.send()
        self.feed(stdout(b"Content-Length: 3\n\nab") + end())
        error = self.failure(waiting)
        self.assertIs(error.fault, Fault.CLOSED)
        self.assertIn("upstream prematurely closed FastCGI stdout", error.reason)

    def test_less_than_declared_fails_the_body(self) -> None:
        waiting = self.send()
        self.feed(stdout(b"Content-Length: 3\n\nab"))
        sink = Sink()
        self.successResultOf(waiting).body.start(sink)  # type: ignore[union-attr]
        self.feed(end())
        self.assertEqual(sink.bytes, b"ab")
        self.assertIsInstance(sink.outcome, UpstreamError)
        self.assertTrue(self.wire.aborted)

    def test_not_modified_has_no_body(self) -> None:
        waiting = self.send()
        self.feed(stdout(b"Status: 304\nContent-Length: 30\n\n") + end())
        response = self.successResultOf(waiting)
        self.assertEqual((response.status, response.body, response.length), (304, b"", None))


class FailureTests(ClientCase):
    head_limit = 64

    def test_closed_before_anything(self) -> None:
        waiting = self.send()
        lost(self.connection)
        error = self.failure(waiting)
        self.assertEqual((error.fault, error.stale), (Fault.CLOSED, False))
        self.assertEqual(
            error.reason,
            "upstream prematurely closed connection while reading response header from upstream",
        )
        self.assertEqual(self.happened, ["closed"])
        self.idle()

    def test_a_stale_connection(self) -> None:
        waiting = self.send(reused=True)
        lost(self.connection)
        self.assertTrue(self.failure(waiting).stale)

    def test_not_stale_once_it_has_answered(self) -> None:
        waiting = self.send(reused=True)
        self.feed(b"\x01")
        lost(self.connection)
        self.assertFalse(self.failure(waiting).stale)

    def test_send_on_a_closed_connection(self) -> None:
        lost(self.connection)
        error = self.failure(self.send(reused=True))
        self.assertTrue(error.stale and error.unsent)

    def test_closed_in_the_body(self) -> None:
        waiting = self.send()
        self.feed(stdout(OK + b"ab"))
        sink = Sink()
        self.successResultOf(waiting).body.start(sink)  # type: ignore[union-attr]
        lost(self.connection)
        self.assertEqual(sink.bytes, b"ab")
        self.assertIsInstance(sink.outcome, UpstreamError)
        self.assertIn(
            "upstream prematurely closed FastCGI stdout while reading upstream", self.notes[0]
        )

    def test_closed_before_the_body_is_taken(self) -> None:
        waiting = self.send()
        self.feed(stdout(OK + b"ab"))
        body = self.successResultOf(waiting).body
        lost(self.connection)
        sink = Sink()
        body.start(sink)  # type: ignore[union-attr]
        self.assertEqual(sink.bytes, b"ab")
        self.assertIsInstance(sink.outcome, UpstreamError)

    def test_bad_heads(self) -> None:
        for head, reason in (
            (b"nonsense\n\n", 'upstream sent invalid header: "nonsense"'),
            (b"Status: nope\n\n", 'upstream sent invalid status "nope"'),
            (b"A: " + bytes(100), "upstream sent too big header"),
        ):
            self.setUp()
            waiting = self.send()
            self.feed(stdout(head))
            error = self.failure(waiting)
            self.assertIs(error.fault, Fault.INVALID_HEADER)
            self.assertEqual(error.reason, reason + " while reading response header from upstream")
            self.assertTrue(self.wire.aborted)
            self.idle()

    def test_an_end_without_a_head(self) -> None:
        waiting = self.send()
        self.feed(end())
        error = self.failure(waiting)
        self.assertIs(error.fault, Fault.INVALID_HEADER)
        self.assertEqual(
            error.reason,
            "upstream prematurely closed FastCGI stdout "
            "while reading response header from upstream",
        )

    def test_broken_records(self) -> None:
        for raw in (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            stdout(OK, request_id=2),
            fcgi.encode_record(RecordType.STDIN, 1, b"x"),
            fcgi.encode_record(RecordType.GET_VALUES, 1),
            fcgi.encode_record(RecordType.END_REQUEST, 1, b"short"),
            stdout_end() + stdout(OK),
        ):
            self.setUp()
            waiting = self.send()
            self.feed(raw)
            self.assertIs(self.failure(waiting).fault, Fault.INVALID_HEADER)
            self.assertTrue(self.wire.aborted)

    def test_read_timeout_of_the_head(self) -> None:
        waiting = self.send()
        self.clock.advance(6)
        self.feed(stderr(b"still at it"))
        self.clock.advance(6)
        self.assertNoResult(waiting)
        self.clock.advance(1)
        error = self.failure(waiting)
        self.assertIs(error.fault, Fault.TIMEOUT)
        self.assertEqual(
            error.reason,
            "upstream timed out (110: Connection timed out) "
            "while reading response header from upstream",
        )
        self.assertTrue(self.wire.aborted)
        self.idle()

    def test_read_timeout_of_the_body(self) -> None:
        waiting = self.send()
        self.feed(stdout(OK))
        sink = Sink()
        self.successResultOf(waiting).body.start(sink)  # type: ignore[union-attr]
        self.clock.advance(7)
        assert isinstance(sink.outcome, UpstreamError)
        self.assertIs(sink.outcome.fault, Fault.TIMEOUT)
        self.idle()

    def test_overloaded(self) -> None:
        waiting = self.send()
        self.feed(end(0, ProtocolStatus.OVERLOADED))
        response = self.successResultOf(waiting)
        self.assertEqual(response.status, 503)
        self.assertEqual(list(response.headers), [(b"Retry-After", b"1")])
        self.assertEqual(self.happened, ["idle"])

    def test_refused(self) -> None:
        for status in (ProtocolStatus.CANT_MPX_CONN, ProtocolStatus.UNKNOWN_ROLE):
            self.setUp()
            waiting = self.send()
            self.feed(end(0, status))
            self.assertIn("refused the FastCGI request", self.failure(waiting).reason)

    def test_caught_complaints(self) -> None:
        self.connection.catch_stderr = (b"Fatal error", b"none")
        waiting = self.send()
        self.feed(stderr(b"PHP Fatal er"), stderr(b"ror: oh"))
        error = self.failure(waiting)
        self.assertIs(error.fault, Fault.INVALID_HEADER)
        self.assertEqual(len(self.notes), 2)
        self.assertTrue(self.wire.aborted)

    def test_complaints_after_the_head_are_not_caught(self) -> None:
        self.connection.catch_stderr = (b"Fatal error",)
        waiting = self.send()
        self.feed(stderr(b"fine") + stdout(OK + b"a") + stderr(b"Fatal error") + end())
        self.assertEqual(self.successResultOf(waiting).body, b"a")

    def test_complaints_are_logged(self) -> None:
        self.send()
        self.feed(stderr(b"PHP message: \xe4\x1b[1m bad.\r\n"))
        self.assertEqual(
            self.notes[0],
            r'FastCGI sent in stderr: "PHP message: \xe4\x1b[1m bad" while reading response '
            "header from upstream",
        )


class SingleTests(ClientCase):
    keep = False

    def test_the_connection_ends_with_the_answer(self) -> None:
        waiting = self.send()
        self.assertEqual(
            fcgi.decode_begin(self.wire.records()[0].content), fcgi.BeginRequest(1, False)
        )
        self.feed(stdout(OK + b"x") + end())
        self.assertEqual(self.successResultOf(waiting).body, b"x")
        self.assertEqual((self.happened, self.wire.aborted), ([], True))

    def test_equal_factories_share_a_pool(self) -> None:
        self.assertEqual(len({ConnectionFactory(self.clock), ConnectionFactory(self.clock)}), 1)
        self.assertNotEqual(
            ConnectionFactory(self.clock), ConnectionFactory(self.clock, keep=True)
        )
