"""The engine on real sockets."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from imagefarm.http.factory import HttpFactory
from imagefarm.http.message import FileBody, OpenFile, Request, Response, TransferSettings
from imagefarm.http.tls_context import make_context
from imagefarm.http.tls_settings import TlsSettings
from imagefarm.http.tls_transport import TlsFactory
from imagefarm.http.transport import DirectServer, listen
from tests.support.certificates import self_signed

from .fakes import Collector, ScriptedApplication, ScriptedStream, text

BIG = 5_000_000
GET = b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n"


def read_all(client: socket.socket) -> bytes:
    """Everything up to the end of the connection."""
    pieces = []
    while piece := client.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def read_answer(client: socket.socket, *, bodiless: bool = False) -> tuple[bytes, bytes]:
    """One answer with a Content-Length: head and body."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(1)
        if not piece:
            raise AssertionError(f"closed after {data!r}")
        data += piece
    head = data[:-4]
    length = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    body = b""
    while not bodiless and len(body) < length:
        piece = client.recv(min(65536, length - len(body)))
        if not piece:
            raise AssertionError(f"closed after {len(body)} of {length} bytes")
        body += piece
    return head, body


class Scripts:
    """What clients do, whatever the socket."""

    timeout = 20

    def setUp(self) -> None:
        self.app = ScriptedApplication(TransferSettings(sendfile=True))
        self.factory = HttpFactory(self.app, reactor, server=("127.0.0.1", 0))
        self.port = self.listen()
        self.addCleanup(self.close)
        self.path = self.mktemp()
        self.content = os.urandom(1000) * (BIG // 1000)
        with open(self.path, "wb") as file:
            file.write(self.content)

    def listen(self) -> Any:
        return self.on_loopback(self.factory)

    def on_loopback(self, factory: Any) -> Any:
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)
        self.addCleanup(sock.close)
        return listen(reactor, sock, factory)

    @inlineCallbacks
    def close(self) -> Any:
        yield self.port.stopListening()
        self.factory.abort()
        yield self.factory.drain()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port.getHost().port), timeout=10)

    def run_client(self, script: Callable[[socket.socket], Any]) -> Deferred[Any]:
        """Run ``script`` with a connected socket in a thread."""

        def run() -> Any:
            with self.connect() as client:
                return script(client)

        return deferToThread(run)

    def file_response(self, request: Request | None = None) -> Response:
        fd = os.open(self.path, os.O_RDONLY)
        size = os.fstat(fd).st_size
        self.opened = OpenFile(fd, size, 0.0)
        return Response(200, body=FileBody(self.opened, 0, size))

    @inlineCallbacks
    def test_keep_alive(self) -> Any:
        def script(client: socket.socket) -> list[bytes]:
            bodies = []
            for target in (b"/1", b"/2", b"/3"):
                client.sendall(GET % target)
                bodies.append(read_answer(client)[1])
            return bodies

        bodies = yield self.run_client(script)
        self.assertEqual(bodies, [b"GET /1", b"GET /2", b"GET /3"])
        self.assertEqual({request.peer.serial for request in self.app.requests}, {1})
        self.assertEqual([request.number for request in self.app.requests], [1, 2, 3])

    @inlineCallbacks
    def test_pipelining_with_late_answers(self) -> Any:
        def later(request: Request) -> Deferred[Response]:
            answer: Deferred[Response] = Deferred()
            reactor.callLater(0.02, answer.callback, text(b"late"))
            return answer

        self.app.answers[b"/late"] = later

        def script(client: socket.socket) -> list[bytes]:
            client.sendall(GET % b"/late" + GET % b"/soon" + GET % b"/late" + GET % b"/x")
            return [read_answer(client)[1] for _ in range(4)]

        bodies = yield self.run_client(script)
        self.assertEqual(bodies, [b"late", b"GET /soon", b"late", b"GET /x"])

    @inlineCallbacks
    def test_file_to_a_slow_reader(self) -> Any:
        """The rest is sent when the socket takes it, and nothing piles up in memory."""
        self.app.answers[b"/file"] = self.file_response

        def script(client: socket.socket) -> bytes:
            client.sendall(GET % b"/file" + GET % b"/next")
            time.sleep(0.2)
            body = read_answer(client)[1]
            self.assertEqual(read_answer(client)[1], b"GET /next")
            return body

        body = yield self.run_client(script)
        self.assertEqual(body, self.content)
        self.assertEqual(self.opened.fd, -1)
        self.assertEqual(self.app.outcomes[0], (b"/file", 200, BIG))

    @inlineCallbacks
    def test_file_without_sendfile(self) -> Any:
        self.app.transfer = TransferSettings(sendfile=False)
        yield self.test_file_to_a_slow_reader()

    @inlineCallbacks
    def test_file_that_shrinks(self) -> Any:
        def shrink(request: Request) -> Response:
            response = self.file_response()
            os.truncate(self.path, 1_000_000)
            return response

        self.app.answers[b"/file"] = shrink

        def script(client: socket.socket) -> int:
            client.sendall(GET % b"/file")
            count = 0
            try:
                while piece := client.recv(65536):
                    count += len(piece)
            except ConnectionResetError:
                pass
            return count

        for sendfile in (True, False):
            self.app.transfer = TransferSettings(sendfile=sendfile)
            count = yield self.run_client(script)
            self.assertLess(count, BIG)
            self.assertEqual(self.opened.fd, -1)
            with open(self.path, "wb") as file:
                file.write(self.content)
        self.assertEqual(len(self.app.done), 2)

    @inlineCallbacks
    def test_client_leaves_during_a_file(self) -> Any:
        self.app.answers[b"/file"] = self.file_response
        gone: Deferred[None] = Deferred()
        self.app.finished = lambda request: gone.callback(None)  # type: ignore[method-assign]

        def script(client: socket.socket) -> None:
            client.sendall(GET % b"/file")
            client.recv(1)

        yield self.run_client(script)
        yield gone
        self.assertEqual(self.opened.fd, -1)
        self.assertLess(self.app.requests[0].outcome.body_bytes_sent, BIG)

    @inlineCallbacks
    def test_client_leaves_before_the_answer(self) -> Any:
        answer: Deferred[Response] = Deferred()
        self.app.answers[b"/never"] = answer
        gone: Deferred[Request] = Deferred()
        self.app.finished = gone.callback  # type: ignore[method-assign]

        def script(client: socket.socket) -> None:
            client.sendall(GET % b"/never")
            time.sleep(0.05)

        yield self.run_client(script)
        request = yield gone
        self.assertEqual(request.outcome.status, 499)
        stream = ScriptedStream()
        answer.callback(Response(200, body=stream))
        self.assertTrue(stream.cancelled)

    @inlineCallbacks
    def test_continue(self) -> Any:
        def read_body(request: Request) -> Deferred[Response]:
            answer: Deferred[Response] = Deferred()
            request.body.start(Collector(lambda body: answer.callback(text(body))))
            return answer

        self.app.answers[b"/up"] = read_body

        def script(client: socket.socket) -> tuple[bytes, bytes]:
            client.sendall(
                b"POST /up HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                b"Content-Length: 5\r\n\r\n"
            )
            interim = client.recv(100)
            client.sendall(b"hello")
            return interim, read_answer(client)[1]

        interim, body = yield self.run_client(script)
        self.assertEqual(interim, b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(body, b"hello")

    @inlineCallbacks
    def test_large_upload_to_a_slow_handler(self) -> Any:
        """The handler's pace is the client's: no more than the buffers hold is read."""
        collector = Collector()
        held: list[int] = []

        def slow(request: Request) -> Deferred[Response]:
            answer: Deferred[Response] = Deferred()

            def begin() -> None:
                held.append(request.body._queued)  # type: ignore[attr-defined]
                request.body.start(collector)

            collector._on_end = lambda body: answer.callback(text(b"%d" % len(body)))
            reactor.callLater(0.2, begin)
            return answer

        self.app.transfer = TransferSettings(client_max_body_size=0)
        self.app.answers[b"/up"] = slow

        def script(client: socket.socket) -> bytes:
            client.sendall(b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % BIG)
            client.sendall(self.content)
            return read_answer(client)[1]

        body = yield self.run_client(script)
        self.assertEqual(body, b"%d" % BIG)
        self.assertLess(held[0], 200_000)
        self.assertEqual(collector.body, self.content)

    @inlineCallbacks
    def test_error_answer_survives_a_client_that_still_sends(self) -> Any:
        """Lingering close: the answer is not lost to a reset."""

        def script(client: socket.socket) -> bytes:
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n")
            time.sleep(0.05)
            client.sendall(bytes(200_000))
            head = read_answer(client)[0]
            self.assertEqual(client.recv(1), b"")  # and its end is told at once
            return head

        start = time.monotonic()
        head = yield self.run_client(script)
        self.assertTrue(head.startswith(b"HTTP/1.1 400 "), head)
        self.assertLess(time.monotonic() - start, TransferSettings().lingering_timeout)

    @inlineCallbacks
    def test_close_delimited(self) -> Any:
        stream = ScriptedStream()
        self.app.answers[b"/s"] = Response(200, body=stream)

        def produce() -> None:
            if stream.sink is None:
                reactor.callLater(0.05, produce)
                return
            stream.sink.data(b"abc")
            stream.sink.end()

        reactor.callLater(0.05, produce)

        def script(client: socket.socket) -> bytes:
            client.sendall(b"GET /s HTTP/1.0\r\n\r\n")
            return read_all(client)

        data = yield self.run_client(script)
        self.assertTrue(data.endswith(b"\r\nConnection: close\r\n\r\nabc"), data)

    @inlineCallbacks
    def test_drain(self) -> Any:
        answer: Deferred[Response] = Deferred()
        self.app.answers[b"/busy"] = answer

        def busy(client: socket.socket) -> bytes:
            client.sendall(GET % b"/busy")
            return read_all(client)

        def idle(client: socket.socket) -> bytes:
            client.sendall(GET % b"/")
            read_answer(client)
            return read_all(client)

        waiting = [self.run_client(busy), self.run_client(idle)]
        while len(self.app.done) < 1 or len(self.app.requests) < 2:
            yield deferToThread(time.sleep, 0.01)
        drained = self.factory.drain()
        self.assertEqual((yield waiting[1]), b"")
        self.assertNoResult(drained)
        answer.callback(text(b"last"))
        data = yield waiting[0]
        self.assertIn(b"Connection: close\r\n", data)
        self.assertTrue(data.endswith(b"last"))
        yield drained

    def assertNoResult(self, deferred: Deferred[Any]) -> None:
        self.assertFalse(deferred.called)


class HalfClose(Scripts):
    """TLS has none here: its close ends both directions."""

    @inlineCallbacks
    def test_half_closed_client_gets_its_answers(self) -> Any:
        self.app.answers[b"/file"] = self.file_response

        def script(client: socket.socket) -> bytes:
            client.sendall(GET % b"/a" + GET % b"/file")
            client.shutdown(socket.SHUT_WR)
            return read_all(client)

        data = yield self.run_client(script)
        self.assertEqual(data[-BIG:], self.content)


class TcpTests(HalfClose, TestCase):
    """Over TCP."""

    @inlineCallbacks
    def test_transport_is_ours(self) -> Any:
        def look(request: Request) -> Response:
            (connection,) = self.factory.connections
            return text(type(connection.transport).__name__.encode())

        self.app.answers[b"/t"] = look

        def script(client: socket.socket) -> bytes:
            client.sendall(GET % b"/t")
            return read_answer(client)[1]

        self.assertEqual((yield self.run_client(script)), DirectServer.__name__.encode())


class UnixTests(HalfClose, TestCase):
    """The same over a Unix socket."""

    def listen(self) -> Any:
        self.socket_path = f"/tmp/imagefarm-test-{os.getpid()}-{id(self)}"
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(self.socket_path)
        sock.listen()
        sock.setblocking(False)
        self.addCleanup(os.unlink, self.socket_path)
        self.addCleanup(sock.close)
        return listen(reactor, sock, self.factory)

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(10)
        client.connect(self.socket_path)
        return client

    @inlineCallbacks
    def test_peer_is_what_nginx_calls_it(self) -> Any:
        yield self.test_keep_alive()
        peer = self.app.requests[0].peer
        self.assertEqual((peer.address, peer.port), ("unix:", 0))


class TlsTests(Scripts, TestCase):
    """The same over TLS."""

    def listen(self) -> Any:
        folder = Path(self.mktemp())
        folder.mkdir()
        cert, key = self_signed(folder, "test")
        self.factory.secure = True
        context = make_context(TlsSettings(((cert, key),)))
        return self.on_loopback(TlsFactory(self.factory, context))

    def connect(self) -> socket.socket:
        plain = super().connect()
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(plain, server_hostname="example.org")

    @inlineCallbacks
    def test_requests_know_the_handshake(self) -> Any:
        def script(client: ssl.SSLSocket) -> tuple[str | None, Any]:
            client.sendall(GET % b"/")
            read_answer(client)
            return client.version(), client.cipher()

        version, cipher = yield self.run_client(script)  # type: ignore[arg-type]
        peer = self.app.requests[0].peer
        self.assertEqual(peer.tls, (version, cipher[0]))
        self.assertEqual(peer.sni, b"example.org")
