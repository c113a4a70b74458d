"""The last errors of a process, for its status: what the error log says, but at hand."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from zope.interface import implementer

from .totals import MAX_ERRORS

#: The longest message in characters: room for a request and, at its end, its id. More is in the
#: error log.
MAX_TEXT: Final = 800

_LEVELS: Final = {LogLevel.error: "error", LogLevel.critical: "crit"}
_WANTED: Final = frozenset({"error", "crit", "alert", "emerg"})


@implementer(ILogObserver)
class Recent:
    """Keeps what is at least an error. ``told`` is called after each.

    `write` is for lines of requests, which do not go through twisted.logger.
    """

    def __init__(
        self, clock: Callable[[], float] = time.time, told: Callable[[], None] | None = None
    ) -> None:
        self._clock = clock
        self._told = told
        self._kept: deque[tuple[float, str, str]] = deque(maxlen=MAX_ERRORS)

    def __call__(self, event: LogEvent) -> None:
        """Of twisted.logger."""
        level = event.get("severity") or _LEVELS.get(event["log_level"], "")
        if level not in _WANTED:
            return
        failure = event.get("log_failure")
        text = formatEvent(event)
        if failure is not None:
            text = f"{text}: {failure.getErrorMessage()}" if text else failure.getErrorMessage()
        self.write(level, text)

    def write(self, level: str, message: str) -> None:
        """One message."""
        if level in _WANTED:
            # Requests for what is not there come by the thousand: the rest is for `report` to do.
            self._kept.append((self._clock(), level, message))
            if self._told is not None:
                self._told()

    def report(self) -> list[list[Any]]:
        """Seconds since the epoch, level, process, message; the last one last."""
        own = os.getpid()
        return [[round(when, 3), level, own, text[:MAX_TEXT]] for when, level, text in self._kept]
