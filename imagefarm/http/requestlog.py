"""Lines of the error log that belong to a request, in nginx's form.

``*12 open() "/a" failed ..., client: 192.0.2.1, server: a, request: "GET /a HTTP/1.1", host: "a"``
and at the end what nginx's lack: ``request_id: "..."``, by which the request's lines are found in
the logs of all processes that it went through.
"""

from __future__ import annotations

import codecs
from typing import Any, Final, Protocol

from attrs import frozen
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from .message import Request
from .requestid import request_id

_log: Final = Logger(namespace="imagefarm.request")

#: nginx's levels from the least to the most serious.
LEVELS: Final = ("debug", "info", "notice", "warn", "error", "crit", "alert", "emerg")
RANKS: Final = {name: rank for rank, name in enumerate(LEVELS)}
_ERROR: Final = RANKS["error"]
#: Looked up now: it is a file, and a line may be about there being no descriptor left.
_escape: Final = codecs.getencoder("unicode_escape")
#: The most characters that a line has of a client's words, each: what follows must fit in.
MAX_FIELD: Final = 1024

#: nginx's levels that twisted.logger does not have are told apart by ``severity``.
_LEVELS: Final = {
    "debug": LogLevel.debug,
    "info": LogLevel.info,
    "notice": LogLevel.info,
    "warn": LogLevel.warn,
    "error": LogLevel.error,
    "crit": LogLevel.critical,
    "alert": LogLevel.critical,
}


def printable(value: bytes) -> str:
    """Bytes from the wire as log text; control characters and non-ASCII as ``\\xXX``."""
    return _escape(value.decode("latin-1"))[0].decode("ascii")


def quotable(value: bytes | None) -> str:
    """As `printable`, for between quotes: what a client says must not look like our words."""
    return "" if value is None else printable(value).replace('"', "\\x22")


@frozen
class Context:
    """Whose request a line is about. Empty: there is none."""

    connection: int = 0
    client: str = ""
    server: str = ""
    request: str = ""
    upstream: str = ""
    host: str = ""
    referrer: str = ""
    request_id: str = ""

    def __str__(self) -> str:
        """What stands after the message, as in nginx: quotes around what may have blanks."""
        text = f", client: {self.client}, server: {self.server}" if self.client else ""
        for name in ("request", "upstream", "host", "referrer", "request_id"):
            value = getattr(self, name)
            if value:
                text += f', {name}: "{value[:MAX_FIELD]}"'
        return text


#: Lines of one location that are written again and again; their owner knows more.
Outline = Any


class RequestLogs(Protocol):
    """The error logs in force in a location."""

    def wants(self, level: str, client: str) -> bool:
        """Whether a line of this level about a request of that address is written anywhere."""

    def write(self, level: str, message: str, context: Context) -> None:
        """Write a line wherever one of its level belongs."""

    def fail(self, message: str, failure: Failure, context: Context) -> None:
        """Write what went wrong in our own code, at ``crit``: why in the first line."""

    def outline(self, level: str, message: str, context: Context) -> Outline:
        """What `again` needs to write this line for other connections and request ids."""

    def again(self, outline: Outline, connection: int, name: bytes) -> None:
        """Write it once more. ``name`` is the request id."""


def context(request: Request, upstream: str = "") -> Context:
    """That of ``request``; ``upstream`` is the URL of the server that it is about."""
    head = request.received or request.head
    major, minor = head.version
    host, referrer = head.headers.first(b"host"), head.headers.first(b"referer")
    line = f"{quotable(head.method)} {quotable(head.target)} HTTP/{major}.{minor}"
    return Context(
        request.peer.serial,
        request.peer.address,
        "" if request.server is None else printable(request.server.name),
        line,
        upstream,
        quotable(host),
        quotable(referrer),
        printable(request_id(request)),
    )


def _logs(request: Request) -> RequestLogs | None:
    logs: RequestLogs | None = getattr(request.location, "error_log", None)
    return logs


def report(request: Request, level: str, message: str, upstream: str = "") -> None:
    """Write ``message`` with the request's context; ``level`` is one of nginx's.

    ``upstream`` is the URL of the server that it is about.
    """
    if RANKS[level] >= _ERROR:
        request.explained = True
    if request.plannable:
        request.notes.append((level, message))
    logs = _logs(request)
    if logs is None:
        _log.emit(
            _LEVELS[level], "{text}{context}", text=message, context=context(request, upstream),
            severity=level,
        )  # fmt: skip
    elif logs.wants(level, request.peer.address):
        logs.write(level, message, context(request, upstream))


def report_failure(request: Request, message: str, failure: Failure) -> None:
    """Write that our own code failed on ``request``: why, and where."""
    request.explained = True
    logs = _logs(request)
    if logs is None:
        _log.failure(
            "{text}{context}", failure, text=message, context=context(request), severity="crit"
        )
    else:
        logs.fail(message, failure, context(request))


def explain(request: Request) -> None:
    """Say where an answer of 500 or more comes from that no error line speaks of.

    An upstream may have said it, or the configuration: then nginx says nothing.
    """
    outcome = request.outcome
    where = getattr(request.location, "name", "")
    if request.refusal:
        text = f"client sent invalid request: {request.refusal}"
    elif outcome.cache_status and not outcome.attempts:
        text = f"answered {outcome.status} from the cache"
    elif outcome.attempts and outcome.attempts[-1].status == outcome.status:
        last = printable(outcome.attempts[-1].address)
        text = f"answered {outcome.status}, as upstream {last} did"
    else:
        text = f'answered {outcome.status} by the configuration of location "{where}"'
    report(request, "error", text)
