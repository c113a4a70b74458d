"""Single flight: of simultaneous requests for one key, one fills and the others wait."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Final

from twisted.internet.defer import Deferred

#: The most requests that wait for one key; more go to the upstream themselves.
MAX_WAITERS: Final = 10_000


class Landing(Enum):
    """How a flight ended, as told to those who waited.

    STORED: read the file. STALE: serve the expired file, the upstream is in trouble. PASS: the
    answer can't be shared, ask for your own. LEAD: the filler failed, you are the filler now.
    """

    STORED = "stored"
    STALE = "stale"
    PASS = "pass"
    LEAD = "lead"


class Flights:
    """The flights of one zone, by key.

    Whoever gets LEAD, from `join` or later, must call `land` once, whatever happens.
    """

    def __init__(self) -> None:
        self._waiting: dict[bytes, deque[Deferred[Landing]]] = {}
        self._landings: deque[tuple[bytes, Landing]] = deque()
        self._landing = False

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: bytes) -> bool:
        return key in self._waiting

    def join(self, key: bytes) -> Landing | Deferred[Landing]:
        """LEAD if nobody fills ``key`` yet; else a Deferred, which may be cancelled."""
        queue = self._waiting.get(key)
        if queue is None:
            self._waiting[key] = deque()
            return Landing.LEAD
        if len(queue) >= MAX_WAITERS:
            return Landing.PASS
        waiter: Deferred[Landing] = Deferred(queue.remove)
        queue.append(waiter)
        return waiter

    def land(self, key: bytes, landing: Landing) -> None:
        """The flight is over: the first who waits is told LEAD, all are told anything else.

        Those who are told may land in their turn: a queue instead of a deep recursion.
        """
        self._landings.append((key, landing))
        if self._landing:
            return
        self._landing = True
        try:
            while self._landings:
                self._tell(*self._landings.popleft())
        finally:
            self._landing = False

    def _tell(self, key: bytes, landing: Landing) -> None:
        queue = self._waiting[key]
        if landing is Landing.LEAD and queue:
            queue.popleft().callback(landing)
            return
        del self._waiting[key]
        while queue:
            queue.popleft().callback(landing)
