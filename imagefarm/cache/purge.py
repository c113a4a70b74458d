"""Purging: by key, by prefix, by original; and what that leaves to clean up.

A hard purge removes, a soft one lets an answer be served while it is updated. The cost is that
of the files concerned, never that of the cache: a prefix costs one mark, and what it has ended
is found when it is asked for, or by the purger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .chores import Chore
from .entry import CorruptEntry, Entry
from .groups import Groups, key_group, source_group
from .purges import KEY, PREFIX, SOFT_PREFIX, SOURCE, Mark, Purges
from .settings import ZoneSettings
from .store import Directory, digest_of
from .upkeep import Counters

#: Seconds between two reviews: of the marks of purges, and of the lists of groups.
MARKS_INTERVAL = 60.0
LISTS_INTERVAL = 3600.0


class Purger:
    """The purges of a zone. ``remove`` removes a file; ``now`` gives seconds since the epoch."""

    def __init__(
        self,
        settings: ZoneSettings,
        directory: Directory,
        groups: Groups,
        purges: Purges,
        remove: Callable[[bytes], bool],
        counters: Counters,
        now: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._groups = groups
        self._purges = purges
        self._remove = remove
        self._counters = counters
        self._now = now
        self._swept: frozenset[Mark] = frozenset()
        self._reviewed = self._tidied = now()

    def key(self, key: bytes, *, soft: bool = False) -> int:
        """Purge all variants of a key: the number of files. Raises OSError."""
        self._purges.mark(Mark(self._now(), KEY, key))
        digests = {digest_of(key), *self._groups.members(key_group(key))}
        return self._all(digests, lambda entry: entry.key == key, soft)

    def source(self, source: bytes, *, soft: bool = False) -> int:
        """Purge all renditions of an original, as the resizer names it. Raises OSError."""
        self._purges.mark(Mark(self._now(), SOURCE, source))
        digests = set(self._groups.members(source_group(source)))
        return self._all(digests, lambda entry: entry.source == source, soft)

    def prefix(self, prefix: bytes, *, soft: bool = False) -> None:
        """Purge all keys that begin with ``prefix``. Raises OSError."""
        self._purges.mark(Mark(self._now(), SOFT_PREFIX if soft else PREFIX, prefix))

    def _all(self, digests: set[bytes], meant: Callable[[Entry], bool], soft: bool) -> int:
        count = 0
        for digest in digests:
            try:
                found = self._directory.open(digest)
            except CorruptEntry:
                self._remove(digest)
                continue
            if found is None:
                continue
            try:
                if meant(found.entry):
                    if soft:
                        self._directory.soften(found)
                    else:
                        self._remove(digest)
                    count += 1
            finally:
                found.file.close()
        self._counters.purged += count
        return count

    # What is left to the manager

    def chores(self) -> tuple[Chore, ...]:
        """The manager's part."""
        return (
            Chore(self._settings.purging, self._sweep),
            Chore(self._settings.manager, self._review),
            Chore(self._settings.manager, self._tidy),
        )

    def _sweep(self) -> Iterator[Any] | None:
        """nginx's cache purger: remove the files that purges by prefix have ended."""
        if not self._settings.purger:
            return None
        marks = {mark for mark in self._purges.prefixes if mark.kind == PREFIX}
        return self._swept_off(frozenset(marks)) if marks - self._swept else None

    def _swept_off(self, marks: frozenset[Mark]) -> Iterator[None]:
        for item in self._directory.walk({}):
            if item is not None:
                self._weigh(item[0])
            yield
        self._swept = marks

    def _weigh(self, digest: bytes) -> None:
        try:
            found = self._directory.open(digest)
        except (CorruptEntry, OSError):
            return
        if found is not None:
            mark = self._purges.prefix_of(found.entry.key, found.entry.asked, self._now())
            found.file.close()
            if mark is not None and mark.kind == PREFIX and self._remove(digest):
                self._counters.purged += 1

    def _review(self) -> Iterator[Any] | None:
        """Drop the marks that are no use any more."""
        now = self._now()
        if abs(now - self._reviewed) < MARKS_INTERVAL:
            return None
        self._reviewed = now
        self._purges.forget(now, self._settings.inactive)
        return None

    def _tidy(self) -> Iterator[Any] | None:
        """Remove lists that name nothing any more."""
        now = self._now()
        if abs(now - self._tidied) < LISTS_INTERVAL:
            return None
        self._tidied = now
        return self._groups.clean_up(self._directory.used_at, self._now)
