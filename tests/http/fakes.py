"""A scriptable application, transports and bodies for the engine's tests."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from imagefarm.http.connection import HttpConnection
from imagefarm.http.factory import HttpFactory
from imagefarm.http.headers import Headers
from imagefarm.http.message import (
    BodySink,
    Facts,
    Occasion,
    Repeated,
    Request,
    Response,
    TransferSettings,
)
from imagefarm.http.parser import Limits

POST = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"POST %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

Answer = Response | Deferred[Response] | Callable[[Request], "Response | Deferred[Response]"]

#: Sun, 06 Nov 1994 08:49:37 GMT.
NOW = 784111777.0


def text(body: bytes = b"hello", status: int = 200, **more: object) -> Response:
    """A plain text response."""
    return Response(status, Headers([(b"Content-Type", b"text/plain")]), body, **more)  # type: ignore[arg-type]


class ScriptedApplication:
    """Answers by target: a `Response`, a Deferred, or a callable; else echoes the target."""

    def __init__(self, transfer: TransferSettings | None = None) -> None:
        self.transfer = transfer or TransferSettings()
        self.answers: dict[bytes, Answer] = {}
        self.requests: list[Request] = []
        self.rejected: list[tuple[Request, int]] = []
        self.done: list[Request] = []

    def respond(self, request: Request) -> Response | Deferred[Response]:
        request.transfer = self.transfer
        self.requests.append(request)
        answer = self.answers.get(request.head.target)
        if answer is None:
            return text(request.head.method + b" " + request.head.target)
        return answer(request) if callable(answer) else answer

    def reject(self, request: Request, status: int) -> Response | Deferred[Response]:
        self.rejected.append((request, status))
        return text(b"rejected", status)

    def repeated(self, plan: Repeated, key: Hashable, occasion: Occasion, facts: Facts) -> None:
        self.finished(plan.replay(occasion))

    def finished(self, request: Request) -> None:
        self.done.append(request)

    @property
    def outcomes(self) -> list[tuple[bytes, int, int]]:
        """(target, status, body bytes) of each finished request."""
        return [(r.head.target, r.outcome.status, r.outcome.body_bytes_sent) for r in self.done]


class Collector:
    """A `BodySink` that remembers."""

    def __init__(self, on_end: Callable[[bytes], None] | None = None) -> None:
        self.chunks: list[bytes] = []
        self.ended = False
        self.error: Exception | None = None
        self._on_end = on_end

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def data(self, chunk: bytes) -> None:
        assert not self.ended and self.error is None and chunk
        self.chunks.append(chunk)

    def end(self) -> None:
        assert not self.ended and self.error is None
        self.ended = True
        if self._on_end is not None:
            self._on_end(self.body)

    def fail(self, error: Exception) -> None:
        assert not self.ended and self.error is None
        self.error = error


class ScriptedStream:
    """A `BodyStream` that the test drives."""

    def __init__(self, length: int | None = None, first: tuple[bytes, ...] = ()) -> None:
        self.length = length
        self.first = first
        self.sink: BodySink | None = None
        self.paused = False
        self.cancelled = False

    def start(self, sink: BodySink) -> None:
        self.sink = sink
        for chunk in self.first:
            sink.data(chunk)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def cancel(self) -> None:
        self.cancelled = True


class ClientTransport(StringTransport):
    """A `StringTransport` that says whether it was aborted."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()


class Client:
    """A connection without a network."""

    def __init__(
        self,
        app: ScriptedApplication | None = None,
        *,
        limits: Limits | None = None,
        transfer: TransferSettings | None = None,
    ) -> None:
        self.app = app or ScriptedApplication(transfer)
        self.clock = Clock()
        self.clock.advance(1000.25)
        self.factory = HttpFactory(
            self.app,
            self.clock,
            server=("127.0.0.1", 8080),
            limits=limits,
            transfer=transfer,
            now=lambda: NOW,
        )
        self.transport = ClientTransport()
        peer = self.transport.getPeer()
        connection = self.factory.buildProtocol(peer)
        assert connection is not None
        self.connection: HttpConnection = connection
        connection.makeConnection(self.transport)

    def send(self, data: bytes) -> bytes:
        """Send some bytes; what came back since the last time."""
        self.connection.dataReceived(data)
        return self.read()

    def get(self, target: bytes = b"/", extra: bytes = b"") -> bytes:
        return self.send(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n" + extra + b"\r\n")

    def read(self) -> bytes:
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def leave(self) -> None:
        """The connection is gone."""
        from twisted.internet.error import ConnectionDone
        from twisted.python.failure import Failure

        self.connection.connectionLost(Failure(ConnectionDone()))

    @property
    def closing(self) -> bool:
        return bool(self.transport.disconnecting)


def fields(answer: bytes) -> list[bytes]:
    """The header field lines of the first answer."""
    return answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def echo(request: Request) -> Deferred[Response]:
    """Answers with the request's body."""
    answer: Deferred[Response] = Deferred()
    request.body.start(Collector(lambda body: answer.callback(text(body or b"nothing"))))
    return answer
