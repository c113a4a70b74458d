"""``limit_rate``: answers sent no faster than so many bytes a second.

A `Pace` says how much may go now; `PacedStream` holds a stream to it. Files are paced by the
sender itself. nginx lets one second's worth go at once and then sends in bursts of up to a
second; we send every `STEP` seconds, so that short answers are as slow as long ones.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from attrs import frozen

from imagefarm.config.errors import Invalid
from imagefarm.config.values import parse_size
from imagefarm.config.variables import Template

from .message import BodySink, BodyStream, Request
from .timers import Call, Clock

#: Seconds between two writes at full pace.
STEP: Final = 0.125
#: What was not used for so many seconds, because the client or the source was slower, is lost.
CREDIT: Final = 1.0


def _parsed(text: bytes) -> int | None:
    try:
        return parse_size(text.decode("latin-1"))
    except Invalid:
        return None


def size_of(size: int | Template, request: Request) -> int:
    """What a size comes to for ``request``; 0 where variables have made none of it."""
    return size if isinstance(size, int) else _parsed(size(request)) or 0


def is_rate(text: bytes) -> bool:
    """Whether ``set $limit_rate`` takes it."""
    return _parsed(text) is not None


def own_rate(request: Request) -> int | None:
    """``$limit_rate`` as ``set`` has left it; None if it was not set."""
    own = request.variables.get("limit_rate")
    return None if own is None else _parsed(own)


def rate_of(request: Request) -> int:
    """How many bytes a second of the answer are sent; 0 is no limit.

    ``$limit_rate``, if it was set for the request, goes before the directive. What is not a size
    is 0 in the directive, as in nginx, and not taken by ``set``.
    """
    own = own_rate(request)
    return size_of(request.transfer.limit_rate, request) if own is None else own


def pace_of(request: Request, clock: Clock) -> Pace | None:
    """The pace of the answer to ``request``, or None if nothing limits it."""
    rate = rate_of(request)
    if not rate:
        return None
    return Pace(rate, size_of(request.transfer.limit_rate_after, request), clock)


class Pace:
    """``rate`` bytes a second, once ``after`` bytes have gone. Time stands still until used."""

    __slots__ = ("_clock", "_credit", "_free", "_last", "_quantum", "_rate", "_was_free")

    def __init__(self, rate: int, after: int, clock: Clock) -> None:
        self._rate = rate
        self._free = after
        self._was_free = False
        self._clock = clock
        self._quantum = max(1.0, rate * STEP)
        self._credit = self._quantum
        self._last = clock.seconds()

    def __repr__(self) -> str:
        return f"<Pace {self._rate}/s>"

    def take(self, wanted: int) -> int:
        """How many of ``wanted`` (> 0) bytes may go now; 0 means to wait for `delay` seconds."""
        free = min(self._free, wanted)
        self._was_free = free > 0
        if free:
            self._free -= free
            return free
        now = self._clock.seconds()
        grown = self._credit + (now - self._last) * self._rate
        self._last = now
        self._credit = min(grown, max(self._rate * CREDIT, self._quantum))
        # A clock in floating point may be a hair early: that is no reason for one more turn.
        if self._credit < min(self._quantum, wanted) - 0.01:
            return 0
        taken = min(wanted, max(1, round(self._credit)))
        self._credit -= taken
        return taken

    def give_back(self, count: int) -> None:
        """So many of the bytes taken last have not gone."""
        if self._was_free:
            self._free += count
        else:
            self._credit += count

    @property
    def delay(self) -> float:
        """Seconds until there is something to take again."""
        return max(0.0, (self._quantum - self._credit) / self._rate)


@frozen
class _End:
    """How a stream has ended."""

    error: Exception | None = None


class PacedStream:
    """A `BodyStream` that delivers another one's bytes at a pace."""

    __slots__ = (
        "_call", "_clock", "_end", "_held", "_pace", "_paused", "_queue", "_sink", "_stream",
    )  # fmt: skip

    def __init__(self, stream: BodyStream, pace: Pace, clock: Clock) -> None:
        self._stream = stream
        self._pace = pace
        self._clock = clock
        self._sink: BodySink | None = None
        self._queue: deque[bytes] = deque()
        self._call: Call | None = None
        self._paused = False
        self._held = False  # the stream is paused
        self._end: _End | None = None

    @property
    def length(self) -> int | None:
        """The stream's."""
        return self._stream.length

    @property
    def waiting(self) -> bool:
        """Whether it is the pace that holds it up."""
        return self._call is not None

    # BodyStream.

    def start(self, sink: BodySink) -> None:
        """Start the stream."""
        self._sink = sink
        self._stream.start(self)

    def pause(self) -> None:
        """The sink wants no more for now."""
        self._paused = True
        self._hold()

    def resume(self) -> None:
        """It does again."""
        if self._paused:
            self._paused = False
            self._drain()

    def cancel(self) -> None:
        """Nobody wants the rest."""
        self._sink = None
        self._queue.clear()
        self._stop_waiting()
        self._stream.cancel()

    # BodySink of the stream.

    def data(self, chunk: bytes) -> None:
        """Some bytes; the stream is paused until they have gone."""
        if self._sink is None:
            return
        self._queue.append(chunk)
        if len(self._queue) == 1:
            self._drain()

    def end(self) -> None:
        """The stream's end; the sink hears of it after the last byte."""
        self._finish(_End())

    def fail(self, error: Exception) -> None:
        """The stream broke off."""
        self._queue.clear()
        self._stop_waiting()
        self._finish(_End(error))

    # The pace.

    def _drain(self) -> None:
        """Pass on what may go, then see whether the stream should run."""
        while self._queue and not self._paused and self._sink is not None:
            if self._call is not None:
                break
            chunk = self._queue.popleft()
            count = self._pace.take(len(chunk))
            if count < len(chunk):
                self._queue.appendleft(chunk[count:])
            if count:
                self._sink.data(chunk[:count])
            else:
                self._call = self._clock.callLater(self._pace.delay, self._called)
        if self._sink is None:
            return
        if self._end is not None:
            self._finish(self._end)
        elif self._queue or self._paused:
            self._hold()
        elif self._held:
            self._held = False
            self._stream.resume()

    def _called(self) -> None:
        self._call = None
        self._drain()

    def _hold(self) -> None:
        if not self._held and self._end is None:
            self._held = True
            self._stream.pause()

    def _finish(self, end: _End) -> None:
        self._end = end
        sink = self._sink
        if self._queue or sink is None:
            return
        self._sink = None
        if end.error is None:
            sink.end()
        else:
            sink.fail(end.error)

    def _stop_waiting(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None
