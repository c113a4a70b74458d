"""What a role shows in the foreground, for ``twistd --logger``."""

from __future__ import annotations

import contextlib
import os

from twisted.logger import ILogObserver, LogEvent
from zope.interface import implementer

from .errorlog import ErrorLog, ErrorLogSetting
from .logsinks import FileSink


@implementer(ILogObserver)
class Console:
    """Notices and worse in the error log's form, printed lines as they are; all on stderr.

    twistd turns what is printed into log events. With its own observer each would carry two
    time stamps by the time that a supervisor has passed it on.
    """

    def __init__(self, fd: int = 2) -> None:
        self._fd = fd
        self._log = ErrorLog(ErrorLogSetting(None, "notice"), FileSink(None, fd))

    def __call__(self, event: LogEvent) -> None:
        """Show ``event`` if it is worth it."""
        line = event.get("log_io")
        if line is None:
            self._log(event)
            return
        with contextlib.suppress(OSError):
            os.write(self._fd, f"{line}\n".encode("utf-8", "surrogateescape"))


#: The twistd options of a role that runs in the foreground, supervised or not. The empty
#: --pidfile is twistd's own, which would lie in the current directory.
FOREGROUND = ("-n", "--pidfile=", f"--logger={Console.__module__}.{Console.__qualname__}")


def detach() -> None:
    """Let go of stdin, stdout and stderr, as a daemon does."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
