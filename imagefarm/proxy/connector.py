"""Opening a connection to a peer."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectBindError, ConnectError, TimeoutError
from twisted.internet.interfaces import IAddress, IConnector, IHandshakeListener
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from imagefarm.http.binding import Local
from imagefarm.http.dial import connect
from imagefarm.http.upstream import ExchangeRules, Fault, UpstreamConnection, UpstreamError

from .peer import Address
from .tls_client import Handshake, TlsClient

_HANDSHAKING: Final = "SSL handshaking to upstream"


class _Handover(Protocol):
    """Tells when the transport is there, and leaves it to the connection.

    Twisted's transports look their ``protocol`` up for each event, so that nothing stays in
    between afterwards (endpoints keep a wrapper there).
    """

    transport: Any

    def __init__(self, connecting: Connecting) -> None:
        self.connecting = connecting

    def connectionMade(self) -> None:
        if self.connecting.rules.socket_keepalive and hasattr(self.transport, "setTcpKeepAlive"):
            self.transport.setTcpKeepAlive(True)
        self.begin()

    def begin(self) -> None:
        """The transport is there."""
        self.hand_over(self.transport, "protocol")

    def hand_over(self, holder: Any, name: str) -> None:
        """Let the connection take our place, which is ``holder``'s ``name``."""
        connection: Any = self.connecting.rules.connection()
        setattr(holder, name, connection)
        connection.makeConnection(self.transport)
        self.connecting.connected(connection)


@implementer(IHandshakeListener)
class _SecureHandover(_Handover):
    """The same after a TLS handshake that has shown the right server.

    As in nginx the handshake may take as long as the connecting (``connect_timeout``).
    """

    def __init__(self, connecting: Connecting, handshake: Handshake) -> None:
        super().__init__(connecting)
        self._handshake = handshake
        self._failure: str | None = None
        self._patience: Any = None

    def begin(self) -> None:
        connecting = self.connecting
        self._patience = connecting.reactor.callLater(
            connecting.rules.timeouts.connect, self._timed_out
        )
        connecting.cancel = self.transport.abortConnection
        self.transport.startTLS(self._handshake.creator)

    def handshakeCompleted(self) -> None:
        """`IHandshakeListener`."""
        self._failure = self._handshake.problem()
        if self._failure is not None:
            self.transport.abortConnection()
            return
        self._patience.cancel()
        self.hand_over(self.transport.protocol, "wrappedProtocol")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._patience.active():
            self._patience.cancel()
        words = self._failure or _handshake_words(reason.value)
        self.connecting.failed(
            UpstreamError(Fault.CONNECT, f"{words} while {_HANDSHAKING}", unsent=True)
        )

    def _timed_out(self) -> None:
        words = f"upstream timed out (110: Connection timed out) while {_HANDSHAKING}"
        self.connecting.failed(UpstreamError(Fault.TIMEOUT, words, unsent=True))
        self.transport.abortConnection()


class Connecting(ClientFactory):
    """One attempt to connect; fires with the `UpstreamConnection`, errs with `UpstreamError`.

    The limit is ``rules.timeouts.connect``. It comes from ``local``, if that is given.
    """

    noisy = False

    def __init__(
        self, reactor: Any, address: Address, rules: ExchangeRules, local: Local | None = None
    ) -> None:
        self.rules = rules
        self._local = local
        self.reactor = reactor
        self._address = address
        #: Ends what is under way.
        self.cancel: Callable[[], object] = lambda: None
        self._done: Deferred[UpstreamConnection] | None = None

    def start(self) -> Deferred[UpstreamConnection]:
        """Begin."""
        done: Deferred[UpstreamConnection] = Deferred(self._cancelled)
        self._done = done
        address, timeout = self._address, self.rules.timeouts.connect
        local, direct = self._local, self.rules.tls is None
        if local is not None and (number := _unlike(local, address)):
            self.failed(_unbound(local, number))
        elif address.path:
            connector = self.reactor.connectUNIX(address.path, self, timeout)
            self.cancel = connector.disconnect
        else:
            connector = connect(
                self.reactor, address.host, address.port, self, timeout, local, direct=direct
            )
            self.cancel = connector.disconnect
        return done

    def buildProtocol(self, addr: IAddress | None = None) -> Protocol:
        """`ClientFactory`."""
        tls: TlsClient | None = self.rules.tls
        if tls is None:
            return _Handover(self)
        return _SecureHandover(self, tls.open(self._address))

    def connected(self, connection: UpstreamConnection) -> None:
        """The connection is ready."""
        done, self._done = self._done, None
        if done is None:
            connection.abort()
        else:
            done.callback(connection)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """`ClientFactory`."""
        error = _error(reason.value, self._local)
        error.__cause__ = reason.value
        self.failed(error)

    def failed(self, error: UpstreamError) -> None:
        """There will be no connection."""
        done, self._done = self._done, None
        if done is not None:
            done.errback(error)

    def _cancelled(self, done: Deferred[UpstreamConnection]) -> None:
        self._done = None
        self.cancel()


def _error(error: BaseException | None, local: Local | None) -> UpstreamError:
    """nginx's words for a connection that could not be made."""
    doing = "while connecting to upstream"
    if isinstance(error, TimeoutError):
        words = f"upstream timed out (110: Connection timed out) {doing}"
        return UpstreamError(Fault.TIMEOUT, words, unsent=True)
    number = error.osError if isinstance(error, ConnectError) else None
    if local is not None and isinstance(error, ConnectBindError):
        return _unbound(local, number or 0)
    why = f"{number}: {os.strerror(number)}" if isinstance(number, int) else str(error)
    return UpstreamError(Fault.CONNECT, f"connect() failed ({why}) {doing}", unsent=True)


def _unlike(local: Local, address: Address) -> int:
    """What bind() would say of an address of another family than the socket's; 0 if it is not."""
    if address.path:
        return errno.EINVAL
    if local.v6 == (":" in address.host):
        return 0
    return errno.EAFNOSUPPORT if local.v6 else errno.EINVAL


def _unbound(local: Local, number: int) -> UpstreamError:
    """nginx's words for a local address that can't be had."""
    call = f"bind({local.name})"
    if local.transparent and number == errno.EPERM:
        call = f"setsockopt({'IPV6' if local.v6 else 'IP'}_TRANSPARENT)"
    words = f"{call} failed ({number}: {os.strerror(number)}) while connecting to upstream"
    return UpstreamError(Fault.LOCAL, words, unsent=True)


def _handshake_words(error: BaseException | None) -> str:
    """nginx's words for a handshake that did not come to its end."""
    if isinstance(error, SSL.Error) and error.args and error.args[0]:
        reasons = ", ".join(entry[-1] for entry in error.args[0])
        return f"SSL_do_handshake() failed (SSL: {reasons})"
    return "peer closed connection in SSL handshake"
