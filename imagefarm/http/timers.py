"""One coarse timer wheel for all connections, instead of a delayed call for each.

Moving a deadline is an assignment: an entry stays in its slot and is looked at when the slot is
due; only then, or when a deadline comes nearer, it changes slots. An entry that is new is looked
at with the next tick and gets its slot then, so that one of a short life never needs any. A
timeout fires at its deadline or up to one tick later, never earlier.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, Protocol

#: An entry that waits for nothing.
NEVER: Final = math.inf
_NO_SLOT: Final = -1
#: The slot of those that have none yet; it is due with each tick.
_NEW: Final = 0


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
        self._seconds = clock.seconds
        self.tick = tick
        self._new: set[Timed] = set()
        self._slots: dict[int, set[Timed]] = {}
        self._call: Call | None = None

    def __repr__(self) -> str:
        return f"<TimerWheel {len(self._new) + sum(map(len, self._slots.values()))}>"

    def schedule(self, entry: Timed, seconds: float) -> None:
        """Let ``entry`` time out in ``seconds``, instead of when it would have."""
        deadline = entry.deadline = self._seconds() + seconds
        slot = entry.slot
        if slot == _NO_SLOT:
            entry.slot = _NEW
            self._new.add(entry)
            if self._call is None:
                self._arm()
        elif slot and deadline <= (slot - 1) * self.tick:
            # An entry may be looked at too early, never too late.
            self._leave(entry)
            self._place(entry)

    def cancel(self, entry: Timed) -> None:
        """Let ``entry`` wait for nothing; it keeps its slot until that is due."""
        entry.deadline = NEVER

    def remove(self, entry: Timed) -> None:
        """Take ``entry`` off the wheel."""
        entry.deadline = NEVER
        if entry.slot == _NEW:
            entry.slot = _NO_SLOT
            self._new.discard(entry)
        elif entry.slot != _NO_SLOT:
            self._leave(entry)
        if not self._new and not self._slots and self._call is not None:
            self._call.cancel()
            self._call = None

    def _place(self, entry: Timed) -> None:
        slot = entry.slot = max(_NEW + 1, math.ceil(entry.deadline / self.tick))
        members = self._slots.get(slot)
        if members is None:
            members = self._slots[slot] = set()
        members.add(entry)

    def _arm(self) -> None:
        """Tick when the next slot is due: to tick between them would be late twice."""
        self._call = self._clock.callLater(self.tick - self._seconds() % self.tick, self._turn)

    def _leave(self, entry: Timed) -> None:
        members = self._slots[entry.slot]
        members.discard(entry)
        if not members:
            del self._slots[entry.slot]
        entry.slot = _NO_SLOT

    def _turn(self) -> None:
        """Look at the new ones and at the slots that are due."""
        self._call = None
        now = self._seconds()
        current = math.floor(now / self.tick)
        new, self._new = self._new, set()
        # An earlier one's timeout may remove or move another.
        for entry in new:
            if entry.slot == _NEW and entry not in self._new:
                entry.slot = _NO_SLOT
                self._look(entry, now)
        for slot in sorted(slot for slot in self._slots if slot <= current):
            for entry in tuple(self._slots.get(slot, ())):
                if entry.slot == slot:
                    self._leave(entry)
                    self._look(entry, now)
        if (self._new or self._slots) and self._call is None:
            self._arm()

    def _look(self, entry: Timed, now: float) -> None:
        if entry.deadline <= now:
            entry.deadline = NEVER
            entry.timed_out()
        elif entry.deadline != NEVER:
            self._place(entry)
