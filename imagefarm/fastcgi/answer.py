"""One answer of a responder: from the handler's `Response` to FCGI_STDOUT, with backpressure."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, Final, Protocol, cast

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from imagefarm.http.message import (
    Body,
    BodyStream,
    FileBody,
    PartsBody,
    Response,
    body_length,
    discard,
)

from .records import CHUNK
from .session import FastCGIRequest

ResponderHandler = Callable[[FastCGIRequest], "Response | Deferred[Response]"]

_BODILESS: Final = frozenset({204, 304})
_REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}
#: What would end a field line early, or is no part of a field name (RFC 9110 section 5).
_BAD_NAME: Final = re.compile(rb"[^!#$%&'*+\-.^_`|~0-9A-Za-z]|^$")
_BAD_VALUE: Final = re.compile(rb"[\x00\r\n]")

_log: Final = Logger(namespace="imagefarm.fastcgi")


class Outlet(Protocol):
    """The connection, as an answer sees it."""

    @property
    def paused(self) -> bool:
        """The web server is behind: write no more for now."""

    def write(self, request_id: int, data: bytes) -> None:
        """Send a piece of the answer."""

    def finish(self, request_id: int, last: bytes, app_status: int) -> None:
        """Send the last piece and the end."""

    def broken(self, request_id: int) -> None:
        """The answer can't be completed: what was sent must not look complete."""


class UnsafeField(ValueError):
    """A field that would break the head."""


def encode_head(response: Response, length: int | None) -> bytes:
    """The CGI head (RFC 3875 section 6.2). Raises `UnsafeField`."""
    reason = _REASONS.get(response.status)
    lines = [b"Status: %d" % response.status + (b" " + reason if reason else b"")]
    for name, value in response.headers:
        if _BAD_NAME.search(name) or _BAD_VALUE.search(value):
            raise UnsafeField(f"unsafe field {name!r}: {value!r}")
        lines.append(name + b": " + value)
    if length is not None:
        lines.append(b"Content-Length: %d" % length)
    return b"\r\n".join(lines) + b"\r\n\r\n"


class Answer:
    """Asks the handler and writes what it says.

    Bodies of bytes and of files are cut into records as the connection takes them; a stream is
    paused and resumed with it.
    """

    def __init__(self, outlet: Outlet, request: FastCGIRequest) -> None:
        self._outlet = outlet
        self._request = request
        self._id = request.request_id
        self._waiting: Deferred[Any] | None = None
        self._body: PartsBody | FileBody | BodyStream | None = None
        self._pieces: Iterator[bytes] | None = None
        self._stream: BodyStream | None = None
        self._over = False
        self._app_status = 0

    def start(self, handler: ResponderHandler) -> None:
        """Begin; it may all be done before this returns."""
        asked = maybeDeferred(cast(Callable[..., Any], handler), self._request)
        self._waiting = asked
        asked.addErrback(self._failed).addCallback(self._answered)

    def pause(self) -> None:
        """The web server is behind."""
        if self._stream is not None:
            self._stream.pause()

    def resume(self) -> None:
        """It has caught up."""
        if self._stream is not None:
            self._stream.resume()
        elif self._pieces is not None:
            self._pump()

    def cancel(self) -> None:
        """Nobody wants the answer: stop the work, release what it holds."""
        self._over = True
        waiting, self._waiting = self._waiting, None
        body, self._body = self._body, None
        if waiting is not None:
            waiting.cancel()
        if body is not None:
            discard(body)

    def _failed(self, failure: Failure) -> Response:
        if not (self._over and failure.check(CancelledError)):
            _log.failure("FastCGI responder failed", failure)
        self._app_status = 1
        return Response(500)

    def _answered(self, response: Response) -> None:
        self._waiting = None
        if self._over:
            discard(response.body)
            return
        body, length = response.body, body_length(response.body)
        if response.status in _BODILESS or self._request.method == b"HEAD":
            discard(body)
            body = b""
            length = None if response.status in _BODILESS else response.length or length
        try:
            head = encode_head(response, length)
        except UnsafeField:
            _log.failure("FastCGI responder failed")
            discard(body)
            self._app_status = 1
            head, body = encode_head(Response(500), 0), b""
        self._send(head, body)

    def _send(self, head: bytes, body: Body) -> None:
        if isinstance(body, bytes):
            if len(head) + len(body) <= CHUNK:
                self._finish(head + body)
                return
            self._outlet.write(self._id, head)
            self._pieces = _cut(body)
            self._pump()
            return
        self._body = body
        self._outlet.write(self._id, head)
        if isinstance(body, FileBody | PartsBody):
            self._pieces = _pieces(body)
            self._pump()
        else:
            self._stream = body
            body.start(self)
            if self._outlet.paused and self._stream is not None:
                body.pause()

    def _pump(self) -> None:
        """Write pieces as long as they are taken."""
        pieces = self._pieces
        while pieces is not None and not self._over and not self._outlet.paused:
            try:
                piece = next(pieces, None)
            except OSError as error:
                self.fail(error)
                return
            if piece is None:
                self._finish(b"")
            else:
                self._outlet.write(self._id, piece)

    def _finish(self, last: bytes) -> None:
        self._over = True
        body, self._body = self._body, None
        self._stream = None
        if isinstance(body, FileBody | PartsBody):
            discard(body)
        self._outlet.finish(self._id, last, self._app_status)

    # `BodySink` of a stream.

    def data(self, chunk: bytes) -> None:
        """`BodySink`."""
        if not self._over:
            self._outlet.write(self._id, chunk)

    def end(self) -> None:
        """`BodySink`."""
        if not self._over:
            self._finish(b"")

    def fail(self, error: Exception) -> None:
        """`BodySink`."""
        if not self._over:
            self._over = True
            _log.error("FastCGI answer broke off: {error}", error=error)
            body, self._body = self._body, None
            if body is not None:
                discard(body)
            self._outlet.broken(self._id)


def _pieces(body: bytes | FileBody | PartsBody) -> Iterator[bytes]:
    """The body in pieces of at most `CHUNK` bytes. Raises `OSError` if a file has shrunk."""
    if isinstance(body, bytes):
        yield from _cut(body)
    elif isinstance(body, FileBody):
        yield from _read(body)
    else:
        for part in body.parts:
            yield from _pieces(part)


def _cut(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), CHUNK):
        yield data[start : start + CHUNK]


def _read(body: FileBody) -> Iterator[bytes]:
    offset, end = body.offset, body.offset + body.length
    while offset < end:
        piece = os.pread(body.file.fd, min(CHUNK, end - offset), offset)
        if not piece:
            raise OSError(f"{os.fsdecode(body.file.path)} ended before its promised length")
        offset += len(piece)
        yield piece
