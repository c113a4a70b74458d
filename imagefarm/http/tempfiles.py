"""Temporary files: ``client_body_temp_path``, ``proxy_temp_path``, ``fastcgi_temp_path``.

A file has its name only for as long as it takes to open it: what a process leaves behind when it
is killed, the kernel removes. Writing goes to the page cache, in pieces of a bounded size.
"""

from __future__ import annotations

import os
import random
from typing import Final

from attrs import frozen

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import Environment

#: Names are numbers of so many digits, as nginx's.
_DIGITS: Final = 10
#: How often a name may be taken already.
_ATTEMPTS: Final = 100


class TempFile:
    """An open temporary file; ``path`` is empty where it has no name."""

    __slots__ = ("_fd", "_keep", "path")

    def __init__(self, fd: int, path: bytes, *, keep: bool = False) -> None:
        self._fd = fd
        self._keep = keep
        self.path = path

    def write(self, data: bytes | memoryview, offset: int) -> int:
        """Write at ``offset``; returns how much was written. Raises `OSError`."""
        return os.pwrite(self._fd, data, offset)

    def read(self, count: int, offset: int) -> bytes:
        """Read up to ``count`` bytes at ``offset``. Raises `OSError`."""
        return os.pread(self._fd, count, offset)

    def empty(self) -> None:
        """Give back the space. Raises `OSError`."""
        os.ftruncate(self._fd, 0)

    def close(self) -> None:
        """Close it, and remove its name unless that is kept; more than once does no harm."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        os.close(fd)
        if self.path and not self._keep:
            _remove(self.path)

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<TempFile {self._fd} {self.path!r}>"


@frozen
class TempPath:
    """A directory, and how many of a name's last digits name each level of directories in it."""

    directory: bytes
    levels: tuple[int, ...] = ()

    def open(self, *, named: bool = False, keep: bool = False) -> TempFile:
        """Make a file, and what is missing of the directories. Raises `OSError`.

        ``named``: it has a name until it is closed; with ``keep`` for ever.
        """
        for _ in range(_ATTEMPTS):
            path = self.path_of(random.randrange(10**_DIGITS))
            try:
                fd = _in_directory(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
            except FileExistsError:
                continue
            if named:
                return TempFile(fd, path, keep=keep)
            _remove(path)
            return TempFile(fd, b"")
        raise FileExistsError(17, "no free name", os.fsdecode(self.directory))

    def path_of(self, number: int) -> bytes:
        """Where the file with that number is: ``DIRECTORY/7/45/0000123457`` for levels 1 and 2."""
        name = b"%0*d" % (_DIGITS, number)
        parts, end = [self.directory], len(name)
        for level in self.levels:
            parts.append(name[end - level : end])
            end -= level
        return b"/".join([*parts, name])


def _in_directory(path: bytes, flags: int) -> int:
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        return os.open(path, flags, 0o600)


def _remove(path: bytes) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def temp_path(directive: Directive, env: Environment) -> TempPath:
    """The words of a ``*_temp_path`` line: a directory and up to three levels."""
    path, *words = directive.args
    levels = tuple(int(word) if word.isdecimal() else 0 for word in words)
    for word, level in zip(words, levels, strict=True):
        if not 0 < level <= _DIGITS // 3:
            raise Invalid(f'invalid value "{word}"')
    return TempPath(os.fsencode(env.path(path)), levels)
