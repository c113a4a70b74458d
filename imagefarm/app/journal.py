"""What became of a daemon's configuration, told to its workers and by their status pages."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from typing import Final

from imagefarm.process.board import Board

#: The most lines that are kept of why a reload failed.
MAX_LINES: Final = 20


class Journal:
    """A board for all configurations of a daemon. ``clock`` gives seconds since the epoch."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.board = Board.make()
        self._clock = clock
        self._generation = 0

    def loaded(self, workers: Sequence[int]) -> None:
        """A configuration is in force, and these processes serve."""
        self._generation += 1
        with self.board.edit() as document:
            document.update(
                generation=self._generation, loaded=self._now(), workers=list(workers),
                last_reload="ok", errors=[],
            )  # fmt: skip

    def resumed(self, workers: Sequence[int]) -> None:
        """The same configuration, by other processes."""
        with self.board.edit() as document:
            document.update(workers=list(workers))

    def refused(self, lines: Sequence[str]) -> None:
        """Another one was not good enough."""
        with self.board.edit() as document:
            document.update(
                last_reload="failed", failed=self._now(), errors=list(lines)[:MAX_LINES]
            )

    def close(self) -> None:
        """Nobody will ask any more."""
        self.board.close()

    def _now(self) -> str:
        now = datetime.datetime.fromtimestamp(self._clock(), datetime.UTC)
        return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
