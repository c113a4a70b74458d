"""A zone: one cache directory, what this process remembers of it, and its upkeep.

All processes on the machine share the directory and nothing else. One of them, whichever holds
the lock file, is its manager: it walks the directory in small slices, removes what a crash
left behind, and enforces ``max_size`` and ``inactive``. When it dies, another takes over.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from attrs import define, evolve
from twisted.logger import Logger

from imagefarm.http.headers import Headers

from .entry import CorruptEntry, Entry, EntryError, encode
from .flights import Flights
from .index import Index, Node
from .policy import variant
from .settings import ZoneSettings
from .store import Directory, Found, Writer, digest_of

#: Seconds between the manager's rounds, and between slices of one that is not done.
ROUND: Final = 1.0
PAUSE: Final = 0.01
#: The most files that one slice looks at, and that one slice evicts.
SLICE: Final = 64
#: Seconds between the walks in which the manager meets the files that others stored.
WALK_INTERVAL: Final = 5.0
#: A hit marks its file as used only if the last mark is older than this: the accuracy, in
#: seconds, of "least recently used" between processes.
TOUCH_INTERVAL: Final = 10.0
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


class Zone:
    """A cache zone. ``now`` gives seconds since the epoch."""

    _log = Logger()

    def __init__(self, settings: ZoneSettings, now: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.now = now
        self.directory = Directory(settings.path, settings.levels)
        self.index = Index(settings.keys)
        self.flights = Flights()
        self.counters = Counters()
        #: Whether this process is the directory's manager.
        self.manager = False
        self.clock: Clock | None = None
        self._call: Any = None
        self._lock = -1
        self._walk: Iterator[tuple[bytes, os.DirEntry[bytes]] | None] | None = None
        self._walked: float | None = None
        self._seen: dict[bytes, int] = {}
        self._troubled = False

    @property
    def size(self) -> int:
        """Bytes on the disk of the files that this process knows; the manager knows all."""
        return self.index.size

    @property
    def entries(self) -> int:
        """The number of files that this process knows."""
        return self.index.files

    def __repr__(self) -> str:
        count = self.counters
        role = "manager" if self.manager else "member"
        return (
            f"<Zone {self.settings.name} {role} {self.entries} entries {self.size} bytes, "
            f"{count.hits} hits {count.misses} misses {count.expired} expired "
            f"{count.bypass} bypass {count.stored} stored {count.evicted} evicted>"
        )

    # Looking up

    def find(self, key: bytes, headers: Headers) -> tuple[bytes, Found | None]:
        """The file for ``key`` and a request with ``headers``, fresh or not, open.

        With it the digest under which it stands or, if there is none, is to be filled. Counts
        as a use. Never raises.
        """
        digest = digest_of(key)
        found = self._open(digest, key)
        if found is not None and found.entry.vary:
            mark = variant(found.entry.vary, headers)
            if mark != found.entry.variant:
                found.file.close()
                digest = digest_of(key, mark)
                found = self._open(digest, key)
                if found is not None and found.entry.variant != mark:
                    found.file.close()
                    found = None
        self._used(digest, found)
        return digest, found

    def _open(self, digest: bytes, key: bytes) -> Found | None:
        try:
            found = self.directory.open(digest)
        except CorruptEntry as reason:
            self.counters.corrupt += 1
            self._log.warn(
                "cache file {path} removed: {reason}",
                path=os.fsdecode(self.directory.file(digest)),
                reason=str(reason),
            )
            self.directory.remove(digest)
            return None
        except OSError as reason:
            self._trouble(reason)
            return None
        if found is not None and found.entry.key != key:
            # Two keys with one digest: the last one filled has the place.
            found.file.close()
            return None
        return found

    def _used(self, digest: bytes, found: Found | None) -> None:
        now = self.now()
        self.index.use(digest, now)
        if found is None:
            self.index.lost(digest)
        else:
            self.index.put(digest, _on_disk(found.file.size), now)
            if abs(now - found.file.mtime) > TOUCH_INTERVAL:
                with contextlib.suppress(OSError):
                    os.utime(found.file.fd, (now, now))
        self._trim()

    def uses(self, digest: bytes) -> int:
        """How often this process was asked for ``digest`` (``*_cache_min_uses``)."""
        node = self.index.get(digest)
        return node.uses if node is not None else 0

    # Storing

    def place(self, entry: Entry, digest: bytes) -> bytes:
        """The digest under which ``entry`` goes, when the look-up had ended at ``digest``.

        The first variant of a key has the key's own place, the others theirs: a look-up finds
        there which headers make the difference.
        """
        if entry.variant and digest_of(entry.key, entry.variant) == digest:
            return digest
        return digest_of(entry.key)

    def store(self, entry: Entry, digest: bytes, body: bytes) -> bool:
        """Store a whole answer; False if that is not possible now."""
        limit = self.settings.max_size
        if limit is not None and len(body) > limit:
            return False
        writer = self.writer(entry)
        if writer is None:
            return False
        entry = evolve(entry, body_length=len(body))
        stored = self.write(writer, body) and self.commit(writer, entry, digest)
        writer.close()
        return stored

    def writer(self, entry: Entry) -> Writer | None:
        """Begin to store ``entry``; None if that is not possible now, which is logged once."""
        try:
            return self.directory.writer(entry)
        except EntryError as reason:
            self._log.info("not cached: {reason}", reason=str(reason))
        except OSError as reason:
            self._trouble(reason)
        return None

    def write(self, writer: Writer, chunk: bytes) -> bool:
        """Add to the body; False if the file could not take it and is given up."""
        try:
            writer.write(chunk)
        except OSError as reason:
            writer.abort()
            self._trouble(reason)
            return False
        return True

    def commit(self, writer: Writer, entry: Entry, digest: bytes) -> bool:
        """Put the file, now whole, in its place; False if that failed."""
        now = self.now()
        try:
            size = writer.commit(encode(entry), digest, now)
        except OSError as reason:
            writer.abort()
            self._trouble(reason)
            return False
        if self._troubled:
            self._troubled = False
            self._log.info("cache {zone} stores again", zone=self.settings.name)
        self.counters.stored += 1
        self.index.put(digest, _on_disk(size), now)
        self._trim()
        if self.manager:
            self._evict()
        return True

    def _trouble(self, reason: OSError) -> None:
        self.counters.errors += 1
        if not self._troubled:
            self._troubled = True
            self._log.error(
                "cache {zone} does not work, serving on without: {reason}",
                zone=self.settings.name,
                reason=str(reason),
            )

    # Upkeep

    def start(self, clock: Clock) -> None:
        """Make the directory and begin the rounds. To be called after forking."""
        self.clock = clock
        try:
            self.directory.create()
        except OSError as reason:
            self._trouble(reason)
        self._call = clock.callLater(0, self._round)

    def stop(self) -> None:
        """End the rounds and let another process be the manager."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
        self._walk = None
        self._resign()

    def _round(self) -> None:
        self._elect()
        busy = False
        if self.manager:
            busy = self._look_around()
        busy = self._evict() or busy
        if self.clock is not None:
            self._call = self.clock.callLater(PAUSE if busy else ROUND, self._round)

    def _elect(self) -> None:
        """Take the lock, or find out that ours has been removed with the directory."""
        if self.manager and self.directory.holds(self._lock):
            return
        self._resign()
        try:
            self._lock = self.directory.lock()
        except BlockingIOError:
            return
        except OSError as reason:
            self._trouble(reason)
            return
        self.manager = True
        self._seen.clear()
        self._walked = None

    def _resign(self) -> None:
        self.manager = False
        self._walk = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _look_around(self) -> bool:
        """A slice of the walk; True if there is more to walk."""
        now = self.now()
        if self._walk is None:
            if self._walked is not None and abs(now - self._walked) < WALK_INTERVAL:
                return False
            self._walked = now
            self.directory.remove_strays()
            self._walk = self.directory.walk(self._seen)
        for _ in range(SLICE):
            try:
                item = next(self._walk)
            except StopIteration:
                self._walk = None
                return False
            if item is not None and item[0] not in self.index:
                self._meet(*item)
        return True

    def _meet(self, digest: bytes, item: os.DirEntry[bytes]) -> None:
        """Take up a file that we did not know, unless it is broken."""
        try:
            stat = item.stat(follow_symlinks=False)
        except OSError:
            return
        if not self.directory.whole(item.path):
            self.counters.corrupt += 1
            self.directory.remove(digest)
        else:
            self.index.put(digest, _on_disk(stat.st_size), stat.st_mtime)

    def _evict(self) -> bool:
        """Enforce the limits, least recently used first; True if there is more to do."""
        limit, idle = self.settings.max_size, self.now() - self.settings.inactive
        for _ in range(SLICE):
            oldest = self.index.oldest()
            if oldest is None:
                return False
            over = self.manager and limit is not None and self.index.size > limit
            if not over and oldest[1].accessed > idle:
                return False
            self._expel(*oldest)
        return True

    def _trim(self) -> None:
        while self.index.full:
            oldest = self.index.oldest()
            if oldest is not None:
                self._expel(*oldest)

    def _expel(self, digest: bytes, node: Node) -> None:
        """Forget a key; the manager removes its file, unless another process just used it."""
        if self.manager and node.size is not None:
            used = self.directory.used_at(digest)
            if used is not None and used[1] > node.accessed + 1 and not self.index.full:
                self.index.put(digest, _on_disk(used[0]), used[1])
                return
            if used is not None and self.directory.remove(digest):
                self.counters.evicted += 1
        self.index.forget(digest)


def _on_disk(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
