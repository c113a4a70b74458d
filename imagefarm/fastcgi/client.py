"""The FastCGI client: one connection to an application, one exchange at a time.

Thin glue: `Exchange` knows the protocol, `FastCGIConnection` owns the transport, `_Run` is what
lives as long as one exchange and the body of its answer. A connection that can't be reused is
dropped; FCGI_ABORT_REQUEST is never sent, since php-fpm does not read while it works.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, cast

from attrs import frozen
from twisted.internet.defer import Deferred, fail
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from imagefarm.http.dates import parse_http
from imagefarm.http.headers import MAX_HEAD, Headers
from imagefarm.http.message import BodySink, Response, Traffic
from imagefarm.http.requestlog import printable
from imagefarm.http.transport import last_moved
from imagefarm.http.upstream import Fault, Outgoing, Timeouts, UpstreamConnection, UpstreamError

from .cgi import InvalidHead
from .exchange import Complaint, Data, End, Exchange, ExchangeEvent, Head, PrematureEnd
from .records import FastCGIError
from .upload import Upload
from .wire import Clock, Transport, Watch

#: The most of one complaint that reaches the log (nginx: 2,048 bytes a line).
MAX_COMPLAINT: Final = 1536
#: Seconds after which an overloaded application may be asked again.
RETRY_AFTER: Final = b"1"

#: What the client's connection derives (RFC 9110 section 7.6.1, and `Response`'s contract).
_DERIVED: Final = frozenset(
    (b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"date", b"server",
     b"upgrade", b"trailer", b"proxy-connection")
)  # fmt: skip


@frozen
class ConnectionFactory:
    """Makes connections for `ExchangeRules`. Equal factories may share a pool.

    ``keep`` is ``fastcgi_keep_conn``, ``head_limit`` is ``fastcgi_buffer_size`` in bytes;
    ``catch_stderr`` are the texts that make an answer invalid.
    """

    clock: Clock
    keep: bool = False
    head_limit: int = MAX_HEAD
    catch_stderr: tuple[bytes, ...] = ()

    def __call__(self) -> FastCGIConnection:
        """A connection that is not connected yet."""
        return FastCGIConnection(
            self.clock,
            keep=self.keep,
            head_limit=self.head_limit,
            catch_stderr=self.catch_stderr,
        )


class FastCGIConnection(Protocol):
    """`UpstreamConnection` for FastCGI, with request id 1 like nginx.

    ``keep``: the application is asked to leave the connection open (FCGI_KEEP_CONN).
    """

    on_idle: Callable[[UpstreamConnection], None] | None = None
    on_closed: Callable[[UpstreamConnection], None] | None = None
    on_note: Callable[[UpstreamConnection, str], None] | None = None
    on_broken: Callable[[UpstreamConnection, str], None] | None = None

    def __init__(
        self,
        clock: Clock,
        *,
        keep: bool = False,
        head_limit: int = MAX_HEAD,
        catch_stderr: tuple[bytes, ...] = (),
    ) -> None:
        self._clock = clock
        self._keep = keep
        self._head_limit = head_limit
        self.catch_stderr = catch_stderr
        self._run: _Run | None = None
        self._closed = False
        self.traffic = Traffic()

    @property
    def wire(self) -> Transport:
        """The transport, with the type that it has."""
        return cast(Transport, self.transport)

    def send(self, outgoing: Outgoing, timeouts: Timeouts, *, reused: bool) -> Deferred[Response]:
        """Begin an exchange, as `UpstreamConnection` says."""
        self.traffic = Traffic()
        if self._closed:
            return fail(
                UpstreamError(
                    Fault.CLOSED,
                    "upstream closed connection while sending request to upstream",
                    stale=reused,
                    unsent=True,
                )
            )
        exchange = Exchange(
            keep=self._keep, bodiless=outgoing.method == b"HEAD", head_limit=self._head_limit
        )
        self._run = _Run(self, exchange, outgoing, timeouts, reused, self._clock)
        return self._run.begin()

    def write(self, data: bytes) -> None:
        """Send some of the request."""
        self.traffic.sent += len(data)
        self.wire.write(data)

    def abort(self) -> None:
        """Drop the connection at once."""
        self._closed = True
        if self.transport is not None:
            self.wire.abortConnection()

    def release(self, run: _Run, *, reusable: bool) -> None:
        """``run`` needs the connection no more."""
        if self._run is not run:
            return
        self._run = None
        if not reusable:
            self.abort()
        elif self.on_idle is not None:
            self.on_idle(self)

    def dataReceived(self, data: bytes) -> None:
        """Bytes of the answer; while idle there is nothing to say, so that ends it."""
        if self._run is not None:
            self._run.received(data)
        else:
            self.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The application, or we, closed."""
        self._closed = True
        run, self._run = self._run, None
        if run is not None:
            run.lost()
        if self.on_closed is not None:
            self.on_closed(self)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "idle" if self._run is None else repr(self._run)
        return f"<FastCGIConnection {state}>"


class _Run:
    """One exchange; afterwards the `BodyStream` of its answer.

    ``_queue`` holds what has come and was not taken: body bytes, then None for the end or the
    error that broke it off. It is bounded by one read of the transport and one record, because
    reading stops while somebody is behind.
    """

    def __init__(
        self,
        connection: FastCGIConnection,
        exchange: Exchange,
        outgoing: Outgoing,
        timeouts: Timeouts,
        reused: bool,
        clock: Clock,
    ) -> None:
        self._connection = connection
        self._exchange = exchange
        self._outgoing = outgoing
        self._timeouts = timeouts
        self._reused = reused
        self._reading = Watch(clock, timeouts.read, self._read_timeout)
        self._sending = Watch(clock, timeouts.send, self._send_timeout)
        self._waiting: Deferred[Response] | None = Deferred(lambda _: self.cancel())
        self._upload: Upload | None = None
        self._head: Head | None = None
        #: The answer in place of the application's, which was overloaded.
        self._refusal: Response | None = None
        self._queue: deque[bytes | Exception | None] = deque()
        self._sink: BodySink | None = None
        #: There is no answer.
        self._failed = False
        #: What came on stderr last, for ``fastcgi_catch_stderr``.
        self._stderr = b""
        self._paused = False
        self._pumping = False
        #: The connection has stopped reading for our sake.
        self._held = False
        #: The exchange is over; only the queue is left.
        self._over = False
        self._clock = clock

    def begin(self) -> Deferred[Response]:
        """Write the request, or its head and then its body as it comes."""
        waiting = self._waiting
        assert waiting is not None
        connection = self._connection
        head = self._exchange.begin(self._outgoing.params)
        if self._outgoing.body is None:
            connection.write(head + self._exchange.stdin_end())
            self._reading.start()
            return waiting
        connection.write(head)
        self._upload = Upload(
            self._outgoing.body,
            self._exchange,
            connection.wire,
            connection.write,
            self._sending,
            sent=self._reading.start,
            failed=self._body_failed,
        )
        self._upload.start()
        return waiting

    # What the connection says.

    def received(self, data: bytes) -> None:
        """Bytes from the application."""
        self._reading.touch()
        self._connection.traffic.received += len(data)
        try:
            events = self._exchange.receive(data)
        except (InvalidHead, FastCGIError) as error:
            self._break(Fault.INVALID_HEADER, str(error))
            return
        except PrematureEnd as error:
            self._break(Fault.CLOSED, str(error))
            return
        for event in events:
            self._take(event)
            if self._failed:
                return  # what it complains of makes the answer invalid
        if self._waiting is not None:
            answer = self._refusal or self._answer()
            if answer is not None:
                waiting, self._waiting = self._waiting, None
                waiting.callback(answer)
        self._pump()

    def _take(self, event: ExchangeEvent) -> None:
        if isinstance(event, Data):
            self._connection.traffic.body += len(event.data)
            self._queue.append(event.data)
        elif isinstance(event, Head):
            self._head = event
        elif isinstance(event, Complaint):
            self._complain(event.data)
        elif isinstance(event, End):
            if event.excess:
                self._say('upstream sent more data than specified in "Content-Length" header')
            self._queue.append(None)
            self._finish(reusable=event.reusable)
        else:
            self._say("upstream is overloaded")
            self._refusal = Response(503, Headers([(b"Retry-After", RETRY_AFTER)]))
            self._finish(reusable=event.reusable)

    def lost(self) -> None:
        """The connection was closed in the middle of the exchange."""
        stale = self._reused and not self._exchange.answering
        self._break(Fault.CLOSED, str(self._exchange.closed()), stale=stale)

    # What the taker of the body says: `BodyStream`.

    @property
    def length(self) -> int | None:
        """The body's length, where the application has declared it."""
        return None if self._head is None else self._head.length

    def start(self, sink: BodySink) -> None:
        """Deliver to ``sink``."""
        self._sink = sink
        self._pump()

    def pause(self) -> None:
        """Stop delivering, and stop reading when the next bytes come."""
        self._paused = True
        self._hold()

    def resume(self) -> None:
        """Go on."""
        self._paused = False
        self._pump()

    def cancel(self) -> None:
        """Nobody wants the answer: drop the connection."""
        self._waiting = None
        self._sink = None
        self._paused = True
        self._queue.clear()
        self._finish(reusable=False)

    # How it goes on.

    def _answer(self) -> Response | None:
        """The response once its head is there: whole if all of it is, else streaming."""
        head = self._head
        if head is None:
            return None
        headers = Headers(field for field in head.cgi.headers if field[0].lower() not in _DERIVED)
        modified = headers.first(b"last-modified")
        mtime = None if modified is None else parse_http(modified)
        response = Response(head.cgi.status, headers, mtime=mtime)
        if self._outgoing.method == b"HEAD":
            # The body that must not be sent would have had this length.
            response.length = head.length
        unknown = self._outgoing.method == b"HEAD" and head.length is None
        if self._over and not unknown:
            response.body = b"".join(piece for piece in self._queue if isinstance(piece, bytes))
            self._queue.clear()
        else:
            response.body = self
        return response

    def _pump(self) -> None:
        """Hand over what is queued as long as it is wanted."""
        if self._pumping or self._waiting is not None:
            return
        self._pumping = True
        try:
            while self._queue and self._sink is not None and not self._paused:
                self._deliver(self._sink, self._queue.popleft())
        finally:
            self._pumping = False
        if self._paused or self._sink is None:
            self._hold()
        else:
            self._unhold()

    def _deliver(self, sink: BodySink, item: bytes | Exception | None) -> None:
        if isinstance(item, bytes):
            sink.data(item)
            return
        self._sink = None
        if item is None:
            sink.end()
        else:
            sink.fail(item)

    def _hold(self) -> None:
        if not self._held and not self._over:
            self._held = True
            self._reading.stop()
            self._connection.wire.pauseProducing()

    def _unhold(self) -> None:
        if self._held and not self._over:
            self._held = False
            if self._upload is None or self._upload.done:
                self._reading.start()
            self._connection.wire.resumeProducing()

    def _finish(self, *, reusable: bool) -> None:
        """The exchange is over."""
        if self._over:
            return
        self._unhold()
        self._over = True
        self._reading.stop()
        if self._upload is not None:
            self._upload.cancel()
        self._connection.release(self, reusable=reusable)

    def _break(self, fault: Fault, message: str, *, stale: bool = False) -> None:
        """The exchange failed: tell whoever waits, for the head or for the body."""
        while_reading = "upstream" if self._exchange.has_head else "response header from upstream"
        self._fail(fault, f"{message} while reading {while_reading}", stale=stale)

    def _fail(self, fault: Fault, reason: str, *, stale: bool = False) -> None:
        error = UpstreamError(fault, reason, stale=stale)
        waiting, self._waiting = self._waiting, None
        self._finish(reusable=False)
        if waiting is not None:
            self._failed = True
            self._queue.clear()
            waiting.errback(error)
            return
        if self._connection.on_broken is not None:
            self._connection.on_broken(self._connection, reason)
        self._queue.append(error)
        self._pump()

    def _read_timeout(self) -> None:
        self._break(Fault.TIMEOUT, "upstream timed out (110: Connection timed out)")

    def _send_timeout(self) -> None:
        # It may have taken some of the request meanwhile, if not all that waits.
        if self._sending.grant(last_moved(self._connection.transport)):
            return
        self._fail(
            Fault.TIMEOUT,
            "upstream timed out (110: Connection timed out) while sending request to upstream",
        )

    def _body_failed(self, error: Exception) -> None:
        self._fail(Fault.SEND, f"client's request body broke off: {error}")

    # The log.

    def _complain(self, data: bytes) -> None:
        # nginx drops line ends, dots and spaces from the end, and so do we.
        text = data[:MAX_COMPLAINT].rstrip(b"\r\n. ")
        self._say(f'FastCGI sent in stderr: "{printable(text)}"')
        caught = self._connection.catch_stderr
        if caught and self._head is None:
            # As much as the longest text may reach into the next piece.
            self._stderr = (self._stderr + data)[-MAX_COMPLAINT - len(data) :]
            if any(text in self._stderr for text in caught):
                self._break(Fault.INVALID_HEADER, "upstream sent what fastcgi_catch_stderr names")

    def _say(self, message: str, where: str | None = None) -> None:
        if where is None:
            where = " while reading " + (
                "response header from upstream" if self._waiting is not None else "upstream"
            )
        connection = self._connection
        if connection.on_note is not None:
            connection.on_note(connection, message + where)

    def __repr__(self) -> str:
        return repr(self._exchange)
