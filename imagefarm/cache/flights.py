"""Single flight: of simultaneous requests for one key, one fills and the others wait.

Among the processes of the machine `locks` decides; here is what one process knows of it. Those
who wait for a filler in this process are told at once, those who wait for another process's
within `INTERVAL`, or a little more where very many keys are waited for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from attrs import Factory, define
from twisted.internet.defer import Deferred

from .locks import Landing, Lock, Locks, Watch
from .portion import Portion
from .upkeep import Clock

#: The most requests that wait for one key; more go to the upstream themselves.
MAX_WAITERS: Final = 10_000
#: The most keys that are filled or waited for at a time; a request for another goes by itself.
MAX_FLIGHTS: Final = 4096
#: Seconds between two looks at other processes' fillers, and the share of one key in it: the
#: looking never takes more than a few percent of the time.
INTERVAL: Final = 0.002
_EACH: Final = 50e-6
#: Seconds between two looks at the age of our own fillers.
_IDLE: Final = 0.1


@define(eq=False)
class _Flight:
    """One key: the fillers in this process, the filler in another one, and who waits."""

    since: float
    age: float = 5.0
    leaders: int = 0
    locks: list[Lock] = Factory(list)
    watch: Watch | None = None
    waiting: deque[Deferred[Landing]] = Factory(deque)

    def unwatch(self) -> None:
        watch, self.watch = self.watch, None
        if watch is not None:
            watch.close()


class Flights:
    """The flights of one zone, by key.

    Whoever gets LEAD, from `join` or later, or True from `lead`, must call `land` once,
    whatever happens. ``trouble`` is told what the file system refuses: then each process has
    flights of its own.
    """

    def __init__(
        self, locks: Locks, now: Callable[[], float], trouble: Callable[[OSError], None]
    ) -> None:
        self._locks = locks
        self._now = now
        self._trouble = trouble
        self._clock: Clock | None = None
        self._call: Any = None
        self._soon = False
        self._waiting = 0
        self._flights: dict[bytes, _Flight] = {}
        self._landings: deque[tuple[bytes, Landing, bool]] = deque()
        self._landing = False
        #: What those who are just being told have in common, once one of them has read it.
        self.portion: Portion | None = None

    def __len__(self) -> int:
        return len(self._flights)

    def start(self, clock: Clock) -> None:
        """From here on other processes can be waited for."""
        self._clock = clock

    def stop(self) -> None:
        """Wait for nobody any more."""
        if self._call is not None:
            self._call.cancel()
        self._clock = self._call = None
        for flight in self._flights.values():
            flight.unwatch()

    def lead(self, key: bytes) -> bool:
        """Become the one who fills ``key``, if nobody does."""
        if key in self._flights or len(self._flights) >= MAX_FLIGHTS:
            return False
        return self._begin(key, keep=False) is not None

    def join(self, key: bytes, age: float = 5.0) -> Landing | Deferred[Landing]:
        """LEAD if nobody fills ``key`` yet; else a Deferred, which may be cancelled.

        When the filler has been at it for ``age`` seconds, one more may fill. PASS: there are
        too many to wait.
        """
        flight = self._flights.get(key)
        if flight is None:
            if len(self._flights) >= MAX_FLIGHTS:
                return Landing.PASS
            flight = self._begin(key, keep=self._clock is not None)
            if flight is None:
                return Landing.PASS
            if flight.leaders:
                return Landing.LEAD
        if len(flight.waiting) >= MAX_WAITERS:
            return Landing.PASS
        waiter: Deferred[Landing] = Deferred(lambda gone: self._leave(key, gone))
        flight.waiting.append(waiter)
        flight.age = age
        self._waiting += 1
        self._look_later(soon=flight.watch is not None)
        return waiter

    def _begin(self, key: bytes, *, keep: bool) -> _Flight | None:
        """A flight that we lead, or, with ``keep``, that we watch."""
        flight = _Flight(self._now())
        try:
            held = self._locks.acquire(key, flight.since)
        except OSError as reason:
            self._trouble(reason)
            flight.leaders = 1
        else:
            if isinstance(held, Lock):
                flight.locks.append(held)
                flight.leaders = 1
            elif keep:
                flight.watch = held
            else:
                held.close()
                return None
        self._flights[key] = flight
        return flight

    def _leave(self, key: bytes, waiter: Deferred[Landing]) -> None:
        flight = self._flights.get(key)
        if flight is None or waiter not in flight.waiting:
            return
        flight.waiting.remove(waiter)
        self._waiting -= 1
        self._settle(key, flight)

    def _settle(self, key: bytes, flight: _Flight) -> None:
        """Forget a flight that nobody leads and nobody waits for."""
        if not flight.waiting:
            flight.unwatch()
            if not flight.leaders:
                del self._flights[key]
        if self._call is not None and not self._waiting:
            self._call.cancel()
            self._call = None

    # Landing

    def land(self, key: bytes, landing: Landing) -> None:
        """The flight is over: the first who waits is told LEAD, all are told anything else.

        Those who are told may land in their turn: a queue instead of a deep recursion.
        """
        self._tell(key, landing, ours=True)

    def _tell(self, key: bytes, landing: Landing, *, ours: bool) -> None:
        self._landings.append((key, landing, ours))
        if self._landing:
            return
        self._landing = True
        try:
            while self._landings:
                self._tell_one(*self._landings.popleft())
        finally:
            self._landing = False

    def _tell_one(self, key: bytes, landing: Landing, ours: bool) -> None:
        flight = self._flights[key]
        if ours:
            flight.leaders -= 1
            if landing is Landing.LEAD and not flight.leaders and flight.waiting:
                self._promote(flight)  # with the lock as it is
                return
            if flight.locks:
                flight.locks.pop().release(landing)
        told: deque[Deferred[Landing]] = deque()
        if landing is not Landing.LEAD:  # else somebody else is at it, or nobody waits
            told, flight.waiting = flight.waiting, told
            self._waiting -= len(told)
        self._settle(key, flight)
        for waiter in told:
            waiter.callback(landing)
        self.portion = None

    def _promote(self, flight: _Flight) -> None:
        flight.leaders += 1
        flight.since = self._now()
        self._waiting -= 1
        flight.waiting.popleft().callback(Landing.LEAD)

    # Looking at others

    def _look_later(self, *, soon: bool) -> None:
        """Look at the fillers in a while; ``soon``: some are other processes'."""
        if self._clock is None or (self._call is not None and (self._soon or not soon)):
            return
        if self._call is not None:
            self._call.cancel()
        delay = max(INTERVAL, _EACH * len(self._flights)) if soon else _IDLE
        self._soon = soon
        self._call = self._clock.callLater(delay, self._look)

    def _look(self) -> None:
        self._call = None
        now, watching = self._now(), False
        for key, flight in tuple(self._flights.items()):
            if not flight.waiting:
                continue
            watch = flight.watch
            if watch is not None:
                landing = watch.ended()
                if landing is not None:
                    self._ended(key, flight, landing)
                    watching = watching or flight.watch is not None
                    continue
                watching = True
            if now - (flight.since if watch is None else watch.since) > flight.age:
                self._overtake(key, flight, now)
        if self._waiting:
            self._look_later(soon=watching)

    def _ended(self, key: bytes, flight: _Flight, landing: Landing) -> None:
        """Another process's filling is over; if it gave up, we may be the next."""
        flight.unwatch()
        if landing is not Landing.LEAD:
            self._tell(key, landing, ours=False)
            return
        if flight.leaders:
            return  # one of ours is at it already
        try:
            held = self._locks.acquire(key, self._now())
        except OSError as reason:
            self._trouble(reason)
            self._promote(flight)
            return
        if isinstance(held, Watch):
            flight.watch = held
            return
        flight.locks.append(held)
        self._promote(flight)

    def _overtake(self, key: bytes, flight: _Flight, now: float) -> None:
        try:
            lock = self._locks.overtake(key, now, flight.age)
        except OSError as reason:
            self._trouble(reason)
            return
        flight.since = now
        if lock is not None:
            flight.locks.append(lock)
            self._promote(flight)
