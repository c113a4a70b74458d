"""``listen ... proxy_protocol``: connections that begin with a PROXY header.

The header comes in clear and before everything else, a TLS handshake too, so a small protocol of
its own reads it and then gives its place on the transport to what speaks from there on.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from .factory import HttpFactory
from .proxy_protocol import BadProxyHeader, ProxyHeader, ProxyHeaderParser
from .timers import NEVER

_log: Final = Logger()


class ProxiedAddress(NamedTuple):
    """Where a connection comes from, and what its PROXY header said."""

    host: str | None
    port: int
    proxy: ProxyHeader


@implementer(IProtocolFactory)
class ProxiedFactory:
    """Makes connections that read a PROXY header first.

    ``http`` counts them, and times them out after ``client_header_timeout``. ``then`` makes the
    protocol that follows: ``http`` itself, or a TLS factory around it.
    """

    def __init__(self, http: HttpFactory, then: Any) -> None:
        self.http = http
        self.then = then
        #: TLS reads the socket itself: no more than the header may be taken off it.
        self.peeks = then is not http

    def __repr__(self) -> str:
        return f"<ProxiedFactory {self.http!r}>"

    def doStart(self) -> None:
        """Twisted: a port uses the factory."""

    def doStop(self) -> None:
        """Twisted: no port uses it any more."""

    def buildProtocol(self, address: Any) -> ProxiedConnection | None:
        """A connection from ``address``, as `HttpFactory.buildProtocol` takes it."""
        if not self.http.admit():
            return None
        connection = ProxiedConnection(self, address)
        self.http.connections.add(connection)
        return connection


@implementer(IProtocol)
class ProxiedConnection:
    """A connection whose PROXY header has not come yet."""

    __slots__ = ("_address", "_factory", "_parser", "deadline", "slot", "transport")

    #: For ``stub_status``, `http.parking` and `http.places`: see `HttpConnection`.
    phase = "reading"
    idle_since = waiting_since = NEVER

    def __init__(self, factory: ProxiedFactory, address: Any) -> None:
        self._factory = factory
        self._address = address
        self._parser: ProxyHeaderParser | None = ProxyHeaderParser()
        self.transport: Any = None
        self.deadline = NEVER
        self.slot = -1

    def __repr__(self) -> str:
        return f"<ProxiedConnection {self._client} {self._parser!r}>"

    @property
    def _client(self) -> str:
        return getattr(self._address, "host", None) or "unix:"

    def makeConnection(self, transport: Any) -> None:
        """Twisted's start."""
        self.transport = transport
        http = self._factory.http
        http.wheel.schedule(self, http.client_header_timeout)
        if self._factory.peeks:
            transport.peek(True)

    def dataReceived(self, data: bytes) -> None:
        """The header, or a piece of it, and maybe what follows."""
        if self._parser is None:
            return
        try:
            result = self._parser.feed(data)
        except BadProxyHeader as error:
            self._say("error", str(error))
            self._close()
            return
        rest = b"" if result is None else result[1]
        if self._factory.peeks:
            self.transport.take(len(data) - len(rest))
        if result is not None:
            self._give_way(*result)

    def _give_way(self, header: ProxyHeader, rest: bytes) -> None:
        http, transport = self._factory.http, self.transport
        if self._factory.peeks:
            transport.peek(False)
            rest = b""
        http.wheel.remove(self)
        http.give_up_place(self)
        self._parser = None
        host = getattr(self._address, "host", None)
        port = 0 if host is None else self._address.port
        protocol = self._factory.then.buildProtocol(ProxiedAddress(host, port, header))
        transport.protocol = protocol
        protocol.makeConnection(transport)
        if rest:
            protocol.dataReceived(rest)

    def connectionLost(self, reason: Failure) -> None:
        """Twisted's end."""
        self._parser = None
        self._factory.http.wheel.remove(self)
        self._factory.http.connection_lost(self)

    def timed_out(self) -> None:
        """The wheel: the header has not come in time."""
        self._say("info", "client timed out (110: Connection timed out)")
        self._close()

    def drain(self, parting: float) -> None:
        """The server stops: nothing has been asked yet."""
        if parting:
            self._factory.http.wheel.schedule(self, parting)
        else:
            self._close()

    def abort(self) -> None:
        """Break off."""
        self._parser = None
        self.transport.abortConnection()

    def _close(self) -> None:
        self._parser = None
        self._factory.http.wheel.remove(self)
        self.transport.loseConnection()

    def _say(self, level: str, text: str) -> None:
        """A line of the error log in nginx's words."""
        emit = _log.error if level == "error" else _log.info
        emit(
            "{text} while reading PROXY protocol, client: {client}, server: {server}",
            text=text, client=self._client, server=_text(self._factory.http.server),
        )  # fmt: skip


def _text(server: tuple[str, int]) -> str:
    host, port = server
    if host.startswith("unix:"):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host or '0.0.0.0'}:{port}"
