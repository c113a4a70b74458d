"""A timeout that is moved far more often than it fires."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Watchdog:
    """Calls ``bark`` when the delay of `start` has passed since the last `start` or `touch`.

    Moving the deadline is an assignment; the one delayed call looks, when it fires, whether the
    deadline has moved on, and waits for the rest. Delays are in seconds, ``clock`` is an
    IReactorTime.

    A loop that was held up runs its delayed calls before it reads what has come meanwhile: so
    the bark waits for one more turn, in which that is read and may `touch`.
    """

    __slots__ = ("_bark", "_call", "_clock", "_deadline", "_delay", "_over")

    def __init__(self, clock: Any, bark: Callable[[], None]) -> None:
        self._clock = clock
        self._bark = bark
        self._delay = 0.0
        self._deadline: float | None = None
        self._call: Any = None
        #: The deadline has passed, and what has come is read for the last time.
        self._over = False

    @property
    def now(self) -> float:
        """The clock's time."""
        now: float = self._clock.seconds()
        return now

    def start(self, delay: float) -> None:
        """Bark ``delay`` seconds from now."""
        self._delay = delay
        self._deadline = deadline = self._clock.seconds() + delay
        call = self._call
        if call is None:
            self._call = self._clock.callLater(delay, self._look)
        elif call.getTime() > deadline:
            call.reset(delay)

    def touch(self) -> None:
        """Something happened: count from now, if counting."""
        if self._deadline is not None:
            self._deadline = self._clock.seconds() + self._delay

    def stop(self) -> None:
        """Do not bark until the next `start`."""
        self._deadline = None

    def cancel(self) -> None:
        """`stop`, and leave nothing with the clock."""
        self._deadline = None
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _look(self) -> None:
        self._call = None
        if self._deadline is None:
            self._over = False
            return
        left: float = self._deadline - self._clock.seconds()
        over, self._over = self._over, left <= 0
        if left > 0:
            self._call = self._clock.callLater(left, self._look)
        elif not over:
            self._call = self._clock.callLater(0, self._look)
        else:
            self._over = False
            self._deadline = None
            self._bark()
