"""Which files belong together: the renditions of an original, the variants of a key.

::

    PATH/groups/a7/MD5   the digests of the group's files, 16 bytes each

A digest is written to its group's list before its file is moved into place, under a lock on the
list that is held until then: whatever dies when, no file in place is missing from its list. A
list may name files that are gone; it goes when it names nothing else any more.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Final

from .store import lock_in_place

DIGEST: Final = 16
#: A list that was written to more lately than this, in seconds, is not cleaned up.
SETTLED: Final = 3600.0
#: The most digests in a list; the files beyond it are not cached.
MAX_DIGESTS: Final = 1 << 16


class GroupFull(OSError):
    """A group has `MAX_DIGESTS` files."""


def source_group(source: bytes) -> bytes:
    """The name of the group of all renditions of an original."""
    return _name(b"source\0" + source)


def key_group(key: bytes) -> bytes:
    """The name of the group of all variants (Vary) of a key."""
    return _name(b"key\0" + key)


def _name(text: bytes) -> bytes:
    return hashlib.md5(text, usedforsecurity=False).hexdigest().encode("ascii")


class Groups:
    """The groups of one cache directory."""

    def __init__(self, path: bytes) -> None:
        self._path = os.path.join(path, b"groups")

    def _file(self, name: bytes) -> bytes:
        return os.path.join(self._path, name[:2], name)

    def add(self, name: bytes, digest: bytes) -> int:
        """Put ``digest`` into a group. Raises OSError.

        Returns a descriptor that keeps the list from being cleaned up until it is closed.
        """
        fd = self._locked(self._file(name), create=True)
        try:
            known = os.pread(fd, MAX_DIGESTS * DIGEST, 0)
            if digest in _split(known):
                os.utime(fd)
            elif len(known) >= MAX_DIGESTS * DIGEST:
                raise GroupFull("too many files in one group")
            else:
                # A write that was cut short by a full disk is overwritten.
                os.pwrite(fd, digest, len(known) - len(known) % DIGEST)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _locked(self, path: bytes, *, create: bool) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
        while True:
            try:
                fd = os.open(path, flags, 0o600)
            except FileNotFoundError:
                if not create:
                    raise
                os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
                continue
            if lock_in_place(fd):
                return fd

    def members(self, name: bytes) -> list[bytes]:
        """The digests of a group. Raises OSError."""
        try:
            fd = os.open(self._file(name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return []
        try:
            return _split(os.pread(fd, MAX_DIGESTS * DIGEST, 0))
        finally:
            os.close(fd)

    def clean_up(
        self, exists: Callable[[bytes], object], now: Callable[[], float] = time.time
    ) -> Iterator[None]:
        """Remove the lists that name no file that ``exists``; a step for each list."""
        for folder in _names(self._path):
            where = os.path.join(self._path, folder)
            for name in _names(where):
                with contextlib.suppress(OSError):
                    self._review(os.path.join(where, name), exists, now())
                yield

    def _review(self, path: bytes, exists: Callable[[bytes], object], now: float) -> None:
        if abs(now - os.stat(path).st_mtime) < SETTLED:
            return
        fd = self._locked(path, create=False)
        try:
            if abs(now - os.fstat(fd).st_mtime) < SETTLED:
                return
            if not any(exists(digest) for digest in _split(os.pread(fd, MAX_DIGESTS * DIGEST, 0))):
                os.unlink(path)
        finally:
            os.close(fd)


def _split(data: bytes) -> list[bytes]:
    whole = len(data) - len(data) % DIGEST
    return [data[start : start + DIGEST] for start in range(0, whole, DIGEST)]


def _names(path: bytes) -> list[bytes]:
    try:
        return os.listdir(path)
    except OSError:
        return []
