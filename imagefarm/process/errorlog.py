"""``error_log``: which lines are written where, in nginx's form or as JSON.

A line is ``2026/01/31 12:00:00 [error] 123#0: *4 message, client: ...``. Levels are nginx's; a
`twisted.logger` event is given the nearest, or the one in its ``severity`` field.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import asdict, frozen
from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure

from imagefarm.http.requestlog import LEVELS, RANKS, Context
from imagefarm.http.syslog import SyslogTarget

from .logsinks import FileSink, LogFileError, Sink, SyslogSink, open_append

_FROM_TWISTED: Final = {
    LogLevel.debug: "debug",
    LogLevel.info: "info",
    LogLevel.warn: "warn",
    LogLevel.error: "error",
    LogLevel.critical: "crit",
}
#: The longest message in characters (NGX_MAX_ERROR_STR is 2048): more is cut off. What stands
#: after it (the request) has limits of its own.
MAX_MESSAGE: Final = 2048
#: The most traceback lines that are written for one event.
MAX_TRACEBACK_LINES: Final = 60
_NOWHERE: Final = Context()

_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f]")


@frozen
class ErrorLogSetting:
    """One ``error_log``: the file's absolute path, None for stderr, and the least level.

    ``syslog`` goes before the path. ``json``: each line is a JSON object.
    """

    path: str | None
    level: str = "error"
    syslog: SyslogTarget | None = None
    json: bool = False

    @property
    def target(self) -> str | SyslogTarget | None:
        """What several settings may share."""
        return self.syslog or self.path

    def sink(self, complain: Callable[[str], None], fd: int = 2) -> Sink:
        """Open it. Raises `LogFileError`."""
        if self.syslog is not None:
            return SyslogSink(self.syslog, complain)
        return FileSink(self.path, fd)


def _printable(text: str) -> str:
    """``text`` on one line: a client must not be able to forge log lines."""
    return _UNPRINTABLE.sub(lambda match: f"\\x{ord(match[0]):02X}", text)


def printed(message: str, context: Context = _NOWHERE) -> bytes:
    """The text of a line: what is said, and of which request."""
    text = _printable(message[:MAX_MESSAGE] + str(context))
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


def traceback_of(failure: Failure) -> Sequence[str]:
    """The lines of a traceback, its end if it is long."""
    return failure.getTraceback(detail="brief").splitlines()[-MAX_TRACEBACK_LINES:]


def failure_text(message: str, failure: Failure) -> str:
    """``message`` and why, on one line."""
    kind = failure.type.__name__ if failure.type is not None else "Exception"
    reason = f"{kind}: {failure.getErrorMessage()}"
    return f"{message}: {reason}" if message else reason


class ErrorLog:
    """Writes what is of at least the level of ``setting`` to ``sink``.

    ``pid`` and ``localtime`` are callables, since a daemon forks after it opened its logs and
    a test has its own time zone.
    """

    def __init__(
        self,
        setting: ErrorLogSetting,
        sink: Sink,
        pid: Callable[[], int] = os.getpid,
        localtime: Callable[[float], time.struct_time] = time.localtime,
    ) -> None:
        self.setting = setting
        self.least = RANKS[setting.level]
        self.sink = sink
        self._pid = pid
        self._localtime = localtime
        self._second = -1
        self._stamp = ""
        self._prefixes: dict[str, bytes] = {}
        self._of = -1

    def __repr__(self) -> str:
        setting = self.setting
        where = f"syslog:{setting.syslog.text}" if setting.syslog else setting.path or "stderr"
        return f"<ErrorLog {where} {setting.level}>"

    def __call__(self, event: LogEvent) -> None:
        """Write ``event`` if it is serious enough. Never raises: a full disk is no reason."""
        level = event.get("severity") or _FROM_TWISTED.get(event.get("log_level"), "info")
        if RANKS[level] < self.least:
            return
        message, failure = formatEvent(event), event.get("log_failure")
        trace: Sequence[str] = ()
        if failure is not None:
            message, trace = failure_text(message, failure), traceback_of(failure)
        self.write(level, message, event.get("log_time", 0.0), trace=trace)

    def write(
        self,
        level: str,
        message: str,
        now: float,
        context: Context = _NOWHERE,
        trace: Sequence[str] = (),
    ) -> None:
        """Write a line, whatever its level. ``trace`` are lines that belong to it."""
        if self.setting.json:
            self.sink.write(level, self._json(level, message, now, context, trace), now)
            return
        prefix = self._prefix(level, now)
        if context.connection:
            prefix += b"*%d " % context.connection
        lines = [printed(message, context), *(printed(f"    {line}") for line in trace)]
        self.sink.write(level, b"".join(b"%b%b\n" % (prefix, line) for line in lines), now)

    def text(self, level: str, text: bytes, now: float) -> None:
        """Write a line that was made before, in nginx's form."""
        self.sink.write(level, b"%b%b\n" % (self._prefix(level, now), text), now)

    def _prefix(self, level: str, now: float) -> bytes:
        second, pid = int(now), self._pid()
        if second != self._second or pid != self._of:
            self._second, self._of = second, pid
            self._prefixes.clear()
            self._stamp = time.strftime("%Y/%m/%d %H:%M:%S", self._localtime(second))
        found = self._prefixes.get(level)
        if found is None:
            found = self._prefixes[level] = f"{self._stamp} [{level}] {pid}#0: ".encode()
        return found

    def _json(
        self, level: str, message: str, now: float, context: Context, trace: Sequence[str]
    ) -> bytes:
        moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
        stamp = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        document: dict[str, Any] = {"time": stamp, "level": level, "pid": self._pid()}
        document["message"] = message[:MAX_MESSAGE].encode("utf-8", "backslashreplace").decode()
        document.update((name, value) for name, value in asdict(context).items() if value)
        if trace:
            document["traceback"] = list(trace)
        return json.dumps(document).encode() + b"\n"


__all__ = [
    "LEVELS", "MAX_MESSAGE", "ErrorLog", "ErrorLogSetting", "FileSink", "LogFileError",
    "failure_text", "open_append", "printed", "traceback_of",
]  # fmt: skip
