"""Who fills a key, told to all processes on the machine by the file system alone.

A filler holds a lock (flock) on a small file in the zone's ``locks``; the kernel drops it when
the process dies, however it dies. How the filling ended is told in the file's permission bits,
which a full disk can't refuse, before the file is removed: whoever has it open can still read
them. No verdict and no lock means that the filler was killed or has given up.

Waiters ask every other millisecond, one fstat and one flock for each key that somebody waits
for. inotify would save that; but its instances are few for each user (128 by default) and it is
silent on some file systems, so the asking would be needed all the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from enum import Enum
from typing import Final

from attrs import define

from .store import make_directory

#: How often a lock file may vanish under us before we go without.
_ATTEMPTS: Final = 8


class Landing(Enum):
    """How a flight ended, as told to those who waited.

    STORED: read the file. STALE: serve the expired file, the upstream is in trouble. PASS: the
    answer can't be shared, ask for your own. LEAD: the filler failed, you are the filler now.
    """

    STORED = "stored"
    STALE = "stale"
    PASS = "pass"
    LEAD = "lead"


_TOLD: Final = {Landing.STORED: 1, Landing.STALE: 2, Landing.PASS: 4}
_READ: Final = {bits: landing for landing, bits in _TOLD.items()}


@define(eq=False)
class Lock:
    """The right to fill; ``shared``: beside somebody who takes too long."""

    _path: bytes
    fd: int
    shared: bool = False

    def release(self, landing: Landing) -> None:
        """Tell how it ended. To be called once."""
        told = _TOLD.get(landing)
        with contextlib.suppress(OSError):
            if told is not None:
                os.fchmod(self.fd, 0o600 | told)
            if (told is not None or not self.shared) and _same(self._path, self.fd):
                os.unlink(self._path)
        os.close(self.fd)


@define(eq=False)
class Watch:
    """Another process fills; ``since`` is when it, or the last one beside it, began."""

    fd: int
    since: float = 0.0

    def ended(self) -> Landing | None:
        """How it ended, LEAD if the filler is gone without a word; None if it goes on."""
        info = os.fstat(self.fd)
        self.since = info.st_mtime
        if info.st_mode & 7:
            return _READ.get(info.st_mode & 7, Landing.LEAD)
        try:
            fcntl.flock(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        fcntl.flock(self.fd, fcntl.LOCK_UN)
        return _READ.get(os.fstat(self.fd).st_mode & 7, Landing.LEAD)

    def close(self) -> None:
        """Stop watching."""
        os.close(self.fd)


class Locks:
    """The locks of a zone in its directory at ``path``. All methods raise OSError."""

    def __init__(self, path: bytes) -> None:
        self.path = os.path.join(path, b"locks")

    def acquire(self, key: bytes, now: float) -> Lock | Watch:
        """The right to fill ``key``, or a watch on the process that has it."""
        path = self._file(key)
        for _ in range(_ATTEMPTS):
            fd = self._open(path)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _same(path, fd):
                    os.fchmod(fd, 0o600)  # what one killed at the wrong moment has left
                    os.utime(fd, (now, now))
                    return Lock(path, fd)
            except BlockingIOError:
                return Watch(fd, os.fstat(fd).st_mtime)
            except OSError:
                os.close(fd)
                raise
            os.close(fd)
        raise FileNotFoundError(os.fsdecode(path))

    def overtake(self, key: bytes, now: float, age: float) -> Lock | None:
        """The right to fill beside somebody who has begun more than ``age`` seconds ago.

        Of all processes one gets it, and the age counts anew.
        """
        path = self._file(key)
        guard = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(guard, fcntl.LOCK_EX)
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            if now - os.fstat(fd).st_mtime <= age:
                os.close(fd)
                return None
            os.utime(fd, (now, now))
            return Lock(path, fd, shared=True)
        except FileNotFoundError:
            return None
        finally:
            os.close(guard)

    def _file(self, key: bytes) -> bytes:
        return os.path.join(self.path, key.hex().encode("ascii"))

    def _open(self, path: bytes) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            make_directory(self.path)
            return os.open(path, flags, 0o600)


def _same(path: bytes, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False
