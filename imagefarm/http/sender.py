"""Sending response bodies: files and parts with sendfile or by reading, streams as they come.

A sender is told when the transport is congested and when it no longer is; it tells its `Link`
what it has sent, and in the end, once, whether the body went out whole. A body that turns out
shorter or longer than promised is a failure: the connection breaks it off.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from .chunked import LAST_CHUNK, encode_chunk, last_chunk
from .message import BodyStream, Fields, FileBody, PartsBody
from .pacing import Pace, PacedStream
from .timers import Call, Clock

#: The bytes read at once where sendfile can't be used.
READ_SIZE: Final = 65536


class BrokenBody(Exception):
    """A body is not as long as the head has promised."""


class Link(Protocol):
    """What a sender needs of the exchange it works for."""

    @property
    def transport(self) -> Any:
        """The transport; a `FileTransport` where sendfile is asked for."""

    @property
    def clock(self) -> Clock:
        """For delays."""

    @property
    def congested(self) -> bool:
        """Whether the transport has more than it likes."""

    def sent(self, count: int) -> None:
        """So many bytes of the body have been passed to the transport."""

    def body_sent(self) -> None:
        """All of it has."""

    def body_failed(self, error: Exception) -> None:
        """The rest will never come."""


class Sender(Protocol):
    """One body on its way."""

    @property
    def waiting(self) -> bool:
        """Whether it waits for its own time, and not for the client or for more of the body."""

    def start(self, head: bytes) -> None:
        """Send the head and as much as goes."""

    def pause(self) -> None:
        """The transport is congested."""

    def resume(self) -> None:
        """It no longer is."""

    def stop(self) -> None:
        """Nobody wants the rest: release the body, call the link no more."""


class FileSender:
    """Sends files and parts; ``sendfile`` needs a transport that is a `FileTransport`.

    ``max_chunk`` is ``sendfile_max_chunk``: the most bytes sent before other connections have
    their turn; 0 is no limit. ``pace`` is ``limit_rate``.
    """

    __slots__ = (
        "_body", "_call", "_data", "_fd", "_left", "_link", "_max_chunk", "_offset", "_over",
        "_pace", "_parts", "_pending", "_sendfile",
    )  # fmt: skip

    def __init__(
        self,
        link: Link,
        body: FileBody | PartsBody,
        *,
        sendfile: bool,
        max_chunk: int = 2 << 20,
        pace: Pace | None = None,
    ) -> None:
        self._link = link
        self._body = body
        self._max_chunk = max_chunk
        self._pace = pace
        self._data: bytes | None = None  # the part, if it is bytes that are sent at the pace
        parts = body.parts if isinstance(body, PartsBody) else (body,)
        self._parts: Iterator[bytes | FileBody] = iter(parts)
        self._sendfile = sendfile
        self._pending = b""  # the head, a part's bytes: written with what follows
        self._fd = -1
        self._offset = 0
        self._left = 0
        self._over = False
        self._call: Call | None = None

    @property
    def waiting(self) -> bool:
        """Whether it waits for its own time, and not for the client."""
        return self._call is not None

    def start(self, head: bytes) -> None:
        """Send the head and as much as goes."""
        self._pending = head
        self._run()

    def pause(self) -> None:
        """The loop looks at ``congested`` itself."""

    def resume(self) -> None:
        """Go on reading; sendfile is called back by the transport."""
        if not self._sendfile and self._call is None:
            self._run()

    def stop(self) -> None:
        """Close the files."""
        self._over = True
        if self._call is not None:
            self._call.cancel()
            self._call = None
        for part in self._body.parts if isinstance(self._body, PartsBody) else (self._body,):
            if isinstance(part, FileBody):
                part.file.close()

    def _run(self) -> None:
        """Send until the body ends, the transport is full or it is the others' turn."""
        budget = self._max_chunk or sys.maxsize
        while not self._over:
            if not self._left:
                if not self._next_part():
                    self._finish()
                    return
                continue
            if budget <= 0:
                self._continue_later()
                return
            if self._link.congested and self._waits():
                return
            count = self._allowed(min(self._left, budget))
            if not count:
                return
            moved = self._moved(count)
            if not moved:
                return
            budget -= moved

    def _moved(self, count: int) -> int:
        """Send up to ``count`` bytes; after 0 it goes on by itself, or is over."""
        try:
            moved = self._move(count)
        except OSError as error:
            self._fail(error)
            return 0
        if self._pace is not None:
            self._pace.give_back(count - (moved or 0))
        if moved is None:
            self._link.transport.when_writable(self._run)
            return 0
        if not moved:
            self._fail(BrokenBody("the file has become shorter"))
            return 0
        self._offset += moved
        self._left -= moved
        self._link.sent(moved)
        return moved

    def _waits(self) -> bool:
        """Whether a full transport has to be waited for; sendfile finds out by itself."""
        if not self._sendfile:
            return True
        if self._data is None:
            return False
        self._link.transport.when_writable(self._run)
        return True

    def _allowed(self, count: int) -> int:
        """How many of ``count`` bytes the pace allows; after 0 it goes on by itself."""
        if self._pace is None:
            return count
        allowed = self._pace.take(count)
        if not allowed:
            self._call = self._link.clock.callLater(self._pace.delay, self._called)
        return allowed

    def _next_part(self) -> bool:
        for part in self._parts:
            self._data = None
            if isinstance(part, FileBody):
                self._fd, self._offset, self._left = part.file.fd, part.offset, part.length
            elif self._pace is not None:
                self._data, self._offset, self._left = part, 0, len(part)
            else:
                self._pending += part
                self._link.sent(len(part))
                continue
            return True
        return False

    def _move(self, count: int) -> int | None:
        transport = self._link.transport
        if self._sendfile and self._data is None:
            if self._pending:
                pending, self._pending = self._pending, b""
                transport.write_more(pending)
            sent: int | None = transport.send_file(self._fd, self._offset, count)
            return sent
        if self._data is None:
            data = os.pread(self._fd, min(count, READ_SIZE), self._offset)
        else:
            data = self._data[self._offset : self._offset + count]
        if data:
            pending, self._pending = self._pending, b""
            transport.write(pending + data if pending else data)
        return len(data)

    def _continue_later(self) -> None:
        if self._sendfile:
            self._link.transport.when_writable(self._run)
        else:
            self._call = self._link.clock.callLater(0, self._called)

    def _called(self) -> None:
        self._call = None
        self._run()

    def _finish(self) -> None:
        if self._pending:
            self._link.transport.write(self._pending)
        self.stop()
        self._link.body_sent()

    def _fail(self, error: Exception) -> None:
        self.stop()
        self._link.body_failed(error)


class StreamSender:
    """The sink of a `BodyStream`.

    Without a ``length``, and not ``chunked``, the end of the connection is the body's end.
    ``trailers`` gives the fields that follow the chunks.
    """

    __slots__ = (
        "_chunked", "_head", "_length", "_link", "_over", "_sent", "_stream", "_trailers",
    )  # fmt: skip

    def __init__(
        self,
        link: Link,
        stream: BodyStream,
        length: int | None,
        *,
        chunked: bool,
        trailers: Callable[[], Fields] | None = None,
    ) -> None:
        self._trailers = trailers
        self._link = link
        self._stream = stream
        self._length = length
        self._chunked = chunked
        self._head = b""
        self._sent = 0
        self._over = False

    @property
    def waiting(self) -> bool:
        """A stream may be at a pace."""
        return isinstance(self._stream, PacedStream) and self._stream.waiting

    def start(self, head: bytes) -> None:
        """Start the stream. What it has at once goes out together with the head."""
        self._head = head
        self._stream.start(self)
        if self._head and not self._over:
            self._write(b"")

    def pause(self) -> None:
        """Pass it on."""
        if not self._over:
            self._stream.pause()

    def resume(self) -> None:
        """Pass it on."""
        if not self._over:
            self._stream.resume()

    def stop(self) -> None:
        """Cancel the stream."""
        if not self._over:
            self._over = True
            self._stream.cancel()

    def data(self, chunk: bytes) -> None:
        """Some bytes of the body."""
        if self._over or not chunk:
            return
        self._sent += len(chunk)
        if self._length is not None and self._sent > self._length:
            self.stop()
            self._link.body_failed(BrokenBody("the body is longer than its Content-Length"))
            return
        self._write(encode_chunk(chunk) if self._chunked else chunk)
        self._link.sent(len(chunk))

    def end(self) -> None:
        """The body's end."""
        if self._over:
            return
        self._over = True
        if self._length is not None and self._sent != self._length:
            self._link.body_failed(BrokenBody("the body is shorter than its Content-Length"))
            return
        if self._chunked or self._head:
            self._write(self._last() if self._chunked else b"")
        self._link.body_sent()

    def fail(self, error: Exception) -> None:
        """The body broke off."""
        if not self._over:
            self._over = True
            self._link.body_failed(error)

    def _last(self) -> bytes:
        fields = () if self._trailers is None else self._trailers()
        return last_chunk(fields) if fields else LAST_CHUNK

    def _write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        self._link.transport.write(data)
