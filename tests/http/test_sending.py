"""How answers are sent and connections kept or ended, as the location's directives say."""

from __future__ import annotations

import socket
import time
from typing import Any

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from imagefarm.config.variables import Template
from imagefarm.http.factory import HttpFactory
from imagefarm.http.message import Request, Response, TransferSettings
from imagefarm.http.transport import listen

from .fakes import NOW, Client, ScriptedApplication, ScriptedStream, text
from .samples import file_body

MSIE6 = b"User-Agent: Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)\r\n"
SAFARI = b"User-Agent: Mozilla/5.0 (Mac OS X) Version/17.4 Safari/605.1.15\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n%b\r\n"


class KeepingTests(SynchronousTestCase):
    def client(self, **settings: Any) -> Client:
        return Client(transfer=TransferSettings(**settings))

    def test_keepalive_time(self) -> None:
        client = self.client(keepalive_time=60)
        now = [NOW]
        client.factory.now = lambda: now[0]
        now[0] += 60
        self.assertIn(b"Connection: keep-alive\r\n", client.get())
        now[0] += 1
        self.assertIn(b"Connection: close\r\n", client.get())
        self.assertTrue(client.closing)

    def test_one_object_for_a_second(self) -> None:
        client = self.client()
        client.factory.now = lambda: 1e9 + 0.25
        first = client.factory.second()
        client.factory.now = lambda: 1e9 + 0.75
        self.assertIs(client.factory.second(), first)

    def test_keepalive_disable(self) -> None:
        for browsers, agent, kept in (
            ({"msie6"}, MSIE6, False),
            ({"msie6"}, SAFARI, True),
            ({"safari"}, MSIE6, True),
            ({"safari"}, SAFARI, False),
            ((), MSIE6, True),
        ):
            client = self.client(keepalive_disable=frozenset(browsers))
            client.send(POST % agent)
            self.assertIs(client.closing, not kept, (browsers, agent))

    def test_chunked_transfer_encoding_off(self) -> None:
        client = self.client(chunked_transfer_encoding=False)
        stream = ScriptedStream(first=(b"abc",))
        client.app.answers[b"/"] = Response(200, body=stream)
        answer = client.get()
        assert stream.sink is not None
        stream.sink.end()
        self.assertTrue(answer.endswith(b"Connection: close\r\n\r\nabc"), answer)
        self.assertNotIn(b"Transfer-Encoding", answer)
        self.assertTrue(client.closing)

    def test_server_tokens(self) -> None:
        host = Template("$host", (lambda request: request.host,), None)
        broken = Template("$uri", (lambda request: b"a\r\nb",), None)
        for tokens, line in (
            (b"us/1", b"Server: us/1\r\n"),
            (host, b"Server: a\r\n"),
            (b"", None),
            (broken, None),
        ):
            answer = self.client(server_tokens=tokens).get()
            if line is None:
                self.assertNotIn(b"Server:", answer)
            else:
                self.assertIn(line, answer)

    def test_what_can_not_be_sent_is_released(self) -> None:
        """A setting that raises: the connection breaks off, the file is closed."""
        broken = Template("$x", (lambda request: b"%d" % (1 // 0),), None)
        for settings in ({"server_tokens": broken}, {"limit_rate": broken}):
            client = self.client(**settings)
            body = file_body(b"content")
            client.app.answers[b"/"] = Response(200, body=body)
            client.get()
            self.assertTrue(client.transport.aborted)
            self.assertEqual(body.file.fd, -1)
            self.assertEqual(len(client.app.done), 1)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_server_field_of_the_application(self) -> None:
        for tokens in (True, b"", b"us"):
            client = self.client(server_tokens=tokens)
            client.app.answers[b"/"] = answer = text()
            answer.headers.add(b"Server", b"theirs")
            self.assertEqual(client.get().count(b"Server: theirs\r\n"), 1)

    def test_client_body_buffer_size(self) -> None:
        for size, reading in ((100, False), (101, True)):
            client = self.client(client_body_buffer_size=size)
            client.app.answers[b"/"] = lambda request: Deferred()
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n" + bytes(100))
            self.assertEqual(client.transport.producerState, "producing" if reading else "paused")


class EndingTests(SynchronousTestCase):
    def client(self, **settings: Any) -> Client:
        return Client(transfer=TransferSettings(**settings))

    def test_lingering_close_always(self) -> None:
        client = self.client(lingering_close="always", lingering_timeout=2, keepalive_timeout=0)
        client.get()
        self.assertFalse(client.closing)
        self.assertIn("LINGER", repr(client.connection))
        client.clock.pump([0.25] * 12)
        self.assertTrue(client.closing)

    def test_lingering_close_off(self) -> None:
        client = self.client(lingering_close="off")
        client.send(b"rubbish\r\n\r\nand more")
        self.assertTrue(client.closing)

    def test_lingering_time_of_the_location(self) -> None:
        """The default server's is another."""
        client = self.client(keepalive_timeout=0)
        client.app.transfer = evolve(
            client.app.transfer, lingering_close="always", lingering_time=4, lingering_timeout=3
        )
        client.get()
        for _ in range(3):
            self.assertFalse(client.closing)
            client.clock.pump([0.25] * 6)
            client.send(b"x")
        self.assertTrue(client.closing)

    def test_444(self) -> None:
        for reset in (False, True):
            client = self.client(reset_timedout_connection=reset)
            client.app.answers[b"/"] = Response(444)
            self.assertEqual(client.get(), b"")
            self.assertTrue(client.closing)
            self.assertIs(client.transport.aborted, reset)
            self.assertEqual(client.app.outcomes, [(b"/", 444, 0)])

    def test_timeouts(self) -> None:
        for reset in (False, True):
            client = self.client(reset_timedout_connection=reset)
            client.send(b"GET /")
            client.clock.pump([1] * 62)
            self.assertTrue(client.closing)
            self.assertIs(client.transport.aborted, reset)
            self.assertEqual(client.app.outcomes, [(b"", 408, 0)])

    def test_idle_connections_are_closed_normally(self) -> None:
        client = self.client(reset_timedout_connection=True, keepalive_timeout=5)
        client.get()
        client.clock.pump([1] * 7)
        self.assertTrue(client.closing)
        self.assertFalse(client.transport.aborted)

    def test_send_timeout_counts_from_the_last_progress(self) -> None:
        client = self.client(send_timeout=30)
        client.app.answers[b"/"] = Response(200, body=ScriptedStream(first=(b"abc",)))
        client.get()
        client.connection.pauseProducing()
        client.clock.pump([0.5] * 20)
        client.transport.taken = 1  # type: ignore[attr-defined]
        client.transport.moved = client.clock.seconds()  # type: ignore[attr-defined]
        client.clock.pump([0.5] * 59)
        self.assertFalse(client.transport.aborted)
        client.clock.pump([0.5] * 3)
        self.assertTrue(client.transport.aborted)

    def test_send_timeout_sees_what_the_client_takes(self) -> None:
        """Out of a large buffer it takes something long before there is room for more."""
        client = self.client(send_timeout=8)
        client.app.answers[b"/"] = Response(200, body=ScriptedStream(first=(b"abc",)))
        client.get()
        client.connection.pauseProducing()
        for taken in range(10):
            client.transport.taken = taken  # type: ignore[attr-defined]
            client.clock.pump([0.5] * 8)
            self.assertFalse(client.transport.aborted)
        client.clock.pump([0.5] * 24)
        self.assertTrue(client.transport.aborted)


class SocketTests(TestCase):
    """What the client's socket sees."""

    timeout = 30

    def serve(self, **settings: Any) -> int:
        self.app = ScriptedApplication(TransferSettings(sendfile=True, **settings))
        self.factory = HttpFactory(
            self.app, reactor, server=("127.0.0.1", 0), transfer=self.app.transfer
        )
        self.sock = sock = socket.create_server(("127.0.0.1", 0))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
        sock.setblocking(False)
        self.addCleanup(sock.close)
        port = listen(reactor, sock, self.factory)
        self.addCleanup(self.factory.drain)
        self.addCleanup(self.factory.abort)
        self.addCleanup(port.stopListening)
        found: int = port.getHost().port
        return found

    def file(self, size: int) -> None:
        def answer(request: Request) -> Response:
            return Response(200, body=file_body(b"x" * size))

        self.app.answers[b"/"] = answer

    @staticmethod
    def ask(port: int, wait: float = 0.0) -> tuple[int, float, str]:
        """Bytes received, in how many seconds, and how it ended; ``wait`` before reading."""
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            sock.connect(("127.0.0.1", port))
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            time.sleep(wait)
            count, start = 0, time.monotonic()
            try:
                while data := sock.recv(65536):
                    count += len(data)
            except ConnectionResetError:
                return count, time.monotonic() - start, "reset"
            return count, time.monotonic() - start, "end"

    @inlineCallbacks
    def test_rate(self) -> Any:
        port = self.serve(limit_rate=200_000, limit_rate_after=50_000)
        self.file(350_000)
        count, seconds, end = yield deferToThread(self.ask, port)
        self.assertGreater(count, 350_000)
        self.assertEqual(end, "end")
        # 1.5 seconds, less the eighth that goes at once; a busy machine may be later.
        self.assertGreater(seconds, 1.2)
        self.assertLess(seconds, 10)

    @inlineCallbacks
    def test_small_chunks(self) -> Any:
        port = self.serve(sendfile_max_chunk=1000)
        self.file(100_000)
        count, _, end = yield deferToThread(self.ask, port)
        self.assertGreater(count, 100_000)
        self.assertEqual(end, "end")

    @inlineCallbacks
    def test_no_limit_to_chunks(self) -> Any:
        port = self.serve(sendfile_max_chunk=0)
        self.file(5_000_000)
        count, _, _ = yield deferToThread(self.ask, port)
        self.assertGreater(count, 5_000_000)

    @inlineCallbacks
    def test_a_slow_reader_of_a_large_buffer(self) -> Any:
        """It makes no room for us for longer than ``send_timeout``, but it reads."""
        port = self.serve(send_timeout=2)
        self.file(3 << 20)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)

        def read() -> tuple[int, bool]:
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
                sock.settimeout(10)
                sock.connect(("127.0.0.1", port))
                sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                got = 0
                for _ in range(10):
                    time.sleep(0.5)
                    got += len(sock.recv(8192))
                return got, bool(self.app.done)

        got, over = yield deferToThread(read)
        self.assertFalse(over)
        self.assertGreater(got, 50_000)

    @inlineCallbacks
    def test_reset_timedout_connection(self) -> Any:
        """Without it the client gets what has reached the kernel, and then the end."""
        for reset, expected in ((False, "end"), (True, "reset")):
            port = self.serve(send_timeout=0.3, reset_timedout_connection=reset)
            self.file(20_000_000)
            count, _, end = yield deferToThread(self.ask, port, 2.0)
            self.assertEqual(end, expected)
            self.assertLess(count, 20_000_000)
            self.assertEqual(len(self.app.done), 1)

    @inlineCallbacks
    def test_an_end_that_would_look_complete_is_a_reset(self) -> Any:
        port = self.serve(send_timeout=0.3, chunked_transfer_encoding=False)
        self.app.answers[b"/"] = lambda request: Response(
            200, body=ScriptedStream(first=(b"x" * 20_000_000,))
        )
        _, _, end = yield deferToThread(self.ask, port, 2.0)
        self.assertEqual(end, "reset")

    @inlineCallbacks
    def test_444_with_unread_bytes(self) -> Any:
        port = self.serve(reset_timedout_connection=True)
        self.app.answers[b"/"] = Response(444)
        self.assertEqual((yield deferToThread(self.ask, port))[2], "reset")
