"""Request bodies as they come from the socket: framing off, backpressure on.

The connection feeds what it reads to `RequestBody.receive`; a handler may `start` it, now,
later or never. What comes before that (or while the handler has paused it) waits in a bounded
queue, and the connection stops reading when the queue is full (`RequestBody.hungry`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from .chunked import ChunkedDecoder
from .message import BodySink
from .parser import BadRequest

#: Bytes that may wait for a handler before the connection stops reading, unless the location says
#: otherwise. One read more (64 KiB) may come on top.
CLIENT_BODY_BUFFER_SIZE: Final = 16384


class BodyError(Exception):
    """A request body broke off. ``status`` is the answer that fits, if there is one yet."""

    status = 400


class BodyTooLarge(BodyError):
    """A chunked body has grown past ``client_max_body_size``."""

    status = 413


class BodyTimeout(BodyError):
    """Nothing came for ``client_body_timeout``."""

    status = 408


class MalformedBody(BodyError):
    """The chunked coding is broken."""


class BodyUsed(BodyError):
    """A second handler wants what the first one has read."""

    status = 500


class ClientGone(BodyError):
    """The client has closed the connection."""

    status = 499


class EmptyBody:
    """No body at all. It has no state, so one will do for all requests."""

    __slots__ = ()

    @property
    def length(self) -> int | None:
        """Zero."""
        return 0

    def start(self, sink: BodySink) -> None:
        """Ends at once."""
        sink.end()

    def pause(self) -> None:
        """Nothing to pause."""

    def resume(self) -> None:
        """Nothing to resume."""

    def cancel(self) -> None:
        """Nothing to cancel."""


EMPTY: Final = EmptyBody()


class RequestBody:
    """A `BodyStream` that the connection feeds.

    ``length`` is Content-Length, None for chunked. ``on_demand`` is called when a handler
    starts or resumes it; ``limit`` gives ``client_max_body_size`` (0: none) and ``buffer``
    ``client_body_buffer_size`` when they are needed, because only routing decides them.
    """

    __slots__ = (
        "_buffer", "_decoder", "_error", "_limit", "_on_demand", "_paused", "_queue", "_queued",
        "_sink", "_stopped", "complete", "length", "received", "started",
    )  # fmt: skip

    #: Whether ``client_body_timeout`` bounds the client's silence.
    timed = True

    def __init__(
        self,
        length: int | None,
        limit: Callable[[], int],
        on_demand: Callable[[], None],
        buffer: Callable[[], int] = lambda: CLIENT_BODY_BUFFER_SIZE,
    ) -> None:
        self.length = length
        #: Whether the last byte has come in.
        self.complete = False
        #: Payload bytes that have come in.
        self.received = 0
        self.started = False
        self._decoder = ChunkedDecoder() if length is None else None
        self._limit = limit
        self._buffer = buffer
        self._on_demand = on_demand
        self._sink: BodySink | None = None
        self._paused = False
        self._stopped = False  # the sink has had its last call, or wants none
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._error: BodyError | None = None

    def __repr__(self) -> str:
        return f"<RequestBody {self.received}/{self.length}>"

    # The handler's side.

    def start(self, sink: BodySink) -> None:
        """Begin delivery to ``sink``, which fails at once if the body has been used up."""
        if self._stopped:
            sink.fail(BodyUsed("the request body was already read"))
            return
        self._sink = sink
        self.started = True
        self._deliver()
        if not self.complete and self._error is None:
            self._on_demand()

    def pause(self) -> None:
        """Stop delivering; the socket is read until the queue is full."""
        self._paused = True

    def resume(self) -> None:
        """Go on delivering."""
        if self._paused:
            self._paused = False
            self._deliver()
            self._on_demand()

    def cancel(self) -> None:
        """Nobody wants the rest: what still comes is dropped."""
        self._stopped = True
        self._sink = None
        self._queue.clear()
        self._queued = 0
        self._on_demand()

    # The connection's side.

    @property
    def failed(self) -> bool:
        """Whether it broke off: the connection can't be used for another request."""
        return self._error is not None

    @property
    def wanted(self) -> bool:
        """Whether a handler waits for more right now."""
        return not (self.complete or self._stopped or self._paused) and self._sink is not None

    @property
    def hungry(self) -> bool:
        """Whether there is room for more, or nobody wants it and it may be dropped."""
        return not self.complete and (
            self.wanted or self._stopped or self._queued < self._buffer()
        )

    @property
    def remaining(self) -> int | None:
        """The bytes that are still to come, None if that is not known."""
        return None if self.length is None else self.length - self.received

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the socket; what follows the body's end comes back."""
        if self._error is not None:
            return b""
        if self._decoder is None:
            left = (self.length or 0) - self.received
            pieces, rest = [data[:left]], data[left:]
            self.complete = len(data) >= left
        else:
            try:
                pieces, rest = self._decoder.feed(data)
            except BadRequest as error:
                self.fail(MalformedBody(error.reason))
                return b""
            self.complete = self._decoder.done
        for piece in pieces:
            self.received += len(piece)
            if not self._stopped and piece:
                self._queue.append(piece)
                self._queued += len(piece)
        limit = self._limit()
        if self._decoder is not None and 0 < limit < self.received:
            self.complete = False
            self.fail(BodyTooLarge(f"more than {limit} bytes"))
            return b""
        self._deliver()
        return rest

    def fail(self, error: BodyError) -> None:
        """It ends here. What has not been delivered is dropped."""
        if self.complete or self._error is not None:
            return
        self._error = error
        self._queue.clear()
        self._queued = 0
        self._deliver()

    def _deliver(self) -> None:
        sink = self._sink
        if sink is None or self._stopped:
            return
        while self._queue and not self._paused and not self._stopped:
            piece = self._queue.popleft()
            self._queued -= len(piece)
            sink.data(piece)
        if self._stopped:
            return
        if self._error is not None:
            self._stopped, self._sink = True, None
            sink.fail(self._error)
        elif self.complete and not self._queue and not self._paused:
            self._stopped, self._sink = True, None
            sink.end()
