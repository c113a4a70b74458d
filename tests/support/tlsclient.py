"""A TLS client whose records the tests send as they like: in pieces, together, cut short."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any


def trusting(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A client's context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


class Client:
    """A client whose bytes are sent as the test likes."""

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self.sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = (context or trusting()).wrap_bio(
            self._incoming, self._outgoing, server_hostname="a.example", session=session
        )
        self.read = b""

    def flight(self, step: Callable[[], Any] | None = None) -> bytes:
        """What a step of the client (else the handshake) wants to send."""
        try:
            (step or self.tls.do_handshake)()
        except ssl.SSLWantReadError:
            pass
        return self._outgoing.read()

    def more(self) -> bool:
        """Wait for bytes of the server; False at the end of the connection."""
        data = self.sock.recv(65536)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        return bool(data)

    def handshake(self, send: Callable[[bytes], None] | None = None) -> None:
        """All of it."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                (send or self.sock.sendall)(self._outgoing.read())
                if not self.more():
                    raise ConnectionError("closed in the handshake") from None
                continue
            (send or self.sock.sendall)(self._outgoing.read())
            return

    def send(self, data: bytes) -> bytes:
        """The records that carry ``data``."""
        return self.flight(lambda: self.tls.write(data))

    def take(self, count: int | None = None) -> bytes:
        """``count`` bytes of the server, or all up to its close_notify.

        Raises `ssl.SSLEOFError` where the connection ends without one.
        """
        while count is None or len(self.read) < count:
            try:
                data = self.tls.read(65536)
            except ssl.SSLWantReadError:
                self.more()
                continue
            except ssl.SSLZeroReturnError:
                data = b""
            if not data:
                break
            self.read += data
        taken, self.read = self.read[:count], self.read[len(self.read[:count]) :]
        return taken

    def answer(self) -> bytes:
        """The body of an answer that has a Content-Length."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            piece = self.take(1)
            if not piece:
                raise ConnectionError(f"closed after {head!r}")
            head += piece
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        return self.take(int(length))
