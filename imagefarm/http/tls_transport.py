"""TLS directly on the socket, as in nginx: one read is one SSL_read, one write SSL_writes.

`TlsFactory` makes a `TlsServer` of the transport that was accepted: the same object, of another
class, soon with a `TlsSocket` in the place of the socket. What begins without a handshake becomes
the plain transport again, and is told so by the protocol (``ngx_http_ssl_handshake`` looks at the
first byte, too).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from errno import EPROTO, EWOULDBLOCK
from typing import Any, ClassVar, Final

from attrs import evolve
from OpenSSL import SSL
from twisted.internet.interfaces import IProtocol, IProtocolFactory, ISSLTransport
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from .message import Peer
from .openssl import RECORD, Channel, open_channel
from .transport import DirectServer, DirectUnixServer

#: How TLS begins: a handshake record, or the length of what SSLv2 called so.
_HANDSHAKE: Final = 0x16
_SSLV2: Final = 0x80

_CLOSED: Final = SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN

_log: Final = Logger()


class TlsSocket:
    """``recv`` and ``send`` of a non-blocking socket, in TLS; all else is the socket's own.

    Raises what a socket does: `BlockingIOError`, `OSError`. The end of the stream is ``b""``,
    whether the client has announced it or not, as in nginx: HTTP knows where its messages end.
    """

    __slots__ = (
        "_notified", "_raw", "_recv", "_said", "_send", "connection", "handshake", "wants_write"
    )  # fmt: skip

    def __init__(self, raw: socket.socket, context: SSL.Context, record: int = RECORD) -> None:
        self.connection = SSL.Connection(context, raw)
        self.connection.set_accept_state()
        channel: Channel = open_channel(self.connection)
        self.handshake = channel.handshake
        #: Reading can't go on before something has been sent (an answer to a KeyUpdate).
        self.wants_write = False
        self._raw = raw
        self._recv = channel.recv
        self._send = channel.send if record >= RECORD else _in_pieces(channel.send, record)
        self._notified = False
        self._said = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def __repr__(self) -> str:
        return f"<TlsSocket {self._raw!r}>"

    def recv(self, size: int, flags: int = 0) -> bytes:
        """What the next record has; it is never asked for less."""
        try:
            return self._recv()
        except SSL.WantReadError:
            raise BlockingIOError(EWOULDBLOCK, "no whole record") from None
        except SSL.WantWriteError:
            self.wants_write = True
            raise BlockingIOError(EWOULDBLOCK, "has to write first") from None
        except SSL.Error as error:
            if error.args != (-1, "Unexpected EOF"):
                raise self._broken(error) from None
            return b""

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        """Send records until all of ``data`` is out or the socket is full; how much it was.

        What is left has to be the beginning of what is sent next.
        """
        total, sent = len(data), 0
        self._said = True
        try:
            if total:
                sent = self._send(data)
            if sent < total:
                view = memoryview(data)
                while sent < total:  # SSL_MODE_ENABLE_PARTIAL_WRITE: one record each
                    sent += self._send(view[sent:])
        except SSL.WantWriteError:
            if not sent:
                raise BlockingIOError(EWOULDBLOCK, "full") from None
        except SSL.Error as error:
            # WantReadError would be a renegotiation: there is none.
            broken = self._broken(error)
            if not sent:
                raise broken from None
        return sent

    def notify(self) -> bool:
        """Send close_notify (RFC 8446 section 6.1), once; False if the socket is full."""
        if not self._notified and not self._has_left():
            try:
                self.connection.shutdown()
            except SSL.WantWriteError:
                return False
            except SSL.Error:
                pass  # the connection is gone, or its handshake was never finished
            self._notified = True
        return True

    def _has_left(self) -> bool:
        """Whether the client has ended the connection before it was sent anything.

        No cut could be mistaken for the end of something then, and nobody reads close_notify.
        """
        if self._said:
            return False
        try:
            return not self._raw.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        """Close the socket. The session may be resumed, however this connection has ended."""
        self.connection.set_shutdown(_CLOSED)
        self._raw.close()

    def _broken(self, error: SSL.Error) -> OSError:
        """After these nothing can be said any more."""
        self._notified = True
        code = error.args[0] if isinstance(error, SSL.SysCallError) else EPROTO
        return OSError(code, _reason(error))


class _Tls:
    """The mixin: before `DirectServer` or `DirectUnixServer`, one of which it has been."""

    #: Files are read, and written as records.
    plain = False
    below: ClassVar[type]
    socket: Any
    protocol: Any
    reactor: Any
    connected: int
    hostname: Any
    _queued: bool
    _on_writable: Any
    unregisterProducer: Any
    stopReading: Any
    startReading: Any
    stopWriting: Any
    startWriting: Any
    loseConnection: Any

    #: The handshake goes on; it has not begun; it waits for the socket to take more.
    _shaking = True
    _silent = True
    _waits = False
    _context: SSL.Context
    _record: int

    @classmethod
    def take_over(
        cls, transport: Any, context: SSL.Context, protocol: Any, record: int = RECORD
    ) -> None:
        """Make ``transport``, which the loop has and goes on to have, one of ours."""
        transport.__class__ = cls
        transport.protocol = protocol
        transport._context = context
        transport._record = record
        transport.startReading()

    def getHandle(self) -> Any:
        """OpenSSL's connection, as Twisted's TLS transports have it."""
        return self.socket.connection

    def getPeerCertificate(self) -> Any:
        """The client's certificate, or None."""
        return self.getHandle().get_peer_certificate()

    # The handshake.

    def _shake(self) -> Exception | None:
        """Go on with the handshake; what ends the connection is returned."""
        if self._silent:
            try:
                first = self.socket.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return None
            except OSError:
                return CONNECTION_LOST
            if not first:
                return CONNECTION_DONE
            if first[0] != _HANDSHAKE and not first[0] & _SSLV2:
                self._stay_plain()
                return None
            self.socket = TlsSocket(self.socket, self._context, self._record)
            self._silent = False
        try:
            self._shaking = not self.socket.handshake()
        except SSL.WantWriteError:
            self._full(True)
        except SSL.Error as error:
            _log.info(
                "SSL_do_handshake() failed ({reason}) while SSL handshaking, client: {client}",
                reason=_reason(error),
                client=self.hostname,
            )
            return CONNECTION_LOST
        else:
            self._full(False)
        return None

    def _full(self, full: bool) -> None:
        """Wait for the socket to take more, and not for what the client says; or no longer."""
        if full is self._waits:
            return
        self._waits = full
        if full:
            self.stopReading()
            self.startWriting()
        else:
            self.stopWriting()
            self.startReading()

    def _stay_plain(self) -> None:
        """Be the transport again that it was, with the protocol that it has got."""
        self.unregisterProducer()
        self.__class__ = self.below
        self.protocol.makeConnection(self)

    # Reading and writing.

    def read_ready(self) -> None:
        """The loop: there is something to read. Never raises (`process.loop`)."""
        if self._shaking:
            try:
                why = self._shake()
            except Exception:
                _log.failure("in the handshake of {transport!r}", transport=self)
                why = CONNECTION_LOST
            if why is not None:
                self.reactor._disconnectSelectable(self, why, True)
            return
        super().read_ready()  # type: ignore[misc]
        if self.connected and self.socket.wants_write:
            self.startWriting()

    def doWrite(self) -> Any:
        if self._shaking:
            self.read_ready()
            return None
        if self.connected and self.socket.wants_write:
            self.socket.wants_write = False
            self.read_ready()
        return super().doWrite()  # type: ignore[misc]

    # The end. As in nginx, close_notify is sent and none is waited for.

    def _notify(self) -> bool:
        """Say that nothing more will be sent; False if that has to wait."""
        notified: bool = self._shaking or self.socket.notify()
        return notified

    def close_now(self) -> None:
        if self._queued or self._on_writable is not None or self._notify():
            super().close_now()  # type: ignore[misc]
        else:
            self.loseConnection()

    def _postLoseConnection(self) -> Any:
        if self._notify():
            return super()._postLoseConnection()  # type: ignore[misc]
        self.startWriting()
        return None

    def _closeWriteConnection(self) -> None:
        if self._notify():
            super()._closeWriteConnection()  # type: ignore[misc]
        else:
            self.startWriting()


@implementer(ISSLTransport)
class TlsServer(_Tls, DirectServer):
    """A TLS connection over TCP."""

    below = DirectServer


@implementer(ISSLTransport)
class TlsUnixServer(_Tls, DirectUnixServer):
    """A TLS connection over a Unix socket."""

    below = DirectUnixServer


@implementer(IProtocolFactory)
class TlsFactory:
    """TLS in front of the connections of ``http``, beginning with ``context``.

    ``record`` is the most bytes that are sent in one record (``ssl_buffer_size``).
    """

    def __init__(self, http: Any, context: SSL.Context, record: int = RECORD) -> None:
        self.http = http
        self.context = context
        self._record = record

    def __repr__(self) -> str:
        return f"<TlsFactory {self.http!r}>"

    def doStart(self) -> None:
        """Twisted: a port uses the factory."""

    def doStop(self) -> None:
        """Twisted: no port uses it any more."""

    def buildProtocol(self, address: Any) -> Takeover | None:
        """A connection, unless it is turned away."""
        protocol = self.http.buildProtocol(address)
        return None if protocol is None else Takeover(self.context, protocol, self._record)


@implementer(IProtocol)
class Takeover:
    """Puts TLS between a socket and ``protocol`` as soon as there is a transport."""

    __slots__ = ("_context", "_protocol", "_record")

    def __init__(self, context: SSL.Context, protocol: Any, record: int) -> None:
        self._context = context
        self._record = record
        self._protocol = protocol

    def makeConnection(self, transport: Any) -> None:
        """Twisted's start: the last that ``transport`` hears of us."""
        kind = TlsUnixServer if isinstance(transport, DirectUnixServer) else TlsServer
        kind.take_over(transport, self._context, self._protocol, self._record)
        self._protocol.makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        """Not before the transport is there, and not after it."""

    def connectionLost(self, reason: Failure) -> None:
        """The same."""


def with_handshake(peer: Peer, transport: Any) -> Peer:
    """``peer`` with what the handshake has agreed on; as it was, if there was none."""
    if not isinstance(transport, _Tls):
        return peer
    handle = transport.getHandle()
    version = handle.get_protocol_version_name()
    tls = version, handle.get_cipher_name() or ""
    return evolve(peer, tls=tls, sni=handle.get_servername(), handle=handle)


def _in_pieces(
    send: Callable[[bytes | memoryview], int], record: int
) -> Callable[[bytes | memoryview], int]:
    """``send`` of records of at most so many bytes."""
    return lambda data: send(data[:record])


def _reason(error: SSL.Error) -> str:
    """OpenSSL's words for what went wrong."""
    if isinstance(error, SSL.SysCallError):
        return str(error.args[1])
    found = error.args[0] if error.args else ()
    return str(found[-1][-1]) if found else type(error).__name__
