"""Lines of the error log that belong to a request, in nginx's form."""

from __future__ import annotations

from typing import Final

from twisted.logger import Logger, LogLevel

from .message import Request

_log: Final = Logger(namespace="imagefarm.request")

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
    return value.decode("latin-1").encode("unicode_escape").decode("ascii")


def context(request: Request, upstream: str = "") -> str:
    """``, client: ..., server: ..., request: "...", upstream: "...", host: "..."``."""
    head = request.head
    text = f", client: {request.peer.address}"
    if request.server is not None:
        text += f", server: {printable(request.server.name)}"
    major, minor = head.version
    text += f', request: "{printable(head.method)} {printable(head.target)} HTTP/{major}.{minor}"'
    if upstream:
        text += f', upstream: "{upstream}"'
    host = head.headers.first(b"host")
    if host is not None:
        text += f', host: "{printable(host)}"'
    return text


def report(request: Request, level: str, message: str, upstream: str = "") -> None:
    """Write ``message`` with the request's context; ``level`` is one of nginx's.

    ``upstream`` is the URL of the server that it is about.
    """
    if request.plannable:
        request.notes.append((level, message))
    write = getattr(request.location, "error_log", None)
    if write is not None:
        write(level, message + context(request, upstream))
        return
    _log.emit(
        _LEVELS[level], "{text}{context}", text=message, context=context(request, upstream),
        severity=level,
    )  # fmt: skip
