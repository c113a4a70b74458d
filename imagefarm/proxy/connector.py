"""Opening a connection to a peer."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, TimeoutError
from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.python.failure import Failure

from imagefarm.http.upstream import ExchangeRules, Fault, UpstreamConnection, UpstreamError

from .peer import Address


class _Handover(Protocol):
    """Tells when the transport is there, and leaves it to the connection.

    Twisted's transports look their ``protocol`` up for each event, so that nothing stays in
    between afterwards (endpoints keep a wrapper there).
    """

    def __init__(self, connecting: Connecting) -> None:
        self._connecting = connecting

    def connectionMade(self) -> None:
        connection: Any = self._connecting.rules.connection()
        transport: Any = self.transport
        if self._connecting.rules.socket_keepalive and hasattr(transport, "setTcpKeepAlive"):
            transport.setTcpKeepAlive(True)
        transport.protocol = connection
        connection.makeConnection(transport)
        self._connecting.connected(connection)


class Connecting(ClientFactory):
    """One attempt to connect; fires with the `UpstreamConnection`, errs with `UpstreamError`.

    The limit is ``rules.timeouts.connect``.
    """

    noisy = False

    def __init__(self, reactor: Any, address: Address, rules: ExchangeRules) -> None:
        self.rules = rules
        self._reactor = reactor
        self._address = address
        self._connector: Any = None
        self._done: Deferred[UpstreamConnection] | None = None

    def start(self) -> Deferred[UpstreamConnection]:
        """Begin."""
        done: Deferred[UpstreamConnection] = Deferred(self._cancelled)
        self._done = done
        address, timeout = self._address, self.rules.timeouts.connect
        if address.path:
            self._connector = self._reactor.connectUNIX(address.path, self, timeout)
        else:
            self._connector = self._reactor.connectTCP(address.host, address.port, self, timeout)
        return done

    def buildProtocol(self, addr: IAddress | None = None) -> Protocol:
        """`ClientFactory`."""
        return _Handover(self)

    def connected(self, connection: UpstreamConnection) -> None:
        """The connection is ready."""
        done, self._done = self._done, None
        if done is None:
            connection.abort()
        else:
            done.callback(connection)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """`ClientFactory`."""
        done, self._done = self._done, None
        if done is not None:
            done.errback(_error(reason.value))

    def _cancelled(self, done: Deferred[UpstreamConnection]) -> None:
        self._done = None
        if self._connector is not None:
            self._connector.disconnect()


def _error(error: BaseException | None) -> UpstreamError:
    """nginx's words for a connection that could not be made."""
    doing = "while connecting to upstream"
    if isinstance(error, TimeoutError):
        words = f"upstream timed out (110: Connection timed out) {doing}"
        return UpstreamError(Fault.TIMEOUT, words, unsent=True)
    number = error.osError if isinstance(error, ConnectError) else None
    why = f"{number}: {os.strerror(number)}" if isinstance(number, int) else str(error)
    return UpstreamError(Fault.CONNECT, f"connect() failed ({why}) {doing}", unsent=True)
