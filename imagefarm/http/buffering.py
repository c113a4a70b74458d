"""``proxy_buffering``: an answer read as fast as the upstream gives it, whatever its client does.

What the client's socket takes goes straight on. What it does not take waits in memory, up to
``*_buffers``, then in a temporary file, up to ``*_max_temp_file_size``; only beyond that does the
upstream have to wait. So a slow client holds no connection of a slave's. A client that is behind
for a moment only costs no file: the upstream waits for that moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from attrs import frozen

from imagefarm.config.variables import Template

from .message import BodySink, BodyStream, FileBody, PartsBody, Request, Response
from .pacing import Pace, PacedStream, size_of
from .requestlog import report
from .spool import SpooledBody
from .tempfiles import TempFile, TempPath
from .timers import Call, Clock

#: Bytes read back from a file at once.
READ_SIZE: Final = 65536
#: Seconds that the upstream waits for the client before a file is begun.
GRACE: Final = 0.01
#: Bytes delivered from memory and file before other connections have their turn.
TURN: Final = 1 << 20


_TEMP: Final = TempPath(b"proxy_temp")


class SpoolError(Exception):
    """What was put into a temporary file could not be read back."""


@frozen(eq=False)
class Buffering:
    """``*_buffering`` and its kin in one location; sizes in bytes.

    ``memory`` is all of ``*_buffers``, ``max_file`` 0 means no file, ``rate`` is
    ``*_limit_rate``.
    """

    enabled: bool = True
    memory: int = 8 * 8192
    max_file: int = 1 << 30
    write_size: int = 16384
    temp: TempPath = _TEMP
    rate: int | Template = 0


def buffer(response: Response, request: Request, settings: Buffering, clock: Clock) -> None:
    """Buffer the body of an upstream's answer, if it streams and is to be buffered.

    ``response.buffering``, which is X-Accel-Buffering, goes before the directive. Only what is
    buffered is read at the pace of ``*_limit_rate``; what came in one read is passed on at it.
    """
    body, said = response.body, response.buffering
    if isinstance(body, FileBody | PartsBody) or response.tunnel is not None:
        return
    if not (settings.enabled if said is None else said):
        return
    rate = size_of(settings.rate, request) if settings.rate else 0
    if isinstance(body, bytes):
        if not (rate and body):
            return
        body = SpooledBody(body)
    if rate:
        body = PacedStream(body, Pace(rate, 0, clock), clock)

    def tell(level: str, message: str) -> None:
        report(request, level, f"{message} while reading upstream")

    response.body = BufferedStream(body, settings, clock, tell)


@frozen
class _End:
    """How the source has ended."""

    error: Exception | None = None


class BufferedStream:
    """A `BodyStream` that reads another one ahead of its sink, which it stops when full.

    In order: ``_head`` in memory, then the file, then ``_tail`` in memory, which holds what the
    file has not taken, a read of the source at most. ``tell`` writes to the log: a level and a
    message. A file that can't be written, on a full disk, is done without: then the source is
    held at the sink's pace.
    """

    __slots__ = (
        "_call", "_clock", "_delivering", "_end", "_file", "_grace", "_head", "_held", "_memory",
        "_paused", "_read", "_room", "_settings", "_sink", "_source", "_stalled", "_tail",
        "_tell", "_written",
    )  # fmt: skip

    def __init__(
        self,
        source: BodyStream,
        settings: Buffering,
        clock: Clock,
        tell: Callable[[str, str], None],
    ) -> None:
        self._source = source
        self._settings = settings
        self._clock = clock
        self._tell = tell
        self._sink: BodySink | None = None
        self._paused = False
        self._held = False  # the source is paused
        self._delivering = False
        self._call: Call | None = None
        self._grace: Call | None = None
        self._stalled = 0.0  # since when the source is held
        self._end: _End | None = None
        self._head: deque[bytes] = deque()
        self._memory = 0  # bytes in it
        self._tail: deque[bytes] = deque()
        self._file: TempFile | None = None
        self._room = settings.max_file
        self._read = self._written = 0  # offsets in the file

    def __repr__(self) -> str:
        return f"<BufferedStream memory={self._memory} file={self._written - self._read}>"

    # BodyStream.

    @property
    def length(self) -> int | None:
        """The source's."""
        return self._source.length

    def start(self, sink: BodySink) -> None:
        """Start the source."""
        self._sink = sink
        self._source.start(self)

    def pause(self) -> None:
        """Stop delivering; the source is read on."""
        self._paused = True

    def resume(self) -> None:
        """Go on delivering."""
        if self._paused:
            self._paused = False
            self._deliver()

    def cancel(self) -> None:
        """Nobody wants the rest: neither does the source have to give it."""
        self._release()
        self._source.cancel()

    # BodySink of the source.

    def data(self, chunk: bytes) -> None:
        """Some bytes: straight on if they can go, else kept."""
        sink = self._sink
        if sink is None:
            return
        if self._paused or self._behind:
            self._keep(chunk)
        else:
            sink.data(chunk)

    def end(self) -> None:
        """The source is complete; the sink hears of it after the last byte."""
        self._finish(_End())

    def fail(self, error: Exception) -> None:
        """The source broke off; the sink gets what came before."""
        self._finish(_End(error))

    # Keeping.

    @property
    def _behind(self) -> bool:
        return bool(self._head or self._tail or self._read < self._written)

    def _keep(self, chunk: bytes) -> None:
        filed = self._read < self._written
        if not filed and not self._tail and self._memory < self._settings.memory:
            self._head.append(chunk)
            self._memory += len(chunk)
            return
        rest = self._spill(chunk) if filed and not self._tail else chunk
        if rest:
            self._tail.append(rest)
            self._hold()
            if self._room and not filed and self._grace is None:
                self._grace = self._clock.callLater(GRACE, self._waited)

    def _waited(self) -> None:
        """The sink has had its time: what it has not taken goes to the file."""
        self._grace = None
        if not self._tail or self._sink is None:
            return
        left = self._stalled + GRACE - self._clock.seconds()
        if left > 0:  # that was for an earlier stall
            self._grace = self._clock.callLater(left, self._waited)
            return
        rest = self._spill(b"".join(self._tail))
        self._tail.clear()
        if rest:
            self._tail.append(rest)
        else:
            self._flow()

    def _spill(self, chunk: bytes) -> bytes:
        """Write to the file what it has room for; the rest comes back."""
        if not self._room:
            return chunk
        view = memoryview(chunk)
        at, step = 0, self._settings.write_size
        try:
            file = self._file or self._open()
            while at < len(view) and self._written < self._room:
                size = min(step, self._room - self._written)
                count = file.write(view[at : at + size], self._written)
                at += count
                self._written += count
        except OSError as error:
            self._room = 0
            where = self._settings.temp.directory.decode("utf-8", "replace")
            self._tell(
                "crit", f'temporary file in "{where}" failed ({error.errno}: {error.strerror})'
            )
        return chunk[at:]

    def _open(self) -> TempFile:
        file = self._file = self._settings.temp.open()
        self._tell("warn", "an upstream response is buffered to a temporary file")
        return file

    def _hold(self) -> None:
        if not self._held and self._end is None:
            self._held = True
            self._stalled = self._clock.seconds()
            self._source.pause()

    def _flow(self) -> None:
        if self._held and self._end is None:
            self._held = False
            self._source.resume()

    # Delivering.

    def _deliver(self) -> None:
        """Pass on what is kept, for as long as it is wanted and it is our turn."""
        if self._delivering or self._call is not None:
            return
        self._delivering = True
        left = TURN
        while self._sink is not None and not self._paused and self._behind:
            if left <= 0:
                self._call = self._clock.callLater(0, self._called)
                break
            chunk = self._next()
            left -= len(chunk)
            if chunk:
                self._sink.data(chunk)
        self._delivering = False
        if self._sink is None or self._behind:
            return
        if self._end is not None:
            self._finish(self._end)
        else:
            self._flow()

    def _called(self) -> None:
        self._call = None
        self._deliver()

    def _next(self) -> bytes:
        """The oldest piece that is kept; empty after the file failed, and all with it."""
        if self._head:
            chunk = self._head.popleft()
            self._memory -= len(chunk)
            return chunk
        if self._read >= self._written:
            return self._tail.popleft()
        file = self._file
        assert file is not None
        try:
            chunk = file.read(min(READ_SIZE, self._written - self._read), self._read)
            self._read += len(chunk)
            if self._read == self._written:
                file.empty()
                self._read = self._written = 0
        except OSError as error:
            self._tell("crit", f"pread() failed ({error.errno}: {error.strerror})")
            chunk = b""
        if not chunk:
            sink = self._sink
            self.cancel()
            if sink is not None:
                sink.fail(SpoolError("a temporary file could not be read back"))
        return chunk

    # The end.

    def _finish(self, end: _End) -> None:
        self._end = end
        sink = self._sink
        if sink is None or self._behind:
            return
        self._release()
        if end.error is None:
            sink.end()
        else:
            sink.fail(end.error)

    def _release(self) -> None:
        self._sink = None
        self._head.clear()
        self._tail.clear()
        self._memory = self._read = self._written = 0
        for call in (self._call, self._grace):
            if call is not None:
                call.cancel()
        self._call = self._grace = None
        if self._file is not None:
            self._file.close()
            self._file = None
