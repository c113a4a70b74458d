"""Server transports that write at once and send files with sendfile.

Twisted's ``write`` only queues: two ``epoll_ctl`` calls and one more turn of the loop for each
response. `listen` makes ports whose connections are ours instead.
"""

from __future__ import annotations

import _socket
import fcntl
import math
import os
import select
import socket
import struct
import sys
import termios
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from attrs import evolve
from twisted.internet import tcp, unix
from twisted.internet.address import IPv6Address
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure

from .message import Peer
from .polling import forget, watch

#: Connections accepted in one turn of the loop.
ACCEPTS: Final = 64
#: After so many turns with as many connections as were asked for, twice as many are.
_FULL_TURNS: Final = 8
#: Bytes read at once.
READ_SIZE: Final = 65536
#: The part of ``struct tcp_info`` that is of interest: 8 bytes, 23 words.
_TCP_INFO: Final = struct.Struct("=8x23I")
#: ``struct ucred``: process, user, group.
_CREDENTIALS: Final = struct.Struct("=iII")

# linux/in.h, linux/in6.h; Python does not name them all.

_DONE: Final = Failure(CONNECTION_DONE)
_log: Final = Logger()


class FileTransport(Protocol):
    """What the sender needs to pass a file to the kernel."""

    def write_more(self, data: bytes) -> None:
        """Write, and say that more follows at once."""

    def send_file(self, fd: int, offset: int, count: int) -> int | None:
        """Send up to ``count`` bytes of a file now.

        0 is the end of the file, None means to wait with `when_writable`. Raises `OSError`.
        """

    def when_writable(self, callback: Callable[[], None]) -> None:
        """Call back once, when all that was written has been sent and more can be."""


class Direct:
    """The mixin: before ``tcp.Server`` or ``unix.Server``.

    ``written`` counts the bytes that have reached the socket, so that a timeout can tell a slow
    reader from one that has stopped.
    """

    #: Whether it can send files.
    plain = True
    written = 0
    #: When the socket last took some of what had to wait, or first refused more, by the reactor's
    #: clock.
    moved = 0.0
    _on_writable: Callable[[], None] | None = None
    _flags = 0
    # What we use of Twisted's FileDescriptor.
    socket: socket.socket
    dataBuffer: bytes
    connected: int
    disconnected: int
    disconnecting: int
    producer: Any
    fileno: Callable[[], int]
    _tempDataLen: int
    _writeDisconnected: bool
    _writeDisconnecting: bool
    protocol: Any
    reactor: Any
    loseConnection: Callable[[], None]
    loseWriteConnection: Callable[[], None]
    startWriting: Callable[[], None]
    stopReading: Callable[[], None]
    stopWriting: Callable[[], None]

    @property
    def taken(self) -> int:
        """How many of the bytes written the client's system has acknowledged."""
        try:
            waiting = fcntl.ioctl(self.socket.fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:
            return self.written
        return self.written - int.from_bytes(waiting, sys.byteorder)

    @property
    def _queued(self) -> bool:
        return bool(self.dataBuffer or self._tempDataLen)

    def _send(self, data: bytes, flags: int) -> bytes:
        """Send what goes out now; the rest comes back."""
        if self.dataBuffer or self._tempDataLen or not self.connected:
            return data
        if self._writeDisconnected or self.disconnecting:
            return data
        try:
            sent = self.socket.send(data, flags)
        except OSError:
            sent = 0  # would block; or broken, and the queue's writer will find out
        self.written += sent
        if sent == len(data):
            return b""
        self.moved = self.reactor.seconds()
        return data[sent:]

    def read_ready(self) -> None:
        """The loop: there is something to read. Never raises (`process.loop`)."""
        try:
            data = self.socket.recv(READ_SIZE, self._flags)
        except BlockingIOError:
            return
        except OSError:
            self.reactor._disconnectSelectable(self, CONNECTION_LOST, True)
            return
        if not data:
            self._peer_ended()
            return
        try:
            self.protocol.dataReceived(data)
        except Exception:
            _log.failure("while reading from {transport!r}", transport=self)
            self.reactor._disconnectSelectable(self, CONNECTION_LOST, True)

    def _peer_ended(self) -> None:
        self.reactor._disconnectSelectable(self, CONNECTION_DONE, True)

    def doRead(self) -> None:
        """Twisted: there is something to read."""
        self.read_ready()

    def peek(self, on: bool) -> None:
        """Whether the protocol is shown what has come, and is to `take` what it has used."""
        self._flags = socket.MSG_PEEK if on else 0

    def take(self, count: int) -> None:
        """Drop so many of the bytes that were shown."""
        self.socket.recv(count)

    def close_now(self) -> None:
        """Close at once if everything has been sent, else as soon as it has."""
        if self._queued or self._on_writable is not None:
            self.loseConnection()
            return
        self.connectionLost(_DONE)

    def unread(self) -> bool:
        """Whether the loop is late with bytes or an end that have come."""
        poller = select.poll()
        poller.register(self.fileno(), select.POLLIN)
        return bool(poller.poll(0))

    def leave(self) -> Any:
        """Give the socket away and act as closed; None while there is something to do with it."""
        waits = self._queued or self._on_writable is not None or self._writeDisconnecting
        if waits or self.disconnecting or not self.connected or self.unread():
            return None
        sock = self.socket
        self.stopReading()
        self.stopWriting()
        self.connected, self.disconnected = 0, 1
        self.producer = None
        del self.protocol, self.socket, self.fileno
        return sock

    def write(self, data: bytes) -> None:
        """Send at once what goes out, and queue the rest."""
        data = self._send(data, 0)
        if data:
            super().write(data)  # type: ignore[misc]

    def write_more(self, data: bytes) -> None:
        """See `FileTransport`."""
        data = self._send(data, socket.MSG_MORE)
        if data:
            super().write(data)  # type: ignore[misc]

    def send_file(self, fd: int, offset: int, count: int) -> int | None:
        """See `FileTransport`."""
        if self._queued:
            return None
        try:
            sent = os.sendfile(self.socket.fileno(), fd, offset, count)
        except BlockingIOError:
            self.moved = self.reactor.seconds()
            return None
        self.written += sent
        return sent

    def when_writable(self, callback: Callable[[], None]) -> None:
        """See `FileTransport`."""
        self._on_writable = callback
        self.startWriting()

    def writeSomeData(self, data: bytes) -> Any:
        """Twisted: send what goes out; how much it was, or why none ever will."""
        sent = super().writeSomeData(data)  # type: ignore[misc]
        if isinstance(sent, int):
            self.written += sent
        return sent

    def drop(self) -> None:
        """Close at once, but without a reset; what has not reached the socket never does."""
        if self.connected:
            self.connectionLost(_DONE)

    def doWrite(self) -> Any:
        """Twisted: more can be sent."""
        if not self.connected:
            return None  # reading, in the same event, has ended it
        self.moved = self.reactor.seconds()
        if self._on_writable is None or self._queued:
            result = super().doWrite()  # type: ignore[misc]
            if self._on_writable is not None and not self._queued and result is None:
                self.startWriting()  # the queue's writer has stopped it
            return result
        callback, self._on_writable = self._on_writable, None
        callback()
        waits = self._on_writable is not None or self._queued
        if not waits and not self.disconnecting and not self._writeDisconnecting:
            self.stopWriting()
        return None

    def connectionLost(self, reason: Any) -> None:
        """Twisted: it is over."""
        self._on_writable = None
        super().connectionLost(reason)  # type: ignore[misc]


class Accepted(Direct):
    """The mixin for connections that are accepted, whose protocols are our own."""

    def _peer_ended(self) -> None:
        """What Twisted does, without asking zope.interface what the protocol's class tells."""
        ended = getattr(self.protocol, "readConnectionLost", None)
        if ended is None:
            super()._peer_ended()
            return
        self.stopReading()
        try:
            ended()
        except Exception:
            _log.failure("at the end of what {transport!r} reads", transport=self)
            self.connectionLost(Failure(CONNECTION_LOST))


class DirectServer(Accepted, tcp.Server):
    """A TCP connection. Made without the two strings that Twisted prepares for logs."""

    def __init__(
        self, sock: Any, protocol: Any, client: Any, server: Any, sessionno: int, reactor: Any
    ) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._tempDataLen = 0
        self.fileno = sock.fileno
        self.protocol = protocol
        self.reactor = reactor
        self.server = server
        self.client = client
        self.sessionno = sessionno
        self.hostname = client[0]
        self._tempDataBuffer = []
        if len(client) != 2:
            self._addressType = IPv6Address
        watch(reactor, sock.fileno(), self)
        self.connected = 1

    def connectionLost(self, reason: Any) -> None:
        """Twisted: it is over. The usual end is done here, in fewer steps.

        Twisted's shutdown before the close is for sockets that other processes have, too.
        """
        if reason is not _DONE:
            super().connectionLost(reason)
            return
        self._on_writable = None
        self.disconnected, self.connected = 1, 0
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        protocol, sock = self.protocol, self.socket
        forget(self.reactor, sock.fileno(), self)
        sock.close()
        del self.protocol, self.socket, self.fileno
        protocol.connectionLost(reason)

    def logPrefix(self) -> str:
        """Who logs, in Twisted's log."""
        return f"{type(self.protocol).__name__},{self.sessionno},{self.hostname}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} #{self.sessionno} from {self.hostname}>"


class ClientAddress(NamedTuple):
    """Where a connection comes from: what factories look at, for less than an IAddress costs."""

    host: str
    port: int


class DirectPort(tcp.Port):
    """A listening TCP socket. Accepts up to `ACCEPTS` connections in a turn."""

    transport = DirectServer
    _expected = 1
    _full = 0
    _complained = -math.inf

    def read_ready(self) -> None:
        """The loop: somebody connects. Never raises (`process.loop`)."""
        try:
            self.doRead()
        except Exception:
            _log.failure("while accepting on {port!r}", port=self)

    def doRead(self) -> None:
        """Accept what there is.

        To ask once more than there are connections costs as much as one of them, so one is asked
        for in a turn, as in nginx, and more only when there have been more for some time. The rest
        comes in the next turn.
        """
        factory: Any = self.factory
        listener: Any = self.socket
        accept, family = listener._accept, self.addressFamily
        for number in range(self._expected):
            try:
                fd, client = accept()
            except BlockingIOError:
                self._expected, self._full = max(1, number), 0
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._complain(error)
                tcp.Port.doRead(self)  # out of descriptors: Twisted knows what to do
                return
            protocol = factory.buildProtocol(ClientAddress(client[0], client[1]))
            if protocol is None:
                os.close(fd)
                continue
            # The standard library's class around it gives names to numbers and counts users.
            sock = _socket.socket(family, socket.SOCK_STREAM, 0, fd)
            self.sessionno += 1
            transport = DirectServer(sock, protocol, client, self, self.sessionno, self.reactor)
            protocol.makeConnection(transport)
        self._full += 1
        if self._full >= _FULL_TURNS:
            self._expected, self._full = min(2 * self._expected, ACCEPTS), 0

    def _complain(self, error: OSError) -> None:
        """nginx's line (``ngx_event_accept``), once a second."""
        now = self.reactor.seconds()
        if now - self._complained >= 1:
            self._complained = now
            _log.critical(
                "accept4() failed ({number}: {reason})",
                number=error.errno, reason=error.strerror, severity="crit",
            )  # fmt: skip


class DirectUnixServer(Accepted, unix.Server):
    """A Unix socket's connection."""


class DirectUnixPort(unix.Port):
    """A listening Unix socket. Whoever made it removes its path, not each that serves on it."""

    transport = DirectUnixServer

    def connectionLost(self, reason: Any) -> None:
        """The port is closed."""
        tcp.Port.connectionLost(self, reason)


def listen(reactor: Any, sock: socket.socket, factory: Any, *, nodelay: bool = True) -> Any:
    """Serve on a listening socket (TCP or Unix), of which a duplicate is made.

    ``factory`` makes the connections; for TLS wrap it in a `tls_transport.TlsFactory`.
    ``nodelay`` is ``tcp_nodelay``. Returns the Twisted port.
    """
    port: Any
    tcp_port: Any = DirectPort
    unix_port: Any = DirectUnixPort
    if sock.family == socket.AF_UNIX:
        port = unix_port._fromListeningDescriptor(reactor, sock.fileno(), factory)
    else:
        # Connections inherit it.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(nodelay))
        port = tcp_port._fromListeningDescriptor(reactor, sock.fileno(), sock.family, factory)
    port.startListening()
    return port


class _OwnEnd:
    """`message.Socket` of a transport. The address is asked at once: later it may be closed."""

    __slots__ = ("_socket", "address")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        # An address of a link has a scope ("fe80::1%eth0"), which nginx does not print.
        self.address: str = sock.getsockname()[0].partition("%")[0]

    def tcp_info(self) -> tuple[int, ...] | None:
        """``getsockopt(TCP_INFO)``, but for the bytes that it begins with."""
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            return _TCP_INFO.unpack(info)
        except (OSError, struct.error):
            return None


def _user(sock: socket.socket) -> int | None:
    """Who connected to a Unix socket (unix(7), SO_PEERCRED)."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    found: tuple[int, int, int] = _CREDENTIALS.unpack(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return found[1]


def with_socket(peer: Peer, transport: Any) -> Peer:
    """``peer`` with what the socket of ``transport`` can tell."""
    sock = getattr(transport, "socket", None)
    if sock is None:
        return peer
    try:
        if sock.family == socket.AF_UNIX:
            return evolve(peer, uid=_user(sock))
        return evolve(peer, socket=_OwnEnd(sock))
    except OSError:
        return peer  # the client has gone already


def last_moved(transport: Any) -> float:
    """When ``transport`` has last taken some of what waits to be sent; 0 if it can't tell."""
    moved: float = getattr(transport, "moved", 0.0)
    return moved


#: Transports and ports whose readable events are for ``read_ready`` (`process.loop`).
LEAN: Final = (DirectServer, DirectUnixServer, DirectPort)
