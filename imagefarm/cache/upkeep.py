"""The upkeep of a zone's directory: the loader and the manager of nginx, in small slices.

Of the processes that share a directory one, whichever holds the lock file, is its manager: it
walks the directory, removes what a crash left behind, and enforces ``max_size`` and
``inactive``. When it dies, the kernel drops its lock and another one takes over. The others
only keep their own memory within bounds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from attrs import define

from .index import Index, Node
from .settings import ZoneSettings
from .store import Directory

#: Seconds between rounds, and between the slices of one that is not done.
ROUND: Final = 1.0
PAUSE: Final = 0.01
#: The most files that one slice looks at, and that one slice evicts.
SLICE: Final = 64
#: Seconds between the walks in which the manager meets the files that others stored.
WALK_INTERVAL: Final = 5.0
#: Files take whole blocks of the disk; ``max_size`` counts those.
_BLOCK: Final = 4096


class Clock(Protocol):
    """What we need of a reactor (Twisted's ``IReactorTime``)."""

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any) -> Any:
        """Call later."""


@define
class Counters:
    """What happened in this process since it started."""

    hits: int = 0
    misses: int = 0
    expired: int = 0
    bypass: int = 0
    stale: int = 0
    updating: int = 0
    waits: int = 0
    stored: int = 0
    evicted: int = 0
    corrupt: int = 0
    errors: int = 0


def on_disk(size: int) -> int:
    """The bytes that a file of ``size`` takes on the disk."""
    return -(-size // _BLOCK) * _BLOCK


class Upkeep:
    """The rounds of one process. ``trouble`` is told of what the file system refuses."""

    def __init__(
        self,
        settings: ZoneSettings,
        directory: Directory,
        index: Index,
        counters: Counters,
        now: Callable[[], float],
        trouble: Callable[[OSError], None],
    ) -> None:
        self.manager = False
        self._settings = settings
        self._directory = directory
        self._index = index
        self._counters = counters
        self._now = now
        self._trouble = trouble
        self._clock: Clock | None = None
        self._call: Any = None
        self._lock = -1
        self._walk: Iterator[tuple[bytes, os.DirEntry[bytes]] | None] | None = None
        self._walked: float | None = None
        self._seen: dict[bytes, int] = {}

    def start(self, clock: Clock) -> None:
        """Begin the rounds."""
        self._clock = clock
        self._call = clock.callLater(0, self._round)

    def stop(self) -> None:
        """End the rounds and give up the lock."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = self._clock = None
        self._resign()

    def _round(self) -> None:
        self._elect()
        busy = self.manager and self._look_around()
        busy = self.enforce() or busy
        if self._clock is not None:
            self._call = self._clock.callLater(PAUSE if busy else ROUND, self._round)

    def _elect(self) -> None:
        """Take the lock, or find out that ours has been removed with the directory."""
        if self.manager:
            if self._directory.holds(self._lock):
                return
            self._index.clear()
        self._resign()
        try:
            self._lock = self._directory.lock()
        except BlockingIOError:
            return
        except OSError as reason:
            self._trouble(reason)
            return
        self.manager = True

    def _resign(self) -> None:
        self.manager = False
        self._walk = self._walked = None
        self._seen.clear()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _look_around(self) -> bool:
        """A slice of the walk; True if there is more to walk."""
        now = self._now()
        if self._walk is None:
            if self._walked is not None and abs(now - self._walked) < WALK_INTERVAL:
                return False
            self._walked = now
            self._directory.remove_strays()
            self._walk = self._directory.walk(self._seen)
        for _ in range(SLICE):
            try:
                item = next(self._walk)
            except StopIteration:
                self._walk = None
                return False
            if item is not None and item[0] not in self._index:
                self._meet(*item)
        return True

    def _meet(self, digest: bytes, item: os.DirEntry[bytes]) -> None:
        """Take up a file that we did not know, unless it is broken."""
        try:
            stat = item.stat(follow_symlinks=False)
        except OSError:
            return
        if not self._directory.whole(item.path):
            self._counters.corrupt += 1
            self._directory.remove(digest)
        else:
            self._index.put(digest, on_disk(stat.st_size), stat.st_mtime)

    def enforce(self) -> bool:
        """A slice of enforcing the limits, least recently used first; True if there is more."""
        self.trim()
        limit, idle = self._settings.max_size, self._now() - self._settings.inactive
        for _ in range(SLICE):
            oldest = self._index.oldest()
            if oldest is None:
                return False
            over = self.manager and limit is not None and self._index.size > limit
            if not over and oldest[1].accessed > idle:
                return False
            self._expel(*oldest)
        return True

    def trim(self) -> None:
        """Remember no more keys than ``keys_zone`` allows."""
        while self._index.full:
            oldest = self._index.oldest()
            if oldest is not None:
                self._expel(*oldest)

    def _expel(self, digest: bytes, node: Node) -> None:
        """Forget a key; the manager removes its file, unless another process just used it."""
        if self.manager and node.size is not None:
            used = self._directory.used_at(digest)
            if used is not None and used[1] > node.accessed + 1 and not self._index.full:
                self._index.put(digest, on_disk(used[0]), used[1])
                return
            if used is not None and self._directory.remove(digest):
                self._counters.evicted += 1
        self._index.forget(digest)
