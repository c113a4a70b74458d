"""Answers that stream, clients that leave, and the end of a connection."""

from __future__ import annotations

from typing import cast

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.body import ClientGone, RequestBody
from imagefarm.http.message import (
    Response,
)

from .fakes import (
    POST,
    Client,
    Collector,
    ScriptedApplication,
    ScriptedStream,
    body_of,
    echo,
    fields,
    text,
)


class StreamTests(SynchronousTestCase):
    def start(self, stream: ScriptedStream, version: bytes = b"1.1") -> Client:
        client = Client()
        client.app.answers[b"/s"] = Response(200, body=stream)
        client.connection.dataReceived(b"GET /s HTTP/%b\r\nHost: a\r\n\r\n" % version)
        return client

    def test_chunked(self) -> None:
        stream = ScriptedStream(first=(b"abc",))
        client = self.start(stream)
        answer = client.read()
        self.assertIn(b"Transfer-Encoding: chunked", fields(answer))
        self.assertEqual(body_of(answer), b"3\r\nabc\r\n")
        assert stream.sink is not None
        stream.sink.data(b"de")
        stream.sink.end()
        self.assertEqual(client.read(), b"2\r\nde\r\n0\r\n\r\n")
        self.assertEqual(client.app.outcomes, [(b"/s", 200, 5)])
        self.assertTrue(client.get(b"/x").endswith(b"GET /x"))

    def test_head_does_not_wait_for_the_body(self) -> None:
        client = self.start(ScriptedStream(5))
        answer = client.read()
        self.assertIn(b"Content-Length: 5", fields(answer))
        self.assertEqual(body_of(answer), b"")

    def test_empty_chunks_don_t_end_the_body(self) -> None:
        stream = ScriptedStream()
        client = self.start(stream)
        client.read()
        assert stream.sink is not None
        stream.sink.data(b"")
        self.assertEqual(client.read(), b"")

    def test_1_0_ends_with_the_connection(self) -> None:
        stream = ScriptedStream(first=(b"abc",))
        client = self.start(stream, b"1.0")
        assert stream.sink is not None
        stream.sink.end()
        answer = client.read()
        self.assertNotIn(b"Transfer-Encoding", answer)
        self.assertIn(b"Connection: close", fields(answer))
        self.assertEqual(body_of(answer), b"abc")
        self.assertTrue(client.closing)
        self.assertFalse(client.transport.aborted)

    def test_failure_aborts(self) -> None:
        stream = ScriptedStream(first=(b"abc",))
        client = self.start(stream)
        assert stream.sink is not None
        stream.sink.fail(ClientGone("upstream"))
        self.assertTrue(client.transport.aborted)
        self.assertNotIn(b"\r\n0\r\n\r\n", client.read())
        self.assertEqual(client.app.outcomes, [(b"/s", 200, 3)])

    def test_short_and_long_bodies_abort(self) -> None:
        stream = ScriptedStream(5, (b"abc",))
        client = self.start(stream)
        assert stream.sink is not None
        stream.sink.end()
        self.assertTrue(client.transport.aborted)
        stream = ScriptedStream(5, (b"abc", b"def"))
        client = self.start(stream)
        self.assertTrue(client.transport.aborted)
        self.assertTrue(stream.cancelled)
        self.assertTrue(client.read().endswith(b"abc"))

    def test_backpressure(self) -> None:
        stream = ScriptedStream(first=(b"abc",))
        client = self.start(stream)
        client.connection.pauseProducing()
        self.assertTrue(stream.paused)
        client.connection.resumeProducing()
        self.assertFalse(stream.paused)

    def test_end_while_congested(self) -> None:
        stream = ScriptedStream(first=(b"abc",))
        client = self.start(stream)
        client.connection.pauseProducing()
        assert stream.sink is not None
        stream.sink.end()
        self.assertEqual(client.app.done, [])
        client.connection.resumeProducing()
        self.assertEqual(client.app.outcomes, [(b"/s", 200, 3)])

    def test_client_leaves(self) -> None:
        stream = ScriptedStream(first=(b"abc",))
        client = self.start(stream)
        gone: list[str] = []
        client.app.requests[0].on_gone.append(lambda: gone.append("gone"))
        client.leave()
        self.assertTrue(stream.cancelled)
        self.assertEqual(gone, ["gone"])
        self.assertEqual(client.app.outcomes, [(b"/s", 200, 3)])
        assert stream.sink is not None
        stream.sink.data(b"late")
        stream.sink.end()
        self.assertEqual(len(client.app.done), 1)
        self.assertEqual(client.clock.getDelayedCalls(), [])


class LeavingTests(SynchronousTestCase):
    def test_before_the_answer(self) -> None:
        client = Client()
        answer: Deferred[Response] = Deferred()
        client.app.answers[b"/"] = answer
        client.get(b"/")
        gone: list[int] = []

        def broken() -> None:
            raise ZeroDivisionError

        client.app.requests[0].on_gone += [broken, lambda: gone.append(1)]
        client.leave()
        self.assertEqual(gone, [1])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(client.app.outcomes, [(b"/", 499, 0)])
        stream = ScriptedStream()
        answer.callback(Response(200, body=stream))
        self.assertTrue(stream.cancelled)
        self.assertEqual(len(client.app.done), 1)

    def test_in_the_middle_of_a_body(self) -> None:
        client = Client()
        client.app.answers[b"/"] = Deferred()
        client.send(POST % (b"/", 9) + b"abc")
        sink = Collector()
        client.app.requests[0].body.start(sink)
        client.leave()
        self.assertIsInstance(sink.error, ClientGone)
        self.assertEqual(client.app.outcomes, [(b"/", 499, 0)])

    def test_half_close_while_the_application_thinks(self) -> None:
        client = Client()
        client.app.answers[b"/"] = Deferred()
        client.get(b"/")
        client.connection.readConnectionLost()
        self.assertTrue(client.transport.aborted)
        self.assertEqual(client.app.outcomes, [(b"/", 499, 0)])

    def test_half_close_while_answering(self) -> None:
        client = Client()
        stream = ScriptedStream(6, (b"abc",))
        client.app.answers[b"/"] = Response(200, body=stream)
        client.get(b"/")
        client.connection.readConnectionLost()
        self.assertFalse(client.closing)
        assert stream.sink is not None
        stream.sink.data(b"def")
        stream.sink.end()
        self.assertEqual(client.app.outcomes, [(b"/", 200, 6)])
        self.assertTrue(client.closing)

    def test_answered_requests_have_no_one_to_miss(self) -> None:
        client = Client()
        client.get(b"/")
        called: list[int] = []
        client.app.done[0].on_gone.append(lambda: called.append(1))
        client.leave()
        self.assertEqual(called, [])
        self.assertEqual(len(client.app.done), 1)


class DrainTests(SynchronousTestCase):
    def test_idle(self) -> None:
        client = Client()
        client.get()
        drained = client.factory.drain()
        self.assertTrue(client.closing)
        self.assertNoResult(drained)
        client.leave()
        self.successResultOf(drained)

    def test_nobody(self) -> None:
        client = Client()
        client.leave()
        self.successResultOf(client.factory.drain())

    def test_busy(self) -> None:
        client = Client()
        answer: Deferred[Response] = Deferred()
        client.app.answers[b"/"] = answer
        client.get(b"/")
        client.factory.drain()
        self.assertFalse(client.closing)
        answer.callback(text())
        self.assertIn(b"Connection: close", fields(client.read()))
        self.assertTrue(client.closing)

    def test_keep_alive_was_promised(self) -> None:
        client = Client()
        stream = ScriptedStream(3)
        client.app.answers[b"/"] = Response(200, body=stream)
        self.assertIn(b"Connection: keep-alive", fields(client.get(b"/")))
        client.factory.drain()
        assert stream.sink is not None
        stream.sink.data(b"abc")
        stream.sink.end()
        self.assertTrue(client.closing)

    def test_abort(self) -> None:
        client = Client()
        client.app.answers[b"/"] = Deferred()
        client.get(b"/")
        client.factory.abort()
        self.assertTrue(client.transport.aborted)
        self.assertEqual(client.app.outcomes, [(b"/", 499, 0)])

    def test_worker_connections(self) -> None:
        client = Client()
        client.factory.places.limit = 1
        client.send(b"GET / HT")
        self.assertIsNone(client.factory.buildProtocol(client.transport.getPeer()))
        client.leave()
        self.assertIsNotNone(client.factory.buildProtocol(client.transport.getPeer()))

    def test_idle_makes_room(self) -> None:
        client = Client()
        client.get()
        client.factory.places.limit = 1
        self.assertIsNone(client.factory.buildProtocol(client.transport.getPeer()))
        self.assertTrue(client.closing)  # and so there is a place for the next one
        client.leave()
        self.assertIsNotNone(client.factory.buildProtocol(client.transport.getPeer()))


class MemoryTests(SynchronousTestCase):
    def test_an_idle_connection_holds_nothing(self) -> None:
        client = Client()
        client.app.answers[b"/echo"] = echo
        client.send(POST % (b"/echo", 5) + b"hello")
        client.get()
        self.assertIsNone(client.connection._parser)
        self.assertIsNone(client.connection._exchange)
        self.assertFalse(hasattr(client.connection, "__dict__"))

    def test_body_repr(self) -> None:
        app = ScriptedApplication()
        app.answers[b"/"] = Deferred()
        client = Client(app)
        client.send(POST % (b"/", 5) + b"abc")
        self.assertEqual(repr(cast(RequestBody, app.requests[0].body)), "<RequestBody 3/5>")
