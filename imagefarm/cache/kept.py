"""Hits that may be remembered, for the fast path (`http.hits`): what they depend on, and how to
tell that they still stand.

A cache file is never changed but for its times and its mode, and whatever is done to it moves its
time of change (ctime), which nobody can set back. So one stat tells that it is the same file, that
it was not purged softly, and when it was used last. What it can't tell is told by the clock
(freshness), by the zone's mapped generation (purges by prefix), and by a stat of the original
where it is followed. Whatever is due beyond an answer (a mark of use, a file that is damaged,
expired or gone) is left to the ordinary path.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, Protocol

from imagefarm.http.families import MAX_BODY
from imagefarm.http.lookup import OF_BYTES, Stability, stabilities_of
from imagefarm.http.message import Fields, Identity, Request, identity

from .directives import CacheSettings
from .entry import MAX_BLOCK, MAX_KEY, CorruptEntry, decode
from .follow import Original
from .policy import CLOCK_SKEW, initial_age, truthy
from .store import Found, digest_of
from .zone import Zone

#: The largest file that is read whole, in bytes.
MAX_FILE: Final = MAX_BLOCK + MAX_BODY


class Target(Protocol):
    """Where the inner handler would pass requests on to, which variables in the key may say."""

    @property
    def steady(self) -> bool:
        """Whether it is the same for all requests."""

    def announce(self, request: Request) -> None:
        """Set the variables for ``request``."""


class Shelf:
    """The hits of one `CachingHandler`."""

    __slots__ = ("_conditions", "_settings", "_target", "by_block", "roots", "stamps", "zone")

    def __init__(
        self, settings: CacheSettings, zone: Zone, target: Target | None, *, by_block: bool
    ) -> None:
        self._settings = settings
        self._target = target
        self._conditions = (*settings.purge, *settings.bypass)
        self.zone = zone
        self.roots = settings.follow
        self.by_block = by_block
        stamps: dict[bytes, bytes] = {}
        if settings.rfc9111:
            stamps[b"age"] = b"%d"
        if settings.status_header:
            stamps[b"cache-status"] = b"imagefarm; hit; ttl=%d"
        self.stamps: Mapping[bytes, bytes] = stamps

    @classmethod
    def of(cls, settings: CacheSettings, zone: Zone, target: Target | None) -> Shelf | None:
        """None where more than a request's bytes decides what is found."""
        if target is not None and not target.steady:
            return None
        templates = (settings.key, *settings.purge, *settings.bypass)
        needs = frozenset[Stability]().union(*map(stabilities_of, templates))
        if not needs <= OF_BYTES:
            return None
        return cls(settings, zone, target, by_block=Stability.BLOCK in needs)

    def keep(self, digest: bytes, found: Found) -> Kept | None:
        """The word for a hit that was found in the ordinary way; None if it can't be given."""
        entry = found.entry
        if entry.limit_rate or entry.status != 200:
            return None
        return Kept(self, digest, found)

    def take(self, request: Request, now: float) -> tuple[Kept, bytes] | None:
        """`http.keeping.Shelf`."""
        if self._target is not None:
            self._target.announce(request)
        for condition in self._conditions:
            if truthy(condition(request)):
                return None
        key = self._settings.key(request)
        if len(key) > MAX_KEY:
            return None
        digest = digest_of(key)
        read = self.zone.directory.read(digest, MAX_FILE)
        if read is None:
            return None
        file, data = read
        try:
            entry, offset = decode(data)
        except CorruptEntry:
            return None
        if entry.key != key or len(data) != offset + entry.body_length or not entry.body_length:
            return None
        if entry.vary or entry.limit_rate or entry.status != 200 or entry.body_length > MAX_BODY:
            return None
        kept = Kept(self, digest, Found(entry, file, offset))
        return (kept, data[offset:]) if kept.stands(now) else None


class Kept:
    """`http.keeping.Kept`: a hit that was found, fresh."""

    __slots__ = (
        "_digest", "_entry", "_first", "_original", "_path", "_size", "_used", "_young",
        "identity", "shelf",
    )  # fmt: skip

    def __init__(self, shelf: Shelf, digest: bytes, found: Found) -> None:
        self.shelf = shelf
        file, entry = found.file, found.entry
        self.identity: Identity = file.identity
        self._digest = digest
        self._entry = entry
        self._path = file.path
        self._size = file.size
        #: The file that has led to this one, its key's first variant.
        self._first = found.first
        self._used = file.mtime
        self._original = Original.of(shelf.roots, entry)
        #: How old it was when it was stored, if that is asked for.
        self._young: float | None = None

    @property
    def by_block(self) -> bool:
        """The key, or a condition, says so."""
        return self.shelf.by_block

    @property
    def chosen(self) -> bool:
        """By ``Vary``."""
        return bool(self._entry.vary)

    @property
    def stamps(self) -> Mapping[bytes, bytes]:
        """``Age`` and ``Cache-Status``, where they are sent."""
        return self.shelf.stamps

    @property
    def fields(self) -> Fields:
        """The entry's."""
        return self._entry.headers

    @property
    def length(self) -> int:
        """In bytes."""
        return self._entry.body_length

    @property
    def status(self) -> bytes:
        """For ``$upstream_cache_status``."""
        return b"HIT"

    def numbers(self, now: float) -> tuple[int, ...]:
        """As `answers.from_file` writes them."""
        entry, stamps = self._entry, self.shelf.stamps
        found: tuple[int, ...] = ()
        if b"age" in stamps:
            if self._young is None:
                self._young = initial_age(entry)
            found = (max(0, int(self._young + now - entry.stored)),)
        if b"cache-status" in stamps:
            found = (*found, int(entry.expires - now))
        return found

    def stands(self, now: float) -> bool:
        """Whether it would be a hit, as far as its file does not tell."""
        entry = self._entry
        if not entry.stored - CLOCK_SKEW <= now < entry.expires:
            return False
        if self.shelf.zone.purges.prefix_of(entry, now) is not None:
            return False
        return self._original is None or self._original.same

    def holds(self, now: float) -> bool:
        """Whether it would be one, and is not to be marked as used."""
        if abs(now - self._used) > self.shelf.zone.touch_interval:
            return False
        try:
            if identity(os.stat(self._path)) != self.identity:
                return False
            if self._first is not None and identity(os.stat(self._first[0])) != self._first[1]:
                return False
        except OSError:
            return False
        return self.stands(now)

    def use(self, now: float) -> None:
        """A hit."""
        zone = self.shelf.zone
        zone.counters.hits += 1
        if abs(now - self._used) > zone.touch_interval:
            zone.touch(self._digest, self._size, self._path, now)
