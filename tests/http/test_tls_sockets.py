"""TLS on the socket: other ways to it."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread

from imagefarm.http.by_address import ByAddress
from imagefarm.http.message import ForwardedPeer
from imagefarm.http.proxied import ProxiedFactory
from imagefarm.http.tls_transport import TlsFactory
from tests.support.tlsclient import Client

from .fakes import text
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


class _Recorder:
    """A socket, and all that was read from it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.data = b""

    def recv(self, size: int) -> bytes:
        piece = self._sock.recv(size)
        self.data += piece
        return piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class RecordTests(TlsCase):
    """``ssl_buffer_size``."""

    def outermost(self, factory: Any) -> Any:
        return TlsFactory(self.factory, factory.context, 4096)

    @inlineCallbacks
    def test_no_record_holds_more(self) -> Any:
        self.app.answers[b"/"] = text(b"x" * 50_000)

        def script(client: Client) -> tuple[int, int]:
            recorder: Any = _Recorder(client.sock)
            client.sock = recorder
            client.handshake()
            client.sock.sendall(client.send(GET % b"/"))
            body = client.answer()
            sizes, at = [], 0
            while at < len(recorder.data):
                sizes.append(int.from_bytes(recorder.data[at + 3 : at + 5], "big"))
                at += 5 + sizes[-1]
            return len(body), max(sizes)

        received, largest = yield self.run_client(script)
        self.assertEqual(received, 50_000)
        self.assertEqual(largest, 4096 + 1 + 16)  # the type of the content, and the tag


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
