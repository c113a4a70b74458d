"""The files of a zone: names, reading, writing, walking. Knows no index and no policy.

A file is written in the directory's own ``tmp`` and renamed into place when it is whole. The
writer holds a lock (flock) on it, which the kernel drops when the process dies: a temporary
file that can be locked is a stray.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from stat import S_ISREG
from typing import Final, TypeVar

from attrs import define, field, frozen

from imagefarm.http.message import Identity, OpenFile, identity

from .entry import CorruptEntry, Entry, TruncatedEntry, decode, encode

T = TypeVar("T")

#: Read at once for a hit; nearly every header block fits.
_FIRST_READ: Final = 4096
#: The coarsest step of a file system's clock that we allow for.
_TICK_NS: Final = 2_000_000_000
#: How many decoded header blocks are remembered.
_KNOWN: Final = 1024
#: The permission that a softly purged file lacks.
_LIVE: Final = 0o200
_HEX: Final = frozenset(b"0123456789abcdef")
#: Whatever somebody has put there, nothing is waited for.
_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW


def digest_of(key: bytes, variant: bytes = b"") -> bytes:
    """The 16 bytes that name a key's file: its MD5, as in nginx; a variant's is its own."""
    return hashlib.md5(key + variant, usedforsecurity=False).digest()


@frozen(eq=False)
class Found:
    """A whole cache file, open: what its header says, and where its body begins.

    ``soft``: it was purged softly. ``first``: the file that has led to it, its key's first
    variant, and what that was.
    """

    entry: Entry
    file: OpenFile
    body_offset: int
    soft: bool = False
    first: tuple[bytes, Identity] | None = None


@define(eq=False)
class Writer:
    """A file in the making. Ends with exactly one of `commit` and `abort`.

    All methods but `abort` and `close` raise OSError. The descriptor stays open and readable
    after either end, for whoever still reads the body back, until `close`.
    """

    _directory: Directory
    fd: int
    _path: bytes
    body_offset: int
    written: int = 0
    _done: bool = field(default=False, init=False)

    def write(self, chunk: bytes) -> None:
        """Append to the body."""
        _pwrite_all(self.fd, chunk, self.body_offset + self.written)
        self.written += len(chunk)

    def copy(self, fd: int, start: int, count: int) -> None:
        """Append ``count`` bytes of another file of this directory to the body."""
        while count:
            done = os.copy_file_range(fd, self.fd, count, start, self.body_offset + self.written)
            if not done:
                raise OSError(errno.EIO, "the file has been cut short")
            start, count, self.written = start + done, count - done, self.written + done

    def read(self, start: int, size: int) -> bytes:
        """Some of the body that was written."""
        return os.pread(self.fd, size, self.body_offset + start)

    def commit(self, block: bytes, digest: bytes, now: float) -> int:
        """Write the header block and move the file into place. Returns its size."""
        _pwrite_all(self.fd, block, 0)
        os.utime(self.fd, (now, now))
        self._directory.adopt(self._path, digest)
        self._done = True
        return self.body_offset + self.written

    def abort(self) -> None:
        """Remove the file, if it is not in place."""
        if not self._done:
            self._done = True
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def close(self) -> None:
        """Let the descriptor go; aborts what was not committed."""
        self.abort()
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


def _pwrite_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        offset += count
        view = view[count:]


class Directory:
    """The directory of a zone. ``levels`` are the lengths of sub-directory names (nginx)."""

    def __init__(self, path: str, levels: tuple[int, ...] = ()) -> None:
        self.path = os.fsencode(path)
        self.levels = levels
        self._tmp = os.path.join(self.path, b"tmp")
        self._locks = os.path.join(self.path, b"locks")
        self._lock = os.path.join(self.path, b"manager.lock")
        # With the process id: unique, even where a restarted process gets its old id again.
        self._boot = os.urandom(6).hex().encode("ascii")
        self._serial = 0
        self._known: dict[bytes, tuple[bytes, Entry]] = {}

    def create(self) -> None:
        """Make the directory with its parents, for nobody else's eyes. Raises OSError."""
        make_directory(self._tmp)

    def lock(self) -> int:
        """Take the lock that makes a process the manager; the descriptor holds it.

        Raises BlockingIOError while another process has it, and OSError.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = _with_parent(self._lock, lambda: os.open(self._lock, flags, 0o600))
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        return fd

    def holds(self, fd: int) -> bool:
        """Whether the lock that ``fd`` holds is still the directory's."""
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self._lock))
        except OSError:
            return False

    def file(self, digest: bytes) -> bytes:
        """The path of a digest's file: ``levels=1:2`` takes c, then 29, from ...29c."""
        name = digest.hex().encode("ascii")
        parts, end = [self.path], len(name)
        for level in self.levels:
            parts.append(name[end - level : end])
            end -= level
        parts.append(name)
        return b"/".join(parts)

    def open(self, digest: bytes) -> Found | None:
        """The file of ``digest``; None if there is none.

        Raises `CorruptEntry` if it is not a whole file of ours, and OSError.
        """
        path = self.file(digest)
        try:
            fd = os.open(path, _READ)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            stat = os.fstat(fd)
            if not S_ISREG(stat.st_mode):
                raise CorruptEntry("not a regular file")
            entry, offset = self._header(fd, digest)
            if stat.st_size != offset + entry.body_length:
                raise CorruptEntry("the body has not the length that the header promises")
        except BaseException:
            os.close(fd)
            raise
        file = OpenFile(fd, stat.st_size, stat.st_mtime, path, identity(stat))
        return Found(entry, file, offset, not stat.st_mode & _LIVE)

    def read(self, path: bytes, most: int) -> tuple[os.stat_result, bytes] | None:
        """What the file at ``path`` is, and all that is in it, unchecked.

        None where it is not there, was purged softly, has more bytes than ``most``, or can't be
        read.
        """
        try:
            fd = os.open(path, _READ)
        except OSError:
            return None
        try:
            stat = os.fstat(fd)
            if stat.st_size > most or not stat.st_mode & _LIVE:
                return None
            return stat, os.read(fd, stat.st_size)
        except OSError:
            return None
        finally:
            os.close(fd)

    def body(self, path: bytes, known: Identity, length: int) -> bytes | None:
        """The last ``length`` bytes of the file at ``path``, if that is what is ``known``."""
        try:
            fd = os.open(path, _READ)
        except OSError:
            return None
        try:
            if identity(os.fstat(fd)) != known:
                return None
            data = os.pread(fd, length, known[1] - length)
        except OSError:
            return None
        finally:
            os.close(fd)
        return data if len(data) == length else None

    def _header(self, fd: int, digest: bytes) -> tuple[Entry, int]:
        """The entry of an open file and its block's length; a block seen before is known."""
        data = os.pread(fd, _FIRST_READ, 0)
        known = self._known.get(digest)
        if known is not None and data.startswith(known[0]):
            return known[1], len(known[0])
        try:
            entry, offset = decode(data)
        except TruncatedEntry as more:
            return decode(os.pread(fd, more.needed, 0))
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known[digest] = data[:offset], entry
        return entry, offset

    def soften(self, found: Found) -> None:
        """Mark an open file as purged softly: a bit of its mode, seen by all. Raises OSError."""
        os.fchmod(found.file.fd, 0o400)

    def remove(self, digest: bytes) -> bool:
        """Remove a digest's file. False if it was not there or could not be removed."""
        try:
            os.unlink(self.file(digest))
        except OSError:
            return False
        return True

    def used_at(self, digest: bytes) -> tuple[int, float] | None:
        """Size and time of last use of a digest's file, None if it is gone.

        The modification time of a cache file means "last used": all processes touch it.
        """
        try:
            stat = os.lstat(self.file(digest))
        except OSError:
            return None
        return stat.st_size, stat.st_mtime

    def writer(self, entry: Entry) -> Writer:
        """Begin a file. Raises OSError, and `EntryError` for a header too long."""
        offset = len(encode(entry))
        while True:
            self._serial += 1
            path = os.path.join(self._tmp, b"%s.%d.%d" % (self._boot, os.getpid(), self._serial))
            fd = self._begin(path)
            if fd is not None:
                return Writer(self, fd, path, offset)

    def _begin(self, path: bytes) -> int | None:
        """Create and lock a temporary file; None if a clean-up got at it in between."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = _with_parent(path, lambda: os.open(path, flags, 0o600))
        return fd if lock_in_place(fd) else None

    def adopt(self, path: bytes, digest: bytes) -> None:
        """Rename a finished file to its place. Raises OSError."""
        target = self.file(digest)
        _with_parent(target, lambda: os.rename(path, target))

    def walk(self, seen: dict[bytes, int]) -> Iterator[tuple[bytes, os.DirEntry[bytes]] | None]:
        """All files in place, as (digest, directory entry); None at each directory.

        Lazy, so that the caller can stop at any point and go on later. ``seen`` remembers the
        modification times (ns) of directories between walks: those that have not changed are
        not read again. Directories that vanish meanwhile are skipped.
        """
        yield from self._walk(self.path, len(self.levels), seen)

    def _walk(
        self, path: bytes, depth: int, seen: dict[bytes, int]
    ) -> Iterator[tuple[bytes, os.DirEntry[bytes]] | None]:
        yield None
        try:
            changed = os.stat(path).st_mtime_ns
            if not depth and seen.get(path) == changed:
                return
            entries = os.scandir(path)
        except OSError:
            return
        with entries:
            for entry in entries:
                if not _HEX.issuperset(entry.name):
                    continue
                if depth and len(entry.name) < 3:
                    yield from self._walk(entry.path, depth - 1, seen)
                elif not depth and len(entry.name) == 32:
                    yield bytes.fromhex(entry.name.decode("ascii")), entry
        # A file may still arrive within the clock's tick in which the directory changed.
        if time.time_ns() - changed > _TICK_NS:
            seen[path] = changed

    def remove_strays(self) -> int:
        """Remove the temporary files and the locks of dead writers; returns their number."""
        return sum(
            _remove_unlocked(os.path.join(folder, name))
            for folder in (self._tmp, self._locks)
            for name in _names(folder)
        )


def _names(path: bytes) -> list[bytes]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _remove_unlocked(path: bytes) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    except OSError:
        return False  # its writer lives
    finally:
        os.close(fd)
    return True


def lock_in_place(fd: int) -> bool:
    """Wait for the lock of an open file. False, and it is closed, if the file was removed in
    between: whoever made it anew locks another one. Raises OSError, and it is closed, too.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return True
    except OSError:
        os.close(fd)
        raise
    os.close(fd)
    return False


def make_directory(path: bytes) -> None:
    """``makedirs`` with mode 0700 for every directory that it has to make."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except FileNotFoundError:
        make_directory(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)


def _with_parent(path: bytes, act: Callable[[], T]) -> T:
    """Do ``act``; if the directory of ``path`` is missing, make it and try once more."""
    try:
        return act()
    except FileNotFoundError:
        make_directory(os.path.dirname(path))
        return act()
