"""Opening TCP connections without the detours of Twisted's connectors.

A peer on the same machine has mostly accepted before the call that connects returns; then the
transport is there at once.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from typing import Any, Final

from twisted.internet import tcp
from twisted.internet.error import (
    ConnectBindError,
    ConnectError,
    TimeoutError,
    getConnectError,
)
from twisted.internet.interfaces import IHalfCloseableProtocol, IWriteDescriptor
from twisted.internet.posixbase import PosixReactorBase
from twisted.python.failure import Failure
from zope.interface import implementer

from .binding import Local
from .transport import Direct, DirectServer

_NOT_YET: Final = errno.EINPROGRESS
_IP_TRANSPARENT: Final = 19
_IP_BIND_ADDRESS_NO_PORT: Final = 24
_IPV6_TRANSPARENT: Final = 75


class DirectClient(DirectServer):
    """A TCP connection that we have opened."""

    def _peer_ended(self) -> None:
        """As Twisted has it: its protocol may come to know of half-close while it is open
        (`IHalfCloseableProtocol` once the protocol has changed); before that an end is the end.
        """
        if IHalfCloseableProtocol.providedBy(self.protocol):
            Direct._peer_ended(self)
        else:
            self.drop()


@implementer(IWriteDescriptor)
class Dialling:
    """A connection that is being opened, and Twisted's connector for ``factory``."""

    def __init__(self, reactor: Any, address: tuple[str, int], factory: Any) -> None:
        self._reactor = reactor
        self._address = address
        self._factory = factory
        self._socket: socket.socket | None = None
        self._patience: Any = None

    def start(self, timeout: float, local: Local | None) -> None:
        """Begin; it may be over when this returns. ``timeout`` is in seconds."""
        try:
            number = self._connect(local)
        except ConnectBindError as error:
            self._fail(error)
            return
        except OSError as error:
            number = error.errno or errno.EIO
        if number == _NOT_YET:
            self._patience = self._reactor.callLater(timeout, self._timed_out)
            self._reactor.addWriter(self)
        elif number:
            self._fail(getConnectError((number, os.strerror(number))))
        else:
            self._made()

    def _connect(self, local: Local | None) -> int:
        host, port = self._address
        address: Any = self._address
        family = socket.AF_INET
        if ":" in host:
            found = socket.getaddrinfo(host, port, socket.AF_INET6, flags=socket.AI_NUMERICHOST)
            family, address = socket.AF_INET6, found[0][4]
        sock = self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        if local is not None:
            try:
                _prepare(sock, local)
                sock.bind((local.host, local.port))
            except OSError as error:
                raise ConnectBindError(error.errno, error.strerror) from None
        number = sock.connect_ex(address)
        if number != _NOT_YET:
            return number
        try:
            sock.getpeername()
        except OSError:
            return _NOT_YET
        return 0

    def _made(self) -> None:
        sock, self._socket = self._socket, None
        assert sock is not None
        protocol = self._factory.buildProtocol(None)
        transport = DirectClient(sock, protocol, self._address, None, 0, self._reactor)
        protocol.makeConnection(transport)

    # IWriteDescriptor

    def fileno(self) -> int:
        """The socket's."""
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        """Who logs, in Twisted's log."""
        return "Dialling"

    def doWrite(self) -> None:
        """Twisted: it is decided."""
        if self._socket is None:
            return
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._fail(getConnectError((number, os.strerror(number))))
            return
        self._forget()
        self._made()

    def connectionLost(self, reason: Failure) -> None:
        """Twisted: there is an error to be seen, or the reactor ends."""
        if self._socket is not None:
            number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            words = os.strerror(number) if number else reason.getErrorMessage()
            self._fail(getConnectError((number or errno.EIO, words)))

    def _timed_out(self) -> None:
        self._patience = None
        self._fail(TimeoutError())

    # The end

    def disconnect(self) -> None:
        """Give up; nobody is told."""
        if self._socket is not None:
            self._forget()
            sock, self._socket = self._socket, None
            sock.close()

    def _fail(self, error: ConnectError) -> None:
        self.disconnect()
        self._factory.clientConnectionFailed(self, Failure(error))

    def _forget(self) -> None:
        """The reactor has to know nothing of it any more."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self._reactor.removeWriter(self)


class BoundClient(tcp.Client):
    """Twisted's transport, maybe from a certain address (`binding.Local`)."""

    def createInternetSocket(self) -> socket.socket:
        """Twisted's socket, which is bound next."""
        sock: socket.socket = super().createInternetSocket()  # type: ignore[no-untyped-call]
        local: Local | None = self.connector.local
        if local is not None:
            _prepare(sock, local)
        return sock


def _prepare(sock: socket.socket, local: Local) -> None:
    """What has to be said before ``sock`` is bound, as nginx does. Raises `OSError`."""
    if not sys.platform.startswith("linux"):
        return
    if local.transparent and local.v6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
    elif local.transparent:
        sock.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
    if not local.port:
        # Each server has the whole range of ports.
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)


class _Connector(tcp.Connector):
    """Opens a `BoundClient` from ``local``."""

    local: Local | None = None

    def _makeTransport(self) -> BoundClient:
        make: Any = BoundClient
        made: BoundClient = make(self.host, self.port, self.bindAddress, self, self.reactor)
        return made


def connect(
    reactor: Any,
    host: str,
    port: int,
    factory: Any,
    timeout: float,
    local: Local | None = None,
    *,
    direct: bool = True,
) -> Any:
    """``reactor.connectTCP``, with a transport of ours where the reactor has sockets.

    ``host`` is a numeric address, ``local`` where to connect from, of the same family. Without
    ``direct`` Twisted writes: TLS will stand between us and the socket. ``factory.buildProtocol``
    gets no address.
    """
    bind = None if local is None else (local.host, local.port)
    if not isinstance(reactor, PosixReactorBase):
        return reactor.connectTCP(host, port, factory, timeout, bind)
    if direct:
        dialling = Dialling(reactor, (host, port), factory)
        dialling.start(timeout, local)
        return dialling
    make: Any = _Connector
    connector = make(host, port, factory, timeout, bind, reactor)
    connector.local = local
    connector.connect()
    return connector
