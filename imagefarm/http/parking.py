"""Connections that wait for a request, parked: a descriptor and a few bytes each.

A connection and its transport take some two kilobytes, which is much for one that does nothing.
A factory with many of them takes the idle ones apart and keeps what makes them again; their
descriptors are watched by an epoll of their own, which the reactor sees as one readable thing.
When a client asks again its connection is made anew, and nobody can tell the difference.

Up to `AWAKE` connections are left in peace, so that a server with few clients, or many busy
ones, has no work with it. Beyond that each one that comes makes room for itself.
"""

from __future__ import annotations

import math
import os
import select
import socket
import struct
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from .connection import HttpConnection
from .message import Peer
from .timers import NEVER
from .transport import READ_SIZE, DirectServer

if TYPE_CHECKING:
    from .factory import HttpFactory

#: So many connections of a factory stay as they are, idle or not.
AWAKE: Final = 256
#: Seconds that a connection has been idle before it is parked, if it has asked once, and if it
#: has come back: that one may be busy, with a little rest because there are many like it.
REST: Final = 0.05
LONG_REST: Final = 0.5
#: Connections looked at for each one that comes or wakes up, and at each tick of the wheel.
LOOKS: Final = 4
TICK_LOOKS: Final = 128
#: Connections woken up in one turn of the loop. It takes as many events of others as there are.
EVENTS: Final = 512

# The serial number, when it was opened, requests so far; port, flow and scope of the client;
# its address follows as text.
_RECORD: Final = struct.Struct("=QQIHII")

_log: Final = Logger()


class Shelf:
    """Parked connections whose time is over at the same tick of the wheel."""

    __slots__ = ("_lot", "deadline", "number", "records", "slot")

    def __init__(self, lot: ParkingLot, number: int) -> None:
        self._lot = lot
        self.number = number
        self.records: dict[int, bytes] = {}
        self.deadline = NEVER
        self.slot = -1

    def __repr__(self) -> str:
        return f"<Shelf {self.number} {len(self.records)}>"

    def timed_out(self) -> None:
        """The wheel: ``keepalive_timeout`` has passed for all of them."""
        self._lot.expire(self)


@implementer(IReadDescriptor)
class ParkingLot:
    """The parked connections of ``factory``. Its length is their number."""

    def __init__(self, factory: HttpFactory) -> None:
        self._factory = factory
        #: So many connections stay as they are.
        self.awake = AWAKE
        self._reactor: Any = None
        self._port: Any = None
        self._poller: Any = None  # of this process: a fork must not share it
        self._shelves: dict[int, Shelf] = {}  # by number
        self._places: dict[int, Shelf] = {}  # by descriptor
        self._peers: dict[int, Peer] = {}  # those that a record has no room for
        self._candidates: list[Any] = []
        # For the wheel.
        self.deadline = NEVER
        self.slot = -1

    def __repr__(self) -> str:
        return f"<ParkingLot {len(self._places)}>"

    def __len__(self) -> int:
        return len(self._places)

    # Parking.

    def make_room(self, looks: int = LOOKS) -> None:
        """Park some of the idle connections if there are many: one more has come.

        Not to be called while one of them is at work.
        """
        factory = self._factory
        if len(factory.connections) <= self.awake:
            return
        now = factory.clock.seconds()
        for _ in range(looks):
            if not self._candidates:
                self._candidates = list(factory.connections)
            connection = self._candidates.pop()
            rested = now - connection.idle_since
            if rested >= LONG_REST or (rested >= REST and connection.served < 2):
                self._park(connection)
                if len(factory.connections) <= self.awake:
                    return
        if self.deadline == NEVER:
            factory.wheel.schedule(self, factory.wheel.tick)

    def timed_out(self) -> None:
        """The wheel: have a look at those that have become idle since the last one came."""
        if len(self._factory.connections) <= self.awake:
            self._candidates = []
        self.make_room(TICK_LOOKS)

    def forget_candidates(self) -> None:
        """There is no connection left to be parked."""
        self._candidates = []
        self._factory.wheel.remove(self)

    def _park(self, connection: HttpConnection) -> None:
        transport, deadline, peer = connection.transport, connection.deadline, connection.peer
        fd, client = transport.fileno(), transport.client
        try:
            if not self._places:
                self._open(transport)
            self._poller.register(fd, select.EPOLLIN)
        except OSError:
            return  # no descriptor or no memory for it
        sock = connection.leave()
        if sock is None:
            self._poller.unregister(fd)
            return
        sock.detach()
        self._factory.connections.discard(connection)
        if not self._places:
            self._reactor.addReader(self)
        if type(peer) is not Peer:
            self._peers[fd] = peer
        host, port, flow, scope = (*client, 0, 0) if len(client) == 2 else client
        numbers = _RECORD.pack(
            peer.serial, connection.opened, connection.served, port, flow, scope
        )
        shelf = self._places[fd] = self._shelf(deadline)
        shelf.records[fd] = numbers + host.encode()

    def _shelf(self, deadline: float) -> Shelf:
        wheel = self._factory.wheel
        number = math.ceil(deadline / wheel.tick)
        shelf = self._shelves.get(number)
        if shelf is None:
            shelf = self._shelves[number] = Shelf(self, number)
            wheel.schedule(shelf, deadline - self._factory.clock.seconds())
        return shelf

    def _discard(self, shelf: Shelf) -> None:
        del self._shelves[shelf.number]
        self._factory.wheel.remove(shelf)

    def _open(self, transport: DirectServer) -> None:
        """The first one comes."""
        self._port, self._reactor = transport.server, transport.reactor
        if self._poller is None:
            self._poller = select.epoll()

    def _take(self, fd: int) -> tuple[Shelf, bytes]:
        """Out of the books, and no longer watched."""
        shelf = self._places.pop(fd)
        record = shelf.records.pop(fd)
        if not shelf.records:
            self._discard(shelf)
        self._poller.unregister(fd)
        if not self._places:
            self._reactor.removeReader(self)
        return shelf, record

    def close(self, fd: int) -> None:
        """Close a parked connection."""
        self._take(fd)
        self._peers.pop(fd, None)
        os.close(fd)
        self._factory.left()

    def _unread(self) -> set[int]:
        """Those that the loop is late with: to close them now would reset what they have asked."""
        if self._poller is None:
            return set()
        return {fd for fd, _ in self._poller.poll(0, max(1, len(self._places)))}

    def close_oldest(self, number: int) -> int:
        """Close so many, those first whose time is over first; how many it were."""
        unread = self._unread()
        idle = (
            fd
            for shelf in sorted(self._shelves)
            for fd in self._shelves[shelf].records
            if fd not in unread
        )
        wanted = tuple(islice(idle, number))
        for fd in wanted:
            self.close(fd)
        return len(wanted)

    def expire(self, shelf: Shelf) -> None:
        """Close those of a shelf; who has sent something meanwhile is not idle."""
        unread = self._unread()
        for fd in tuple(shelf.records):
            if fd not in unread:
                self.close(fd)
        if shelf.records:
            self._factory.wheel.schedule(shelf, 0.0)

    def part(self, seconds: float) -> None:
        """Close them in so many seconds, those whose time is not over before."""
        if not self._places:
            return
        last = self._shelf(self._factory.clock.seconds() + seconds)
        for shelf in tuple(self._shelves.values()):
            if shelf.number > last.number:
                last.records.update(shelf.records)
                self._places.update(dict.fromkeys(shelf.records, last))
                self._discard(shelf)
        if not last.records:
            self._discard(last)

    def clear(self) -> None:
        """Close them all."""
        for fd in tuple(self._places):
            self.close(fd)

    # Waking up.

    def fileno(self) -> int:
        """IReadDescriptor."""
        return -1 if self._poller is None else self._poller.fileno()

    def logPrefix(self) -> str:
        """Who logs, in Twisted's log."""
        return "ParkingLot"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops."""
        self.clear()

    def doRead(self) -> None:
        """Some of them have something to read."""
        for fd, _ in self._poller.poll(0, EVENTS) if self._poller is not None else ():
            if fd in self._places:
                self._ready(fd)

    def _ready(self, fd: int) -> None:
        try:
            data = os.read(fd, READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # reset
        if not data:
            self.close(fd)
            return
        connection = self._wake(fd)
        transport = connection.transport
        try:
            connection.dataReceived(data)
        except Exception:
            _log.failure("while reading from {transport!r}", transport=transport)
            transport.abortConnection()
        self.make_room()

    def _wake(self, fd: int) -> HttpConnection:
        shelf, record = self._take(fd)
        factory = self._factory
        serial, opened, served, port, flow, scope = _RECORD.unpack_from(record)
        host = record[_RECORD.size :].decode()
        peer = self._peers.pop(fd, None) or Peer(host, port, factory.server, serial)
        if factory.asks_time and not peer.opened:
            peer.opened = float(opened)  # the record has whole seconds
        client: tuple[Any, ...] = (host, port)
        family = socket.AF_INET
        if ":" in host:
            client = (host, port, flow, scope)
            family = socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_STREAM, 0, fileno=fd)
        connection = HttpConnection(factory, peer)
        factory.connections.add(connection)
        transport = DirectServer(sock, connection, client, self._port, serial, self._reactor)
        left = shelf.number * factory.wheel.tick - factory.clock.seconds()
        connection.come_back(transport, opened, served, max(0.0, left))
        return connection
