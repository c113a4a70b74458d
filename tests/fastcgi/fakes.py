"""Fakes: a transport that remembers, body streams and sinks that are driven by hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.testing import StringTransport

from imagefarm.fastcgi import records as fcgi
from imagefarm.fastcgi.records import ProtocolStatus, Record, RecordReader, RecordType
from imagefarm.http.message import BodySink


class Wire(StringTransport):
    """A `StringTransport` that can be aborted and asked for the records written to it."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True
        self.disconnecting = True

    def records(self) -> list[Record]:
        found = RecordReader().feed(self.value())
        self.clear()
        return found


class Sink:
    """Collects a stream; ``log`` ends with "end" or the error."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.outcome: str | Exception | None = None

    def data(self, chunk: bytes) -> None:
        assert self.outcome is None and chunk
        self.chunks.append(chunk)

    def end(self) -> None:
        assert self.outcome is None
        self.outcome = "end"

    def fail(self, error: Exception) -> None:
        assert self.outcome is None
        self.outcome = error

    @property
    def bytes(self) -> bytes:
        return b"".join(self.chunks)


class Stream:
    """A `BodyStream` that the test feeds."""

    def __init__(self, length: int | None = None) -> None:
        self.length = length
        self.sink: BodySink | None = None
        self.paused = False
        self.cancelled = False

    def start(self, sink: BodySink) -> None:
        self.sink = sink

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def cancel(self) -> None:
        self.cancelled = True
        self.sink = None


class Instant(Stream):
    """A `BodyStream` that delivers everything at once, honouring `pause`."""

    def __init__(self, chunks: Iterable[bytes], length: int | None = None) -> None:
        super().__init__(length)
        self.chunks = list(chunks)

    def start(self, sink: BodySink) -> None:
        super().start(sink)
        self.go()

    def resume(self) -> None:
        super().resume()
        self.go()

    def go(self) -> None:
        while self.sink is not None and not self.paused:
            if self.chunks:
                self.sink.data(self.chunks.pop(0))
            else:
                sink, self.sink = self.sink, None
                sink.end()


def stdout(data: bytes, request_id: int = 1) -> bytes:
    return fcgi.encode_stream(RecordType.STDOUT, request_id, data)


def stdout_end(request_id: int = 1) -> bytes:
    return fcgi.encode_record(RecordType.STDOUT, request_id)


def stderr(data: bytes, request_id: int = 1) -> bytes:
    return fcgi.encode_stream(RecordType.STDERR, request_id, data)


def end(
    app_status: int = 0,
    status: ProtocolStatus = ProtocolStatus.REQUEST_COMPLETE,
    request_id: int = 1,
) -> bytes:
    return fcgi.encode_end(request_id, app_status, status)


def request(
    params: Iterable[tuple[bytes, bytes]] = ((b"A", b"b"),),
    stdin: bytes = b"",
    *,
    request_id: int = 1,
    keep: bool = True,
    role: int = fcgi.Role.RESPONDER,
) -> bytes:
    """A whole request as a web server sends it."""
    return b"".join(
        (
            fcgi.encode_begin(request_id, role, keep=keep),
            fcgi.encode_stream(RecordType.PARAMS, request_id, fcgi.encode_pairs(params)),
            fcgi.encode_record(RecordType.PARAMS, request_id),
            fcgi.encode_stream(RecordType.STDIN, request_id, stdin),
            fcgi.encode_record(RecordType.STDIN, request_id),
        )
    )


def content(records: Iterable[Record], kind: int, request_id: int = 1) -> bytes:
    """What a stream carried."""
    return b"".join(r.content for r in records if (r.type, r.request_id) == (kind, request_id))


def lost(protocol: Any) -> None:
    from twisted.internet.error import ConnectionDone
    from twisted.python.failure import Failure

    protocol.connectionLost(Failure(ConnectionDone()))
