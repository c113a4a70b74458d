"""The master's part of the status: since when it runs, and what went wrong in it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from twisted.logger import globalLogPublisher

from imagefarm.process.board import Board
from imagefarm.process.ledger import Ledger

from .recent import Recent
from .totals import fold


class Chronicle:
    """The ledger of a daemon, with the master's own page, and what dashboards keep of the past.

    ``clock``: seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.ledger = Ledger.make(fold)
        self.past = Board.make()
        self._since = clock()
        self._supervisor: int | None = None
        self._recent: Any = Recent(clock, self._write)

    def start(self, supervisor: int | None) -> None:
        """From now on; the process does not change its number any more. ``supervisor`` is the
        farm's process, if we are its child.
        """
        self._supervisor = supervisor
        self._write()
        globalLogPublisher.addObserver(self._recent)

    def _write(self) -> None:
        self.ledger.publish_parent(
            {
                "pid": os.getpid(),
                "supervisor": self._supervisor,
                "since": self._since,
                "errors": self._recent.report(),
            }
        )

    def close(self) -> None:
        """Nobody will ask any more."""
        globalLogPublisher.removeObserver(self._recent)
        self.ledger.close()
        self.past.close()
