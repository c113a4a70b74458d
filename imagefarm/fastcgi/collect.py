"""A request body of unknown length, collected before it is sent.

CGI applications read as many bytes as CONTENT_LENGTH says (RFC 3875 section 4.2), so the length
must be known before the body begins. nginx does the same (``fastcgi_request_buffering``).
"""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred

from imagefarm.http.message import BodyStream

#: The most that is collected, in bytes. A client that sends more must say how much (411).
MAX_COLLECTED: Final = 1 << 20


class TooMuch(Exception):
    """The body is larger than the limit."""


class _Collector:
    """A `BodySink` that keeps what comes."""

    def __init__(self, body: BodyStream, limit: int) -> None:
        self._body = body
        self._limit = limit
        self._chunks: list[bytes] = []
        self._size = 0
        self.whole: Deferred[bytes] = Deferred(lambda _: body.cancel())

    def data(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size <= self._limit:
            self._chunks.append(chunk)
        elif not self.whole.called:
            self._chunks.clear()
            self._body.cancel()
            self.whole.errback(TooMuch())

    def end(self) -> None:
        if not self.whole.called:
            self.whole.callback(b"".join(self._chunks))

    def fail(self, error: Exception) -> None:
        if not self.whole.called:
            self.whole.errback(error)


def collect(body: BodyStream, limit: int = MAX_COLLECTED) -> Deferred[bytes]:
    """All of ``body``. Errs with `TooMuch` above ``limit`` bytes, or as the body fails."""
    collector = _Collector(body, limit)
    body.start(collector)
    return collector.whole
