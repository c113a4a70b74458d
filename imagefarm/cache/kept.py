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
import struct
from collections.abc import Mapping
from typing import Final, Protocol

from attrs import define

from imagefarm.http.families import MAX_BODY
from imagefarm.http.headers import Headers
from imagefarm.http.lookup import OF_BYTES, Stability, stabilities_of
from imagefarm.http.message import Identity, Request, identity

from .directives import CacheSettings
from .entry import MAX_BLOCK, MAX_KEY, CorruptEntry, Entry, decode
from .follow import Original
from .policy import CLOCK_SKEW, initial_age, truthy
from .store import Found, digest_of
from .zone import Zone

#: The largest file that is read whole, in bytes.
MAX_FILE: Final = MAX_BLOCK + MAX_BODY
#: Digest, identity of the file, times, length; the lengths of the key, the original and its
#: identity, which follow, as do the values of the fields.
_RECORD: Final = struct.Struct("=16sqqQdddddIHHH")

#: The file that has led to one, and what that was.
First = tuple[bytes, Identity] | None

#: Fields that are rewritten, or obeyed, for each request anew.
_ANEW: Final = frozenset({
    b"location", b"refresh", b"set-cookie", b"x-accel-charset", b"x-accel-limit-rate",
    b"x-accel-redirect",
})  # fmt: skip


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

    def keep(self, digest: bytes, found: Found, presented: Headers) -> Kept | None:
        """The word for a hit that was found in the ordinary way; None if it can't be given.

        ``presented`` are the fields of it that clients get.
        """
        entry = found.entry
        if entry.status != 200 or not _ANEW.isdisjoint([n.lower() for n, _ in entry.headers]):
            return None
        file = found.file
        kept = self._kept(digest, file.path, file.identity, file.mtime, entry, found.first)
        kept.shown = frozenset([name.lower() for name, _ in presented])
        return kept

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
        digest, directory = digest_of(key), self.zone.directory
        path = directory.file(digest)
        read = directory.read(path, MAX_FILE)
        if read is None:
            return None
        info, data = read
        try:
            entry, offset = decode(data)
        except CorruptEntry:
            return None
        length = entry.body_length
        if entry.key != key or len(data) != offset + length or not length:
            return None
        if entry.vary or entry.status != 200 or length > MAX_BODY:
            return None
        kept = self._kept(digest, path, identity(info), info.st_mtime, entry, None)
        return (kept, data[offset:]) if kept.stands(now) else None

    def recall(
        self, record: bytes, start: int, names: tuple[bytes, ...], now: float
    ) -> tuple[Kept, bytes] | None:
        """`http.keeping.Shelf`."""
        (
            digest, changed, size, inode, used, stored, expires, asked, young, length, key,
            source, was,
        ) = _RECORD.unpack_from(record, start)  # fmt: skip
        path, what = self.zone.directory.file(digest), (changed, size, inode)
        body = self.zone.directory.body(path, what, length)
        if body is None:
            return None
        start += _RECORD.size
        key += start
        source += key
        was += source
        kept = Kept(
            self, digest, path, what, used, stored, expires, asked, young, length,
            record[start:key], names, tuple(record[was:].split(b"\n")) if names else (),
            Original.of(self.roots, record[key:source], record[source:was]), None,
        )  # fmt: skip
        return (kept, body) if kept.stands(now) else None

    def _kept(
        self, digest: bytes, path: bytes, what: Identity, used: float, entry: Entry, first: First
    ) -> Kept:
        return Kept(
            self, digest, path, what, used, entry.stored, entry.expires, entry.asked,
            initial_age(entry) if b"age" in self.stamps else 0.0, entry.body_length, entry.key,
            tuple([name for name, _ in entry.headers]),
            tuple([value for _, value in entry.headers]),
            Original.of(self.roots, entry.source, entry.identity), first, bool(entry.vary),
        )  # fmt: skip


@define(eq=False)
class Kept:
    """`http.keeping.Kept`: a hit that was found, fresh.

    ``asked`` and ``young``: when it was asked for, and how old it was when it was stored (0 where
    nobody wants to know); ``first``: the file that has led to this one, its key's first variant.
    """

    shelf: Shelf
    digest: bytes
    path: bytes
    identity: Identity
    used: float
    stored: float
    expires: float
    asked: float
    young: float
    length: int
    key: bytes
    names: tuple[bytes, ...]
    values: tuple[bytes, ...]
    original: Original | None
    first: First
    chosen: bool = False
    shown: frozenset[bytes] = frozenset()

    @property
    def by_block(self) -> bool:
        """The key, or a condition, says so."""
        return self.shelf.by_block

    @property
    def stamps(self) -> Mapping[bytes, bytes]:
        """``Age`` and ``Cache-Status``, where they are sent."""
        return self.shelf.stamps

    @property
    def status(self) -> bytes:
        """For ``$upstream_cache_status``."""
        return b"HIT"

    def numbers(self, now: float) -> tuple[int, ...]:
        """As `answers.from_file` writes them."""
        stamps = self.shelf.stamps
        found: tuple[int, ...] = ()
        if b"age" in stamps:
            found = (max(0, int(self.young + now - self.stored)),)
        if b"cache-status" in stamps:
            found = (*found, int(self.expires - now))
        return found

    def stands(self, now: float) -> bool:
        """Whether it would be a hit, as far as its file does not tell."""
        if not self.stored - CLOCK_SKEW <= now < self.expires:
            return False
        if self.shelf.zone.purges.prefix_of(self.key, self.asked, now) is not None:
            return False
        return self.original is None or self.original.same

    def holds(self, now: float) -> bool:
        """Whether it would be one, and is not to be marked as used."""
        if abs(now - self.used) > self.shelf.zone.touch_interval:
            return False
        try:
            if identity(os.stat(self.path)) != self.identity:
                return False
            if self.first is not None and identity(os.stat(self.first[0])) != self.first[1]:
                return False
        except OSError:
            return False
        return self.stands(now)

    def use(self, now: float) -> None:
        """A hit."""
        zone = self.shelf.zone
        zone.counters.hits += 1
        if abs(now - self.used) > zone.touch_interval:
            zone.touch(self.digest, self.identity[1], self.path, now)

    def record(self) -> bytes | None:
        """`http.keeping.Kept`."""
        if self.chosen or self.first is not None or self.by_block:
            return None
        original = self.original
        source, was = (b"", b"") if original is None else (original.source, original.identity)
        return _RECORD.pack(
            self.digest, *self.identity, self.used, self.stored, self.expires, self.asked,
            self.young, self.length, len(self.key), len(source), len(was),
        ) + b"%b%b%b%b" % (self.key, source, was, b"\n".join(self.values))  # fmt: skip
