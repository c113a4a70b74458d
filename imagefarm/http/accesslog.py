"""``access_log``: which requests are logged where, and the buffered files behind it.

Lines are gathered for a moment and written in one system call, whole lines only, to a file
opened for appending, so that several processes can share it.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from attrs import define, frozen
from twisted.logger import Logger

from imagefarm.config.ast import Directive
from imagefarm.config.errors import ConfigurationError, Invalid, Problem
from imagefarm.config.table import HSL, LOCATION_IF, AnyRow, Environment, ListRow, Scope
from imagefarm.config.values import parse_size, parse_time
from imagefarm.config.variables import Template, VariableTable

from .logformat import LOG_FORMAT, LogFormat, Outline, asks_name, combined, fill
from .message import Facts, Request
from .requestlog import printable
from .syslog import Syslog, SyslogTarget, parse_target
from .timers import Call, Clock

#: Without ``buffer=``: this many bytes are gathered at most, this many seconds.
DEFAULT_BUFFER: Final = 16 << 10
DEFAULT_FLUSH: Final = 0.1
#: With ``buffer=`` but without ``flush=``: nginx waits for ever, we for a minute.
_BUFFER_FLUSH: Final = 60.0
#: nginx's ``buffer`` where ``gzip`` is given alone.
_GZIP_BUFFER: Final = 64 << 10

#: Seconds between two complaints of one log that can't be written, as in nginx.
SILENCE: Final = 60.0

N = TypeVar("N", int, float)

_log: Final = Logger(namespace="imagefarm.accesslog")


@frozen
class Target:
    """Where lines go; equal targets share one open file. Sizes in bytes, times in seconds."""

    path: Template
    buffer: int = DEFAULT_BUFFER
    flush: float = DEFAULT_FLUSH
    gzip: int | None = None
    #: Goes before the path, which only names it then.
    syslog: SyslogTarget | None = None


@frozen
class AccessLogRule:
    """One ``access_log`` as written; ``target`` is None for ``off``."""

    target: Target | None
    format: str
    condition: Template | None
    file: str
    line: int


def _access_log(directive: Directive, env: Environment) -> AccessLogRule:
    path, *words = directive.args
    if path == "off":
        if words:
            raise Invalid(f'invalid parameter "{words[0]}"')
        return AccessLogRule(None, "", None, directive.file, directive.line)
    syslog = None
    if path.startswith("syslog:"):
        syslog = parse_target(path.removeprefix("syslog:"))
    name = "combined"
    if words and "=" not in words[0] and words[0] != "gzip":
        name = words.pop(0)
    options = _Options()
    for word in words:
        options.read(word, env)
    if syslog is not None:
        if (options.buffer, options.flush, options.gzip) != (None, None, None):
            raise Invalid("logs to syslog cannot be buffered")
        target = Target(Template(path, (path.encode(),), path.encode()), syslog=syslog)
        return AccessLogRule(target, name, options.condition, directive.file, directive.line)
    if options.flush is not None and options.buffer is None and options.gzip is None:
        raise Invalid("no buffer is defined for access_log")
    target = Target(
        env.template(env.path(path)),
        options.buffer or (DEFAULT_BUFFER if options.gzip is None else _GZIP_BUFFER),
        options.flush or (DEFAULT_FLUSH if options.buffer is None else _BUFFER_FLUSH),
        options.gzip,
    )
    return AccessLogRule(target, name, options.condition, directive.file, directive.line)


@define
class _Options:
    """The parameters after the format."""

    buffer: int | None = None
    flush: float | None = None
    gzip: int | None = None
    condition: Template | None = None

    def read(self, word: str, env: Environment) -> None:
        """Take one parameter. Raises `Invalid`."""
        key, equals, value = word.partition("=")
        if key == "gzip":
            self.gzip = _level(value) if equals else zlib.Z_BEST_SPEED
        elif key == "buffer" and value:
            self.buffer = _positive(parse_size(value), f'invalid buffer size "{value}"')
        elif key == "flush" and value:
            self.flush = _positive(parse_time(value), f'invalid flush time "{value}"')
        elif key == "if" and value:
            self.condition = env.template(value)
        else:
            raise Invalid(f'invalid parameter "{word}"')


def _positive(value: N, message: str) -> N:
    if value <= 0:
        raise Invalid(message)
    return value


def _level(value: str) -> int:
    if not value.isdecimal() or not 1 <= int(value) <= 9:
        raise Invalid(f'invalid compression level "{value}"')
    return int(value)


ACCESS_LOG: Final = ListRow[AccessLogRule](
    name="access_log",
    default_text="logs/access.log combined",
    contexts=HSL | {LOCATION_IF},
    arity=(1, None),
    convert=_access_log,
    syntax="path | syslog:server=address[,parameter=value] "
    "[format [buffer=size] [gzip[=level]] [flush=time] [if=condition]] | off",
    doc="Where requests are logged, in which format; several are possible. Without ``buffer`` "
    "lines are written within a tenth of a second. To syslog each is a message of its own.",
)
DIRECTIVES: Final[tuple[AnyRow, ...]] = (LOG_FORMAT, ACCESS_LOG)


class Log(Protocol):
    """Takes lines; does not raise but where it says so."""

    @property
    def path(self) -> bytes | None:
        """What `append` wants; None if it depends on the request."""

    def open(self) -> None:
        """Open it, so that what can't be written is known at once: `OSError`."""

    def write(self, request: Request, line: bytes) -> None:
        """Take a whole line."""

    def append(self, path: bytes, line: bytes) -> None:
        """Take a whole line for ``path``."""

    def reopen(self) -> None:
        """After the file was moved away: go on in a new one. Raises `OSError`, keeping the old."""

    def flush(self) -> None:
        """Write what was gathered."""

    def close(self) -> None:
        """Write what was gathered, and write no more."""


class LogSyslog:
    """`Log`: each line is a message, sent at once. ``clock`` gives seconds since the epoch."""

    def __init__(self, target: SyslogTarget, path: bytes, clock: Callable[[], float]) -> None:
        self.path = path
        self._clock = clock
        self._syslog = Syslog(target, lambda text: _log.critical("{text}", text=text))

    def open(self) -> None:
        """`Log`: a syslogd may come later."""

    def write(self, request: Request, line: bytes) -> None:
        """`Log`."""
        self.append(self.path, line)

    def append(self, path: bytes, line: bytes) -> None:
        """`Log`."""
        self._syslog.send(line.rstrip(b"\n"), self._clock())

    def reopen(self) -> None:
        """`Log`: nothing is rotated."""

    def flush(self) -> None:
        """`Log`: nothing is gathered."""

    def close(self) -> None:
        """`Log`."""
        self._syslog.close()


class LogFile:
    """An open log: gathers lines and writes them in blocks.

    ``write`` never raises: what can't be written (a full disk) is dropped, as nginx drops it,
    and counted in ``lost``; the error log hears of it once in `SILENCE` seconds. A path with
    variables is opened anew for each block.
    """

    def __init__(self, target: Target, reactor: Clock) -> None:
        self._target = target
        self._buffer = target.buffer
        self._reactor = reactor
        self._fd = -1
        self._lines: dict[bytes, list[bytes]] = {}
        self._size = 0
        self._timer: Call | None = None
        self.lost = 0
        self._quiet_until = 0.0

    def open(self) -> None:
        """Open the file, so that a path that can't be written is known at once: `OSError`."""
        if self._target.path.constant is not None:
            self._fd = _open(self._target.path.constant)

    def write(self, request: Request, line: bytes) -> None:
        """Take a whole line."""
        self.append(self._target.path(request), line)

    def append(self, path: bytes, line: bytes) -> None:
        """Take a whole line for the file ``path``."""
        if self._size + len(line) > self._buffer:
            self.flush()
        lines = self._lines.get(path)
        if lines is None:
            lines = self._lines[path] = []
        lines.append(line)
        self._size += len(line)
        if self._size >= self._buffer:
            self.flush()
        elif self._timer is None:
            self._timer = self._reactor.callLater(self._target.flush, self._tick)

    @property
    def path(self) -> bytes | None:
        """The file's path; None if it has variables."""
        return self._target.path.constant

    def _tick(self) -> None:
        self._timer = None
        self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        gathered, self._lines, self._size = self._lines, {}, 0
        for path, lines in gathered.items():
            block = b"".join(lines)
            if self._target.gzip is not None:
                # Each block is a gzip member of its own; a file of several is a gzip file.
                squeeze = zlib.compressobj(self._target.gzip, zlib.DEFLATED, 31)
                block = squeeze.compress(block) + squeeze.flush()
            try:
                self._append(path, block)
            except OSError as error:
                self.lost += len(lines)
                self._complain(path, error)

    def _append(self, path: bytes, block: bytes) -> None:
        if self._target.path.constant is not None:
            _write(self._fd, block)
            return
        fd = _open(path)
        try:
            _write(fd, block)
        finally:
            os.close(fd)

    def _complain(self, path: bytes, error: OSError) -> None:
        now = self._reactor.seconds()
        if now < self._quiet_until:
            return
        self._quiet_until = now + SILENCE
        _log.critical(
            'writing to "{path}" failed ({number}: {reason}), {lost} lines are lost so far',
            path=printable(path),
            number=error.errno,
            reason=error.strerror,
            lost=self.lost,
        )

    def reopen(self) -> None:
        """After the file was moved away: go on in a new one. Raises `OSError`, keeping the old."""
        self.flush()
        if self._target.path.constant is not None:
            fresh = _open(self._target.path.constant)
            self._release()
            self._fd = fresh

    def close(self) -> None:
        """Write what was gathered and close the file."""
        self.flush()
        self._release()

    def _release(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __repr__(self) -> str:
        return f"<LogFile {self._target.path.source} buffered={self._size} lost={self.lost}>"


def _write(fd: int, block: bytes) -> None:
    """All of ``block``, or an OSError: the second write to a full disk says why."""
    while block:
        block = block[os.write(fd, block) :]


def _open(path: bytes) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)


@frozen
class _Entry:
    """One ``access_log`` in force."""

    file: Log
    format: LogFormat
    condition: Template | None


@frozen
class AccessLogs:
    """The access logs in force in a location."""

    entries: tuple[_Entry, ...] = ()

    def write(self, request: Request) -> None:
        """Log ``request`` wherever its condition holds."""
        for entry in self.entries:
            if entry.condition is None or entry.condition(request) not in (b"", b"0"):
                entry.file.write(request, entry.format.line(request))

    def outlines(self, request: Request, *, one_of_many: bool = False) -> Outlines | None:
        """What `write_again` needs for repetitions of ``request``; None where it can't.

        ``one_of_many``: for others, too, that are answered alike.
        """
        found = []
        for entry in self.entries:
            path, outline = entry.file.path, entry.format.outline(request, one_of_many=one_of_many)
            if entry.condition is not None or path is None or outline is None:
                return None
            found.append((entry.file, path, outline))
        return tuple(found)


Outlines = tuple[tuple[Log, bytes, Outline], ...]


def ask_name(outlines: Outlines) -> bool:
    """Whether the request id stands in any of the lines."""
    return any(asks_name(outline) for _, _, outline in outlines)


def write_again(outlines: Outlines, facts: Facts) -> None:
    """Log a repetition."""
    for file, path, outline in outlines:
        file.append(path, fill(outline, facts))


class LogFiles:
    """All access logs of a process. Equal targets share a file.

    ``for_scope`` is called while the configuration is compiled; then ``open`` once. ``default``
    is the log of a configuration that has no ``access_log``, in the format ``combined``.
    """

    def __init__(
        self,
        reactor: Clock,
        variables: VariableTable,
        default: bytes | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self._default: tuple[AccessLogRule, ...] = ()
        if default is not None:
            path = Template(os.fsdecode(default), (default,), default)
            self._default = (AccessLogRule(Target(path), "combined", None, "", 0),)
        self._combined = combined(variables)
        self._files: dict[Target, tuple[Log, AccessLogRule]] = {}
        self._clock = clock
        self._problems: list[Problem] = []

    def for_scope(self, scope: Scope) -> AccessLogs:
        """The logs in force in ``scope``. An unknown format is reported by `open`."""
        formats = {"combined": self._combined}
        for format in scope.all(LOG_FORMAT):
            if format.name in formats:
                message = f'duplicate "log_format" name "{format.name}"'
                self._problems.append(Problem(message, format.file, format.line_number))
            formats[format.name] = format
        entries: list[_Entry] = []
        for rule in scope.all(ACCESS_LOG) or self._default:
            if rule.target is None:
                return AccessLogs()
            if rule.format not in formats:
                message = f'unknown log format "{rule.format}"'
                self._problems.append(Problem(message, rule.file, rule.line))
                continue
            entries.append(
                _Entry(self._file(rule.target, rule), formats[rule.format], rule.condition)
            )
        return AccessLogs(tuple(entries))

    def _file(self, target: Target, rule: AccessLogRule) -> Log:
        if target not in self._files:
            made: Log = LogFile(target, self._reactor)
            if target.syslog is not None:
                made = LogSyslog(target.syslog, target.path.constant or b"", self._clock)
            self._files[target] = made, rule
        return self._files[target][0]

    def open(self) -> None:
        """Open all files. Raises `ConfigurationError` with all that is wrong."""
        problems = list(dict.fromkeys(self._problems))
        for target, (file, rule) in self._files.items():
            try:
                file.open()
            except OSError as error:
                message = f'open() "{target.path.source}" failed ({error.errno}: {error.strerror})'
                problems.append(Problem(message, rule.file, rule.line))
        if problems:
            self.close()
            raise ConfigurationError(problems)

    def paths(self) -> list[bytes]:
        """The files whose names hold no variables."""
        return [
            target.path.constant
            for target in self._files
            if target.path.constant is not None and target.syslog is None
        ]

    def reopen(self) -> list[str]:
        """For USR1. Returns what went wrong; those files are gone on with as they were."""
        failures = []
        for target, (file, _) in self._files.items():
            try:
                file.reopen()
            except OSError as error:
                failures.append(
                    f'open() "{target.path.source}" failed ({error.errno}: {error.strerror})'
                )
        return failures

    def flush(self) -> None:
        """Write what was gathered, everywhere."""
        for file, _ in self._files.values():
            file.flush()

    def close(self) -> None:
        """Write what was gathered, and close all files."""
        for file, _ in self._files.values():
            file.close()
