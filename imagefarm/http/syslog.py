"""Logging to syslog (``syslog:server=...``), in the form that nginx sends (RFC 3164).

A message is one datagram, over UDP or a Unix socket: ``<PRI>Jan 31 12:00:00 host tag: text``. It
is sent without waiting, or it is lost, and counted: a log is no reason to keep a client waiting.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from attrs import frozen

from imagefarm.config.errors import Invalid

#: By their numbers (RFC 3164 section 4.1.1), under nginx's names.
FACILITIES: Final = (
    "kern", "user", "mail", "daemon", "auth", "intern", "lpr", "news", "uucp", "clock", "authpriv",
    "ftp", "ntp", "audit", "alert", "cron", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
)  # fmt: skip
SEVERITIES: Final = ("emerg", "alert", "crit", "error", "warn", "notice", "info", "debug")
#: The longest message in bytes, its head included; more is cut off (NGX_SYSLOG_MAX_STR).
MAX_DATAGRAM: Final = 2400
#: Seconds between two complaints of one that can't be reached.
SILENCE: Final = 60.0

_DEFAULT_PORT: Final = 514
_MAX_TAG: Final = 32
_MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
_TAG: Final = re.compile(r"[A-Za-z0-9_]*")

Address = tuple[int, Any]


@frozen
class SyslogTarget:
    """Where messages go, and how. ``family`` and ``address`` are the socket's."""

    family: int
    address: Any
    text: str
    facility: int = 23
    severity: int = 6
    tag: str = "nginx"
    hostname: bool = True

    def head(self, severity: int, when: float, host: str) -> bytes:
        """What stands before the text of a message, ``when`` it was written (seconds)."""
        moment = time.localtime(when)
        name = f"{host} " if self.hostname else ""
        return (
            f"<{self.facility * 8 + severity}>{_MONTHS[moment.tm_mon - 1]} {moment.tm_mday:2} "
            f"{moment.tm_hour:02}:{moment.tm_min:02}:{moment.tm_sec:02} {name}{self.tag}: "
        ).encode("utf-8", "surrogateescape")


def parse_target(text: str) -> SyslogTarget:
    """What follows ``syslog:``. Raises `Invalid` in nginx's words."""
    given: dict[str, Any] = {}
    for word in text.split(","):
        key, _, value = word.partition("=")
        if word == "nohostname":
            given["hostname"] = False
            continue
        if key in given or (key == "server" and "address" in given):
            raise Invalid(f'duplicate syslog "{key}"')
        if key == "server" and value:
            given["family"], given["address"] = _address(value)
            given["text"] = value
        elif key == "facility":
            given[key] = _number(value, FACILITIES, key)
        elif key == "severity":
            given[key] = _number(value, SEVERITIES, key)
        elif key == "tag":
            given[key] = _tag(value)
        else:
            raise Invalid(f'unknown syslog parameter "{word}"')
    if "address" not in given:
        raise Invalid("no syslog server specified")
    return SyslogTarget(**given)


def _number(word: str, names: tuple[str, ...], what: str) -> int:
    if word not in names:
        raise Invalid(f'unknown syslog {what} "{word}"')
    return names.index(word)


def _tag(text: str) -> str:
    if len(text) > _MAX_TAG:
        raise Invalid(f"syslog tag length exceeds {_MAX_TAG}")
    if not _TAG.fullmatch(text):
        raise Invalid('syslog "tag" only allows alphanumeric characters and underscore')
    return text


def _address(text: str) -> Address:
    """A socket's family and address. A name is asked for once, when the file is read (nginx)."""
    if text.startswith("unix:"):
        if len(text) == len("unix:"):
            raise Invalid(f'no path in the unix domain socket in syslog server "{text}"')
        return socket.AF_UNIX, text.removeprefix("unix:")
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(_DEFAULT_PORT)
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise Invalid(f'invalid port in syslog server "{text}"')
    host = host.removeprefix("[").removesuffix("]")
    try:
        if not host:
            raise OSError
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        raise Invalid(f'host not found in syslog server "{text}"') from None
    family, _, _, _, address = found[0]
    return family, address


class Syslog:
    """Sends messages to one target; ``send`` never raises.

    ``complain`` is told, at most once in `SILENCE` seconds, that some could not be sent.
    """

    def __init__(
        self,
        target: SyslogTarget,
        complain: Callable[[str], None],
        hostname: Callable[[], str] = lambda: os.uname().nodename.lower(),
    ) -> None:
        self.target = target
        self._complain = complain
        self._hostname = hostname()
        self._socket: socket.socket | None = None
        self._head: tuple[int, int, bytes] = (-1, -1, b"")
        #: Messages that did not go out.
        self.lost = 0
        self._quiet_until = 0.0

    def send(self, message: bytes, now: float, severity: int | None = None) -> None:
        """Send one line, without its end; ``severity`` unless it is the target's own."""
        second = int(now)
        severity = self.target.severity if severity is None else severity
        if self._head[:2] != (second, severity):
            self._head = second, severity, self.target.head(severity, second, self._hostname)
        try:
            self._opened().send((self._head[2] + message)[:MAX_DATAGRAM])
        except BlockingIOError as error:
            self._lose(error, now)
        except OSError as error:
            self.close()  # the next message tries anew: syslogd may have been started again
            self._lose(error, now)

    def _opened(self) -> socket.socket:
        if self._socket is None:
            made = socket.socket(self.target.family, socket.SOCK_DGRAM)
            try:
                made.setblocking(False)
                made.connect(self.target.address)
            except OSError:
                made.close()
                raise
            self._socket = made
        return self._socket

    def _lose(self, error: OSError, now: float) -> None:
        self.lost += 1
        if now >= self._quiet_until:
            self._quiet_until = now + SILENCE
            self._complain(
                f'sending to syslog server "{self.target.text}" failed ({error.errno}: '
                f"{error.strerror}), {self.lost} lines are lost so far"
            )

    def close(self) -> None:
        """Close the socket; another message would open it anew."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __repr__(self) -> str:
        return f"<Syslog {self.target.text} lost={self.lost}>"
