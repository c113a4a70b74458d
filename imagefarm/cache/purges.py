"""What was purged lately, for all processes of a zone: a file of marks beside the cache files.

A purge by prefix only writes a mark: what was asked for before it and begins with the prefix is
no hit any more, whoever finds it. A purge by key or original removes the files it finds, and its
mark keeps an answer out that was under way meanwhile.

``PATH/purges`` holds records: ``time | kind | length of the value | value``. `Board.generation`
tells the others to read it again.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from attrs import frozen

from .entry import Entry
from .members import Board
from .store import lock_in_place

#: For how long the marks of keys and originals are kept, in seconds: answers take less.
KEPT: Final = 600.0
#: How far in the future a mark may lie before we stop believing the clock, in seconds.
SKEW: Final = 60.0
#: What of the file is read, in bytes; more marks than that purge everything.
MAX_FILE: Final = 16 << 20
KEY: Final = b"k"
SOURCE: Final = b"s"
PREFIX: Final = b"p"
SOFT_PREFIX: Final = b"q"

_HEAD: Final = struct.Struct("=dcI")


@frozen
class Mark:
    """``kind`` of thing ``value`` was purged at ``moment``, in seconds since the epoch."""

    moment: float
    kind: bytes
    value: bytes


def encode(marks: Iterable[Mark]) -> bytes:
    """The bytes of the file."""
    return b"".join(
        _HEAD.pack(mark.moment, mark.kind, len(mark.value)) + mark.value for mark in marks
    )


def decode(data: bytes) -> Iterator[Mark]:
    """The marks in ``data``; ends at one that was cut short."""
    place = 0
    while place + _HEAD.size <= len(data):
        moment, kind, length = _HEAD.unpack_from(data, place)
        place += _HEAD.size
        if place + length > len(data):
            return
        yield Mark(moment, kind, data[place : place + length])
        place += length


class Purges:
    """The marks of a zone as this process knows them."""

    def __init__(self, path: bytes, board: Board) -> None:
        self._path = os.path.join(path, b"purges")
        self._board = board
        self._generation = -1
        self._exact: dict[tuple[bytes, bytes], float] = {}
        self._prefixes: tuple[Mark, ...] = ()

    def _refresh(self) -> None:
        generation = self._board.generation
        if generation != self._generation:
            self._generation = generation
            marks = self._read()
            self._prefixes = tuple(m for m in marks if m.kind in (PREFIX, SOFT_PREFIX))
            self._exact = {
                (mark.kind, mark.value): mark.moment
                for mark in marks
                if mark.kind in (KEY, SOURCE)
            }

    def _read(self) -> list[Mark]:
        try:
            with open(self._path, "rb") as file:
                data = file.read(MAX_FILE + 1)
        except OSError:
            return []
        if len(data) > MAX_FILE:
            return [Mark(os.stat(self._path).st_mtime, PREFIX, b"")]
        return list(decode(data))

    @property
    def prefixes(self) -> tuple[Mark, ...]:
        """The purges by prefix that are still in force."""
        self._refresh()
        return self._prefixes

    def prefix_of(self, key: bytes, asked: float, now: float) -> Mark | None:
        """The purge by prefix that has ended an entry, hard before soft.

        ``asked`` is when it was asked for (`Entry.asked`).
        """
        if self._board.generation != self._generation:
            self._refresh()
        if not self._prefixes:
            return None
        hit = None
        for mark in self._prefixes:
            if asked <= mark.moment <= now + SKEW and key.startswith(mark.value):
                if mark.kind == PREFIX:
                    return mark
                hit = mark
        return hit

    def overtaken(self, entry: Entry, now: float) -> bool:
        """Whether ``entry``, about to be stored, was asked for before it was purged."""
        self._refresh()
        moments = [self._exact.get((KEY, entry.key)), self._exact.get((SOURCE, entry.source))]
        if any(m is not None and entry.asked <= m <= now + SKEW for m in moments):
            return True
        return self.prefix_of(entry.key, entry.asked, now) is not None

    def _locked(self, flags: int) -> int:
        """The file, locked: the one that is in place. Raises OSError."""
        while True:
            fd = os.open(self._path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            if lock_in_place(fd):
                return fd

    def mark(self, mark: Mark) -> None:
        """Let all processes know. Raises OSError."""
        fd = self._locked(os.O_RDWR | os.O_CREAT)
        try:
            size, data = os.fstat(fd).st_size, encode([mark])
            if os.pwrite(fd, data, size) != len(data):
                os.ftruncate(fd, size)
                raise OSError("the mark of a purge could not be written")
            self._board.advance()
        finally:
            os.close(fd)

    def forget(self, now: float, inactive: float) -> None:
        """Drop the marks that are no use any more. Raises OSError.

        What a prefix has ended is not used again, and so gone when it was not used for
        ``inactive``.
        """
        lives = {PREFIX: inactive + SKEW, SOFT_PREFIX: inactive + SKEW}
        try:
            fd = self._locked(os.O_RDWR)
        except FileNotFoundError:
            return
        try:
            marks = self._read()
            kept = [mark for mark in marks if abs(now - mark.moment) < lives.get(mark.kind, KEPT)]
            if len(kept) < len(marks):
                self._replace(encode(kept))
        finally:
            os.close(fd)

    def _replace(self, data: bytes) -> None:
        """A whole new file, so that no crash leaves half of one."""
        fresh = self._path + b".new"
        with open(fresh, "wb", opener=_private) as file:
            file.write(data)
        os.rename(fresh, self._path)
        self._board.advance()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
