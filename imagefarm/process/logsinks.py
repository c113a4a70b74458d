"""Where lines of error logs go: files, stderr, syslog.

Nothing here waits. The first lines of a moment are written at once, so that a process that dies
has said why; what comes beyond them is gathered and written in blocks, so that a storm of errors
does not cost a system call each. What a pipe does not take is kept up to a limit, then counted.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
from collections.abc import Callable
from typing import Any, Final, Protocol

from imagefarm.http.requestlog import RANKS
from imagefarm.http.syslog import Syslog, SyslogTarget

#: Seconds in which so many lines are written at once; the rest of them waits until they are over.
MOMENT: Final = 0.1
BURST: Final = 16
#: Bytes that are gathered at most, and kept at most for a pipe that nobody reads.
BLOCK: Final = 32 << 10
MAX_KEPT: Final = 256 << 10
#: What a pipe that is ready takes without blocking, in bytes (POSIX: at least 512; Linux: 4096).
_PIECE: Final = select.PIPE_BUF

_SEVERITIES: Final = {name: 7 - rank for name, rank in RANKS.items()}


class LogFileError(Exception):
    """A log file can't be opened; the text is nginx's ``open() "PATH" failed (N: reason)``."""


def open_append(path: str) -> int:
    """Open ``path`` for appending, making its directory. Raises `LogFileError`."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        with contextlib.suppress(FileExistsError):  # no directory: open() says it better
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        return os.open(path, flags, 0o644)
    except OSError as error:
        raise LogFileError(
            f'open() "{path}" failed ({error.errno}: {os.strerror(error.errno or 0)})'
        ) from error


class Sink(Protocol):
    """Takes lines, with their ends. Never raises but from `reopen`."""

    def write(self, level: str, lines: bytes, now: float) -> None:
        """Write one line or several that belong together; ``now`` in seconds."""

    def use(self, clock: Any) -> None:
        """Gather with the help of a reactor from now on."""

    def reopen(self) -> None:
        """After rotation. Raises `LogFileError`, and goes on as it was."""

    def close(self) -> None:
        """Write what was gathered; write no more."""


class Closed:
    """What takes lines before the log is opened, and after its end: nothing."""

    def write(self, level: str, lines: bytes, now: float) -> None:
        """`Sink`."""

    def use(self, clock: Any) -> None:
        """`Sink`."""

    def reopen(self) -> None:
        """`Sink`."""

    def close(self) -> None:
        """`Sink`."""


class FileSink:
    """A file, or stderr (``path`` None, ``fd``). Raises `LogFileError` when made."""

    def __init__(self, path: str | None, fd: int = 2) -> None:
        self.path = path
        self._fd = fd if path is None else open_append(path)
        self._clock: Any = None
        self._call: Any = None
        self._gathered: list[bytes] = []
        self._size = 0
        #: A pipe did not take all of what was written last.
        self._stuck = False
        self._moment = -1
        self._count = 0
        #: Bytes that a pipe did not take.
        self.lost = 0
        self._asks = path is None and not _is_file(self._fd)

    def write(self, level: str, lines: bytes, now: float) -> None:
        """`Sink`."""
        if self._fd < 0:
            return
        moment = int(now / MOMENT)
        if moment != self._moment:
            self._moment, self._count = moment, 0
        self._count += 1
        if self._gathered or (self._count > BURST and self._clock is not None):
            self._gather(lines)
            if self._clock is None:
                self._flush()
            return
        self._put(lines)

    def _gather(self, lines: bytes) -> None:
        if self._size + len(lines) > MAX_KEPT:
            self.lost += len(lines)
            return
        self._gathered.append(lines)
        self._size += len(lines)
        if self._call is None and self._clock is not None:
            self._call = self._clock.callLater(MOMENT, self._tick)
        elif self._size >= BLOCK and not self._stuck:
            self._flush()

    def _tick(self) -> None:
        self._call = None
        self._flush()
        if self._gathered:
            self._call = self._clock.callLater(MOMENT, self._tick)

    def _flush(self) -> None:
        block = b"".join(self._gathered)
        self._gathered, self._size, self._stuck = [], 0, False
        if block:
            self._put(block)

    def _put(self, block: bytes) -> None:
        """Write, and keep what is not taken now."""
        try:
            while block:
                piece = block
                if self._asks:
                    if not _ready(self._fd):
                        break
                    piece = block[:_PIECE]
                block = block[os.write(self._fd, piece) :]
        except BlockingIOError:
            pass
        except OSError:
            self.lost += len(block)  # a full disk is no reason to stop
            return
        if block:
            self._stuck = True
            self._gather(block)

    def use(self, clock: Any) -> None:
        """`Sink`."""
        self._clock = clock

    def reopen(self) -> None:
        """`Sink`."""
        if self.path is None or self._fd < 0:
            return
        self._flush()
        fd, self._fd = self._fd, open_append(self.path)
        os.close(fd)

    def close(self) -> None:
        """`Sink`."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._flush()
        fd, self._fd = self._fd, -1
        if fd >= 0 and self.path is not None:
            os.close(fd)

    def __repr__(self) -> str:
        return f"<FileSink {self.path or 'stderr'} gathered={self._size} lost={self.lost}>"


def _is_file(fd: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError:
        return False


def _ready(fd: int) -> bool:
    """Whether a pipe, a terminal or a socket takes something now."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))


class SyslogSink:
    """syslog; each line is a message of the severity of its level."""

    def __init__(self, target: SyslogTarget, complain: Callable[[str], None]) -> None:
        self._syslog = Syslog(target, complain)

    def write(self, level: str, lines: bytes, now: float) -> None:
        """`Sink`."""
        for line in lines.splitlines():
            self._syslog.send(line, now, _SEVERITIES[level])

    def use(self, clock: Any) -> None:
        """`Sink`: nothing is gathered."""

    def reopen(self) -> None:
        """`Sink`: there is nothing to rotate."""

    def close(self) -> None:
        """`Sink`."""
        self._syslog.close()

    def __repr__(self) -> str:
        return f"<SyslogSink {self._syslog!r}>"
