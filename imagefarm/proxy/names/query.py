"""One question, asked of the nameservers in turn: UDP, and TCP where the reply did not fit.

Each attempt has a socket of its own, so a port of the kernel's choice, connected to the
nameserver, and an identification by chance: that is what protects against replies made up by
others (RFC 5452). A reply that does not match is as if it had not come.
"""

from __future__ import annotations

import random
import typing
from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import ClientFactory, DatagramProtocol, Protocol, connectionDone
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure

from imagefarm.proxy.peer import Address

from . import codec
from .reply import NOT_FOUND, REFUSED, SERVER_FAILURE, TIMED_OUT, Question, Reply, Unresolved

#: How long the first attempt waits for a reply; each round of the nameservers twice as long.
FIRST_WAIT: Final = 1.0
#: The port of nameservers.
PORT: Final = 53

_entropy = random.SystemRandom()


class Ask(typing.Protocol):
    """How a resolver gets replies: `Nameservers`, or a test's."""

    def __call__(self, question: Question) -> Deferred[Reply]:
        """Fires with a whole reply of code 0 or 3 (no such name). Errs with `Unresolved`."""


class Nameservers:
    """The servers of a ``resolver`` directive: an `Ask`.

    ``reactor`` provides IReactorUDP, IReactorTCP and IReactorTime; ``timeout`` is
    ``resolver_timeout`` in seconds, for a question as a whole.
    """

    def __init__(self, reactor: Any, servers: Sequence[Address], timeout: float) -> None:
        self.reactor = reactor
        self.servers = tuple(servers)
        self.timeout = timeout
        self._turn = 0

    def __call__(self, question: Question) -> Deferred[Reply]:
        """`Ask`."""
        turn = self._turn = (self._turn + 1) % len(self.servers)
        order = self.servers[turn:] + self.servers[:turn]
        return _Asking(self.reactor, question, order, self.timeout).answer


class _Asking:
    """Attempt after attempt, until one server answers, all have failed, or time is up.

    A server that failed is not asked again; one that was silent is.
    """

    def __init__(
        self, reactor: Any, question: Question, servers: tuple[Address, ...], timeout: float
    ) -> None:
        self.answer: Deferred[Reply] = Deferred(lambda _: self._stop())
        self.reactor = reactor
        self.question = question
        self.ident = 0
        self._servers = list(servers)
        self._next = 0
        self._wait = FIRST_WAIT
        self._attempt: _Datagram | _Stream | None = None
        self._later: Any = None
        self._deadline: Any = reactor.callLater(timeout, self._fail, TIMED_OUT)
        self._ask()

    @property
    def server(self) -> Address:
        """Who is being asked."""
        return self._servers[self._next]

    def _ask(self) -> None:
        if self._next >= len(self._servers):
            self._next = 0
            self._wait *= 2
        self.ident = _entropy.getrandbits(16)
        self._later = self.reactor.callLater(self._wait, self._silent)
        self._begin(_Datagram(self))

    def _begin(self, attempt: _Datagram | _Stream) -> None:
        self._attempt = attempt
        try:
            attempt.begin()
        except (CannotListenError, OSError):
            self.refused()

    def _silent(self) -> None:
        self._later = None
        self._end_attempt()
        self._next += 1
        self._ask()

    def packet(self, packet: bytes) -> None:
        """The server of this attempt, or whoever has its address, sent a packet."""
        reply = codec.decode(packet, self.question, self.ident)
        if reply is None:
            return
        if reply.code not in (0, NOT_FOUND):
            self.refused(reply.code)
        elif not reply.truncated:
            self._stop()
            self.answer.callback(reply)
        elif isinstance(self._attempt, _Datagram):
            self._attempt.end()
            self._begin(_Stream(self))
        else:
            self.refused(SERVER_FAILURE)  # nothing is too long for TCP

    def refused(self, code: int = REFUSED) -> None:
        """The server that is being asked will not answer, or not well."""
        self._end_attempt()
        del self._servers[self._next]
        if self._servers:
            self._ask()
        else:
            self._fail(code)

    def _fail(self, code: int) -> None:
        self._stop()
        self.answer.errback(Unresolved(self.question.name, code))

    def _end_attempt(self) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.end()
        if self._later is not None:
            self._later.cancel()
            self._later = None

    def _stop(self) -> None:
        self._end_attempt()
        if self._deadline.active():
            self._deadline.cancel()


class _Datagram(DatagramProtocol):
    """An attempt over UDP. After `end` it says nothing more."""

    noisy = False

    def __init__(self, asking: _Asking) -> None:
        self._asking: _Asking | None = asking
        self._port: Any = None

    def begin(self) -> None:
        """Send the query. Raises `CannotListenError` or `OSError`."""
        asking = self._asking
        assert asking is not None
        host, port = asking.server.host, asking.server.port
        # Any address of the server's family; port 0 is the kernel's choice, by chance.
        interface = "::" if ":" in host else ""
        self._port = asking.reactor.listenUDP(0, self, interface, 65535)
        transport: Any = self.transport
        transport.connect(host, port)
        transport.write(codec.encode(asking.question, asking.ident))

    def end(self) -> None:
        """Close the socket."""
        self._asking = None
        if self._port is not None:
            self._port.stopListening()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """The kernel lets through only what comes from the server's address and port."""
        if self._asking is not None:
            self._asking.packet(datagram)

    def connectionRefused(self) -> None:
        """Nobody listens there (ICMP)."""
        if self._asking is not None:
            self._asking.refused()

    def stopProtocol(self) -> None:
        """The reactor has closed the socket, which is how epoll(7) has it see the same."""
        self.connectionRefused()


class _Stream(ClientFactory, Int16StringReceiver):
    """An attempt over TCP (RFC 1035 section 4.2.2). After `end` it says nothing more."""

    noisy = False

    def __init__(self, asking: _Asking) -> None:
        self._asking: _Asking | None = asking
        self._connector: Any = None

    def begin(self) -> None:
        """Connect, then send the query."""
        asking = self._asking
        assert asking is not None
        server = asking.server
        self._connector = asking.reactor.connectTCP(server.host, server.port, self)

    def end(self) -> None:
        """Close the connection, or give it up."""
        self._asking = None
        if self._connector is not None:
            self._connector.disconnect()

    def buildProtocol(self, addr: Any) -> Protocol:
        """There is one connection, so it is its own factory."""
        return self

    def connectionMade(self) -> None:
        """Ask again."""
        if self._asking is not None:
            query = codec.encode(self._asking.question, self._asking.ident)
            transport: Any = self.transport
            transport.write(len(query).to_bytes(2, "big") + query)

    def stringReceived(self, string: bytes) -> None:
        """A whole message."""
        if self._asking is not None:
            self._asking.packet(string)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        """Not even connected."""
        self._lost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The server hung up."""
        self._lost()

    def _lost(self) -> None:
        if self._asking is not None:
            self._asking.refused()
