"""Who of many is highest, when all of them rise at speeds of their own: a kinetic tournament.

A binary tree in which each inner node holds the winner of the two below it, and until when that
is certain: a faster one that is behind now will be ahead at a moment that can be told. Asking
for the highest costs nothing as long as nothing was overtaken, else the nodes where that
happened are decided anew; a line that is changed costs the nodes above it, the logarithm of the
number of lines.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

from attrs import define

_ALWAYS: Final = 1 << 62


@define(eq=False)
class Line:
    """At a time ``t`` it is at ``base + slope * t``; of equals the lower ``order`` is first."""

    slope: int
    base: int = 0
    order: int = 0
    #: Its leaf in the tree: the tournament's.
    place: int = -1


L = TypeVar("L", bound=Line)


class Tournament(Generic[L]):
    """The lines that take part. Times are integers and never decrease."""

    __slots__ = ("_free", "_size", "_until", "_winner")

    def __init__(self) -> None:
        #: The number of leaves; node 1 is the root, those of node n are 2n and 2n + 1.
        self._size = 1
        self._winner: list[L | None] = [None, None]
        self._until: list[int] = [_ALWAYS, _ALWAYS]
        self._free = [1]

    def add(self, line: L, now: int) -> None:
        """``line`` takes part from ``now`` on."""
        if not self._free:
            self._grow(now)
        line.place = self._free.pop()
        self._winner[line.place] = line
        self.changed(line, now)

    def remove(self, line: L, now: int) -> None:
        """And now it does not."""
        self._winner[line.place] = None
        self._free.append(line.place)
        self.changed(line, now)

    def changed(self, line: L, now: int) -> None:
        """``base`` or ``order`` of the line was changed at ``now``."""
        node = line.place >> 1
        while node:
            self._decide(node, now)
            node >>= 1

    def highest(self, now: int) -> L | None:
        """The line that is highest at ``now``."""
        if self._until[1] < now:
            self._mend(1, now)
        return self._winner[1]

    def _mend(self, node: int, now: int) -> None:
        """Decide anew what is not certain any more below ``node``, and it."""
        until = self._until
        left = 2 * node
        if until[left] < now:
            self._mend(left, now)
        if until[left + 1] < now:
            self._mend(left + 1, now)
        self._decide(node, now)

    def _decide(self, node: int, now: int) -> None:
        left = 2 * node
        one, other = self._winner[left], self._winner[left + 1]
        until = min(self._until[left], self._until[left + 1])
        if one is None or other is None:
            self._winner[node] = one or other
            self._until[node] = until
            return
        lead = one.base - other.base + (one.slope - other.slope) * now
        if lead < 0 or (lead == 0 and other.order < one.order):
            one, other, lead = other, one, -lead
        gain = other.slope - one.slope
        if gain > 0:
            # It draws level after lead / gain, and passes at once if it is the first of equals.
            whole, rest = divmod(lead, gain)
            if rest == 0 and other.order < one.order:
                whole -= 1
            until = min(until, now + whole)
        self._winner[node] = one
        self._until[node] = until

    def _grow(self, now: int) -> None:
        lines = self._winner[self._size :]
        self._size *= 2
        self._winner = [None] * self._size + lines + [None] * len(lines)
        self._until = [_ALWAYS] * (2 * self._size)
        self._free = list(range(self._size + len(lines), 2 * self._size))
        for place, line in enumerate(lines, self._size):
            if line is not None:
                line.place = place
        for node in range(self._size - 1, 0, -1):
            self._decide(node, now)

    def __repr__(self) -> str:
        return f"<Tournament {self._size - len(self._free)} lines>"
