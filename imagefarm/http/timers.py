"""One coarse timer wheel for all connections, instead of a delayed call for each.

Moving a deadline is an assignment: an entry stays in its slot and is looked at when the slot is
due; only then, or when a deadline comes nearer, it changes slots. A timeout fires at its
deadline or up to one tick later, never earlier.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, Protocol

#: An entry that waits for nothing.
NEVER: Final = math.inf
_NO_SLOT: Final = -1


class Call(Protocol):
    """Twisted's IDelayedCall, as much as we need."""

    def cancel(self) -> None:
        """Forget the call."""


class Clock(Protocol):
    """Twisted's IReactorTime, as much as we need."""

    def seconds(self) -> float:
        """The time."""

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any) -> Call:
        """Call ``callable`` in ``delay`` seconds."""


class Timed(Protocol):
    """What can be put on the wheel. The wheel alone writes the attributes.

    Start with ``deadline`` NEVER and ``slot`` -1.
    """

    deadline: float
    slot: int

    def timed_out(self) -> None:
        """The deadline has passed. It is NEVER again when this is called."""


class TimerWheel:
    """Deadlines to the nearest ``tick`` seconds; it ticks only while it holds something."""

    def __init__(self, clock: Clock, tick: float = 0.5) -> None:
        self._clock = clock
        self.tick = tick
        self._slots: dict[int, set[Timed]] = {}
        self._call: Call | None = None

    def __repr__(self) -> str:
        return f"<TimerWheel {sum(map(len, self._slots.values()))}>"

    def schedule(self, entry: Timed, seconds: float) -> None:
        """Let ``entry`` time out in ``seconds``, instead of when it would have."""
        deadline = self._clock.seconds() + seconds
        entry.deadline = deadline
        # An entry may be looked at too early, never too late.
        if entry.slot == _NO_SLOT or deadline <= (entry.slot - 1) * self.tick:
            self._place(entry)

    def cancel(self, entry: Timed) -> None:
        """Let ``entry`` wait for nothing; it keeps its slot until that is due."""
        entry.deadline = NEVER

    def remove(self, entry: Timed) -> None:
        """Take ``entry`` off the wheel."""
        entry.deadline = NEVER
        if entry.slot != _NO_SLOT:
            self._leave(entry)
        if not self._slots and self._call is not None:
            self._call.cancel()
            self._call = None

    def _place(self, entry: Timed) -> None:
        if entry.slot != _NO_SLOT:
            self._leave(entry)
        slot = math.ceil(entry.deadline / self.tick)
        entry.slot = slot
        members = self._slots.get(slot)
        if members is None:
            members = self._slots[slot] = set()
        members.add(entry)
        if self._call is None:
            self._call = self._clock.callLater(self._next(), self._turn)

    def _next(self) -> float:
        """Seconds until the next slot is due: to tick between them would be late twice."""
        return self.tick - self._clock.seconds() % self.tick

    def _leave(self, entry: Timed) -> None:
        members = self._slots[entry.slot]
        members.discard(entry)
        if not members:
            del self._slots[entry.slot]
        entry.slot = _NO_SLOT

    def _turn(self) -> None:
        """Look at the slots that are due."""
        self._call = None
        now = self._clock.seconds()
        current = math.floor(now / self.tick)
        for slot in sorted(slot for slot in self._slots if slot <= current):
            for entry in tuple(self._slots.get(slot, ())):
                if entry.slot != slot:
                    continue  # an earlier one's timeout has removed or moved it
                self._leave(entry)
                if entry.deadline <= now:
                    entry.deadline = NEVER
                    entry.timed_out()
                elif entry.deadline != NEVER:
                    self._place(entry)
        if self._slots and self._call is None:
            self._call = self._clock.callLater(self._next(), self._turn)
