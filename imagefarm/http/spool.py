"""``proxy_request_buffering``: request bodies that can be sent to one upstream after another.

A `SpooledBody` has been read whole, into memory and beyond ``client_body_buffer_size`` into a
temporary file, before an upstream sees any of it. A `OnceBody` streams through, and is gone once
it has begun to.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from attrs import frozen
from twisted.internet.defer import Deferred

from .body import CLIENT_BODY_BUFFER_SIZE, BodyError
from .message import BodySink, BodyStream, Request
from .requestlog import report
from .tempfiles import TempFile, TempPath

#: Bytes read back from a file at once.
READ_SIZE: Final = 65536
#: Variables that a spooled body sets; see `http.variables`.
REQUEST_BODY: Final = "request_body"
REQUEST_BODY_FILE: Final = "request_body_file"
_TEMP: Final = TempPath(b"client_body_temp")


class SpoolFailed(BodyError):
    """The temporary file could not be written or read: the request can't be served."""

    status = 500


@frozen(eq=False)
class Spooling:
    """``*_request_buffering`` and ``client_body_*`` in one location; sizes in bytes.

    ``in_file_only`` is ``on``, ``clean`` or ``off``.
    """

    enabled: bool = True
    memory: int = CLIENT_BODY_BUFFER_SIZE
    temp: TempPath = _TEMP
    in_file_only: str = "off"


class SpooledBody:
    """A `BodyStream` that may be started again and again; `close` is its end.

    Each start begins at the first byte, and takes the place of the one before.
    """

    __slots__ = ("_data", "_delivering", "_file", "_offset", "_paused", "_sink", "length")

    #: Another attempt can have it all, and the client can't break it off any more.
    replayable: Final = True
    error: Final = None

    def __init__(self, data: bytes, file: TempFile | None = None, length: int = 0) -> None:
        self._data = data
        self._file = file
        self.length: int | None = length if file is not None else len(data)
        self._sink: BodySink | None = None
        self._offset = 0
        self._paused = self._delivering = False

    def __repr__(self) -> str:
        return f"<SpooledBody {self.length} {'memory' if self._file is None else self._file!r}>"

    def start(self, sink: BodySink) -> None:
        """Deliver from the beginning."""
        self._sink = sink
        self._offset = 0
        self._paused = False
        self._deliver()

    def pause(self) -> None:
        """Stop delivering."""
        self._paused = True

    def resume(self) -> None:
        """Go on."""
        if self._paused:
            self._paused = False
            self._deliver()

    def cancel(self) -> None:
        """The sink wants no more; another may."""
        self._sink = None

    def close(self) -> None:
        """Nobody will want it again."""
        self._sink = None
        self._data = b""
        if self._file is not None:
            self._file.close()

    def _deliver(self) -> None:
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._sink is not None and not self._paused:
                if self._offset == self.length:
                    sink, self._sink = self._sink, None
                    sink.end()
                    break
                self._pass_on(self._sink)
        finally:
            self._delivering = False

    def _pass_on(self, sink: BodySink) -> None:
        if self._file is None:
            chunk = self._data
        else:
            try:
                chunk = self._file.read(READ_SIZE, self._offset)
            except OSError:
                chunk = b""
            if not chunk:
                self._sink = None
                sink.fail(SpoolFailed("a request body's temporary file could not be read back"))
                return
        self._offset += len(chunk)
        sink.data(chunk)


class OnceBody:
    """A `BodyStream` around the client's, for attempts of which only one can begin to read it."""

    __slots__ = ("_source", "_started", "error")

    def __init__(self, source: BodyStream) -> None:
        self._source = source
        self._started: BodySink | None = None
        #: Why the client's body broke off, if it did: no attempt can succeed then.
        self.error: Exception | None = None

    @property
    def length(self) -> int | None:
        """The source's."""
        return self._source.length

    @property
    def replayable(self) -> bool:
        """Whether another attempt would see it whole."""
        return self._started is None

    def start(self, sink: BodySink) -> None:
        """Let it flow."""
        self._started = sink
        self._source.start(self)

    def pause(self) -> None:
        """Stop it."""
        self._source.pause()

    def resume(self) -> None:
        """Let it flow again."""
        self._source.resume()

    def cancel(self) -> None:
        """The attempt is over; one that had not begun to read leaves it to the next."""
        if self._started is not None:
            self._source.cancel()

    def close(self) -> None:
        """No attempt will want it."""
        self._source.cancel()

    def data(self, chunk: bytes) -> None:
        """`BodySink` of the source."""
        if self._started is not None:
            self._started.data(chunk)

    def end(self) -> None:
        """`BodySink` of the source."""
        if self._started is not None:
            self._started.end()

    def fail(self, error: Exception) -> None:
        """`BodySink` of the source."""
        self.error = error
        if self._started is not None:
            self._started.fail(error)


#: What `Outgoing.body` comes to for one attempt after another.
AttemptBody = SpooledBody | OnceBody


def spool(body: BodyStream, request: Request, settings: Spooling) -> Deferred[SpooledBody]:
    """Read all of ``body``. Errs with `SpoolFailed`, or as the body breaks off.

    It becomes the request's body, so that another handler, of an error page, can have it too.
    """

    def done(spooled: SpooledBody, data: bytes, path: bytes) -> SpooledBody:
        request.body = spooled
        request.variables[REQUEST_BODY] = data
        request.variables[REQUEST_BODY_FILE] = path
        return spooled

    def tell(error: OSError) -> None:
        where = os.fsdecode(settings.temp.directory)
        report(
            request,
            "crit",
            f'temporary file in "{where}" failed ({error.errno}: {error.strerror}) '
            "while reading client request body",
        )

    spooler = _Spooler(body, settings, done, tell)
    body.start(spooler)
    return spooler.whole


class _Spooler:
    """The `BodySink` that keeps what comes."""

    def __init__(
        self,
        body: BodyStream,
        settings: Spooling,
        done: Callable[[SpooledBody, bytes, bytes], SpooledBody],
        tell: Callable[[OSError], None],
    ) -> None:
        self._body = body
        self._settings = settings
        self._done = done
        self._tell = tell
        self._chunks: list[bytes] = []
        self._size = 0
        self._file: TempFile | None = None
        length = body.length
        self._filing = settings.in_file_only != "off" or (
            length is not None and length > settings.memory
        )
        self.whole: Deferred[SpooledBody] = Deferred(lambda _: self._give_up())

    def data(self, chunk: bytes) -> None:
        if self.whole.called:
            return
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._filing or self._size > self._settings.memory:
            self._filing = True
            self._store()

    def end(self) -> None:
        if self._filing and self._file is None:
            self._store()
        if self.whole.called:
            return
        data = b"".join(self._chunks)
        self._chunks.clear()
        path = b"" if self._file is None else self._file.path
        self.whole.callback(self._done(SpooledBody(data, self._file, self._size), data, path))

    def fail(self, error: Exception) -> None:
        self._give_up()
        if not self.whole.called:
            self.whole.errback(error)

    def _store(self) -> None:
        """Write what is there. The loop's one blocking write is to the page cache."""
        try:
            file = self._file or self._open()
            at = self._size - sum(map(len, self._chunks))
            for chunk in self._chunks:
                view = memoryview(chunk)
                while view:
                    count = file.write(view, at)
                    at += count
                    view = view[count:]
        except OSError as error:
            self._tell(error)
            self._give_up()
            self.whole.errback(SpoolFailed("a request body could not be spooled"))
        self._chunks.clear()

    def _open(self) -> TempFile:
        kind = self._settings.in_file_only
        self._file = self._settings.temp.open(named=kind != "off", keep=kind == "on")
        return self._file

    def _give_up(self) -> None:
        self._chunks.clear()
        self._body.cancel()
        file, self._file = self._file, None
        if file is not None:
            file.close()
