"""The upkeep of a zone's directory: the loader and the manager of nginx, in small slices.

Of the processes that share a directory one, whichever holds the lock file, is its manager: it
walks the directory once, learns from the members what they store, removes what a crash left
behind, and enforces ``max_size``, ``min_free`` and ``inactive``. When it dies, the kernel drops
its lock and another one takes over. The others only keep their own memory within bounds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

from attrs import define

from .chores import Chore, Slice
from .entry import PREFIX_LENGTH
from .index import SKEW, Index, Node, on_disk
from .members import Board
from .settings import ZoneSettings
from .store import Directory

#: Seconds between rounds that have nothing to do: of a member, of the manager.
ROUND: Final = 1.0
MANAGER_ROUND: Final = 0.25
#: Seconds between two looks for temporary files of the dead.
STRAYS_INTERVAL: Final = 10.0
#: Seconds after which the manager walks the directory again, in case something was not told.
WALK_INTERVAL: Final = 600.0
#: The most notes of members that are read at once.
NOTES: Final = 2000
#: The loader goes on for as long as a cache is large: each of its steps is cut into so many, that
#: no request waits for a hundred files.
STEPS: Final = 20
#: What members may store beyond ``max_size`` before the manager has made room: a 25th of it.
SLACK: Final = 25


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
    revalidated: int = 0
    waits: int = 0
    stored: int = 0
    full: int = 0
    evicted: int = 0
    purged: int = 0
    changed: int = 0
    corrupt: int = 0
    errors: int = 0


class Upkeep:
    """The rounds of one process. ``trouble`` is told of what the file system refuses.

    ``now`` gives seconds since the epoch, ``tick`` any seconds that only go forward.
    """

    def __init__(
        self,
        settings: ZoneSettings,
        directory: Directory,
        index: Index,
        board: Board,
        counters: Counters,
        now: Callable[[], float],
        trouble: Callable[[OSError], None],
        chores: Sequence[Chore] = (),
        tick: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.manager = False
        self._settings = settings
        self._loader = settings.loader.finer(STEPS)
        self._directory = directory
        self._index = index
        self._board = board
        self._counters = counters
        self._now = now
        self._trouble = trouble
        self._chores = chores
        self._tick = tick
        self._clock: Clock | None = None
        self._call: Any = None
        self._loading: Any = None
        self._lock = -1
        self._walk: Iterator[tuple[bytes, os.DirEntry[bytes]] | None] | None = None
        self._walked: float | None = None
        self._cleaned: float | None = None
        self._seen: dict[bytes, int] = {}
        #: While the first walk goes on: the bytes that the manager before us had counted.
        self._before = 0

    def start(self, clock: Clock) -> None:
        """Begin the rounds."""
        self._clock = clock
        self._join()
        self._call = clock.callLater(0, self._round)

    def stop(self) -> None:
        """End the rounds and give up the lock."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = self._clock = None
        self._resign()
        self._board.leave()

    @property
    def loading(self) -> bool:
        """Whether the manager has not yet met all files."""
        return self._walk is not None and self._before > 0

    @property
    def size(self) -> int:
        """The bytes on the disk that the manager counts."""
        return max(self._before, self._index.size)

    def _round(self) -> None:
        self._join()
        self._elect()
        delay = MANAGER_ROUND if self.manager else ROUND
        if self.manager:
            self._clean()
            if self._listen():
                delay = min(delay, self._settings.manager.sleep)
            if self._walk is None and self._due(self._walked, WALK_INTERVAL):
                self._load()
            delay = min([delay, *self._work()])
        if self.enforce():
            delay = min(delay, self._settings.manager.sleep)
        if self._clock is not None:
            self._call = self._clock.callLater(delay, self._round)

    def _work(self) -> Iterator[float]:
        """A slice of each chore: how long to sleep before the next, if there is more."""
        for chore in self._chores:
            try:
                if chore.work(self._tick):
                    yield chore.pace.sleep
            except OSError as reason:
                chore.stop()
                self._trouble(reason)

    def _join(self) -> None:
        try:
            self._board.join()
        except OSError as reason:
            self._trouble(reason)

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
        self._before = self._board.size - self._board.pending

    def _resign(self) -> None:
        self.manager = False
        if self._loading is not None and self._loading.active():
            self._loading.cancel()
        self._loading = self._walk = self._walked = self._cleaned = None
        self._before = 0
        self._seen.clear()
        for chore in self._chores:
            chore.stop()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _due(self, last: float | None, interval: float) -> bool:
        return last is None or abs(self._now() - last) >= interval

    def _clean(self) -> None:
        if self._due(self._cleaned, STRAYS_INTERVAL):
            self._cleaned = self._now()
            self._directory.remove_strays()

    def _listen(self) -> bool:
        """Read what members have told; True if there may be more."""
        for count, note in enumerate(self._board.notes()):
            if count >= NOTES:
                return True
            if note is None:
                self._walked = None  # some was lost: look for ourselves
            elif note.size is None:
                self._drop(note.digest)
            else:
                self.keep(note.digest, note.size, note.moment)
                # Before it counts as read: its bytes must not be missing from both, ever.
                self._board.publish(self.size, self._index.files)
        return False

    def keep(self, digest: bytes, size: int, now: float) -> None:
        """A file of ``size`` bytes on the disk was stored."""
        self._index.put(digest, size, now)
        if self._before:
            self._before += size

    def _drop(self, digest: bytes) -> None:
        node = self._index.get(digest)
        if node is not None:
            self._before = max(self._before - node.size, 0)
        self._index.forget(digest)

    def _load(self) -> None:
        """Begin to walk, or walk on: beside the rounds, which have more to do than that."""
        if self._walk_on() and self._clock is not None:
            self._loading = self._clock.callLater(self._loader.sleep, self._load)

    def _walk_on(self) -> bool:
        """A slice of the walk; True if there is more to walk."""
        pace = self._loader
        if self._walk is None:
            self._walked = self._now()
            self._walk = self._directory.walk(self._seen)
            pace = self._settings.loader  # a small cache is known at once
        piece = Slice(pace, self._tick)
        while piece.more():
            try:
                item = next(self._walk)
            except StopIteration:
                self._walk, self._before = None, 0
                self._index.resort()
                return False
            if item is not None and item[0] not in self._index:
                self._meet(*item)
        return True

    def _meet(self, digest: bytes, item: os.DirEntry[bytes]) -> None:
        """Take up a file that we did not know; what is broken shows when it is asked for."""
        try:
            stat = item.stat(follow_symlinks=False)
        except OSError:
            return
        if stat.st_size < PREFIX_LENGTH:
            self._counters.corrupt += 1
            self._directory.remove(digest)
        else:
            self._index.put(digest, on_disk(stat.st_size), stat.st_mtime)

    # Limits

    def room(self, size: int) -> bool:
        """Whether a file that takes ``size`` bytes on the disk may be stored now."""
        limit = self._settings.max_size
        if limit is None or not self._board.joined:
            return True
        self._board.meet()
        held = self.size + self._board.pending if self.manager else self._board.size
        return held + size <= limit + max(limit // SLACK, size)

    def enforce(self) -> bool:
        """A slice of enforcing the limits, least recently used first; True if there is more."""
        more = self._enforce()
        if self.manager:
            self._board.publish(self.size, self._index.files)
        return more

    def _enforce(self) -> bool:
        self.trim()
        short = self.manager and self._short()
        piece = Slice(self._settings.manager, self._tick)
        while piece.more():
            now = self._now()
            over = short or self._over()
            oldest = self._index.oldest(now)
            if oldest is None:
                if not len(self._index):
                    return False
                self._index.sweep(now)
                continue
            used = oldest[1].accessed
            if not over and now - self._settings.inactive < used <= now + SKEW:
                return False
            self._expel(*oldest)
        return True

    def _over(self) -> bool:
        limit = self._settings.max_size
        return self.manager and limit is not None and self.size > limit

    def _short(self) -> bool:
        """Whether the file system has less than ``min_free``."""
        if not self._settings.min_free:
            return False
        try:
            found = os.statvfs(self._directory.path)
        except OSError:
            return False
        return found.f_bavail * found.f_frsize < self._settings.min_free

    def trim(self) -> None:
        """Remember no more keys than ``keys_zone`` allows."""
        while self._index.full:
            now = self._now()
            oldest = self._index.oldest(now)
            if oldest is not None:
                self._expel(*oldest)
            elif not self._index.sweep(now):
                return

    def _expel(self, digest: bytes, node: Node) -> None:
        """Forget a key; the manager removes its file, unless another process just used it."""
        if self.manager:
            used = self._directory.used_at(digest)
            if used is not None and used[1] > node.accessed + 1 and not self._index.full:
                self._index.put(digest, on_disk(used[0]), used[1])
                return
            if used is not None and self._directory.remove(digest):
                self._counters.evicted += 1
                # Only then: what a manager before us has evicted is not in what it had counted.
                self._before = max(self._before - node.size, 0)
        self._index.forget(digest)
