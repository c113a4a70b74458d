"""Opening files for service: regular files only, never through a forbidden symlink."""

from __future__ import annotations

import errno
import os
import stat
from enum import Enum

from imagefarm.http.message import OPEN_FLAGS, OpenFile, identity


class Symlinks(Enum):
    """``disable_symlinks``: which symbolic links a path may lead through."""

    ALLOWED = "off"
    FORBIDDEN = "on"
    SAME_OWNER = "if_not_owner"


class Directory(Exception):
    """The path names a directory."""


class NotFound(Exception):
    """No such file, in the sense of 404. The text is the reason, for the log."""


class Forbidden(Exception):
    """It is there, and may not be served: 403. The text is the reason, for the log."""


_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})
_DENIED = frozenset({errno.EACCES, errno.ELOOP, errno.EMLINK, errno.EPERM})


def reason(error: OSError) -> str:
    """The error in nginx's form: ``(2: No such file or directory)``."""
    return f"({error.errno}: {os.strerror(error.errno or 0)})"


def open_file(
    path: bytes, symlinks: Symlinks = Symlinks.ALLOWED, trusted: bytes = b""
) -> OpenFile:
    """Open a regular file. Raises `NotFound`, `Forbidden`, `Directory` or OSError.

    ``trusted`` is the leading part of the path that is not checked for symlinks (``from=``).
    """
    if b"\0" in path:
        raise NotFound("the path has a NUL")
    try:
        fd = (
            os.open(path, OPEN_FLAGS)
            if symlinks is Symlinks.ALLOWED
            else _walk(path, symlinks, trusted)
        )
    except OSError as error:
        if error.errno in _MISSING:
            raise NotFound(reason(error)) from None
        if error.errno in _DENIED:
            raise Forbidden(reason(error)) from None
        if error.errno == errno.ENXIO:  # a socket or a FIFO's other end
            raise NotFound(reason(error)) from None
        raise
    try:
        info = os.fstat(fd)
        if stat.S_ISDIR(info.st_mode):
            raise Directory
        if not stat.S_ISREG(info.st_mode):
            raise NotFound("is not a regular file")
    except BaseException:
        os.close(fd)
        raise
    return OpenFile(fd, info.st_size, info.st_mtime, path, identity(info))


def _walk(path: bytes, symlinks: Symlinks, trusted: bytes) -> int:
    """Open ``path`` component by component, refusing links: no race with a rename can win."""
    start, rest = b"/", path
    if trusted and path.startswith(trusted):
        after = path[len(trusted) :]
        if after[:1] in b"/" or trusted.endswith(b"/"):  # it ends where a name ends
            start, rest = trusted, after
    fd = os.open(start, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    names = [name for name in rest.split(b"/") if name not in (b"", b".")]
    try:
        for i, name in enumerate(names):
            last = i == len(names) - 1
            flags = OPEN_FLAGS if last else os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            if last and path.endswith(b"/"):
                flags |= os.O_DIRECTORY
            if symlinks is Symlinks.SAME_OWNER:
                inner = _open_own(name, flags, fd)
            else:
                # A link is ELOOP, one to a directory ENOTDIR: nginx's 403 and 404.
                inner = os.open(name, flags | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            fd = inner
        if not names:
            return os.open(start, OPEN_FLAGS)
        result, fd = fd, -1
        return result
    finally:
        if fd >= 0:
            os.close(fd)


def _open_own(name: bytes, flags: int, parent: int) -> int:
    """Open ``name``; a link must belong to the owner of what it led to (ELOOP otherwise).

    What was opened is compared, so that a link changed meanwhile gains nothing.
    """
    fd = os.open(name, flags, dir_fd=parent)
    try:
        link = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISLNK(link.st_mode) and link.st_uid != os.fstat(fd).st_uid:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    except BaseException:
        os.close(fd)
        raise
    return fd
