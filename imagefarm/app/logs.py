"""The error logs of a process, main and those of locations, and what is said there."""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from attrs import evolve, frozen
from twisted.logger import ILogObserver, LogEvent, Logger, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from imagefarm.http.realip import Network
from imagefarm.http.requestlog import RANKS, Context, Outline
from imagefarm.process.directives import MainSettings
from imagefarm.process.errorlog import (
    ErrorLog,
    ErrorLogSetting,
    LogFileError,
    failure_text,
    printed,
    traceback_of,
)
from imagefarm.process.logsinks import Closed, Sink

_log: Final = Logger(namespace="imagefarm")

_CLOSED: Final = Closed()


def warn(message: str) -> None:
    """A warning for the error log."""
    _log.warn("{text}", text=message, severity="warn")


def notice(message: str) -> None:
    """Something an operator wants to know, for the error log."""
    _log.info("{text}", text=message, severity="notice")


def fault(message: str) -> None:
    """Something that needs an operator, for the error log."""
    _log.critical("{text}", text=message, severity="emerg")


#: Takes a level and a line.
Note = Callable[[str, str], None]


def _unnoted(level: str, line: str) -> None:
    """Nobody else wants to know."""


@frozen(eq=False)
class PlaceLogs:
    """`http.requestlog.RequestLogs`: the logs in force in a block.

    ``debugged`` are the clients whose requests are logged at all levels. ``clock`` gives seconds
    since the epoch. ``note`` is told, too.
    """

    logs: tuple[ErrorLog, ...]
    clock: Callable[[], float]
    debugged: tuple[Network | str, ...] = ()
    note: Note = _unnoted

    def _chosen(self, level: str, client: str) -> Sequence[ErrorLog]:
        rank = RANKS[level]
        if self.debugged and _covers(self.debugged, client):
            return self.logs
        return [log for log in self.logs if rank >= log.least]

    def wants(self, level: str, client: str) -> bool:
        """`RequestLogs`."""
        return bool(self._chosen(level, client))

    def write(self, level: str, message: str, context: Context) -> None:
        """`RequestLogs`."""
        now = self.clock()
        for log in self._chosen(level, context.client):
            log.write(level, message, now, context)
        self.note(level, f"{message}{context}")

    def fail(self, message: str, failure: Failure, context: Context) -> None:
        """`RequestLogs`."""
        now, text = self.clock(), failure_text(message, failure)
        for log in self._chosen("crit", context.client):
            log.write("crit", text, now, context, traceback_of(failure))
        self.note("crit", f"{text}{context}")

    def outline(self, level: str, message: str, context: Context) -> Outline:
        """`RequestLogs`."""
        before, _, after = printed(message, context).rpartition(context.request_id.encode())
        made = before.replace(b"%", b"%%") + b"%b" + after
        lines = [
            (log, (message, context) if log.setting.json else b"*%d " + made)
            for log in self._chosen(level, context.client)
        ]
        return level, f"{message}{evolve(context, request_id='')}", lines

    def again(self, outline: Outline, connection: int, name: bytes) -> None:
        """`RequestLogs`."""
        now = self.clock()
        level, text, lines = outline
        for log, made in lines:
            if made.__class__ is bytes:
                log.text(level, made % (connection, name), now)
            else:
                message, context = made
                context = evolve(context, connection=connection, request_id=name.decode())
                log.write(level, message, now, context)
        self.note(level, text)


def _covers(networks: Sequence[Network | str], client: str) -> bool:
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client in networks
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in network for network in networks if not isinstance(network, str))


@implementer(ILogObserver)
class ErrorLogs:
    """All ``error_log``s of a process: `open`, then `attach` to twisted.logger.

    What is said of no request, or where there are no others, goes to those of the main context.
    Settings that name the same file share one descriptor. ``clock`` gives seconds since the
    epoch.
    """

    def __init__(self, main: MainSettings, prefix: str, clock: Callable[[], float] = time.time):
        default = ErrorLogSetting(os.path.join(prefix, "logs", "error.log"))
        self._clock = clock
        self._debugged = main.debug_connection
        self._known: dict[ErrorLogSetting, ErrorLog] = {}
        self._sinks: dict[Any, Sink] = {}
        self._main = tuple(map(self._log, main.error_logs or (default,)))

    def _log(self, setting: ErrorLogSetting) -> ErrorLog:
        if setting not in self._known:
            sink = self._sinks.get(setting.target, _CLOSED)
            self._known[setting] = ErrorLog(setting, sink)
        return self._known[setting]

    def place(self, settings: Sequence[ErrorLogSetting], note: Note = _unnoted) -> PlaceLogs:
        """Those of a block; the main ones where it has none. Before `open`, or known to it."""
        logs = tuple(map(self._log, settings)) or self._main
        return PlaceLogs(logs, self._clock, self._debugged, note)

    @property
    def paths(self) -> tuple[str, ...]:
        """The files."""
        found = (setting.path for setting in self._known if setting.syslog is None)
        return tuple(dict.fromkeys(path for path in found if path is not None))

    def open(self) -> None:
        """Open the files, all anew: a fork has none of its parent's. Raises `LogFileError`."""
        self._sinks = {}
        try:
            for setting, log in self._known.items():
                if setting.target not in self._sinks:
                    self._sinks[setting.target] = setting.sink(warn)
                log.sink = self._sinks[setting.target]
        except LogFileError:
            self.close()
            raise

    def attach(self, reactor: Any = None) -> None:
        """Have everything written that is said from now on; with a reactor, gathered in storms."""
        for sink in self._sinks.values():
            sink.use(reactor)
        self._detach()  # a fork may have been told to listen to nobody
        globalLogPublisher.addObserver(cast(ILogObserver, self))

    def _detach(self) -> None:
        globalLogPublisher.removeObserver(cast(ILogObserver, self))

    def __call__(self, event: LogEvent) -> None:
        """`ILogObserver`."""
        for log in self._main:
            log(event)

    def reopen(self) -> None:
        """After rotation."""
        for sink in self._sinks.values():
            try:
                sink.reopen()
            except LogFileError as error:  # it goes on in the old file
                fault(str(error))

    def close(self) -> None:
        """Detach, write what was gathered, and close."""
        self._detach()
        for log in self._known.values():
            log.sink = _CLOSED
        for sink in self._sinks.values():
            sink.close()
        self._sinks = {}
