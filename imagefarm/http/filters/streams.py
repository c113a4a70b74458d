"""Streams made of other bodies: a file read in blocks, a slice, a compressed stream.

Each keeps the promises of `BodyStream`: nothing before ``start``, nothing while paused, nothing
after ``cancel``, and the end exactly once.
"""

from __future__ import annotations

import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable

from imagefarm.http.message import BodySink, BodyStream, FileBody, PartsBody, discard

#: Runs a function on the next turn of the event loop.
Later = Callable[[Callable[[], None]], object]


class TruncatedFile(Exception):
    """The file shrank while it was being sent: the promised length can't be kept."""


class BlockStream:
    """The bytes of a body at rest, read in blocks of ``block`` bytes.

    Reading does not wait for the sink, so ``later`` (if given) takes turns with the rest of the
    event loop after each block.
    """

    def __init__(
        self, body: bytes | FileBody | PartsBody, block: int, later: Later | None = None
    ) -> None:
        self._body = body
        self._parts: list[bytes | FileBody] = list(
            body.parts if isinstance(body, PartsBody) else (body,)
        )
        self._block = block
        self._later = later
        self._at = 0
        self._sink: BodySink | None = None
        self._paused = False
        self._running = False
        self._scheduled = False

    @property
    def length(self) -> int | None:
        """The number of bytes."""
        return len(self._body) if isinstance(self._body, bytes) else self._body.length

    def start(self, sink: BodySink) -> None:
        """Begin delivery."""
        self._sink = sink
        self._run()

    def pause(self) -> None:
        """Stop delivering."""
        self._paused = True

    def resume(self) -> None:
        """Go on delivering."""
        self._paused = False
        if not self._scheduled:
            self._run()

    def cancel(self) -> None:
        """Close the files."""
        self._sink = None
        self._parts = []
        discard(self._body)

    def _turn(self) -> None:
        self._scheduled = False
        self._run()

    def _run(self) -> None:
        if self._running:
            return
        self._running = True
        try:
            while self._sink is not None and not self._paused:
                self._deliver(self._sink)
                if self._later is not None and self._sink is not None:
                    self._scheduled = True
                    self._later(self._turn)
                    return
        finally:
            self._running = False

    def _deliver(self, sink: BodySink) -> None:
        """One block, or the end."""
        try:
            chunk = self._read()
        except (OSError, TruncatedFile) as error:
            self.cancel()
            sink.fail(error)
            return
        if chunk:
            sink.data(chunk)
        else:
            self.cancel()
            sink.end()

    def _read(self) -> bytes:
        while self._parts:
            part = self._parts[0]
            if isinstance(part, bytes):
                chunk = part[self._at : self._at + self._block]
            else:
                size = min(self._block, part.length - self._at)
                chunk = os.pread(part.file.fd, size, part.offset + self._at) if size else b""
                if size and not chunk:
                    raise TruncatedFile("the file shrank while it was being read")
            if chunk:
                self._at += len(chunk)
                return chunk
            self._at = 0
            del self._parts[0]
        return b""

    def __repr__(self) -> str:
        return f"<BlockStream parts={len(self._parts)} at={self._at} paused={self._paused}>"


class _Relay(ABC):
    """A stream made from another one: sits between it and the sink."""

    def __init__(self, source: BodyStream) -> None:
        self._source = source
        self._sink: BodySink | None = None

    def start(self, sink: BodySink) -> None:
        """Begin delivery."""
        self._sink = sink
        self._source.start(self)

    def pause(self) -> None:
        """Stop delivering."""
        self._source.pause()

    def resume(self) -> None:
        """Go on delivering."""
        self._source.resume()

    def cancel(self) -> None:
        """Cancel the source."""
        self._sink = None
        self._source.cancel()

    @abstractmethod
    def data(self, chunk: bytes) -> None:
        """From the source: some bytes."""

    def end(self) -> None:
        """From the source: all of it came."""
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.end()

    def fail(self, error: Exception) -> None:
        """From the source: it broke off."""
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.fail(error)


class SliceStream(_Relay):
    """``length`` bytes of a stream, after ``skip`` bytes that are dropped.

    What follows the slice is not waited for: the source is cancelled.
    """

    def __init__(self, source: BodyStream, skip: int, length: int) -> None:
        super().__init__(source)
        self._skip = skip
        self._left = length
        self._length = length

    @property
    def length(self) -> int | None:
        """The number of bytes."""
        return self._length

    def data(self, chunk: bytes) -> None:
        """From the source: some bytes."""
        sink = self._sink
        if sink is None:
            return
        dropped = min(self._skip, len(chunk))
        self._skip -= dropped
        chunk = chunk[dropped : dropped + self._left]
        if not chunk:
            return
        self._left -= len(chunk)
        sink.data(chunk)
        if self._left == 0 and self._sink is not None:
            self.cancel()
            sink.end()


class GzipStream(_Relay):
    """A stream compressed on its way. ``compressor`` is a fresh zlib object that writes gzip.

    ``done`` is told at the end how many bytes it has read and made.
    """

    def __init__(
        self,
        source: BodyStream,
        compressor: zlib._Compress,
        done: Callable[[int, int], None] = lambda before, after: None,
    ) -> None:
        super().__init__(source)
        self._compressor = compressor
        self._done = done
        self._before = self._after = 0
        self._paused = False
        self._ended = False

    @property
    def length(self) -> int | None:
        """Not known beforehand."""
        return None

    def pause(self) -> None:
        """Stop delivering."""
        self._paused = True
        self._source.pause()

    def resume(self) -> None:
        """Go on delivering."""
        self._paused = False
        if self._ended:
            self._finish()
        else:
            self._source.resume()

    def data(self, chunk: bytes) -> None:
        """From the source: some bytes."""
        out = self._compressor.compress(chunk)
        self._before += len(chunk)
        self._after += len(out)
        if out and self._sink is not None:
            self._sink.data(out)

    def end(self) -> None:
        """From the source: all of it came. What zlib still holds waits until not paused."""
        self._ended = True
        if not self._paused:
            self._finish()

    def _finish(self) -> None:
        if self._sink is not None:
            out = self._compressor.flush()
            self._done(self._before, self._after + len(out))
            self._sink.data(out)
        super().end()
