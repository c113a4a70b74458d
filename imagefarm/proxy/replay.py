"""A request body that can be sent again, as long as it is small enough to be remembered."""

from __future__ import annotations

from imagefarm.http.message import BodySink, BodyStream

#: Bodies up to so many bytes can be sent to a second peer (``client_body_buffer_size``).
MAX_REPLAY = 16384


class ReplayBody:
    """The client's body, read once, handed to one attempt after another through `view`.

    Only one view is in use at a time. While no more than ``limit`` bytes have been read they are
    kept; beyond that `replayable` is False, the memory is given back, and only the view in use
    can go on.
    """

    __slots__ = ("_chunks", "_ended", "_error", "_limit", "_size", "_started", "_view", "source")

    def __init__(self, source: BodyStream, limit: int = MAX_REPLAY) -> None:
        self.source = source
        self._limit = limit
        self._chunks: list[bytes] = []
        self._size = 0
        self._started = False
        self._ended = False
        self._error: Exception | None = None
        self._view: _View | None = None

    @property
    def replayable(self) -> bool:
        """Whether another view would begin at the body's first byte and be whole."""
        return self._size <= self._limit and self._error is None

    @property
    def error(self) -> Exception | None:
        """Why the client's body broke off, if it did: no attempt can succeed then."""
        return self._error

    def view(self) -> BodyStream:
        """The body from its beginning, for the next attempt. Needs `replayable`."""
        if self._view is not None:
            self._view.cancel()
        self._view = _View(self, list(self._chunks))
        return self._view

    def data(self, chunk: bytes) -> None:
        """`BodySink` of the source."""
        self._size += len(chunk)
        if self._size <= self._limit:
            self._chunks.append(chunk)
        else:
            self._chunks.clear()
        if self._view is not None:
            self._view.push(chunk)

    def end(self) -> None:
        """`BodySink` of the source."""
        self._ended = True
        if self._view is not None:
            self._view.flush()

    def fail(self, error: Exception) -> None:
        """`BodySink` of the source."""
        self._error = error
        if self._view is not None:
            self._view.broken(error)

    def pull(self) -> None:
        """Let the source flow for the view in use."""
        if self._ended or self._error is not None:
            return
        if self._started:
            self.source.resume()
        else:
            self._started = True
            self.source.start(self)

    def hold(self) -> None:
        """Stop the source."""
        if self._started and not self._ended and self._error is None:
            self.source.pause()

    def detach(self, view: _View) -> None:
        """``view`` wants no more. The source is only stopped: another view may want it."""
        if self._view is view:
            self._view = None
            self.hold()

    @property
    def ended(self) -> bool:
        """The source has delivered everything."""
        return self._ended

    def cancel(self) -> None:
        """No attempt will want the rest."""
        view, self._view = self._view, None
        if view is not None:
            view.cancel()
        self._chunks.clear()
        self.source.cancel()


class _View:
    """What one attempt sees of the body."""

    __slots__ = ("_body", "_paused", "_pending", "_sink")

    def __init__(self, body: ReplayBody, pending: list[bytes]) -> None:
        self._body = body
        self._pending = pending
        self._sink: BodySink | None = None
        self._paused = False

    @property
    def length(self) -> int | None:
        return self._body.source.length

    def start(self, sink: BodySink) -> None:
        self._sink = sink
        self._go()

    def pause(self) -> None:
        self._paused = True
        self._body.hold()

    def resume(self) -> None:
        if self._paused and self._sink is not None:
            self._paused = False
            self._go()

    def cancel(self) -> None:
        self._sink = None
        self._pending.clear()
        self._body.detach(self)

    def push(self, chunk: bytes) -> None:
        """The source delivered ``chunk``."""
        if self._paused or self._pending or self._sink is None:
            self._pending.append(chunk)
        else:
            self._sink.data(chunk)

    def flush(self) -> None:
        """Deliver what is pending, and the end if it has come."""
        while self._pending and not self._paused and self._sink is not None:
            self._sink.data(self._pending.pop(0))
        if self._pending or self._paused or self._sink is None:
            return
        if self._body.ended:
            sink, self._sink = self._sink, None
            sink.end()

    def broken(self, error: Exception) -> None:
        """The client broke off."""
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.fail(error)

    def _go(self) -> None:
        self.flush()
        if self._sink is not None and not self._paused:
            self._body.pull()
