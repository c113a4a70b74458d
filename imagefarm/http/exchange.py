"""One request and its answer on a connection.

The exchange asks the application, decides how the answer is framed and whether the connection
can live on, has a sender write the body, and accounts for all of it: whatever happens,
``Application.finished`` is called once.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final, Protocol

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from .body import BodyError, ClientGone, RequestBody
from .browsers import disables_keepalive
from .errorpages import tokens_of
from .headers import Headers
from .message import (
    Application,
    Body,
    BodyStream,
    Fields,
    FileBody,
    PartsBody,
    Request,
    Response,
    body_length,
    discard,
)
from .pacing import Pace, PacedStream, pace_of
from .requestlog import report, report_failure
from .sender import FileSender, Sender, StreamSender
from .serializer import (
    CHUNKED,
    CONTINUE,
    UPGRADE,
    BadResponse,
    Serializer,
    connection_field,
    content_length,
    early_hints,
)
from .spool import SpooledBody
from .timers import Clock
from .tunnel import TunnelBody

#: The largest body that is joined to its head for one write; above, copying costs more.
ONE_WRITE: Final = 65536
#: An unread request body of up to so many bytes is read and dropped to keep the connection.
DRAIN_LIMIT: Final = 65536

CLOSE_WITHOUT_ANSWER: Final = 444
CLIENT_CLOSED_REQUEST: Final = 499


class Carrier(Protocol):
    """The connection, as an exchange sees it."""

    transport: Any
    congested: bool

    @property
    def clock(self) -> Clock:
        """For delays."""

    @property
    def plain(self) -> bool:
        """Whether the transport can send files."""

    @property
    def may_keep(self) -> bool:
        """Whether another request is welcome on this connection."""

    @property
    def serializer(self) -> Serializer:
        """Writes heads."""

    @property
    def opened(self) -> int:
        """When the connection was made, in whole seconds of the time of day."""

    def now(self) -> float:
        """The time of day, for Date."""

    def learn(self, request: Request, response: Response, framing: bytes) -> None:
        """An answer that may be remembered."""

    def answering(self) -> None:
        """An answer has begun that could not be sent at once."""

    def tunnel(self, over: Callable[[], None]) -> TunnelBody:
        """All that comes from here on; ``over`` is called when that has an end."""

    def close_writing(self) -> bool:
        """Say that no more will come, if that can be said without closing."""

    def exchange_done(self, keep: bool) -> None:
        """The answer is out (or there is none)."""

    def abort(self) -> None:
        """Break the connection off, so that nothing on it looks complete."""


class Phase(Enum):
    """How far an exchange has come."""

    PENDING = "the application thinks"
    ANSWERING = "the answer is being sent"
    SENT = "the answer waits in the transport"
    DONE = "finished"


class Exchange:
    """See the module. ``body`` is the request's body if there is one.

    ``keep`` starts as what the client wants and ends as what happens to the connection. The
    public methods are for the connection; `sent`, `body_sent` and `body_failed` for senders.
    """

    __slots__ = (
        "_app", "_carrier", "_expects", "_sender", "_tunnel", "body", "keep", "phase", "request",
        "unframed",
    )  # fmt: skip

    def __init__(
        self,
        carrier: Carrier,
        app: Application,
        request: Request,
        body: RequestBody | None,
        *,
        keep: bool,
        expects_continue: bool = False,
    ) -> None:
        self._carrier = carrier
        self._app = app
        self._expects = expects_continue
        self._sender: Sender | None = None
        self._tunnel: TunnelBody | None = None
        self.request = request
        self.body = body
        self.keep = keep
        self.phase = Phase.PENDING
        #: Whether the end of the connection is the end of the answer.
        self.unframed = False

    def __repr__(self) -> str:
        return f"<Exchange {self.request.head.target!r} {self.phase.name}>"

    # Asking.

    def begin(self) -> None:
        """Ask the application for an answer."""
        self._ask(lambda: self._app.respond(self.request))

    def refuse(self, status: int) -> None:
        """Ask it for an answer to something that is not a request."""
        self._ask(lambda: self._app.reject(self.request, status))

    def _ask(self, question: Callable[[], Response | Deferred[Response]]) -> None:
        if self.request.head.version >= (1, 1):
            self.request.hint = self.hint
        try:
            result = question()
        except Exception:
            report_failure(self.request, "the application failed", Failure())
            result = Response(500, close=True)
        if not isinstance(result, Response):
            result.addCallbacks(self.answer, self._crashed).addErrback(self._broken)
            return
        try:
            self.answer(result)
        except Exception:
            self._broken(Failure())

    def _crashed(self, failure: Failure) -> None:
        report_failure(self.request, "no answer", failure)
        self.answer(Response(500, close=True))

    def _broken(self, failure: Failure) -> None:
        report_failure(self.request, "could not answer", failure)
        self._carrier.abort()

    def body_demanded(self) -> None:
        """A handler reads the body: the client may send it (RFC 9110 section 10.1.1)."""
        body = self.body
        if self._expects and body is not None and body.wanted:
            self._expects = False
            if self.phase is Phase.PENDING and not body.received:
                self.request.outcome.bytes_sent += len(CONTINUE)
                self._carrier.transport.write(CONTINUE)

    def hint(self, fields: Headers) -> None:
        """Send ``fields`` ahead of the answer, unless it has begun or the client has gone."""
        if self.phase is Phase.PENDING:
            head = early_hints(fields)
            self.request.outcome.bytes_sent += len(head)
            self._carrier.transport.write(head)

    # Answering.

    def answer(self, response: Response) -> None:
        """Send ``response``."""
        self.request.hint = None
        if self.phase is not Phase.PENDING:
            discard(response.body)  # too late, the client has gone
            return
        outcome = self.request.outcome
        if response.status == CLOSE_WITHOUT_ANSWER:
            discard(response.body)
            outcome.status = CLOSE_WITHOUT_ANSWER
            if self.request.transfer.reset_timedout_connection:
                self._carrier.abort()
            else:
                self._finish(keep=False)
            return
        try:
            head, body, framing = self._head(response)
            pace = pace_of(self.request, self.clock) if body else None
        except Exception as error:
            discard(response.body)
            if not isinstance(error, BadResponse):
                raise
            report(self.request, "error", f"bad response: {error}")
            response, pace = Response(500, close=True), None
            head, body, framing = self._head(response)
        outcome.status = response.status
        outcome.response = response
        outcome.keep, outcome.chunked = self.keep, framing is CHUNKED
        outcome.bytes_sent += len(head)
        self.phase = Phase.ANSWERING
        if response.tunnel is not None:
            self._switch(head, body, response.tunnel)
            return
        if response.headers_at is not None and pace is None and not self._varies:
            self._carrier.learn(self.request, evolve(response, body=body), framing)
        if isinstance(body, bytes) and pace is None:
            self._send_bytes(head, body)
            return
        trailers = response.trailers if framing is CHUNKED else None
        self._sender = self._make_sender(body, pace, framing is CHUNKED, trailers)
        self._sender.start(head)
        if self.phase is Phase.ANSWERING:
            self._carrier.answering()

    def _switch(self, head: bytes, body: Body, tunnel: Callable[[BodyStream], None]) -> None:
        """The connection changes its protocol (RFC 9110 section 7.8)."""
        if self.body is not None:
            self.request.length += self.body.received
        self._sender = self._make_sender(body, None, False, None)
        self._sender.start(head)
        if self.phase is Phase.ANSWERING:
            self._tunnel = self.body = self._carrier.tunnel(self._tunnel_over)
            tunnel(self._tunnel)
        if self.phase is Phase.ANSWERING:
            self._carrier.answering()

    def _tunnel_over(self) -> None:
        """The client has said all, or the upstream hears no more."""
        if self._sender is None and self.phase is Phase.ANSWERING:
            self._finish(keep=False)

    def _make_sender(
        self,
        body: Body,
        pace: Pace | None,
        chunked: bool,
        trailers: Callable[[], Fields] | None,
    ) -> Sender:
        if isinstance(body, bytes):
            body = PartsBody((body,), len(body))
        if not isinstance(body, FileBody | PartsBody):
            length = body_length(body)
            if pace is not None:
                body = PacedStream(body, pace, self.clock)
            return StreamSender(self, body, length, chunked=chunked, trailers=trailers)
        transfer = self.request.transfer
        return FileSender(
            self,
            body,
            sendfile=self._carrier.plain and transfer.sendfile,
            max_chunk=transfer.sendfile_max_chunk,
            pace=pace,
        )

    @property
    def _varies(self) -> bool:
        """Whether the way the answer is sent may differ for the same request of another client."""
        transfer, head = self.request.transfer, self.request.head
        return transfer.varies or (
            head.method == b"POST" and "msie6" in transfer.keepalive_disable
        )

    def _head(self, response: Response) -> tuple[bytes, Body, bytes]:
        """The head, the body to send with it, and the framing field."""
        head = self.request.head
        status, body = response.status, response.body
        length = body_length(body)
        chunked = False
        if response.tunnel is not None:
            return self._switching_head(response), body, b""
        if status < 200:
            raise BadResponse(f"status {status}")
        if head.method == b"HEAD" or status in (204, 304):
            if response.length is not None:
                length = response.length
            if status in (204, 304):
                length = None  # RFC 9110 section 8.6; nginx sends none with a 304 either
        elif length is None:
            # RFC 9112 section 6.3: the end of the connection is the end of the body.
            chunked = head.version == (1, 1) and self.request.transfer.chunked_transfer_encoding
            self.unframed = not chunked
            self.keep = self.keep and chunked
        self.keep = self._keeps(response)
        transfer = self.request.transfer
        framing = CHUNKED if chunked else b"" if length is None else content_length(length)
        text = self._carrier.serializer.head(
            status,
            response.headers,
            framing,
            connection_field(self.keep, transfer.keepalive_header),
            self._carrier.now(),
            tokens=tokens_of(self.request),
        )
        if head.method == b"HEAD" or status in (204, 304):
            discard(body)
            body = b""
        return text, body, framing

    def _switching_head(self, response: Response) -> bytes:
        if self.body is not None and not self.body.complete:
            raise BadResponse("a change of protocol in the middle of a request")
        self.keep, self.unframed = False, True
        tokens, now = tokens_of(self.request), self._carrier.now()
        return self._carrier.serializer.head(
            response.status, response.headers, b"", UPGRADE, now, tokens=tokens
        )

    def _keeps(self, response: Response) -> bool:
        """Whether the connection lives on after ``response``."""
        transfer = self.request.transfer
        if not self.keep or response.close or not self._carrier.may_keep:
            return False
        if transfer.keepalive_timeout <= 0 or self.request.number >= transfer.keepalive_requests:
            return False
        carrier = self._carrier
        if carrier.now() - carrier.opened > transfer.keepalive_time:
            return False
        if disables_keepalive(transfer.keepalive_disable, self.request.head):
            return False
        body = self.body
        if body is None or body.complete:
            return True
        if self._expects or body.failed:
            return False  # we don't know whether the client will send the body
        return body.remaining is None or body.remaining <= DRAIN_LIMIT

    def _send_bytes(self, head: bytes, body: bytes) -> None:
        transport = self._carrier.transport
        if len(body) <= ONE_WRITE:
            transport.write(head + body if body else head)
        elif self._carrier.plain:
            transport.write_more(head)
            transport.write(body)
        else:
            transport.write(head)
            transport.write(body)
        if body:
            self.sent(len(body))
        self.body_sent()

    # What a sender tells.

    @property
    def transport(self) -> Any:
        """The connection's."""
        return self._carrier.transport

    @property
    def clock(self) -> Clock:
        """The connection's."""
        return self._carrier.clock

    @property
    def congested(self) -> bool:
        """Whether the transport has more than it likes."""
        return self._carrier.congested

    def sent(self, count: int) -> None:
        """Count bytes of the body."""
        outcome = self.request.outcome
        outcome.bytes_sent += count
        outcome.body_bytes_sent += count

    def body_sent(self) -> None:
        """The answer is out, as far as we have to do with it."""
        self._sender = None
        self.request.outcome.complete = True
        tunnel = self._tunnel
        if tunnel is not None and not tunnel.ended and self._carrier.close_writing():
            return  # the client may have more to say
        if self._carrier.congested:
            self.phase = Phase.SENT
            self._carrier.answering()
        else:
            self._finish(self.keep)

    def body_failed(self, error: Exception) -> None:
        """The answer broke off: so does the connection (RFC 9112 section 8)."""
        self._sender = None
        report(self.request, "warn", f"the answer broke off: {error}")
        self._carrier.abort()

    # What the connection tells.

    @property
    def pushing(self) -> bool:
        """Whether the answer is ours to send now: it waits for nothing but the client."""
        return isinstance(self._sender, FileSender)

    @property
    def resting(self) -> bool:
        """Whether the answer waits for its own pace."""
        return self._sender is not None and self._sender.waiting

    def pause(self) -> None:
        """The transport is congested."""
        if self._sender is not None:
            self._sender.pause()

    def resume(self) -> None:
        """It has written everything."""
        if self.phase is Phase.SENT:
            self._finish(self.keep)
        elif self._sender is not None:
            self._sender.resume()

    def gone(self, error: BodyError | None = None) -> None:
        """There is no connection any more; ``error`` says why if it was not the client."""
        if self.phase is Phase.DONE:
            return
        reason = error or ClientGone("the client has closed the connection")
        self.phase = Phase.DONE
        if self._sender is not None:
            self._sender.stop()
            self._sender = None
        if self.body is not None:
            self.body.fail(reason)
        hooks, self.request.on_gone = self.request.on_gone, []
        for hook in hooks:
            try:
                hook()
            except Exception:
                report_failure(self.request, "after the client had gone", Failure())
        if not self.request.outcome.status:
            self.request.outcome.status = reason.status
        self._account()

    def _finish(self, keep: bool) -> None:
        self.phase = Phase.DONE
        self.request.on_gone = []
        if self.body is not None:
            keep = keep and not self.body.failed
            self.body.cancel()
        self._account()
        self._carrier.exchange_done(keep)

    def _account(self) -> None:
        if isinstance(self.request.body, SpooledBody):
            self.request.body.close()
        if self.body is not None:
            self.request.length += self.body.received
        try:
            self._app.finished(self.request)
        except Exception:
            report_failure(self.request, "at the end of a request", Failure())
