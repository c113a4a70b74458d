"""``pid``: the pidfile, written whole, checked before, removed only while it is ours.

Whoever reads it (init scripts, log rotation) sees the old content, no file, or the whole new
content: it is made beside its place and renamed into it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable
from enum import Enum
from typing import Final

#: A pidfile is a number and a newline; whoever finds more than this in one reads no further.
MAX_BYTES: Final = 64
#: How much of a process's command line is looked at, in bytes.
MAX_COMMAND: Final = 4096


class Life(Enum):
    """What is known of the process that a pidfile names."""

    DEAD = "dead"
    FOREIGN = "not imagefarm"
    OURS = "imagefarm"


class PidFileError(Exception):
    """The pidfile can't be written; one line that says why."""


class AlreadyRunning(PidFileError):
    """The pidfile names a live imagefarm process: ``pid``."""

    def __init__(self, path: str, pid: int) -> None:
        super().__init__(f'already running as process {pid} (pidfile "{path}")')
        self.pid = pid


def inspect(pid: int) -> Life:
    """Look at process ``pid``: process numbers are reused, so a live one may be a stranger."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return Life.DEAD
    except (PermissionError, OverflowError):
        return Life.FOREIGN
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(MAX_COMMAND).split(b"\0")
    except OSError:
        # No /proc to ask: the safe answer is the one that starts no second daemon.
        return Life.OURS
    # "twistd imagefarm master": the word itself, not a path that happens to hold it; or a script,
    # which may be called by another name ("python sbin/nginx_master", a link to us).
    programs = [os.path.basename(os.path.realpath(word)) for word in words[:2]]
    return Life.OURS if b"imagefarm" in (*words, *programs) else Life.FOREIGN


def read(path: str) -> int | None:
    """The process number in ``path``; None if there is no file or no number in it."""
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_BYTES).strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and int(text) > 0 else None


class PidFile:
    """The pidfile at ``path``. `write` when ready, `remove` at the end."""

    def __init__(
        self,
        path: str,
        warn: Callable[[str], None],
        pid: Callable[[], int] = os.getpid,
        inspect: Callable[[int], Life] = inspect,
    ) -> None:
        self.path = path
        #: Where the file is now.
        self._place = path
        self._warn = warn
        self._pid = pid
        self._inspect = inspect
        self._written: int | None = None
        self._warned = ""

    def __repr__(self) -> str:
        return f"<PidFile {self.path} {self._written or '-'}>"

    def check(self) -> None:
        """Raise `AlreadyRunning` if the file names a live process of ours; warn if it is stale.

        Makes its directory; raises `PidFileError` if that fails, or nothing can be written there.
        """
        self._writable()
        if not os.path.lexists(self.path):
            return
        pid = read(self.path)
        if pid is None:
            self._warn_once(f'pidfile "{self.path}" holds no process number, replaced')
            return
        if pid == self._pid():
            return
        life = self._inspect(pid)
        if life is Life.OURS:
            raise AlreadyRunning(self.path, pid)
        self._warn_once(f'pidfile "{self.path}" is stale: process {pid} is {life.value}, replaced')

    def _warn_once(self, message: str) -> None:
        """A start checks before it opens its ports, and again when it writes."""
        if message != self._warned:
            self._warned = message
            self._warn(message)

    def _writable(self) -> None:
        directory = os.path.dirname(self.path) or "."
        try:
            with contextlib.suppress(FileExistsError):
                os.makedirs(directory, exist_ok=True)
            if not os.path.isdir(directory):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if not os.access(directory, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            if os.path.isdir(self.path):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> PidFileError:
        return PidFileError(f'open() "{self.path}" failed ({error.errno}: {error.strerror})')

    def write(self) -> None:
        """`check`, then write our process number. Raises `PidFileError`."""
        self.check()
        pid = self._pid()
        directory = os.path.dirname(self.path) or "."
        try:
            fd, temporary = tempfile.mkstemp(prefix=".pid-", dir=directory)
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(b"%d\n" % pid)
                    os.fchmod(file.fileno(), 0o644)
                os.replace(temporary, self.path)
            except OSError:
                os.unlink(temporary)
                raise
        except OSError as error:
            raise self._failed(error) from error
        self._written = pid

    def rename(self, suffix: str) -> None:
        """Have the file of our number at the path with ``suffix``. Raises `PidFileError`."""
        target = self.path + suffix
        if self._written is None or target == self._place:
            return
        try:
            os.rename(self._place, target)
        except OSError as error:
            raise PidFileError(
                f'rename() "{self._place}" to "{target}" failed ({error.errno}: {error.strerror})'
            ) from error
        self._place = target

    def remove(self) -> None:
        """Remove the file if this very process wrote it and it still holds our number."""
        if self._written is None or self._written != self._pid():
            return
        if read(self._place) == self._written:
            with contextlib.suppress(OSError):
                os.unlink(self._place)
        self._written = None
