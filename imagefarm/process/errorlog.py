"""``error_log``: a `twisted.logger` observer that writes nginx's line form.

A line is ``2026/01/31 12:00:00 [error] 123#0: message``. Levels are nginx's; a `twisted.logger`
event is given the nearest, or the one in its ``severity`` field. Lines of one event go out in
one ``write`` to a descriptor opened with O_APPEND, so processes may share a file.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from typing import Final

from attrs import frozen
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from zope.interface import implementer

#: nginx's levels from the least to the most serious.
LEVELS: Final = ("debug", "info", "notice", "warn", "error", "crit", "alert", "emerg")

_RANK: Final = {name: rank for rank, name in enumerate(LEVELS)}
_FROM_TWISTED: Final = {
    LogLevel.debug: "debug",
    LogLevel.info: "info",
    LogLevel.warn: "warn",
    LogLevel.error: "error",
    LogLevel.critical: "crit",
}
#: The longest message in characters (NGX_MAX_ERROR_STR is 2048): more is cut off.
MAX_MESSAGE: Final = 2048
#: The most traceback lines that are written for one event.
MAX_TRACEBACK_LINES: Final = 60

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f]")


@frozen
class ErrorLogSetting:
    """One ``error_log``: the file's absolute path, None for stderr, and the least level."""

    path: str | None
    level: str = "error"


class LogFileError(Exception):
    """A log file can't be opened; the text is nginx's ``open() "PATH" failed (N: reason)``."""


def open_append(path: str) -> int:
    """Open ``path`` for appending, making its directory. Raises `LogFileError`."""
    try:
        with contextlib.suppress(FileExistsError):  # no directory: open() says it better
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise LogFileError(
            f'open() "{path}" failed ({error.errno}: {os.strerror(error.errno or 0)})'
        ) from error


def _printable(text: str) -> str:
    """``text`` on one line: a client must not be able to forge log lines."""
    return _UNPRINTABLE.sub(lambda match: f"\\x{ord(match[0]):02X}", text)


def _lines(event: LogEvent) -> list[str]:
    message = formatEvent(event)
    failure = event.get("log_failure")
    if failure is None:
        return [_printable(message[:MAX_MESSAGE])]
    message = message or failure.getErrorMessage()
    trace = failure.getTraceback(detail="brief").splitlines()[-MAX_TRACEBACK_LINES:]
    return [_printable(message[:MAX_MESSAGE]), *("    " + _printable(line) for line in trace)]


@implementer(ILogObserver)
class ErrorLog:
    """Writes events of at least ``setting.level``. Call it with events; `reopen`; `close`.

    ``pid`` and ``localtime`` are callables, since a daemon forks after it opened its logs and
    a test has its own time zone. ``fd`` is where stderr is. Raises
    `LogFileError` when made and the file can't be opened.
    """

    def __init__(
        self,
        setting: ErrorLogSetting,
        pid: Callable[[], int] = os.getpid,
        localtime: Callable[[float], time.struct_time] = time.localtime,
        fd: int = 2,
    ) -> None:
        self.setting = setting
        self._least = _RANK[setting.level]
        self._pid = pid
        self._localtime = localtime
        self._fd = fd if setting.path is None else open_append(setting.path)
        self._second = -1
        self._stamp = ""

    def __repr__(self) -> str:
        return f"<ErrorLog {self.setting.path or 'stderr'} {self.setting.level}>"

    def __call__(self, event: LogEvent) -> None:
        """Write ``event`` if it is serious enough. Never raises: a full disk is no reason."""
        level = event.get("severity") or _FROM_TWISTED.get(event.get("log_level"), "info")
        if self.wants(level):
            self._write(level, event.get("log_time", 0.0), _lines(event))

    def wants(self, level: str) -> bool:
        """Whether messages of ``level`` are written."""
        return self._fd >= 0 and _RANK.get(level, 0) >= self._least

    def line(self, level: str, message: str, now: float) -> None:
        """Write one message, without the way through twisted.logger (20 times as long)."""
        if self.wants(level):
            self._write(level, now, [_printable(message[:MAX_MESSAGE])])

    def _write(self, level: str, when: float, lines: list[str]) -> None:
        prefix = f"{self._time(when)} [{level}] {self._pid()}#0: "
        text = "".join(f"{prefix}{line}\n" for line in lines)
        with contextlib.suppress(OSError):
            os.write(self._fd, text.encode("utf-8", "surrogateescape"))

    def _time(self, when: float) -> str:
        second = int(when)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y/%m/%d %H:%M:%S", self._localtime(second))
        return self._stamp

    def reopen(self) -> None:
        """Write to a new file of the same name from now on (after log rotation).

        If it can't be opened the old one stays in use and `LogFileError` is raised.
        """
        if self.setting.path is None or self._fd < 0:
            return
        fd, self._fd = self._fd, open_append(self.setting.path)
        os.close(fd)

    def close(self) -> None:
        """Write no more."""
        fd, self._fd = self._fd, -1
        if fd >= 0 and self.setting.path is not None:
            os.close(fd)
