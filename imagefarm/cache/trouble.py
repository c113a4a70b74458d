"""What the file system refuses: said once, however often it happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

from .upkeep import Counters

#: A disk that is nearly full takes small answers and refuses large ones in turn: seconds before
#: it is said again.
AGAIN: Final = 60.0


class Trouble:
    """The trouble of one zone in this process."""

    _log = Logger(namespace="imagefarm.cache.zone.Zone")

    def __init__(self, name: str, counters: Counters, now: Callable[[], float]) -> None:
        self._name = name
        self._counters = counters
        self._now = now
        self._lasts = self._said = False
        self._at: float | None = None

    def happened(self, reason: OSError) -> None:
        """Count it; say so if it is the first since all went well."""
        self._counters.errors += 1
        if self._lasts:
            return
        self._lasts = True
        now = self._now()
        if self._at is not None and abs(now - self._at) < AGAIN:
            return
        self._at, self._said = now, True
        self._log.error(
            "cache {zone} does not work, serving on without: {reason}",
            zone=self._name,
            reason=str(reason),
        )

    def over(self) -> None:
        """Something was stored."""
        if not self._lasts:
            return
        self._lasts = False
        if self._said:
            self._said = False
            self._log.info("cache {zone} stores again", zone=self._name)
