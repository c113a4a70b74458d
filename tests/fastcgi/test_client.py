"""The client connection against scripted bytes."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from imagefarm.fastcgi import records as fcgi
from imagefarm.fastcgi.records import RecordType
from imagefarm.http.message import Response, body_length, discard
from imagefarm.http.upstream import Fault, UpstreamError

from .client_case import OK, PARAMS, ClientCase
from .fakes import Instant, Sink, Stream, content, end, lost, stderr, stdout, stdout_end
from .strategies import each_byte, split


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
