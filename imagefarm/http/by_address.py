"""One socket for several addresses.

Where a server listens on all addresses of a port, nginx binds that one socket only; ``listen``
of a single address on the same port is told apart by where the connection has come to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IProtocolFactory)
class ByAddress:
    """Leaves a connection to the factory of its local address, or to ``default``.

    ``others`` has the factories by address, as ``getsockname`` prints it.
    """

    def __init__(self, default: Any, others: Mapping[str, Any]) -> None:
        self.default = default
        self.others = dict(others)

    def __repr__(self) -> str:
        return f"<ByAddress {self.default!r} {self.others!r}>"

    def doStart(self) -> None:
        """Twisted: a port uses the factory."""

    def doStop(self) -> None:
        """Twisted: no port uses it any more."""

    def buildProtocol(self, address: Any) -> Arrival:
        """A connection from ``address``."""
        return Arrival(self, address)


@implementer(IProtocol)
class Arrival:
    """A connection whose local address is asked as soon as there is a transport."""

    __slots__ = ("_address", "_factory")

    def __init__(self, factory: ByAddress, address: Any) -> None:
        self._factory = factory
        self._address = address

    def makeConnection(self, transport: Any) -> None:
        """Twisted's start: give way to the protocol of the address."""
        # An address of a link has a scope ("fe80::1%eth0"), which "listen" does not name.
        local = transport.socket.getsockname()[0].partition("%")[0]
        factory = self._factory.others.get(local, self._factory.default)
        protocol = factory.buildProtocol(self._address)
        if protocol is None:
            transport.loseConnection()
            return
        transport.protocol = protocol
        protocol.makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        """Nothing comes before the transport is there, nor after it was turned away."""

    def connectionLost(self, reason: Failure) -> None:
        """Turned away."""
