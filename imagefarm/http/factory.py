"""What makes connections: one factory for each listening socket."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocolFactory
from zope.interface import implementer

from imagefarm import __version__

from .connection import HttpConnection
from .message import Application, ForwardedPeer, Peer, TransferSettings
from .parking import ParkingLot
from .parser import Limits, NamedLimits
from .places import Places
from .plans import Plans
from .requestid import Naming
from .serializer import Serializer
from .timers import Clock, TimerWheel


class Connection(Protocol):
    """What the factory needs of its connections."""

    @property
    def phase(self) -> str:
        """``reading``, ``writing`` or ``waiting``."""

    @property
    def idle_since(self) -> float:
        """When it began to wait for a request, if it could be parked now, else NEVER."""

    @property
    def waiting_since(self) -> float:
        """When it began to wait for a request; NEVER if it does something else."""

    def drain(self, parting: float) -> None:
        """The server stops: close if idle for ``parting`` more seconds, else after the answer."""

    def abort(self) -> None:
        """Break off."""


@implementer(IProtocolFactory)
class HttpFactory:
    """A Twisted factory of `HttpConnection`.

    ``server`` names the listening socket as it was configured (`Peer.server`); ``secure`` says
    that it speaks TLS. ``transfer`` and ``limits`` are the default server's, in force until a
    request's own are known; ``client_header_timeout`` is in seconds; ``named`` is there where
    other servers have other limits. Factories of one process
    share the ``wheel`` and the ``serials`` that number connections. ``now`` is the time of day.
    ``places`` are the process's: who finds none is closed as it comes.
    ``asks_socket`` says that requests need `Peer.socket`.
    """

    def __init__(
        self,
        app: Application,
        clock: Clock,
        *,
        server: tuple[str, int],
        secure: bool = False,
        transfer: TransferSettings | None = None,
        limits: Limits | None = None,
        client_header_timeout: float = 60.0,
        named: NamedLimits | None = None,
        wheel: TimerWheel | None = None,
        serials: Iterator[int] | None = None,
        now: Callable[[], float] = time.time,
        places: Places | None = None,
        asks_socket: bool = False,
        asks_time: bool = False,
        naming: Naming | None = None,
    ) -> None:
        self.app = app
        self.clock = clock
        self.server = server
        self.secure = secure
        self.transfer = transfer or TransferSettings()
        self.limits = limits or Limits()
        self.client_header_timeout = client_header_timeout
        self.named = named
        self.wheel = wheel or TimerWheel(clock)
        self.serializer = Serializer(b"imagefarm", __version__.encode())
        self.now = now
        self.places = places or Places(0, clock.seconds)
        self.places.count_too(self)
        self.asks_socket = asks_socket
        #: Whether peers are to know when they came.
        self.asks_time = asks_time
        #: How the request id is found in the bytes of a request, where one is believed.
        self.naming = naming
        self.plans = Plans()
        self._second = 0
        self.connections: set[Connection] = set()
        #: The idle ones beyond a number; they are not among ``connections``.
        self.parked = ParkingLot(self)
        #: Connections that came, and those of them that were turned away.
        self.accepted = 0
        self.refused = 0
        #: Whether the server is stopping: no connection outlives its answer.
        self.draining = False
        self._serials = serials or itertools.count(1)
        self._drained: list[Deferred[None]] = []

    def __repr__(self) -> str:
        return f"<HttpFactory {self.server[0]}:{self.server[1]} {self.count}>"

    @property
    def count(self) -> int:
        """How many connections there are."""
        return len(self.connections) + len(self.parked)

    def doStart(self) -> None:
        """Twisted: a port uses the factory."""

    def doStop(self) -> None:
        """Twisted: no port uses it any more; its connections live on until they are drained."""

    def buildProtocol(self, address: Any) -> HttpConnection | None:
        """A connection from ``address``: IPv4Address, IPv6Address, UNIXAddress; `ProxiedAddress`
        where a PROXY header has been read.
        """
        if not self.admit():
            return None
        host = getattr(address, "host", None)
        name = "unix:" if host is None else host
        port = 0 if host is None else address.port
        proxy = getattr(address, "proxy", None)
        if proxy is None:
            peer = Peer(name, port, self.server, next(self._serials))
        else:
            peer = ForwardedPeer(name, port, self.server, next(self._serials), proxy=proxy)
        if self.asks_time:
            peer.opened = self.now()
        connection = HttpConnection(self, peer)
        self.connections.add(connection)
        if len(self.connections) > self.parked.awake:
            self.parked.make_room()
        return connection

    def admit(self) -> bool:
        """Count a connection that has come; False if there is no place for it."""
        self.accepted += 1
        if not self.places.free():
            self.refused += 1
            return False
        return True

    def give_up_place(self, connection: Connection) -> None:
        """``connection`` goes on as the one that is built next, and is not counted twice."""
        self.connections.discard(connection)
        self.accepted -= 1

    def second(self) -> int:
        """The time of day in whole seconds: one object for all who ask within a second."""
        second = int(self.now())
        if second != self._second:
            self._second = second
        return self._second

    def connection_lost(self, connection: Connection) -> None:
        """For a connection: it is gone."""
        self.connections.discard(connection)
        self.left()

    def left(self) -> None:
        """For the parked ones too: it is gone."""
        if self.connections:
            return
        self.parked.forget_candidates()
        if not self.parked:
            waiting, self._drained = self._drained, []
            for deferred in waiting:
                deferred.callback(None)

    def states(self) -> tuple[int, int, int]:
        """How many connections read a request, are being answered, and wait for a request.

        nginx's Reading, Writing and Waiting.
        """
        phases = [connection.phase for connection in self.connections]
        waiting = phases.count("waiting") + len(self.parked)
        return phases.count("reading"), phases.count("writing"), waiting

    def drain(self, parting: float = 0.0) -> Deferred[None]:
        """Finish gracefully: idle connections close, busy ones after their answer.

        A client may be sending when we close: what comes within ``parting`` seconds is answered.
        Fires when the last one is gone. Stop listening first.
        """
        self.draining = True
        if parting:
            self.parked.part(parting)
        else:
            self.parked.doRead()  # who has sent something is not idle
            self.parked.clear()
        for connection in tuple(self.connections):
            connection.drain(parting)
        if not self.count:
            return succeed(None)
        deferred: Deferred[None] = Deferred()
        self._drained.append(deferred)
        return deferred

    def abort(self) -> None:
        """Break all connections off (nginx's fast shutdown)."""
        self.parked.clear()
        for connection in tuple(self.connections):
            connection.abort()
