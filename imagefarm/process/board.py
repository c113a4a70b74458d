"""A notice board that all workers of a role read and write: one JSON object in shared memory.

The parent makes it and hands its descriptor to the workers, also to those that take the place of
dead ones, so that what stands on it outlives any of them. Two record locks of the file (POSIX:
they belong to a process, and the kernel lets go of them when it ends) order its use: one for
writing, and one that a single worker holds, the leader, which does what is to be done once for
all. Nobody is told of a change: each worker looks at the version when it likes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import tempfile
from collections.abc import Iterator, MutableMapping
from typing import Any, Final

from .tally import Tally

#: The environment variable that names the descriptor to a worker.
INHERITED: Final = "IMAGEFARM_BOARD"
#: The most bytes of JSON on a board: some 50,000 servers of upstreams.
MAX_DOCUMENT: Final = 16 << 20

# Version, where the text is, its length. The text goes into whichever of two places the head does
# not point to: a writer that is killed half way leaves the board as it was.
_HEAD: Final = struct.Struct("=QQQ")
_PLACES: Final = (4096, 4096 + MAX_DOCUMENT)
_TALLY: Final = 4096 + 2 * MAX_DOCUMENT
_WRITING: Final = 0
_LEADING: Final = 1
_ROWS: Final = 2


class BoardFull(Exception):
    """The object does not fit; what stood on the board still stands."""


class Board:
    """The board behind a descriptor, which it owns."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._leading = False

    @classmethod
    def make(cls) -> Board:
        """An empty one. Raises OSError."""
        fd = anonymous_file("imagefarm-board")
        os.pwrite(fd, b"{}", _PLACES[0])
        os.pwrite(fd, _HEAD.pack(1, _PLACES[0], 2), 0)
        return cls(fd)

    @classmethod
    def inherit(cls, environment: MutableMapping[str, str]) -> Board | None:
        """The one that our parent handed over, if it did."""
        text = environment.pop(INHERITED, "")
        if not text.isdecimal():
            return None
        fd = int(text)
        os.set_inheritable(fd, False)
        return cls(fd)

    def fileno(self) -> int:
        """The descriptor, for handing over."""
        return self._fd

    @property
    def version(self) -> int:
        """Grows with each change."""
        version: int = _HEAD.unpack(os.pread(self._fd, _HEAD.size, 0))[0]
        return version

    def read(self) -> tuple[int, dict[str, Any]]:
        """The version and what stands there."""
        with self._locked(fcntl.LOCK_SH):
            return self._read()

    @contextlib.contextmanager
    def edit(self) -> Iterator[dict[str, Any]]:
        """What stands there, to be changed in place; no one else writes meanwhile.

        Nothing is written if the caller raises. Raises `BoardFull`.
        """
        with self._locked(fcntl.LOCK_EX):
            version, document = self._read()
            yield document
            text = json.dumps(document, separators=(",", ":")).encode()
            if len(text) > MAX_DOCUMENT:
                raise BoardFull(f"{len(text)} bytes")
            place = _PLACES[version % 2]
            os.pwrite(self._fd, text, place)
            os.pwrite(self._fd, _HEAD.pack(version + 1, place, len(text)), 0)

    def lead(self) -> bool:
        """Become the leader if there is none; whether we are it."""
        if not self._leading:
            with contextlib.suppress(OSError):
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _LEADING)
                self._leading = True
        return self._leading

    def tally(self) -> Tally:
        """The numbers behind the board, to be left before it is closed."""
        return Tally(self._fd, _TALLY, _ROWS)

    def close(self) -> None:
        """Let go of everything."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._leading = False

    def _read(self) -> tuple[int, dict[str, Any]]:
        version, place, length = _HEAD.unpack(os.pread(self._fd, _HEAD.size, 0))
        return version, json.loads(os.pread(self._fd, length, place))

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        fcntl.lockf(self._fd, how, 1, _WRITING)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, _WRITING)

    def __repr__(self) -> str:
        return f"<Board fd={self._fd}{' leading' if self._leading else ''}>"


def anonymous_file(name: str) -> int:
    """A descriptor of a file in memory; ``name`` is for people who look at descriptors."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
