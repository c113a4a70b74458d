"""TLS of one connection: what OpenSSL says as sockets say it, with any pyOpenSSL."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from OpenSSL import SSL
from twisted.trial.unittest import TestCase

from imagefarm.http import openssl, tls_transport
from imagefarm.http.openssl import RECORD, PrivateChannel, PublicChannel, is_known
from imagefarm.http.tls_context import make_context
from imagefarm.http.tls_settings import TlsSettings
from tests.support.certificates import self_signed

from . import test_tls_transport


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
        self.patch(SSL, "Connection", ScriptedTls)
        self.patch(tls_transport, "open_channel", PublicChannel)
        mine, self.client = socket.socketpair()
        self.addCleanup(mine.close)
        self.addCleanup(self.client.close)
        mine.setblocking(False)
        self.socket = tls_transport.TlsSocket(mine, cast(Any, None))
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

    def test_close_notify_is_for_who_is_there(self) -> None:
        """Or for who was sent something, and must be able to tell its end from a cut."""
        self.client.close()
        self.assertTrue(self.socket.notify())  # without asking OpenSSL
        self.tls.writes, self.tls.shutdowns = [1], [False]
        self.socket.send(b"x")
        self.assertTrue(self.socket.notify())
        self.assertEqual(self.tls.shutdowns, [])


class Agreed(TestCase):
    """Both channels, against the standard library's client, on a socket pair."""

    kind: type[PublicChannel | PrivateChannel] = PrivateChannel

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.context = make_context(TlsSettings((self_signed(folder, "test"),)))
        self.connect()

    def connect(self) -> None:
        mine, self.sock = socket.socketpair()
        for each in (mine, self.sock):
            each.setblocking(False)
            self.addCleanup(each.close)
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname = False
        trusting.verify_mode = ssl.CERT_NONE
        self.client = trusting.wrap_socket(self.sock, do_handshake_on_connect=False)
        self.addCleanup(self.client.close)
        self.connection = SSL.Connection(self.context, mine)
        self.connection.set_accept_state()
        self.channel = self.kind(self.connection)

    def shake(self) -> None:
        with self.assertRaises(ssl.SSLWantReadError):
            self.client.do_handshake()
        self.assertIs(self.channel.handshake(), False)
        self.client.do_handshake()
        self.assertIs(self.channel.handshake(), True)

    def test_reading(self) -> None:
        self.shake()
        self.assertRaises(SSL.WantReadError, self.channel.recv)
        self.client.send(b"\0one")
        self.client.send(bytes(RECORD))
        first = self.channel.recv()
        self.assertEqual(self.channel.recv(), bytes(RECORD))
        self.assertEqual(first, b"\0one")  # a copy, not the place that is read into
        self.assertRaises(SSL.WantReadError, self.channel.recv)
        with self.assertRaises(ssl.SSLWantReadError):
            self.client.unwrap()
        self.assertEqual(self.channel.recv(), b"")

    def test_writing(self) -> None:
        self.shake()
        for data in (b"\0bytes", memoryview(b"\0bytes")):
            self.assertEqual(self.channel.send(data), 6)
            self.assertEqual(self.client.recv(100), b"\0bytes")
        self.assertEqual(self.channel.send(bytes(2 * RECORD)), RECORD)
        with self.assertRaises(SSL.WantWriteError):
            while True:
                self.channel.send(bytes(RECORD))

    def test_no_handshake(self) -> None:
        self.assertIs(self.channel.handshake(), False)
        self.sock.detach()
        self.client.close()
        self.connection.sock_shutdown(socket.SHUT_RDWR)
        self.assertRaises(SSL.Error, self.channel.handshake)

    def test_after_an_error(self) -> None:
        """It is told whole, and leaves nothing for the next call, of any connection."""
        self.shake()
        raw = socket.socket(fileno=self.client.detach())
        self.addCleanup(raw.close)
        raw.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        error = self.assertRaises(SSL.Error, self.channel.recv)
        self.assertIn("bad record mac", str(error))
        self.assertRaises(SSL.Error, self.channel.recv)
        self.assertRaises(SSL.Error, self.channel.send, b"x")
        self.connect()
        self.shake()
        self.assertRaises(SSL.WantReadError, self.channel.recv)


class AgreedPublicly(Agreed):
    kind = PublicChannel


class KnownTests(TestCase):
    """Whether pyOpenSSL is as the private channel needs it."""

    def changed(self, **names: Any) -> ModuleType:
        module = ModuleType("SSL")
        module.__dict__.update(vars(SSL), **names)
        return module

    def test_known(self) -> None:
        """Else this would be a slower day: `PrivateChannel` has to be looked at."""
        self.assertTrue(is_known(SSL))
        self.assertIs(openssl.open_channel, PrivateChannel)
        self.assertTrue(is_known(self.changed()))

    def test_unknown(self) -> None:
        class Renamed(SSL.Connection):
            _raise_ssl_error: Any = None

        lacking = ModuleType("SSL")
        self.assertFalse(is_known(lacking))
        self.assertFalse(is_known(self.changed(_lib=object())))
        self.assertFalse(is_known(self.changed(_ffi=None)))
        self.assertFalse(is_known(self.changed(Connection=Renamed)))


class PublicTransportTests(test_tls_transport.TransportTests):
    """All of it with the channel of any pyOpenSSL."""

    def setUp(self) -> None:
        self.patch(tls_transport, "open_channel", PublicChannel)
        super().setUp()
