"""``worker_connections``: how many connections a process has, clients' and upstreams' together.

As in nginx (``ngx_get_connection``): where few places are left, clients that only wait for their
next request have to go; where none is left, a client that comes is closed, and a request that
needs a connection to an upstream is answered with 500.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from operator import itemgetter
from typing import Final, Protocol

from twisted.logger import Logger

from .timers import NEVER

#: Idle clients are closed when no more than this part of the places is free.
SPARE: Final = 16
#: So many at a time, and no more than this part of them.
MOST: Final = 32
PART: Final = 8
#: Who has more connections than this looks for idle ones no more often than each so many seconds.
FEW: Final = 256
RESCAN: Final = 0.05

_log: Final = Logger(namespace="imagefarm.places")


class Client(Protocol):
    """A client's connection."""

    @property
    def waiting_since(self) -> float:
        """When it began to wait for a request; NEVER if it does something else."""

    def drain(self, parting: float) -> None:
        """Close, if it is idle; ``parting`` is 0."""


class Parked(Sized, Protocol):
    """The idle ones that have been set aside."""

    def close_oldest(self, number: int) -> int:
        """Close so many, the longest idle first; how many it were."""


class Occupants(Protocol):
    """The connections of a listening socket."""

    @property
    def connections(self) -> Iterable[Client]:
        """Those that are not parked."""

    @property
    def parked(self) -> Parked:
        """The others."""

    @property
    def count(self) -> int:
        """How many there are."""


class Places:
    """The places of a process, ``limit`` in number (0: no end of them).

    ``clock`` gives seconds: that there are too few is said once in each.
    """

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self.limit = limit
        #: Connections to upstreams, those that are being opened included.
        self.upstream = 0
        #: So many more find a place, whoever leaves meanwhile.
        self._sure = 0
        self._clock = clock
        self._occupants: list[Occupants] = []
        self._said = {"alert": -1, "warn": -1}
        self._idle: list[Client] = []
        self._looked = 0.0

    def __repr__(self) -> str:
        return f"<Places {self.used}/{self.limit or '-'}>"

    def count_too(self, occupants: Occupants) -> None:
        """Their connections are ours."""
        self._occupants.append(occupants)

    @property
    def used(self) -> int:
        """How many connections there are."""
        return self.upstream + sum([occupants.count for occupants in self._occupants])

    def free(self) -> bool:
        """Whether there is a place for one more; idle clients may have to go for it."""
        if self._sure:
            self._sure -= 1
            return True
        limit = self.limit
        if not limit:
            return True
        plenty = limit - self.used - limit // SPARE
        if plenty > 0:
            self._sure = plenty - 1
            self._idle.clear()
            return True
        self._make_room()
        if self.used < limit:
            return True
        self._say("alert", "{limit} worker_connections are not enough")
        return False

    def take(self) -> bool:
        """A place for a connection to an upstream, until `give_back`; False if there is none."""
        if not self.free():
            return False
        self.upstream += 1
        return True

    def give_back(self) -> None:
        """A connection to an upstream is gone, or was not to be had."""
        self.upstream -= 1

    def _make_room(self) -> None:
        """Close some clients that wait for a request: the parked ones have waited longest."""
        parked = sum(len(occupants.parked) for occupants in self._occupants)
        if not parked and not self._idle:
            self._look(self._clock())
        idle = parked + len(self._idle)
        if not idle:
            return
        self._say("warn", "{limit} worker_connections are not enough, reusing connections")
        wanted = max(1, min(MOST, idle // PART))
        for occupants in self._occupants:
            wanted -= occupants.parked.close_oldest(wanted)
        while wanted and self._idle:
            client = self._idle.pop()
            if client.waiting_since != NEVER:
                client.drain(0.0)
                wanted -= 1

    def _look(self, now: float) -> None:
        """Who could be closed? The next to go come last."""
        if self.used > FEW and now - self._looked < RESCAN:
            return
        self._looked = now
        clients = (client for some in self._occupants for client in some.connections)
        waiting = [(client.waiting_since, client) for client in clients]
        waiting.sort(key=itemgetter(0), reverse=True)
        self._idle = [client for since, client in waiting if since != NEVER]

    def _say(self, severity: str, text: str) -> None:
        second = int(self._clock())
        if self._said[severity] == second:
            return
        self._said[severity] = second
        emit = _log.critical if severity == "alert" else _log.warn
        emit(text, limit=self.limit, severity=severity)
