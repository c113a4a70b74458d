from __future__ import annotations

import os
import tempfile
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from imagefarm import __version__
from imagefarm.http.chunked import LAST_CHUNK, encode_chunk
from imagefarm.http.connection import PIPELINE_BUFFER
from imagefarm.http.exchange import DRAIN_LIMIT
from imagefarm.http.headers import Headers
from imagefarm.http.message import (
    FileBody,
    OpenFile,
    PartsBody,
    Request,
    Response,
    TransferSettings,
)

from .fakes import (
    CHUNKED,
    POST,
    Client,
    Collector,
    ScriptedStream,
    body_of,
    echo,
    fields,
    text,
)


class AnswerTests(SynchronousTestCase):
    def test_simple(self) -> None:
        client = Client()
        answer = client.get(b"/a")
        self.assertEqual(
            answer,
            b"HTTP/1.1 200 OK\r\nServer: imagefarm/" + __version__.encode() + b"\r\n"
            b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain\r\n"
            b"Content-Length: 6\r\nConnection: keep-alive\r\n\r\nGET /a",
        )
        (request,) = client.app.done
        self.assertEqual(request.outcome.status, 200)
        self.assertEqual(request.outcome.body_bytes_sent, 6)
        self.assertEqual(request.outcome.bytes_sent, len(answer))
        self.assertIsNotNone(request.outcome.response)
        self.assertEqual(request.host, b"a")
        self.assertEqual(request.length, len(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"))
        self.assertEqual(repr(client.connection), "<HttpConnection #1 HEAD served=1>")

    def test_head_has_the_length_and_no_body(self) -> None:
        client = Client()
        stream = ScriptedStream(7)
        client.app.answers[b"/s"] = Response(200, body=stream)
        client.app.answers[b"/n"] = Response(200, length=99)
        client.app.answers[b"/u"] = Response(200, body=ScriptedStream())
        for target, length in ((b"/", b"6"), (b"/s", b"7"), (b"/n", b"99")):
            answer = client.send(b"HEAD " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
            self.assertIn(b"Content-Length: " + length, fields(answer), target)
            self.assertEqual(body_of(answer), b"")
        self.assertTrue(stream.cancelled)
        self.assertIsNone(stream.sink)
        answer = client.send(b"HEAD /u HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertNotIn(b"Transfer-Encoding", answer)
        self.assertNotIn(b"Content-Length", answer)
        self.assertIn(b"Connection: keep-alive", fields(answer))

    def test_no_content(self) -> None:
        client = Client()
        for status in (204, 304):
            client.app.answers[b"/%d" % status] = text(b"x", status)
            answer = client.get(b"/%d" % status)
            self.assertNotIn(b"Content-Length", answer)
            self.assertEqual(body_of(answer), b"")
        client.app.answers[b"/empty"] = Response(404)
        self.assertIn(b"Content-Length: 0", fields(client.get(b"/empty")))

    def test_keep_alive_in_1_0(self) -> None:
        client = Client()
        answer = client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        self.assertIn(b"Connection: keep-alive", fields(answer))
        self.assertTrue(answer.startswith(b"HTTP/1.1 200"))
        self.assertFalse(client.closing)
        self.assertIn(b"Connection: close", fields(client.send(b"GET / HTTP/1.0\r\n\r\n")))
        self.assertTrue(client.closing)

    def test_who_closes(self) -> None:
        for transfer, extra, keeps in (
            (TransferSettings(), b"", True),
            (TransferSettings(), b"Connection: close\r\n", False),
            (TransferSettings(keepalive_timeout=0), b"", False),
            (TransferSettings(keepalive_requests=1), b"", False),
            (TransferSettings(keepalive_requests=2), b"", True),
        ):
            client = Client(transfer=transfer)
            answer = client.get(b"/", extra)
            expected = b"Connection: " + (b"keep-alive" if keeps else b"close")
            self.assertIn(expected, fields(answer))
            self.assertEqual(client.closing, not keeps)

    def test_response_closes(self) -> None:
        client = Client()
        client.app.answers[b"/"] = text(close=True)
        self.assertIn(b"Connection: close", fields(client.get(b"/")))
        self.assertTrue(client.closing)

    def test_keep_alive_header_and_tokens(self) -> None:
        client = Client(transfer=TransferSettings(keepalive_header=65, server_tokens=False))
        answer = client.get()
        self.assertIn(b"Keep-Alive: timeout=65", fields(answer))
        self.assertIn(b"Server: imagefarm", fields(answer))

    def test_444(self) -> None:
        client = Client()
        stream = ScriptedStream()
        client.app.answers[b"/"] = Response(444, body=stream)
        self.assertEqual(client.get(b"/"), b"")
        self.assertTrue(client.closing)
        self.assertTrue(stream.cancelled)
        self.assertEqual(client.app.outcomes, [(b"/", 444, 0)])

    def test_a_response_that_can_t_be_written(self) -> None:
        for response in (
            Response(200, Headers([(b"X", b"a\r\nb: c")]), ScriptedStream()),
            Response(7, body=ScriptedStream()),
        ):
            client = Client()
            client.app.answers[b"/"] = response
            answer = client.get(b"/")
            self.assertTrue(answer.startswith(b"HTTP/1.1 500 "))
            self.assertNotIn(b"b: c", answer)
            self.assertTrue(cast(ScriptedStream, response.body).cancelled)
            self.assertEqual(client.app.outcomes, [(b"/", 500, 0)])
            self.assertTrue(client.closing)

    def test_an_application_that_fails(self) -> None:
        client = Client()

        def crash(request: Request) -> Response:
            raise ZeroDivisionError

        client.app.answers[b"/"] = crash
        self.assertTrue(client.get(b"/").startswith(b"HTTP/1.1 500 "))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

        client = Client()
        answer: Deferred[Response] = Deferred()
        client.app.answers[b"/"] = answer
        client.get(b"/")
        answer.errback(ZeroDivisionError())
        self.assertTrue(client.read().startswith(b"HTTP/1.1 500 "))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_file(self) -> None:
        with tempfile.TemporaryFile() as file:
            file.write(b"0123456789")
            file.flush()
            fd = os.dup(file.fileno())
        opened = OpenFile(fd, 10, 0.0)
        client = Client()
        client.app.answers[b"/"] = Response(200, body=FileBody(opened, 2, 5))
        answer = client.get(b"/")
        self.assertIn(b"Content-Length: 5", fields(answer))
        self.assertEqual(body_of(answer), b"23456")
        self.assertEqual(opened.fd, -1)

    def test_parts(self) -> None:
        with tempfile.TemporaryFile() as file:
            file.write(b"0123456789")
            file.flush()
            fd = os.dup(file.fileno())
        opened = OpenFile(fd, 10, 0.0)
        parts = (b"<", FileBody(opened, 0, 2), b"|", FileBody(opened, 8, 2), b">")
        client = Client()
        client.app.answers[b"/"] = Response(206, body=PartsBody(parts, 7))
        self.assertEqual(body_of(client.get(b"/")), b"<01|89>")
        self.assertEqual(client.app.outcomes, [(b"/", 206, 7)])
        self.assertEqual(opened.fd, -1)

    def test_file_that_is_too_short(self) -> None:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
        opened = OpenFile(fd, 10, 0.0)
        client = Client()
        client.app.answers[b"/"] = Response(200, body=FileBody(opened, 0, 10))
        client.get(b"/")
        self.assertTrue(client.transport.aborted)
        self.assertEqual(opened.fd, -1)
        self.assertEqual(client.app.outcomes, [(b"/", 200, 0)])


class RefusalTests(SynchronousTestCase):
    def test_malformed(self) -> None:
        client = Client()
        answer = client.send(b"GET /x HTTP/1.1\r\n\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertTrue(answer.startswith(b"HTTP/1.1 400 Bad Request\r\n"))
        self.assertIn(b"Connection: close", fields(answer))
        ((request, status),) = client.app.rejected
        self.assertEqual((request.head.target, status), (b"/x", 400))
        self.assertEqual(client.app.outcomes, [(b"/x", 400, 8)])
        self.assertEqual(client.app.requests, [])
        self.assertEqual(client.send(b"GET /z HTTP/1.1\r\nHost: a\r\n\r\n"), b"")

    def test_after_good_ones(self) -> None:
        client = Client()
        answer = client.send(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nrubbish\r\n\r\n")
        self.assertEqual(answer.count(b"HTTP/1.1 200 "), 1)
        self.assertEqual(answer.count(b"HTTP/1.1 400 "), 1)

    def test_slow_refusal(self) -> None:
        client = Client()
        answer: Deferred[Response] = Deferred()
        client.app.reject = lambda request, status: answer  # type: ignore[method-assign]
        self.assertEqual(client.send(b"rubbish\r\n\r\n"), b"")
        answer.callback(text(b"no", 400))
        self.assertTrue(client.read().endswith(b"\r\n\r\nno"))


class BodyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.client = Client()
        self.client.app.answers[b"/echo"] = echo

    def test_body_and_the_next_request(self) -> None:
        answer = self.client.send(POST % (b"/echo", 5) + b"hello" + CHUNKED % b"/echo" +
                                  encode_chunk(b"wo") + encode_chunk(b"rld") + LAST_CHUNK +
                                  b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")  # fmt: skip
        self.assertEqual(answer.count(b"HTTP/1.1 200 OK"), 3)
        self.assertIn(b"\r\n\r\nhelloHTTP", answer)
        self.assertIn(b"\r\n\r\nworldHTTP", answer)
        self.assertTrue(answer.endswith(b"GET /x"))

    def test_unread_body_is_drained(self) -> None:
        answer = self.client.send(POST % (b"/", 5) + b"he")
        self.assertIn(b"Connection: keep-alive", fields(answer))
        self.assertEqual(repr(self.client.connection), "<HttpConnection #1 DRAIN served=1>")
        self.assertEqual(self.client.send(b"l"), b"")
        answer = self.client.send(b"loGET /next HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertTrue(answer.endswith(b"GET /next"))

    def test_unread_chunked_body_is_drained_up_to_a_bound(self) -> None:
        self.client.send(CHUNKED % b"/" + encode_chunk(b"a"))
        piece = encode_chunk(bytes(1000))
        for _ in range(DRAIN_LIMIT // 1000):
            self.client.send(piece)
        self.assertEqual(repr(self.client.connection), "<HttpConnection #1 DRAIN served=1>")
        self.client.send(piece)
        self.assertEqual(repr(self.client.connection), "<HttpConnection #1 LINGER served=1>")

    def test_a_large_unread_body_closes(self) -> None:
        answer = self.client.send(POST % (b"/", DRAIN_LIMIT + 1))
        self.assertIn(b"Connection: close", fields(answer))
        self.assertEqual(repr(self.client.connection), "<HttpConnection #1 LINGER served=1>")
        self.assertFalse(self.client.closing)

    def test_broken_chunks_close(self) -> None:
        held: Deferred[Response] = Deferred()
        sink = Collector()

        def hold(request: Request) -> Deferred[Response]:
            request.body.start(sink)
            return held

        self.client.app.answers[b"/hold"] = hold
        self.client.send(CHUNKED % b"/hold" + encode_chunk(b"a") + b"zz\r\n")
        self.assertIsNotNone(sink.error)
        held.callback(text(b"bad", 400))
        self.assertIn(b"Connection: close", fields(self.client.read()))
        self.assertEqual(self.client.get(), b"")

    def test_a_chunked_body_that_is_too_large(self) -> None:
        self.client.app.transfer = TransferSettings(client_max_body_size=5)
        sink = Collector()
        held: Deferred[Response] = Deferred()

        def hold(request: Request) -> Deferred[Response]:
            request.body.start(sink)
            return held

        self.client.app.answers[b"/hold"] = hold
        self.client.send(CHUNKED % b"/hold" + encode_chunk(b"123456"))
        self.assertEqual(getattr(sink.error, "status", 0), 413)
        held.callback(text(b"large", 413))
        self.assertIn(b"Connection: close", fields(self.client.read()))

    def test_continue(self) -> None:
        start = b"POST %b HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        self.assertEqual(self.client.send(start % b"/echo"), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertTrue(self.client.send(b"hello").endswith(b"\r\n\r\nhello"))
        # The body is there already: nobody waits.
        self.assertTrue(self.client.send(start % b"/echo" + b"hello").startswith(b"HTTP/1.1 200"))
        # A final answer instead: whether the body follows can't be known.
        answer = self.client.send(start % b"/")
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK"))
        self.assertIn(b"Connection: close", fields(answer))

    def test_early_hints(self) -> None:
        """They go out at once, and count; none after the answer has begun, or in HTTP/1.0."""
        answers: list[Deferred[Response]] = [Deferred(), Deferred()]
        asked: list[Request] = []

        def hold(request: Request) -> Deferred[Response]:
            asked.append(request)
            return answers[len(asked) - 1]

        self.client.app.answers[b"/hold"] = hold
        self.assertEqual(self.client.send(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n"), b"")
        hint = asked[0].hint
        assert hint is not None
        hint(Headers([(b"Link", b"</a>"), (b"Link", b"</b>")]))
        expected = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\n"
        self.assertEqual(self.client.read(), expected)
        self.assertEqual(asked[0].outcome.bytes_sent, len(expected))
        answers[0].callback(text(b"there"))
        self.assertTrue(self.client.read().startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertIsNone(asked[0].hint)
        hint(Headers([(b"Link", b"</c>")]))
        self.assertEqual(self.client.read(), b"")
        self.client.send(b"GET /hold HTTP/1.0\r\n\r\n")
        self.assertIsNone(asked[1].hint)

    def test_reading_stops_when_nobody_takes_the_body(self) -> None:
        answer: Deferred[Response] = Deferred()
        self.client.app.answers[b"/hold"] = answer
        self.client.send(POST % (b"/hold", 1 << 20))
        self.client.send(bytes(10000))
        self.assertEqual(self.client.transport.producerState, "producing")
        self.client.send(bytes(10000))
        self.assertEqual(self.client.transport.producerState, "paused")
        sink = Collector()
        body = self.client.app.requests[0].body
        body.start(sink)
        self.assertEqual(len(sink.body), 20000)
        self.assertEqual(self.client.transport.producerState, "producing")
        body.pause()
        self.client.send(bytes(30000))
        self.assertEqual(self.client.transport.producerState, "paused")
        body.resume()
        self.assertEqual(self.client.transport.producerState, "producing")
        self.assertEqual(len(sink.body), 50000)


class PipelineTests(SynchronousTestCase):
    def test_in_order(self) -> None:
        client = Client()
        first: Deferred[Response] = Deferred()
        client.app.answers[b"/1"] = first
        get = b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n"
        self.assertEqual(client.send(get % b"/1" + get % b"/2" + get % b"/3"), b"")
        self.assertEqual(len(client.app.requests), 1)
        first.callback(text(b"first"))
        bodies = [part.partition(b"\r\n\r\n")[2] for part in client.read().split(b"HTTP/1.1 ")[1:]]
        self.assertEqual(bodies, [b"first", b"GET /2", b"GET /3"])

    def test_what_waits_is_bounded(self) -> None:
        client = Client()
        client.app.answers[b"/1"] = Deferred()
        client.get(b"/1")
        client.send(bytes(PIPELINE_BUFFER - 1))
        self.assertEqual(client.transport.producerState, "producing")
        client.send(b"x")
        self.assertEqual(client.transport.producerState, "paused")

    def test_close_ends_the_pipeline(self) -> None:
        client = Client()
        get = b"GET %b HTTP/1.1\r\nHost: a\r\n%b\r\n"
        answer = client.send(get % (b"/1", b"Connection: close\r\n") + get % (b"/2", b""))
        self.assertEqual(answer.count(b"HTTP/1.1"), 1)
        self.assertEqual(len(client.app.requests), 1)

    def test_no_next_answer_for_a_client_that_does_not_read(self) -> None:
        client = Client()
        client.connection.pauseProducing()
        client.get(b"/1")
        client.get(b"/2")
        self.assertEqual(client.app.requests, [])
        client.connection.resumeProducing()
        self.assertEqual(len(client.app.done), 2)

    def test_many_do_not_recurse(self) -> None:
        client = Client(transfer=TransferSettings(keepalive_requests=10**6))
        answer = client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3000)
        self.assertEqual(answer.count(b"HTTP/1.1 200"), 3000)

    @given(st.data())
    @settings(deadline=None, max_examples=60)
    def test_any_cut_of_any_pipeline_gives_the_same_answers(self, data: st.DataObject) -> None:
        request = st.one_of(
            st.just(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"),
            st.just(b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n"),
            st.just(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n"),
            st.binary(max_size=20).map(lambda body: POST % (b"/echo", len(body)) + body),
            st.binary(max_size=20).map(lambda body: POST % (b"/x", len(body)) + body),
            st.lists(st.binary(min_size=1, max_size=9), max_size=4).map(
                lambda pieces: (
                    CHUNKED % b"/echo" + b"".join(map(encode_chunk, pieces)) + LAST_CHUNK
                )
            ),
        )
        wire = b"".join(data.draw(st.lists(request, max_size=5)))
        places = data.draw(st.lists(st.integers(0, len(wire))))
        at = sorted({0, len(wire), *places})
        cut = [wire[a:b] for a, b in zip(at, [*at[1:], len(wire)], strict=True)]
        whole = self.answers([wire])
        self.assertEqual(self.answers(cut), whole)
        self.assertEqual(self.answers([wire[i : i + 1] for i in range(len(wire))]), whole)

    def answers(self, pieces: list[bytes]) -> bytes:
        client = Client()
        late: list[Deferred[Response]] = []

        def later(request: Request) -> Deferred[Response]:
            late.append(Deferred())
            return late[-1]

        client.app.answers.update({b"/echo": echo, b"/late": later})
        for piece in pieces:
            if piece:
                client.connection.dataReceived(piece)
        while late:
            late.pop().callback(text(b"late"))
        return client.read()
