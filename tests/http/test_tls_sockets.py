"""TLS on the socket: other ways to it, and sockets that fail."""

from __future__ import annotations

import os
import socket
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from imagefarm.http import tls_transport
from imagefarm.http.by_address import ByAddress
from imagefarm.http.message import ForwardedPeer
from imagefarm.http.proxied import ProxiedFactory
from imagefarm.http.tls_transport import RECORD
from tests.support.tlsclient import Client

from .tls_case import GET, PROXY, TlsCase


class PlainTests(TlsCase):
    """Clients that speak HTTP to the TLS port."""

    @inlineCallbacks
    def test_497(self) -> Any:
        def script(client: Client) -> list[bytes]:
            client.handshake()
            for _ in range(3):  # until the answer is remembered
                client.sock.sendall(client.send(GET % b"/a"))
                client.answer()
            answers = []
            for data in (GET % b"/a", b"\r\n" + GET % b"/a" + GET % b"/b"):
                with self.connect() as sock:
                    sock.sendall(data)
                    answer = b""
                    while piece := sock.recv(4096):
                        answer += piece
                    answers.append(answer[:12])
            return answers

        answers = yield self.run_client(script)
        self.assertEqual(answers, [b"HTTP/1.1 497"] * 2)
        self.assertEqual([status for _, status in self.app.rejected], [497] * 2)
        self.assertEqual({request.head.target for request in self.app.requests}, {b"/a"})
        self.assertTrue(all(request.peer.tls for request in self.app.requests))

    @inlineCallbacks
    def test_one_that_says_nothing(self) -> Any:
        yield self.run_client(lambda client: client.sock.shutdown(socket.SHUT_WR))
        yield self.still_serves()


class ProxiedTests(TlsCase):
    """Behind a PROXY header."""

    def outermost(self, factory: Any) -> Any:
        return ProxiedFactory(self.factory, factory)

    @inlineCallbacks
    def test_with_the_header_cut_anywhere(self) -> Any:
        def visit(cut: int) -> bytes:
            with self.connect() as sock:
                client = Client(sock)
                data = PROXY + client.flight()
                if cut < 0:
                    for index in range(len(data)):
                        sock.sendall(data[index : index + 1])
                else:
                    sock.sendall(data[:cut])
                    sock.sendall(data[cut:])
                client.more()
                client.handshake()
                sock.sendall(client.send(GET % b"/p"))
                return client.answer()

        for cut in (-1, 0, *range(1, len(PROXY) + 10)):
            self.assertEqual((yield deferToThread(visit, cut)), b"GET /p", cut)
        peer = self.app.requests[0].peer
        assert isinstance(peer, ForwardedPeer) and peer.proxy is not None
        self.assertEqual(peer.proxy.source, "192.0.2.1")
        self.assertIsNotNone(peer.tls)

    @inlineCallbacks
    def test_plain_after_the_header(self) -> Any:
        def script(client: Client) -> bytes:
            client.sock.sendall(PROXY + GET % b"/a")
            return client.sock.recv(4096)

        self.assertTrue((yield self.run_client(script)).startswith(b"HTTP/1.1 497"))

    @inlineCallbacks
    def test_no_header(self) -> Any:
        def script(client: Client) -> bytes:
            client.sock.sendall(client.flight())
            try:
                return client.sock.recv(4096)
            except ConnectionResetError:
                return b""

        self.assertEqual((yield self.run_client(script)), b"")


class ByAddressTests(TlsCase):
    """Behind the choice of the address."""

    def outermost(self, factory: Any) -> Any:
        return ByAddress(self.factory, {"127.0.0.1": factory})

    def test_served(self) -> Any:
        return self.still_serves()


class UnixTests(TlsCase):
    """Over a Unix socket."""

    def bind(self) -> socket.socket:
        self.address = f"/tmp/imagefarm-tls-{os.getpid()}-{id(self)}"
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(self.address)
        self.addCleanup(os.unlink, self.address)
        sock.listen()
        return sock

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        client.connect(self.address)
        return client

    def test_served(self) -> Any:
        return self.still_serves()

    @inlineCallbacks
    def test_plain(self) -> Any:
        def script(client: Client) -> bytes:
            client.sock.sendall(GET % b"/a")
            return client.sock.recv(4096)

        self.assertTrue((yield self.run_client(script)).startswith(b"HTTP/1.1 497"))


class ScriptedTls:
    """OpenSSL's connection: raises and returns what the test has put in the lists."""

    def __init__(self, context: Any, sock: Any) -> None:
        self.reads: list[Any] = []
        self.writes: list[Any] = []
        self.shutdowns: list[Any] = []

    @staticmethod
    def _next(script: list[Any]) -> Any:
        step = script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def set_accept_state(self) -> None:
        """The server's end."""

    def recv(self, size: int) -> Any:
        return self._next(self.reads)

    def send(self, data: bytes) -> Any:
        return self._next(self.writes)

    def shutdown(self) -> Any:
        return self._next(self.shutdowns)


class SocketTests(TestCase):
    """What OpenSSL says, as sockets say it."""

    def setUp(self) -> None:
        self.patch(tls_transport, "Connection", ScriptedTls)
        self.socket = tls_transport.TlsSocket(cast(Any, None), cast(Any, None))
        self.tls = cast(Any, self.socket.connection)

    def test_reading(self) -> None:
        self.tls.reads = [
            b"data", SSL.WantReadError(), SSL.ZeroReturnError(),
            SSL.SysCallError(-1, "Unexpected EOF"), SSL.SysCallError(104, "ECONNRESET"),
        ]  # fmt: skip
        self.assertEqual(self.socket.recv(10), b"data")
        self.assertRaises(BlockingIOError, self.socket.recv, 10)
        self.assertFalse(self.socket.wants_write)
        self.assertEqual(self.socket.recv(10), b"")
        self.assertEqual(self.socket.recv(10), b"")
        error = self.assertRaises(OSError, self.socket.recv, 10)
        self.assertEqual(error.errno, 104)
        self.assertTrue(self.socket.notify())  # there is nobody to be told

    def test_reading_that_has_to_write_first(self) -> None:
        self.tls.reads = [SSL.WantWriteError()]
        self.assertRaises(BlockingIOError, self.socket.recv, 10)
        self.assertTrue(self.socket.wants_write)

    def test_writing(self) -> None:
        self.tls.writes = [RECORD, 5, RECORD, SSL.WantWriteError(), SSL.WantWriteError()]
        self.assertEqual(self.socket.send(bytes(RECORD + 5)), RECORD + 5)
        self.assertEqual(self.socket.send(bytes(RECORD + 5)), RECORD)
        self.assertRaises(BlockingIOError, self.socket.send, b"x")
        self.assertEqual(self.socket.send(b""), 0)

    def test_writing_to_nobody(self) -> None:
        broken = [SSL.SysCallError(32, "EPIPE"), SSL.Error([("a", "b", "bad")])]
        self.tls.writes = [RECORD, *broken]
        self.assertEqual(self.socket.send(bytes(2 * RECORD)), RECORD)
        error = self.assertRaises(OSError, self.socket.send, b"x")
        self.assertEqual(error.strerror, "bad")

    def test_close_notify_may_have_to_wait(self) -> None:
        self.tls.shutdowns = [SSL.WantWriteError(), False]
        self.assertFalse(self.socket.notify())
        self.assertTrue(self.socket.notify())
        self.assertTrue(self.socket.notify())  # once
