"""A zone: one cache directory and what this process remembers of it.

All processes on the machine share the directory and nothing else: a file that another one
stored is a hit here, one that another one removed is a miss.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Final

from attrs import evolve
from twisted.logger import Logger

from imagefarm.http.headers import Headers

from .entry import CorruptEntry, Entry, EntryError, encode
from .flights import Flights
from .follow import changed
from .groups import Groups, key_group, source_group
from .index import Index, on_disk
from .locks import Locks
from .members import Board, Note
from .policy import variant
from .purge import Purger
from .purges import SOFT_PREFIX, Purges
from .settings import ZoneSettings
from .store import Directory, Found, Writer, digest_of
from .trouble import Trouble
from .upkeep import Clock, Counters, Upkeep
from .uses import Uses

#: A hit marks its file as used only if the last mark is older than a twentieth of ``inactive``,
#: but at least and at most so many seconds: that is the accuracy of "least recently used".
TOUCH_INTERVALS: Final = (10.0, 30.0)
#: At most so many where only ``inactive``, or a full ``keys_zone``, ends what is not used.
TOUCH_UNLIMITED: Final = 300.0
#: For how long a softly purged answer may be served while it is updated, in seconds.
SOFT_GRACE: Final = 3600.0


class Zone:
    """A cache zone. ``now`` gives seconds since the epoch."""

    _log = Logger()

    def __init__(self, settings: ZoneSettings, now: Callable[[], float] = time.time) -> None:
        self.settings = settings
        least, most = TOUCH_INTERVALS
        if settings.max_size is None and not settings.min_free:
            most = TOUCH_UNLIMITED
        #: How old the last mark of use is before there is another, in seconds.
        self.touch_interval = min(most, max(least, settings.inactive / 20))
        self.now = now
        self.directory = Directory(settings.path, settings.levels)
        self.index = Index(settings.keys)
        self.counters = Counters()
        trouble = Trouble(settings.name, self.counters, now)
        self._trouble, self._over = trouble.happened, trouble.over
        self.flights = Flights(Locks(self.directory.path), now, self._trouble)
        self.clock: Clock | None = None
        self.board = Board(self.directory.path)
        self.groups = Groups(self.directory.path)
        self.purges = Purges(self.directory.path, self.board)
        self.purger = Purger(
            settings, self.directory, self.groups, self.purges, self.remove, self.counters, now
        )
        self._upkeep = Upkeep(
            settings, self.directory, self.index, self.board, self.counters, now, self._trouble,
            self.purger.chores(),
        )  # fmt: skip
        self._uses = Uses(self.directory.path)

    @property
    def manager(self) -> bool:
        """Whether this process is the directory's manager."""
        return self._upkeep.manager

    @property
    def size(self) -> int:
        """Bytes on the disk of all files, of whatever process, as far as they are known."""
        return self._upkeep.size if self.manager else self.board.size

    @property
    def entries(self) -> int:
        """The number of files, of whatever process, as the manager said last."""
        return self.index.files if self.manager else self.board.files

    def __repr__(self) -> str:
        count = self.counters
        role = "manager" if self.manager else "member"
        return (
            f"<Zone {self.settings.name} {role} {self.entries} entries {self.size} bytes, "
            f"{count.hits} hits {count.misses} misses {count.expired} expired "
            f"{count.bypass} bypass {count.stored} stored {count.evicted} evicted>"
        )

    # Looking up

    def find(
        self, key: bytes, headers: Headers, follow: tuple[bytes, ...] = ()
    ) -> tuple[bytes, Found | None]:
        """The file for ``key`` and a request with ``headers``, fresh or not, open.

        With it the digest under which it stands or, if there is none, is to be filled. Counts
        as a use. It is expired if its original, below one of the directories ``follow``, is not
        what it was. Never raises.
        """
        digest, found = self._find(key, headers)
        if found is not None and follow and changed(follow, found.entry):
            self.counters.changed += 1
            found = self._expired(found)
        self._used(digest, found)
        return digest, found

    def look(self, key: bytes, headers: Headers, follow: tuple[bytes, ...] = ()) -> Found | None:
        """What `find` would give, not counted as a use."""
        found = self._find(key, headers)[1]
        if found is not None and follow and changed(follow, found.entry):
            return self._expired(found)
        return found

    def _find(self, key: bytes, headers: Headers) -> tuple[bytes, Found | None]:
        digest = digest_of(key)
        found = self._open(digest, key)
        if found is not None and found.entry.vary:
            mark = variant(found.entry.vary, headers)
            if mark != found.entry.variant:
                found.file.close()
                digest = digest_of(key, mark)
                first = found.file.path, found.file.identity
                found = self._open(digest, key)
                if found is not None and found.entry.variant != mark:
                    found.file.close()
                    found = None
                if found is not None:
                    found = evolve(found, first=first)
        return digest, found

    def _expired(self, found: Found, grace: float = 0.0) -> Found:
        """``found``, expired now; ``grace``: for how long it may be served while it is updated."""
        entry = found.entry
        grace = max(entry.stale_while_revalidate, grace)
        expires = min(entry.expires, self.now())
        return evolve(found, entry=evolve(entry, expires=expires, stale_while_revalidate=grace))

    def _open(self, digest: bytes, key: bytes) -> Found | None:
        try:
            found = self.directory.open(digest)
        except CorruptEntry as reason:
            self.counters.corrupt += 1
            self._log.error(
                "cache file {path} removed: {reason}",
                path=os.fsdecode(self.directory.file(digest)),
                reason=str(reason),
            )
            self.remove(digest)
            return None
        except OSError as reason:
            self._trouble(reason)
            return None
        if found is not None and found.entry.key != key:
            # Two keys with one digest: the last one filled has the place.
            found.file.close()
            return None
        return self._spared(digest, found)

    def _spared(self, digest: bytes, found: Found | None) -> Found | None:
        """What purges have left of ``found``: all, an expired answer, or nothing."""
        if found is None:
            return None
        mark = self.purges.prefix_of(found.entry.key, found.entry.asked, self.now())
        if mark is not None and mark.kind != SOFT_PREFIX:
            found.file.close()
            self.counters.purged += self.remove(digest)
            return None
        if found.soft or mark is not None:
            return evolve(self._expired(found, SOFT_GRACE), soft=True)
        return found

    def _used(self, digest: bytes, found: Found | None) -> None:
        now = self.now()
        if found is None:
            self.index.forget(digest)
        elif abs(now - found.file.mtime) > self.touch_interval or found.entry.expires <= now:
            self.touch(digest, found.file.size, found.file.fd, now)
            return
        else:
            return  # nearly every hit: nothing to note
        self._upkeep.trim()

    def touch(self, digest: bytes, size: int, file: int | bytes, now: float) -> None:
        """Note the use of a digest's file, of ``size`` bytes."""
        self.index.put(digest, on_disk(size), now)
        with contextlib.suppress(OSError):
            os.utime(file, (now, now))
        self._upkeep.trim()

    def asked(self, digest: bytes) -> int:
        """Count a request for ``digest``: how many there were (``*_cache_min_uses``).

        In all processes, and since it was not asked for during ``inactive``. 0 if nobody counts.
        """
        try:
            return self._uses.count(digest, self.now(), self.settings.inactive)
        except OSError as reason:
            self._trouble(reason)
            return 0

    def remove(self, digest: bytes) -> bool:
        """Remove a file; False if it was not there."""
        removed = self.directory.remove(digest)
        self.index.forget(digest)
        if removed and not self.manager:
            self.board.tell(Note(digest, None, self.now()))
        return removed

    def drop(self, entry: Entry) -> None:
        """Remove the file of ``entry``, which is out of date; not one asked for later."""
        for digest in {digest_of(entry.key), digest_of(entry.key, entry.variant)}:
            found = self._open(digest, entry.key)
            if found is None:
                continue
            found.file.close()
            same = found.entry.variant == entry.variant
            if same and found.entry.asked <= entry.asked and self.remove(digest):
                self.counters.changed += 1

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

    def refresh(self, found: Found, entry: Entry, digest: bytes) -> bool:
        """Store the body of an open file again, under a header with new times.

        A new file, so that nobody ever reads half of a header; the file system copies the body,
        or shares it. False if that is not possible now.
        """
        writer = self.writer(entry)
        if writer is None:
            return False
        try:
            writer.copy(found.file.fd, found.body_offset, entry.body_length)
        except OSError as reason:
            self._trouble(reason)
            writer.close()
            return False
        stored = self.commit(writer, entry, digest)
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
        """Put the file, now whole, in its place; False if that failed, or there is no room."""
        now, size = self.now(), on_disk(writer.body_offset + writer.written)
        if self.manager:
            self._upkeep.enforce()
        if not self._upkeep.room(size):
            self.counters.full += 1
            writer.abort()
            return False
        if self.purges.overtaken(entry, now):
            writer.abort()
            return False
        if not self.manager:
            self.board.tell(Note(digest, size, now))  # first: an untold file would not count
        lists: list[int] = []
        try:
            self._enlist(entry, digest, lists)
            writer.commit(encode(entry), digest, now)
        except OSError as reason:
            writer.abort()
            self._trouble(reason)
            return False
        finally:
            for fd in lists:
                os.close(fd)
        self._over()
        self.counters.stored += 1
        self._upkeep.keep(digest, size, now)
        self._upkeep.enforce()
        return True

    def _enlist(self, entry: Entry, digest: bytes, lists: list[int]) -> None:
        """Put a file into its groups, whose lists stay locked by ``lists``. Raises OSError."""
        if entry.source:
            lists.append(self.groups.add(source_group(entry.source), digest))
        if entry.variant:
            lists.append(self.groups.add(key_group(entry.key), digest))

    # Upkeep

    def start(self, clock: Clock) -> None:
        """Make the directory and begin the upkeep. To be called after forking."""
        self.clock = clock
        try:
            self.directory.create()
        except OSError as reason:
            self._trouble(reason)
        self.flights.start(clock)
        self._upkeep.start(clock)

    def stop(self) -> None:
        """End the upkeep; another process may be the manager."""
        self.flights.stop()
        self._upkeep.stop()
        self._uses.close()
