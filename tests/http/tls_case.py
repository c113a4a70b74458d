"""What the tests of TLS on the socket share."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from imagefarm.http.factory import HttpFactory
from imagefarm.http.message import TransferSettings
from imagefarm.http.tls_context import make_context
from imagefarm.http.tls_settings import TlsSettings
from imagefarm.http.tls_transport import TlsFactory
from imagefarm.http.transport import listen
from tests.support.certificates import self_signed
from tests.support.tlsclient import Client

from .fakes import ScriptedApplication

GET = b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n"
PROXY = b"PROXY TCP4 192.0.2.1 192.0.2.9 51000 443\r\n"


class TlsCase(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.settings = TlsSettings((self_signed(self.folder, "test"),), session_cache="on")
        self.app = ScriptedApplication(TransferSettings(sendfile=True))
        self.factory = HttpFactory(
            self.app, reactor, server=("127.0.0.1", 0), secure=True, client_header_timeout=10.0
        )
        self.serve(self.outermost(TlsFactory(self.factory, make_context(self.settings))))

    def outermost(self, factory: Any) -> Any:
        return factory

    def bind(self) -> socket.socket:
        sock = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self.address: Any = sock.getsockname()
        return sock

    def serve(self, factory: Any) -> None:
        sock = self.bind()
        sock.setblocking(False)
        self.addCleanup(sock.close)
        self.port = listen(reactor, sock, factory)
        self.addCleanup(self.close)

    @inlineCallbacks
    def close(self) -> Any:
        yield self.port.stopListening()
        self.factory.abort()
        yield self.factory.drain()

    def connect(self) -> socket.socket:
        client = socket.create_connection(self.address, timeout=20)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def run_client(self, script: Callable[[Client], Any]) -> Deferred[Any]:
        """Run ``script`` with a client, connected and not more, in a thread."""

        def run() -> Any:
            with self.connect() as sock:
                return script(Client(sock))

        return deferToThread(run)

    def still_serves(self) -> Deferred[Any]:
        """That a new client gets its answer."""

        def script(client: Client) -> bytes:
            client.handshake()
            client.sock.sendall(client.send(GET % b"/still"))
            return client.answer()

        return self.run_client(script).addCallback(self.assertEqual, b"GET /still")
