"""Whatever happens, in whatever order: the connection's promises hold."""

from __future__ import annotations

import os
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.message import (
    BodySink,
    FileBody,
    OpenFile,
    Request,
    Response,
    TransferSettings,
)

from .fakes import Client, Collector, ScriptedStream, text

REQUESTS = (
    b"GET /now HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /sized HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"GET /file HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"HEAD /stream HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /now HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe",
    b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    b"POST /read HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
    b"llo", b"0\r\n\r\n", b"GET / HT", b"TP/1.1\r\nHost: a\r\n\r\n", b"rubbish\r\n\r\n",
)  # fmt: skip
ACTIONS = ("answer", "data", "end", "fail", "congest", "relieve", "half_close", "drain", "wait")


class World:
    """A client, an application that answers when told to, and what they hold."""

    def __init__(self) -> None:
        self.client = Client(transfer=TransferSettings(send_timeout=7, client_body_timeout=9))
        self.streams: list[ScriptedStream] = []
        self.files: list[OpenFile] = []
        self.late: list[Deferred[Response]] = []
        self.client.app.answers.update(
            {
                b"/late": self.later,
                b"/stream": lambda request: self.stream(None),
                b"/sized": lambda request: self.stream(6),
                b"/file": self.file,
                b"/none": Response(444),
                b"/read": self.read,
            }
        )

    def later(self, request: Request) -> Deferred[Response]:
        self.late.append(Deferred())
        return self.late[-1]

    def stream(self, length: int | None) -> Response:
        self.streams.append(ScriptedStream(length))
        return Response(200, body=self.streams[-1])

    def file(self, request: Request) -> Response:
        with tempfile.TemporaryFile() as file:
            file.write(bytes(100))
            file.flush()
            self.files.append(OpenFile(os.dup(file.fileno()), 100, 0.0))
        return Response(200, body=FileBody(self.files[-1], 0, 100))

    def read(self, request: Request) -> Deferred[Response]:
        request.body.start(Collector())
        return self.later(request)

    def act(self, action: bytes | str) -> None:
        if isinstance(action, bytes):
            self.client.connection.dataReceived(action)
        else:
            getattr(self, "do_" + action)()

    def do_answer(self) -> None:
        if self.late:
            self.late.pop(0).callback(text(b"late"))

    def live(self) -> BodySink | None:
        """What the last stream that still has a reader delivers to."""
        sinks = [stream.sink for stream in self.streams if stream.sink and not stream.cancelled]
        return sinks[-1] if sinks else None

    def do_data(self) -> None:
        sink = self.live()
        if sink is not None:
            sink.data(b"abc")

    def over(self) -> BodySink | None:
        """The same, and it is over: nobody has to cancel that stream."""
        sink = self.live()
        self.streams = [stream for stream in self.streams if stream.sink is not sink or not sink]
        return sink

    def do_end(self) -> None:
        sink = self.over()
        if sink is not None:
            sink.end()

    def do_fail(self) -> None:
        sink = self.over()
        if sink is not None:
            sink.fail(RuntimeError("broken"))

    def do_congest(self) -> None:
        if self.client.transport.producer is not None and not self.client.connection.congested:
            self.client.connection.pauseProducing()

    def do_relieve(self) -> None:
        if self.client.transport.producer is not None and self.client.connection.congested:
            self.client.connection.resumeProducing()

    def do_half_close(self) -> None:
        if not self.client.closing:
            self.client.connection.readConnectionLost()

    def do_drain(self) -> None:
        self.client.factory.drain()

    def do_wait(self) -> None:
        self.client.clock.advance(5)


class EventTests(SynchronousTestCase):
    @given(st.lists(st.one_of(st.sampled_from(REQUESTS), st.sampled_from(ACTIONS)), max_size=25))
    @settings(deadline=None, max_examples=150)
    def test_promises(self, actions: list[bytes | str]) -> None:
        world = World()
        client = world.client
        for action in actions:
            world.act(action)
            self.assertLessEqual(len(client.app.requests) - len(client.app.done), 1)
        client.leave()
        while world.late:
            world.late.pop().callback(world.stream(None))
        # Each request is accounted for, once.
        done = [id(request) for request in client.app.done]
        self.assertEqual(len(done), len(set(done)))
        for request in [*client.app.requests, *(r for r, _ in client.app.rejected)]:
            self.assertIn(id(request), done)
        for request in client.app.done:
            self.assertNotEqual(request.outcome.status, 0)
            self.assertLessEqual(request.outcome.body_bytes_sent, request.outcome.bytes_sent)
        # Nothing is held any more.
        for stream in world.streams:
            self.assertTrue(stream.cancelled)
        for opened in world.files:
            self.assertEqual(opened.fd, -1)
        client.factory.drain()
        self.assertEqual(client.clock.getDelayedCalls(), [])
        self.assertEqual(client.factory.connections, set())
