"""One connection to an HTTP/1.x upstream: Twisted glue around `ResponseParser`.

A request goes out, with backpressure from the transport to the body's source; the answer comes
in, with backpressure from whoever reads the body to the transport. The connection may be used
again only when both have ended and nothing came that was not asked for.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from imagefarm.http.headers import MAX_HEAD, Headers
from imagefarm.http.message import BodyStream, Response, Traffic
from imagefarm.http.relays import Reader, Source
from imagefarm.http.transport import last_moved
from imagefarm.http.upstream import Fault, Outgoing, Timeouts, UpstreamConnection, UpstreamError

from .fields import passable, passable_trailers, response_of
from .request_writer import RequestWriter, keeps
from .response_body import ResponseBody
from .response_parser import InvalidResponse, ResponseHead, ResponseParser
from .tls_client import TlsClient
from .tunnel import TunnelWriter
from .watchdog import Watchdog

_READING_HEAD = "reading response header from upstream"
_READING_BODY = "reading upstream"
_SENDING = "sending request to upstream"


@frozen(cache_hash=True)
class HttpConnector:
    """Makes connections of one kind; equal connectors share a group's idle connections.

    ``max_head`` is ``proxy_buffer_size`` in bytes. ``tls`` is what the connections were secured
    with (``proxy_pass https://``): one for another name is not to be used.
    """

    clock: Any
    max_head: int = MAX_HEAD
    tls: TlsClient | None = None

    def __call__(self) -> UpstreamConnection:
        """A connection that is not made yet."""
        return HttpUpstreamConnection(self.clock, self.max_head)


class HttpUpstreamConnection(Protocol):
    """An `UpstreamConnection` that speaks HTTP/1.0 or 1.1."""

    transport: Any

    def __init__(self, clock: Any, max_head: int = MAX_HEAD) -> None:
        self.on_idle: Callable[[UpstreamConnection], None] | None = None
        self.on_closed: Callable[[UpstreamConnection], None] | None = None
        self.on_note: Callable[[UpstreamConnection, str], None] | None = None
        self.on_broken: Callable[[UpstreamConnection, str], None] | None = None
        self._max_head = max_head
        self._watchdog = Watchdog(clock, self._timed_out)
        self._timeouts = Timeouts()
        self.traffic = Traffic()
        self._parser: ResponseParser | None = None
        #: Who reads the answer to what `relay` has sent.
        self._reader: Reader | None = None
        self._answer: Deferred[Response] | None = None
        self._body: ResponseBody | None = None
        self._writer: RequestWriter | TunnelWriter | None = None
        #: The client takes trailers.
        self._trailers = False
        #: Takes early hints.
        self._hinted: Callable[[int, Headers], None] | None = None
        #: The protocol has changed.
        self._tunnelling = False
        self._reused = False
        self._answered = False
        self._keep = False
        self._closed = False
        self._spoiled = False

    def connectionMade(self) -> None:
        """`Protocol`."""
        set_no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            set_no_delay(True)

    def send(self, outgoing: Outgoing, timeouts: Timeouts, *, reused: bool) -> Deferred[Response]:
        """`UpstreamConnection`."""
        answer: Deferred[Response] = Deferred(self._cancelled)
        self.traffic = Traffic()
        if self._closed or self._spoiled:
            answer.errback(
                UpstreamError(Fault.CLOSED, _closed_words(_SENDING), stale=reused, unsent=True)
            )
            return answer
        self._answer = answer
        self._timeouts = timeouts
        self._reused = reused
        self._answered = False
        self._keep = keeps(outgoing)
        self._trailers = outgoing.trailers
        self._hinted = outgoing.hinted
        self._parser = ResponseParser(outgoing.method, self._max_head, upgrade=outgoing.upgrade)
        self._writer = RequestWriter(self.transport, outgoing, self._writing, self.traffic)
        self._writer.start()
        return answer

    def relay(self, data: bytes, reader: Reader, timeouts: Timeouts) -> None:
        """Send a whole request, whose answer is for ``reader``: `settle` or `adopt` follows."""
        self._reader = reader
        self._answered = False
        self._timeouts = timeouts
        self._watchdog.start(timeouts.read)
        self.transport.write(data)

    def settle(self, *, keep: bool) -> None:
        """The reader has the whole answer."""
        self._reader = None
        self._watchdog.stop()
        if not keep:
            self._drop(orderly=True)
        elif self.on_idle is not None:
            self.on_idle(self)

    def adopt(self, outgoing: Outgoing, traffic: Traffic, *, reused: bool) -> Deferred[Response]:
        """As `send`, for the request that `relay` has sent: the answer is for us now."""
        self._reader = None
        answer: Deferred[Response] = Deferred(self._cancelled)
        self._answer = answer
        self.traffic = traffic
        self._reused = reused
        self._keep = keeps(outgoing)
        self._trailers = outgoing.trailers
        self._hinted = outgoing.hinted
        self._parser = ResponseParser(outgoing.method, self._max_head, upgrade=outgoing.upgrade)
        self._writer = RequestWriter(self.transport, outgoing, self._writing, traffic)
        self._writer.done = True
        return answer

    @property
    def usable(self) -> bool:
        """Whether a request can be sent."""
        return not self._closed and not self._spoiled

    def abort(self) -> None:
        """`UpstreamConnection`."""
        self._reader = None
        error = UpstreamError(Fault.CLOSED, "connection to upstream aborted")
        self._fail(error, asked=True)

    def _cancelled(self, answer: Deferred[Response]) -> None:
        self._answer = None
        self.abort()

    # -- what the writer and the clock tell ----------------------------------------------------

    def _writing(self, writer: RequestWriter, error: Exception | None) -> None:
        """The request was written, stalled, or goes on; or its source broke off."""
        if error is not None:
            self._fail(UpstreamError(Fault.SEND, f"{error} while {_SENDING}"))
        elif writer.done:
            self._watchdog.start(self._timeouts.read)
        elif writer.stalled:
            self._watchdog.start(self._timeouts.send)
        else:
            self._watchdog.stop()  # we wait for the client, whose own timeout runs

    def _timed_out(self) -> None:
        if self._reader is not None:
            self._reader.unusual()
        if self._writer is not None and self._writer.stalled:
            # It may have taken some of the request meanwhile, if not all that waits.
            patience = last_moved(self.transport) + self._timeouts.send - self._watchdog.now
            if patience > 0:
                self._watchdog.start(patience)
                return
        doing = _READING_BODY if self._body is not None else _READING_HEAD
        if self._writer is not None and not self._writer.done:
            doing = _SENDING
        self._fail(
            UpstreamError(
                Fault.TIMEOUT, f"upstream timed out (110: Connection timed out) while {doing}"
            )
        )

    # -- what the peer sends -------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """`Protocol`."""
        parser = self._parser
        if parser is None:
            if self._reader is not None:
                self._answered = True
                self._watchdog.touch()
                self._reader.received(data)
                return
            # Nothing was asked, so this answers nothing: a peer out of step is not used again,
            # not even in the moment before the close is reported.
            self._spoiled = True
            self.transport.abortConnection()
            return
        self._answered = True
        self.traffic.received += len(data)
        try:
            chunks = parser.feed(data)
        except InvalidResponse as error:
            doing = _READING_HEAD if self._body is None else _READING_BODY
            self._fail(UpstreamError(Fault.INVALID_HEADER, f"{error} while {doing}"))
            return
        if self._writer is not None and self._writer.done:
            self._watchdog.touch()
        if parser.hints:
            self._hint(parser)
        self.traffic.body += sum(map(len, chunks))
        self._deliver(parser, chunks)

    def _hint(self, parser: ResponseParser) -> None:
        """Hand out the early hints that have come."""
        hints, parser.hints = parser.hints, []
        for size, headers in hints:
            if self._hinted is not None:
                self._hinted(size, passable(headers))

    def _deliver(self, parser: ResponseParser, chunks: list[bytes]) -> None:
        head, body = parser.head, self._body
        if head is None:
            return
        if body is not None:
            if parser.complete:
                self._finish(parser)
            body.push(chunks, complete=parser.complete)
            return
        answer, self._answer = self._answer, None
        try:
            response = self._begin(parser, head, chunks)
        except InvalidResponse as error:
            self._answer = answer
            self._fail(UpstreamError(Fault.INVALID_HEADER, f"{error} while {_READING_HEAD}"))
            return
        body = self._body
        if answer is not None:
            answer.callback(response)
        if body is not None:
            body.settle()

    def _begin(self, parser: ResponseParser, head: ResponseHead, chunks: list[bytes]) -> Response:
        """The response whose head is there: whole if all of it is, else streaming."""
        if head.status == 101:
            return self._switch(head, chunks)
        if not parser.complete:
            self._body = ResponseBody(self, head.length, chunks)
            response = response_of(head, self._body)
        elif (self._trailers and parser.trailers) or parser.hides_length:
            body = ResponseBody(self, None, chunks)
            body.push([], complete=True)
            response = response_of(head, body)
            self._finish(parser)
        else:
            keep = self._finish(parser)
            content = b"".join(chunks)
            response = response_of(head, content)
            if keep is head.persistent:  # else something was wrong, this time
                response.source = Source(parser.block[:-2], content, keep)
            return response
        if self._trailers:
            response.trailers = partial(passable_trailers, parser)
        return response

    # -- another protocol ----------------------------------------------------------------------

    def _switch(self, head: ResponseHead, chunks: list[bytes]) -> Response:
        """The peer has agreed to change the protocol: bytes go both ways until both have ended."""
        if self._writer is None or not self._writer.done:
            raise InvalidResponse("upstream switched protocols before it had the request")
        self._tunnelling = True
        alsoProvides(self, IHalfCloseableProtocol)
        self._body = ResponseBody(self, None, chunks)
        response = response_of(head, self._body)
        upgrade = head.headers.get(b"upgrade")
        if upgrade is not None:
            response.headers.add(b"Upgrade", upgrade)
        response.tunnel = self._tunnel
        return response

    def _tunnel(self, source: BodyStream) -> None:
        """What the client sends is ``source``."""
        if self._parser is None:  # it is over already
            source.cancel()
            return
        self._writer = writer = TunnelWriter(
            self.transport,
            source,
            self.traffic,
            alive=self._watchdog.touch,
            ended=self._client_ended,
        )
        writer.start()

    def _client_ended(self) -> None:
        """The client will send no more: pass that on, and close if the peer has ended too."""
        if self._body is None or getattr(self.transport, "TLS", False):
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def readConnectionLost(self) -> None:
        """`IHalfCloseableProtocol`, only where the protocol has changed: the peer has ended."""
        body, self._body = self._body, None
        writer = self._writer
        self._watchdog.start(self._timeouts.read)
        if isinstance(writer, TunnelWriter) and writer.over:
            self.transport.loseConnection()
        if body is not None:
            body.push([], complete=True)

    def writeConnectionLost(self) -> None:
        """`IHalfCloseableProtocol`: our half-close is out."""

    def _finish(self, parser: ResponseParser) -> bool:
        """The response is complete: give the connection back or drop it. Returns which."""
        keep = (
            self._keep
            and not parser.excess
            and parser.head is not None
            and parser.head.persistent
            and self._writer is not None
            and self._writer.done
        )
        self._end_exchange()
        if parser.excess:
            self._note(f"upstream sent more data than its answer has while {_READING_BODY}")
        if not keep:
            self._drop(orderly=parser.excess == b"")
        elif self.on_idle is not None:
            self.transport.resumeProducing()
            self.on_idle(self)
        return keep

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """`Protocol`."""
        if self._reader is not None:
            self._reader.unusual()
        self._closed = True
        parser, body = self._parser, self._body
        self._watchdog.cancel()
        if (
            parser is not None
            and body is not None
            and reason.check(ConnectionDone)
            and parser.close()
        ):
            self._end_exchange()
            body.push([], complete=True)
        elif parser is not None or self._answer is not None or self._writer is not None:
            self._fail(self._closed_error(reason))
        on_closed, self.on_closed = self.on_closed, None
        self.on_idle = None
        if on_closed is not None:
            on_closed(self)

    def _closed_error(self, reason: Failure) -> UpstreamError:
        sending = self._writer is not None and not self._writer.done
        doing = _READING_BODY if self._body else _SENDING if sending else _READING_HEAD
        return UpstreamError(
            Fault.SEND if sending else Fault.CLOSED,
            _closed_words(doing, reason),
            stale=self._reused and not self._answered,
        )

    # -- the end of an exchange ----------------------------------------------------------------

    def _note(self, text: str) -> None:
        if self.on_note is not None:
            self.on_note(self, text)

    def _fail(self, error: UpstreamError, *, asked: bool = False) -> None:
        """The exchange is over. ``asked``: we were told to end it, the peer did no wrong."""
        answer, body, busy = self._answer, self._body, self._parser is not None
        self._answer = None
        self._end_exchange()
        self._drop(orderly=not busy and not self._tunnelling)
        if answer is not None:
            answer.errback(error)
        elif body is not None:
            if not asked and self.on_broken is not None:
                self.on_broken(self, error.reason)
            body.broken(error)

    def _drop(self, *, orderly: bool) -> None:
        if self._closed:
            return
        if orderly:
            # Our own transports needn't wait for the loop where everything has been sent.
            getattr(self.transport, "close_now", self.transport.loseConnection)()
        else:
            self.transport.abortConnection()

    def _end_exchange(self) -> None:
        self._parser = self._body = self._hinted = None
        self._watchdog.stop()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.cancel()

    # -- what the reader of the body asks ------------------------------------------------------

    def hold(self, body: ResponseBody) -> None:
        """The body's reader takes no more for now; the peer is not to blame for the silence."""
        if body is self._body:
            self.transport.pauseProducing()
            self._watchdog.stop()

    def flow(self, body: ResponseBody) -> None:
        """The body's reader takes more."""
        if body is self._body:
            self._watchdog.start(self._timeouts.read)
            self.transport.resumeProducing()

    def drop(self, body: ResponseBody) -> None:
        """The body's reader has gone."""
        if body is not self._body:
            return
        if self._tunnelling:
            # What the client has said is for the peer to read, whether it has gone or not.
            self._end_exchange()
            self.transport.loseConnection()
            self._watchdog.start(self._timeouts.send)
        else:
            self.abort()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "busy" if self._parser else "idle"
        return f"<HttpUpstreamConnection {state}>"


def _closed_words(doing: str, reason: Failure | None = None) -> str:
    """nginx's words for a connection that went away."""
    number = getattr(None if reason is None else reason.value, "osError", None)
    if reason is not None and not reason.check(ConnectionDone):
        number = number or errno.ECONNRESET
        return f"recv() failed ({number}: {os.strerror(number)}) while {doing}"
    return f"upstream prematurely closed connection while {doing}"
