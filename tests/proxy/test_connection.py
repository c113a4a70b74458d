"""One upstream connection on a fake transport and clock."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.headers import Headers
from imagefarm.http.message import Response, body_length, discard
from imagefarm.http.upstream import Fault, Outgoing, Timeouts, UpstreamError
from imagefarm.proxy.connection import HttpConnector, HttpUpstreamConnection

from .support import Sink, Source, Transport, read

TIMEOUTS = Timeouts(connect=1.0, send=10.0, read=20.0)


class ConnectionTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.transport = Transport()
        connection = HttpConnector(self.clock, 1000)()
        assert isinstance(connection, HttpUpstreamConnection)
        self.connection = connection
        self.idle = 0
        self.closed = 0
        connection.on_idle = self.on_idle
        connection.on_closed = self.on_closed
        connection.makeConnection(self.transport)

    def on_idle(self, connection: Any) -> None:
        self.idle += 1

    def on_closed(self, connection: Any) -> None:
        self.closed += 1

    def send(
        self,
        method: bytes = b"GET",
        body: Source | None = None,
        reused: bool = False,
        version: tuple[int, int] = (1, 1),
        **more: bool,
    ) -> Deferred[Response]:
        outgoing = Outgoing(
            method,
            b"/x?y",
            Headers([(b"Host", b"h"), (b"A", b"b")]),
            body=body,
            version=version,
            **more,
        )
        return self.connection.send(outgoing, TIMEOUTS, reused=reused)

    def lose(self, reason: Exception | None = None) -> None:
        self.connection.connectionLost(Failure(reason or ConnectionDone()))

    def error(self, answer: Deferred[Response]) -> UpstreamError:
        error = self.failureResultOf(answer, UpstreamError).value
        assert isinstance(error, UpstreamError)
        return error


class TrailerTests(ConnectionTestCase):
    HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Sum\r\n\r\n"
    BODY = b"3\r\nabc\r\n0\r\nSum: 9\r\nContent-Length: 1\r\nSet-Cookie: x\r\n\r\n"

    def test_streaming_and_at_once(self) -> None:
        """Those that belong in a head never pass."""
        for pieces in ((self.HEAD, self.BODY), (self.HEAD + self.BODY,)):
            self.setUp()
            answer = self.send(trailers=True)
            for piece in pieces:
                self.connection.dataReceived(piece)
            response = self.successResultOf(answer)
            sink = self.successResultOf(read(response))
            self.assertEqual((sink.received, sink.ended), (b"abc", 1))
            assert response.trailers is not None
            self.assertEqual(response.trailers(), [(b"Sum", b"9")])
            self.assertEqual(self.idle, 1)

    def test_dropped(self) -> None:
        answer = self.send()
        self.connection.dataReceived(self.HEAD + self.BODY)
        response = self.successResultOf(answer)
        self.assertEqual((response.body, response.trailers), (b"abc", None))


class HeadTests(ConnectionTestCase):
    def test_an_unknown_length_is_not_0(self) -> None:
        answer = self.send(b"HEAD")
        self.connection.dataReceived(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        response = self.successResultOf(answer)
        self.assertEqual((response.length, body_length(response.body)), (None, None))
        discard(response.body)
        self.assertEqual((self.idle, self.transport.disconnecting), (1, False))


class SwitchTests(ConnectionTestCase):
    SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: t\r\nConnection: upgrade\r\n\r\n"

    def test_only_if_asked(self) -> None:
        error = self.error_after(self.send())
        self.assertEqual(error.fault, Fault.INVALID_HEADER)

    def error_after(self, answer: Deferred[Response]) -> UpstreamError:
        self.connection.dataReceived(self.SWITCH)
        return self.error(answer)

    def test_not_before_the_request_is_there(self) -> None:
        error = self.error_after(self.send(b"POST", Source([b"a"], held=True), upgrade=True))
        self.assertIn("switched protocols before it had the request", str(error))

    def test_never_idle_again(self) -> None:
        answer = self.send(upgrade=True)
        self.connection.dataReceived(self.SWITCH + b"first")
        response = self.successResultOf(answer)
        self.assertEqual((response.status, response.length), (101, None))
        self.assertEqual(list(response.headers), [(b"Upgrade", b"t")])
        assert response.tunnel is not None
        sink, source, body = Sink(), Source([b"up"], held=True, known=False), response.body
        body.start(sink)  # type: ignore[union-attr]
        response.tunnel(source)
        self.assertEqual(sink.received, b"first")
        self.assertTrue(self.transport.value().endswith(b"\r\n\r\nup"))
        self.lose()
        self.assertEqual((self.idle, self.closed, sink.ended, source.cancelled), (0, 1, 1, True))


class RequestTests(ConnectionTestCase):
    def test_head(self) -> None:
        self.send()
        self.assertEqual(self.transport.value(), b"GET /x?y HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n")
        self.assertEqual(repr(self.connection), "<HttpUpstreamConnection busy>")

    def test_http_1_0(self) -> None:
        self.send(version=(1, 0))
        self.assertEqual(
            self.transport.value(),
            b"GET /x?y HTTP/1.0\r\nHost: h\r\nA: b\r\nConnection: close\r\n\r\n",
        )
        self.connection.dataReceived(
            b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n"
        )
        self.assertTrue(self.transport.disconnecting)

    def test_who_says_close_keeps_nothing(self) -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        for value, kept in ((b"x, Close", 0), (b"closed", 1), (b"", 1)):
            self.setUp()
            fields = Headers([(b"Host", b"h"), (b"Connection", value)])
            self.connection.send(
                Outgoing(b"GET", b"/", fields), Timeouts(), reused=False
            ).addErrback(self.fail)
            self.connection.dataReceived(answer)
            self.assertEqual((self.idle, self.transport.disconnecting), (kept, not kept), value)

    def test_body_with_length(self) -> None:
        self.send(b"PUT", Source([b"ab", b"cd"]))
        self.assertEqual(
            self.transport.value().split(b"\r\n\r\n")[0][-17:], b"Content-Length: 4"[-17:]
        )
        self.assertTrue(self.transport.value().endswith(b"\r\n\r\nabcd"))
        self.assertIsNone(self.transport.producer)

    def test_body_of_unknown_length_is_chunked(self) -> None:
        self.send(b"PUT", Source([b"ab", b"c" * 16], known=False))
        head, _, body = self.transport.value().partition(b"\r\n\r\n")
        self.assertIn(b"Transfer-Encoding: chunked", head)
        self.assertEqual(body, b"2\r\nab\r\n10\r\n" + b"c" * 16 + b"\r\n0\r\n\r\n")

    def test_empty_body_has_a_length(self) -> None:
        self.send(b"POST", Source())
        self.assertTrue(self.transport.value().endswith(b"Content-Length: 0\r\n\r\n"))

    def test_a_body_that_breaks_its_promise(self) -> None:
        for length in (2, 5):
            self.setUp()
            error = self.error(self.send(b"PUT", Source([b"abc"], length=length)))
            self.assertIs(error.fault, Fault.SEND)
            self.assertTrue(self.transport.aborted)

    def test_backpressure_of_the_transport_reaches_the_source(self) -> None:
        source = Source([b"a"], length=3, held=True)
        answer = self.send(b"PUT", source)
        producer: Any = self.transport.producer
        producer.pauseProducing()
        self.assertTrue(source.paused)
        source.more(b"b")
        self.assertTrue(self.transport.value().endswith(b"\r\n\r\na"))
        producer.resumeProducing()
        source.more(b"c")
        source.finish()
        self.assertTrue(self.transport.value().endswith(b"\r\n\r\nabc"))
        self.assertNoResult(answer)

    def test_a_peer_that_takes_nothing_times_out(self) -> None:
        answer = self.send(b"PUT", Source([b"a"], length=3, held=True))
        self.clock.advance(60)
        self.assertNoResult(answer)  # we wait for the client, not for the peer
        producer: Any = self.transport.producer
        producer.pauseProducing()
        self.clock.advance(9)
        self.assertNoResult(answer)
        self.clock.advance(1)
        error = self.error(answer)
        self.assertIs(error.fault, Fault.TIMEOUT)
        self.assertIn("while sending request to upstream", error.reason)

    def test_a_peer_that_takes_little_does_not(self) -> None:
        """proxy_send_timeout is between two writes, not for all that waits."""
        answer = self.send(b"PUT", Source([b"a"], length=3, held=True))
        producer, transport = self.transport.producer, cast(Any, self.transport)
        producer.pauseProducing()
        for _ in range(5):
            self.clock.advance(6)
            transport.moved = self.clock.seconds()
        self.clock.advance(9.9)
        self.assertNoResult(answer)
        self.clock.advance(0.1)
        self.assertIs(self.error(answer).fault, Fault.TIMEOUT)

    def test_answer_before_the_request_is_whole(self) -> None:
        source = Source([b"a"], length=3, held=True)
        answer = self.send(b"PUT", source)
        self.connection.dataReceived(b"HTTP/1.1 413 Big\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(self.successResultOf(answer).status, 413)
        self.assertTrue(source.cancelled)
        self.assertEqual(self.idle, 0)
        self.assertTrue(self.transport.disconnecting)

    def test_closed_while_sending(self) -> None:
        answer = self.send(b"PUT", Source([b"a"], length=3, held=True))
        self.lose(ConnectionLost())
        error = self.error(answer)
        self.assertIs(error.fault, Fault.SEND)
        self.assertIn("104: Connection reset by peer", error.reason)


class AnswerTests(ConnectionTestCase):
    def test_small_answer_is_bytes_and_frees_the_connection(self) -> None:
        answer = self.send()
        self.connection.dataReceived(b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 2\r\n\r\nok")
        response = self.successResultOf(answer)
        self.assertEqual((response.status, response.body, response.length), (200, b"ok", 2))
        self.assertEqual(list(response.headers), [(b"X", b"y")])
        self.assertEqual((self.idle, self.transport.disconnecting), (1, False))
        self.assertEqual(repr(self.connection), "<HttpUpstreamConnection idle>")

    def test_connection_fields_stay_here(self) -> None:
        answer = self.send()
        self.connection.dataReceived(
            b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\n"
            b"Transfer-Encoding: chunked\r\nX-Hop: 1\r\nTrailer: T\r\nUpgrade: h2c\r\n"
            b"Proxy-Authenticate: Basic\r\nETag: x\r\n\r\n0\r\n\r\n"
        )
        response = self.successResultOf(answer)
        self.assertEqual(list(response.headers), [(b"ETag", b"x")])

    def test_answer_to_head_and_304(self) -> None:
        for method, status in ((b"HEAD", b"200"), (b"GET", b"304")):
            answer = self.send(method)
            self.connection.dataReceived(
                b"HTTP/1.1 " + status + b" X\r\nContent-Length: 5\r\n\r\n"
            )
            response = self.successResultOf(answer)
            self.assertEqual((response.body, response.length), (b"", 5))
        self.assertEqual(self.idle, 2)

    def test_streamed_body_with_backpressure(self) -> None:
        answer = self.send()
        self.connection.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nab")
        response = self.successResultOf(answer)
        body: Any = response.body
        self.assertEqual(body.length, 6)
        self.assertFalse(self.transport.reading, "nothing is read before the body is started")
        sink = Sink()
        body.start(sink)
        self.assertEqual((sink.received, self.transport.reading), (b"ab", True))
        sink.on_data = body.pause
        self.connection.dataReceived(b"c")
        self.assertFalse(self.transport.reading)
        self.connection.dataReceived(b"d")  # was on its way already
        self.assertEqual(sink.received, b"abc")
        self.clock.advance(100)  # a slow reader is not the peer's fault
        sink.on_data = lambda: None
        body.resume()
        self.assertEqual((sink.received, self.transport.reading), (b"abcd", True))
        self.connection.dataReceived(b"ef")
        self.assertEqual((sink.received, sink.ended, self.idle), (b"abcdef", 1, 1))

    def test_the_connection_is_free_before_a_slow_reader_is_done(self) -> None:
        answer = self.send()
        self.connection.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        body: Any = self.successResultOf(answer).body
        self.connection.dataReceived(b"cd")
        self.assertEqual((self.idle, self.transport.reading), (1, True))
        sink = Sink()
        body.start(sink)
        self.assertEqual((sink.received, sink.ended), (b"abcd", 1))
        body.cancel()
        self.assertFalse(self.transport.aborted)

    def test_body_until_close(self) -> None:
        for reason, whole in ((ConnectionDone(), True), (ConnectionLost(), False)):
            self.setUp()
            answer = self.send()
            self.connection.dataReceived(b"HTTP/1.0 200 OK\r\n\r\nab")
            sinking = read(self.successResultOf(answer))
            self.lose(reason)
            sink = self.successResultOf(sinking)
            self.assertEqual((sink.received, sink.ended == 1), (b"ab", whole))
            self.assertEqual((sink.error is None, self.closed), (whole, 1))

    def test_chunked_body(self) -> None:
        answer = self.send()
        self.connection.dataReceived(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        response = self.successResultOf(answer)
        self.assertIsNone(response.length)
        sinking = read(response)
        for piece in (b"2\r\na", b"b\r\n0\r", b"\n\r\n"):
            self.connection.dataReceived(piece)
        self.assertEqual(self.successResultOf(sinking).received, b"ab")
        self.assertEqual(self.idle, 1)

    def test_malformed_chunks_fail_the_body(self) -> None:
        answer = self.send()
        self.connection.dataReceived(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        sinking = read(self.successResultOf(answer))
        self.connection.dataReceived(b"zz\r\n")
        self.assertIsInstance(self.successResultOf(sinking).error, UpstreamError)
        self.assertTrue(self.transport.aborted)

    def test_truncation_after_a_pause_comes_after_the_bytes(self) -> None:
        answer = self.send()
        self.connection.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
        response = self.successResultOf(answer)
        self.lose()
        sink = self.successResultOf(read(response))
        self.assertEqual(sink.received, b"ab")
        self.assertIn("prematurely closed connection while reading upstream", str(sink.error))

    def test_silence(self) -> None:
        answer = self.send()
        self.clock.advance(19)
        self.connection.dataReceived(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.clock.advance(19)
        self.assertNoResult(answer)
        self.clock.advance(1)
        error = self.error(answer)
        self.assertIs(error.fault, Fault.TIMEOUT)
        self.assertEqual(
            error.reason,
            "upstream timed out (110: Connection timed out) while reading response header from "
            "upstream",
        )
        self.assertTrue(self.transport.aborted)

    def test_silence_in_the_body(self) -> None:
        answer = self.send()
        self.connection.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        sinking = read(self.successResultOf(answer))
        self.clock.advance(20)
        self.assertIn("while reading upstream", str(self.successResultOf(sinking).error))

    def test_invalid_and_too_big_heads(self) -> None:
        for data, words in (
            (b"garbage", "sent no valid HTTP/1.0 header"),
            (b"HTTP/1.1 200 OK\r\n" + b"A" * 1000, "sent too big header"),
        ):
            self.setUp()
            answer = self.send()
            self.connection.dataReceived(data)
            error = self.error(answer)
            self.assertIs(error.fault, Fault.INVALID_HEADER)
            self.assertIn(words, error.reason)
            self.assertIn("while reading response header from upstream", error.reason)


class ReuseTests(ConnectionTestCase):
    OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    def test_nothing_ticks_for_an_idle_connection_for_long(self) -> None:
        self.send()
        self.connection.dataReceived(self.OK)
        self.clock.advance(20)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(self.transport.aborted)

    def test_excess_ends_the_connection(self) -> None:
        answer = self.send()
        self.connection.dataReceived(self.OK + b"X")
        self.assertEqual(self.successResultOf(answer).status, 200)
        self.assertEqual((self.idle, self.transport.aborted), (0, True))

    def test_bytes_while_idle_end_the_connection(self) -> None:
        self.send()
        self.connection.dataReceived(self.OK)
        self.transport.clear()
        self.connection.dataReceived(self.OK)
        self.assertTrue(self.transport.aborted)
        error = self.error(self.send(b"POST", reused=True))
        self.assertEqual((error.stale, error.unsent, self.transport.value()), (True, True, b""))

    def test_stale(self) -> None:
        for reused, data, stale in (
            (True, b"", True), (False, b"", False), (True, b"HTTP/1.1", False),
        ):  # fmt: skip
            self.setUp()
            answer = self.send(reused=reused)
            if data:
                self.connection.dataReceived(data)
            self.lose()
            self.assertEqual(self.error(answer).stale, stale)

    def test_closed_before_it_is_used_again(self) -> None:
        self.lose()
        error = self.error(self.send(reused=True))
        self.assertTrue(error.stale)
        self.assertTrue(error.unsent)

    def test_cancelling_the_answer(self) -> None:
        source = Source([b"a"], length=3, held=True)
        answer = self.send(b"PUT", source)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertTrue(source.cancelled)
        self.assertTrue(self.transport.aborted)
        self.lose()
        self.assertEqual((self.closed, self.clock.getDelayedCalls()), (1, []))

    def test_cancelling_the_body(self) -> None:
        answer = self.send()
        self.connection.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
        body: Any = self.successResultOf(answer).body
        body.cancel()
        body.cancel()
        self.assertTrue(self.transport.aborted)

    def test_abort_while_idle_is_orderly(self) -> None:
        self.connection.abort()
        self.assertEqual((self.transport.disconnecting, self.transport.aborted), (True, False))

    def test_abort_while_busy(self) -> None:
        answer = self.send()
        self.connection.abort()
        self.assertIs(self.error(answer).fault, Fault.CLOSED)
        self.assertTrue(self.transport.aborted)

    def test_equal_connectors_share_connections(self) -> None:
        self.assertEqual(HttpConnector(self.clock, 5), HttpConnector(self.clock, 5))
        self.assertEqual(len({HttpConnector(self.clock, 5), HttpConnector(self.clock, 6)}), 2)
