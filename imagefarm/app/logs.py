"""The error log of a process, and what is said there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.logger import Logger, globalLogPublisher

from imagefarm.process.errorlog import ErrorLog, ErrorLogSetting, LogFileError

_log: Final = Logger(namespace="imagefarm")


def warn(message: str) -> None:
    """A warning for the error log."""
    _log.warn("{text}", text=message, severity="warn")


def notice(message: str) -> None:
    """Something an operator wants to know, for the error log."""
    _log.info("{text}", text=message, severity="notice")


def fault(message: str) -> None:
    """Something that needs an operator, for the error log."""
    _log.critical("{message}", message=message, severity="emerg")


class ErrorLogs:
    """The ``error_log`` files of the main context: `open`, then `attach` to twisted.logger."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._logs: list[Any] = []

    def open(self, settings: Sequence[ErrorLogSetting], prefix: str) -> None:
        """Open the files. Raises `LogFileError`."""
        default = ErrorLogSetting(os.path.join(prefix, "logs", "error.log"))
        self._logs = []
        try:
            for setting in settings or (default,):
                self._logs.append(ErrorLog(setting))
        except LogFileError:
            self.close()
            raise

    def attach(self) -> None:
        """Have everything written that is said from now on."""
        for log in self._logs:
            globalLogPublisher.addObserver(log)

    def write(self, level: str, message: str) -> None:
        """Write a request's line directly: twisted.logger would take most of the time."""
        now = self._clock()
        for log in self._logs:
            log.line(level, message, now)

    def reopen(self) -> None:
        """After rotation."""
        for log in self._logs:
            try:
                log.reopen()
            except LogFileError as error:  # it goes on in the old file
                fault(str(error))

    def close(self) -> None:
        """Detach and close."""
        for log in self._logs:
            globalLogPublisher.removeObserver(log)
            log.close()
        self._logs = []
