"""What a Twisted producer or resource writes, as a `BodyStream`.

Twisted pushes: a consumer is written to, and has nothing but its producer's ``pauseProducing``
to slow that down (or doesn't ask an `IPullProducer` for more). Our connection pulls: the sink
pauses the stream. `Outflow` stands between the two.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from twisted.python.failure import Failure

from imagefarm.http.message import BodySink

#: With so many bytes waiting a producer is paused, or not asked for more.
ENOUGH: Final = 65536
#: With so many bytes waiting the answer is broken off: the resource writes without a producer,
#: so nothing slows it down, and the client reads slowly.
MAX_UNSENT: Final = 64 << 20


class Unsent(Exception):
    """More than `MAX_UNSENT` bytes were waiting for the client."""


class Outflow:
    """A `BodyStream`, and the consumer's side of it: `write`, `register`, `finish`, `fail`.

    ``failed`` is called when a producer raises, ``cancelled`` when nobody wants the body any
    more; the producer has been stopped by then. ``clock`` gives other connections a turn between
    two pulls. A producer may not be asked by `register` itself: nothing happens before `prime`.
    """

    def __init__(
        self, clock: Any, *, failed: Callable[[Failure], None], cancelled: Callable[[], None]
    ) -> None:
        #: `BodyStream`: the declared Content-Length.
        self.length: int | None = None
        #: Everything has been written.
        self.complete = False
        #: Nothing that the resource writes gets here (HEAD), but its producer has to run.
        self.silent = False
        self._clock = clock
        self._failed = failed
        self._cancelled = cancelled
        self._sink: BodySink | None = None
        self._paused = False
        self._pending: deque[bytes] = deque()
        self._waiting = 0
        self._error: Exception | None = None
        self._over = False  # the sink has had its last call, or wants none
        self._producer: Any = None
        self._streaming = False
        self._held = False  # the push producer is paused
        self._due = False  # the pull producer is to be asked
        self._primed = False
        self._call: Any = None

    def __repr__(self) -> str:
        state = "complete" if self.complete else "over" if self._over else "open"
        return f"<Outflow {state}, {self._waiting} waiting>"

    # The resource's side

    def write(self, data: bytes) -> None:
        """Take ``data``. Raises `Unsent` if too much is waiting already."""
        if self._over or not data:
            return
        if self._waiting >= MAX_UNSENT:
            raise Unsent(f"{self._waiting} bytes are waiting for the client")
        self._pending.append(data)
        self._waiting += len(data)
        self._flush()
        self._steer(wrote=True)

    def register(self, producer: Any, streaming: bool) -> None:
        """Slow ``producer`` down, or ask it for data, as the client reads."""
        if self._over:
            producer.stopProducing()
            return
        self._producer, self._streaming, self._held = producer, streaming, False
        self._steer(wrote=True)

    def unregister(self) -> None:
        """The producer has no more."""
        self._producer = None
        self._due = False
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def prime(self) -> None:
        """The resource has returned: ask a pull producer for what fits into one write."""
        while self._due and not self.silent and self._waiting < ENOUGH:
            self._pull()
        self._primed = True
        self._steer()

    def finish(self) -> None:
        """That was all."""
        self.unregister()
        self.complete = True
        self._flush()

    def fail(self, error: Exception) -> None:
        """It breaks off here."""
        self._stop_producer()
        if not self.complete:
            self._error = error
            self._flush()

    def take(self) -> bytes:
        """Everything that is waiting; nothing is afterwards."""
        data = b"".join(self._pending)
        self._pending.clear()
        self._waiting = 0
        return data

    # BodyStream

    def start(self, sink: BodySink) -> None:
        """Begin delivery."""
        self._sink = sink
        self._flush()
        self._steer()

    def pause(self) -> None:
        """Deliver no more for now."""
        self._paused = True
        self._steer()

    def resume(self) -> None:
        """Go on."""
        self._paused = False
        self._flush()
        self._steer()

    def cancel(self) -> None:
        """Nobody wants the rest."""
        if self._over:
            return
        self._end()
        self._stop_producer()
        self._cancelled()

    # Inside

    def _end(self) -> None:
        self._sink = None
        self._over = True
        self.take()

    def _flush(self) -> None:
        while self._pending and self._sink is not None and not self._paused:
            chunk = self._pending.popleft()
            self._waiting -= len(chunk)
            self._sink.data(chunk)
        if self._sink is None or self._paused or self._pending:
            return
        sink = self._sink
        if self._error is not None:
            self._end()
            sink.fail(self._error)
        elif self.complete:
            self._end()
            sink.end()

    def _steer(self, *, wrote: bool = False) -> None:
        """Let the producer go on, or stop it, as there is room.

        A pull producer is asked again after it has written, as by a transport.
        """
        if self._producer is None or self._over:
            return
        full = self._paused or self._waiting >= ENOUGH
        if self._streaming:
            if full and not self._held:
                self._held = True
                self._drive(self._producer.pauseProducing)
            elif self._held and not full:
                self._held = False
                self._drive(self._producer.resumeProducing)
            return
        self._due = self._due or wrote
        if self._due and self._primed and self._call is None and not full:
            self._call = self._clock.callLater(0, self._called)

    def _called(self) -> None:
        self._call = None
        if not self._paused and self._waiting < ENOUGH:
            self._pull()

    def _pull(self) -> None:
        self._due = False
        self._drive(self._producer.resumeProducing)
        if self.silent:
            self._steer(wrote=True)

    def _drive(self, method: Callable[[], object]) -> None:
        try:
            method()
        except Exception:
            self._failed(Failure())

    def _stop_producer(self) -> None:
        producer = self._producer
        self.unregister()
        if producer is not None:
            self._drive(producer.stopProducing)
