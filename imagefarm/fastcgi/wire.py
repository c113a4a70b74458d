"""What this package wants of Twisted's reactor and transports, and the timer made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class DelayedCall(Protocol):
    """``IDelayedCall``, as far as we use it."""

    def cancel(self) -> None:
        """Don't call."""


class Clock(Protocol):
    """``IReactorTime``, as far as we use it. Times are seconds."""

    def seconds(self) -> float:
        """Now."""

    def callLater(self, delay: float, callable: Callable[..., Any], /) -> DelayedCall:
        """Call once, ``delay`` from now."""


class Transport(Protocol):
    """A TCP or Unix stream transport of Twisted, as far as we use it."""

    def write(self, data: bytes, /) -> None:
        """Send or queue."""

    def loseConnection(self) -> None:
        """Close once everything is sent."""

    def abortConnection(self) -> None:
        """Close now."""

    def pauseProducing(self) -> None:
        """Read no more."""

    def resumeProducing(self) -> None:
        """Read again."""

    def registerProducer(self, producer: Any, streaming: bool, /) -> None:
        """Tell ``producer`` when the queue is long and when it is empty."""

    def unregisterProducer(self) -> None:
        """Tell nobody."""

    def getPeer(self) -> Any:
        """The other end's address."""


class Watch:
    """Calls ``expired`` when nothing has happened for ``seconds``.

    ``touch`` costs a clock's reading only: the timer, when it fires too early, waits for the
    rest. When it fires in time it waits for one more turn of the loop: one that was held up runs
    its timers before it reads what has come meanwhile.
    """

    def __init__(self, clock: Clock, seconds: float, expired: Callable[[], None]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._expired = expired
        self._call: DelayedCall | None = None
        self._last = 0.0
        self._over = False

    def start(self) -> None:
        """Begin to watch, or begin again."""
        self._last = self._clock.seconds()
        if self._call is None:
            self._call = self._clock.callLater(self._seconds, self._fire)

    def grant(self, last: float) -> bool:
        """Something happened at ``last``, if that is later than known: then watch on."""
        if last + self._seconds <= self._clock.seconds():
            return False
        self._last = last
        if self._call is None:
            self._call = self._clock.callLater(
                last + self._seconds - self._clock.seconds(), self._fire
            )
        return True

    def touch(self) -> None:
        """Something happened."""
        self._last = self._clock.seconds()

    def stop(self) -> None:
        """Watch no more."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _fire(self) -> None:
        self._call = None
        left = self._last + self._seconds - self._clock.seconds()
        over, self._over = self._over, left <= 0
        if left > 0:
            self._call = self._clock.callLater(left, self._fire)
        elif not over:
            self._call = self._clock.callLater(0, self._fire)
        else:
            self._over = False
            self._expired()
