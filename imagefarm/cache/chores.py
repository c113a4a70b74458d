"""Work of a zone's manager that may take long and is done in slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .settings import Pace


class Slice:
    """A slice of work: goes on while there is `more`. ``tick`` gives seconds."""

    def __init__(self, pace: Pace, tick: Callable[[], float]) -> None:
        self._left = pace.files
        self._tick = tick
        self._end = tick() + pace.threshold

    def more(self) -> bool:
        """Whether one more step is in order."""
        self._left -= 1
        return self._left >= 0 and self._tick() < self._end


class Chore:
    """``begin`` gives an iterator that does a step each time, None when there is nothing to do."""

    def __init__(self, pace: Pace, begin: Callable[[], Iterator[Any] | None]) -> None:
        self.pace = pace
        self._begin = begin
        self._steps: Iterator[Any] | None = None

    def work(self, tick: Callable[[], float]) -> bool:
        """Do a slice; True if there is more."""
        if self._steps is None:
            self._steps = self._begin()
            if self._steps is None:
                return False
        piece = Slice(self.pace, tick)
        while piece.more():
            try:
                next(self._steps)
            except StopIteration:
                self._steps = None
                return False
        return True

    def stop(self) -> None:
        """Leave it at that; begin anew the next time."""
        self._steps = None
