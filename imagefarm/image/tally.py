"""What the pool has done: how long jobs and their steps took, and for which originals.

Sans-IO; all times are in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from imagefarm.http.meter import BUCKETS, SECONDS, bucket, empty

#: The most steps that are told apart: their names come from the worker processes.
MAX_STEPS: Final = 64
#: Originals that are remembered, and after how many seconds what they have cost counts half.
MAX_ORIGINALS: Final = 512
HALF_LIFE: Final = 600.0
#: Of an original's past, less than this is forgotten.
_LEAST: Final = 0.05
#: How much the last job counts in what jobs take.
_LATEST: Final = 0.125

LANES: Final = ("cheap", "expensive")


class Originals:
    """The originals that jobs were about lately: how many jobs, and the seconds they took."""

    def __init__(self) -> None:
        self._known: dict[bytes, list[float]] = {}
        self._since: float | None = None
        #: Seconds that jobs take, those of the last few.
        self._usual: float | None = None

    def add(self, source: bytes, seconds: float, now: float) -> None:
        """Count a job. Of too many originals the one that cost least is forgotten."""
        self._fade(now)
        known = self._known.get(source)
        if known is None:
            if len(self._known) >= MAX_ORIGINALS:
                del self._known[min(self._known, key=lambda name: self._known[name][1])]
            known = self._known[source] = [0.0, 0.0]
        known[0] += 1
        known[1] += seconds
        usual = seconds if self._usual is None else self._usual
        self._usual = usual + (seconds - usual) * _LATEST

    def expected(self, source: bytes) -> float | None:
        """Seconds that a job about ``source`` took on average; if it is new, any job lately.

        None where there has been no job.
        """
        known = self._known.get(source)
        return self._usual if known is None else known[1] / known[0]

    def _fade(self, now: float) -> None:
        if self._since is None:
            self._since = now
        halvings = int((now - self._since) / HALF_LIFE)
        if halvings <= 0:
            return
        self._since += halvings * HALF_LIFE
        share = 0.5 ** min(halvings, 64)
        faded = ((name, [n * share, s * share]) for name, (n, s) in self._known.items())
        self._known = {name: what for name, what in faded if what[0] >= _LEAST}

    def most(self, count: int) -> dict[bytes, list[float]]:
        """The ``count`` that have cost most."""
        ranked = sorted(self._known.items(), key=lambda item: item[1][1], reverse=True)
        return {name: list(what) for name, what in ranked[:count]}

    def __len__(self) -> int:
        return len(self._known)


class Tally:
    """The figures of one pool."""

    def __init__(self) -> None:
        self.originals = Originals()
        self._steps: dict[str, list[float]] = {}
        self._lanes = {lane: empty() for lane in LANES}

    def done(self, seconds: float, steps: Iterable[tuple[str, float]], *, expensive: bool) -> None:
        """A job was done ``seconds`` after it came; ``steps`` say what it did meanwhile."""
        cell = self._lanes[LANES[expensive]]
        cell[bucket(seconds)] += 1
        cell[SECONDS] += seconds
        for name, took in steps:
            known = self._steps.get(name)
            if known is None:
                if len(self._steps) >= MAX_STEPS:
                    continue
                known = self._steps[name] = [0.0, 0]
            known[0] += took
            known[1] += 1

    def report(self) -> dict[str, Any]:
        """Plain values to add up: seconds and count of each step, cells of the lanes."""
        return {
            "steps": {name: list(known) for name, known in self._steps.items()},
            "lanes": {name: cell[: BUCKETS + 1] for name, cell in self._lanes.items()},
        }
