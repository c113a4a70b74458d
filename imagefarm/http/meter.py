"""Counts of answered requests: by class of status how many, how long they took, and their bytes.

A class is one flat list, a ``Cell``, made beforehand: to count a request is to add to two or
three of its numbers. The first of them are the buckets of a histogram (each its own, not added
up), then come the sums.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, Final

#: The upper bounds of the buckets in seconds; one more has what takes longer.
BOUNDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BUCKETS: Final = len(BOUNDS) + 1
#: What a cell holds after the buckets: seconds, bytes of requests, bytes of answers.
SECONDS: Final = BUCKETS
RECEIVED: Final = BUCKETS + 1
SENT: Final = BUCKETS + 2
CLASSES: Final = ("1xx", "2xx", "3xx", "4xx", "5xx")

Cell = list[float]


def empty() -> Cell:
    """A cell that has counted nothing."""
    return [0] * (SENT + 1)


def bucket(seconds: float) -> int:
    """Where a request of that many seconds is counted."""
    return bisect_left(BOUNDS, seconds)


class Meter:
    """The cells of one virtual host."""

    __slots__ = ("cells",)

    def __init__(self) -> None:
        self.cells = tuple(empty() for _ in CLASSES)

    def cell(self, status: int) -> Cell:
        """The one for answers with ``status``; what is no status counts as 5xx."""
        return self.cells[status // 100 - 1 if 100 <= status < 600 else 4]

    def count(self, status: int, seconds: float, received: int, sent: int) -> None:
        """Count a request of ``received`` bytes and its answer of ``sent`` bytes."""
        cell = self.cell(status)
        cell[bisect_left(BOUNDS, seconds)] += 1
        cell[SECONDS] += max(0.0, seconds)
        cell[RECEIVED] += received
        cell[SENT] += sent

    @property
    def requests(self) -> int:
        """How many have been counted."""
        return sum(count(cell) for cell in self.cells)

    def report(self) -> dict[str, list[float]]:
        """The cells by class, as plain values that may be added up."""
        return {name: list(cell) for name, cell in zip(CLASSES, self.cells, strict=True)}

    def __repr__(self) -> str:
        return f"<Meter {self.requests} requests>"


def count(cell: Sequence[float]) -> int:
    """How many requests a cell has counted."""
    return int(sum(cell[:BUCKETS]))


def describe(cells: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """`Meter.report`, added up or not, for people: requests, bytes, seconds and buckets."""
    return {
        "requests": sum(count(cell) for cell in cells.values()),
        "received": int(sum(cell[RECEIVED] for cell in cells.values())),
        "sent": int(sum(cell[SENT] for cell in cells.values())),
        "responses": {name: count(cell) for name, cell in cells.items()},
        "seconds": {name: round(cell[SECONDS], 6) for name, cell in cells.items()},
        "buckets": {name: [int(n) for n in cell[:BUCKETS]] for name, cell in cells.items()},
    }
