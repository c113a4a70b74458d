"""Reading a body that is wanted whole, or only its beginning."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from .message import Body, BodyStream, FileBody, PartsBody, discard


class _Reader:
    """A `BodySink` that takes up to ``limit`` bytes."""

    def __init__(self, body: BodyStream, limit: int) -> None:
        self.done: Deferred[tuple[bytes, bool]] = Deferred(lambda _: body.cancel())
        self._body = body
        self._limit = limit
        self._chunks: list[bytes] = []
        self._size = 0

    def data(self, chunk: bytes) -> None:
        """`BodySink`."""
        if self.done.called:
            return
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > self._limit:
            self._body.cancel()
            self._fire(whole=False)

    def end(self) -> None:
        """`BodySink`."""
        if not self.done.called:
            self._fire(whole=True)

    def fail(self, error: Exception) -> None:
        """`BodySink`."""
        if not self.done.called:
            self.done.errback(error)

    def _fire(self, *, whole: bool) -> None:
        self.done.callback((b"".join(self._chunks)[: self._limit], whole))


def read_up_to(body: Body, limit: int) -> Deferred[tuple[bytes, bool]]:
    """The first ``limit`` bytes of ``body``, and whether they are all of it.

    What is beyond them is not read. Errs as the body fails; cancelling it cancels the body.
    Bodies that are files are not for this: `TypeError`.
    """
    if isinstance(body, FileBody | PartsBody):
        discard(body)
        raise TypeError("files are not read into memory")
    if isinstance(body, bytes):
        done: Deferred[tuple[bytes, bool]] = Deferred()
        done.callback((body[:limit], len(body) <= limit))
        return done
    reader = _Reader(body, limit)
    body.start(reader)
    return reader.done
