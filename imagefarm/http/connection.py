"""The server side of one HTTP/1.1 connection, over TCP, TLS or a Unix socket.

Requests are taken one at a time: the next head is parsed when the answer before it is out, so
pipelined requests are answered in order and their number costs no more than a bounded buffer.
While an answer is awaited the socket is still read, up to that bound, because that is how a
client that leaves is noticed.

A connection that waits for a request holds no parser, no buffer and no exchange.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from .body import EMPTY, BodyTimeout, RequestBody
from .errorpages import PLAIN_TO_TLS
from .exchange import DRAIN_LIMIT, Exchange, Phase
from .message import Peer, Request
from .parser import BadRequest, ParsedHead, RequestParser
from .passing import Passing
from .serializer import Serializer
from .timers import NEVER
from .tls_transport import with_handshake
from .transport import DirectServer, with_socket
from .tunnel import TunnelBody
from .waiting import State, Wait

if TYPE_CHECKING:
    from .factory import HttpFactory

#: Bytes of following requests that are read while one is being answered.
PIPELINE_BUFFER: Final = 65536

#: What is known of a request whose head has not been read.
_NOTHING: Final = ParsedHead(
    BadRequest(400, "").head, b"", 0, keep_alive=False, expects_continue=False, size=0
)

log = Logger()


@implementer(IProtocol, IHalfCloseableProtocol, IPushProducer)
class HttpConnection(Passing):
    """A Twisted protocol; the factory makes it. As a producer it learns when writing stalls."""

    __slots__ = (
        "_draining", "_pumping", "_reading",
    )  # fmt: skip

    # The attributes of the base classes are set here, too: a chain of initialisers would cost each
    # connection as much as reading a request from the socket.
    def __init__(self, factory: HttpFactory, peer: Peer) -> None:
        self.factory = factory
        self.peer = peer
        self.transport = None
        self.deadline = NEVER
        self.slot = -1
        self._wait = Wait.NOTHING
        self._mark = (0, 0.0)
        self.opened = factory.second()
        self.served = 0
        self._idle_timeout = 0.0
        self._alone = b""
        self.plain = False
        self._state = State.HEAD
        self._parser = None
        self._exchange = None
        self._linger = (0.0, 0.0)
        self._eof = False
        self.congested = False
        self._started = 0.0
        self._draining = 0
        self._pumping = False
        self._reading = True

    def __repr__(self) -> str:
        return f"<HttpConnection #{self.peer.serial} {self._state.name} served={self.served}>"

    # IProtocol.

    def makeConnection(self, transport: Any) -> None:
        """Twisted's start; again where TLS was expected and has not come."""
        self.transport = transport
        self.plain = getattr(transport, "plain", False)
        transport.registerProducer(self, True)
        self._await(Wait.IDLE, self.factory.client_header_timeout)

    def come_back(self, transport: DirectServer, opened: int, served: int, left: float) -> None:
        """Twisted's start, of a connection that was parked (`http.parking`) and has been asked.

        ``left`` is the rest of the seconds that it waits for a request.
        """
        self.makeConnection(transport)
        self.opened, self.served = opened, served
        if served and self.factory.asks_socket:
            self.peer = with_socket(self.peer, transport)
        self._idle_timeout = left
        self._await(Wait.IDLE, left)

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the client."""
        state = self._state
        if state is State.HEAD:
            if self._parser is None and not self.congested and self._replay(data):
                return
            self._feed(data)
            self._pump()
        elif state is State.BUSY or state is State.DRAIN:
            self._receive(data)
            self._pump()
        elif state is State.LINGER:
            self._arm_linger()

    def connectionLost(self, reason: Failure) -> None:
        """Twisted's end."""
        self._state = State.CLOSED
        self.factory.wheel.remove(self)
        exchange, self._exchange = self._exchange, None
        self._parser = None
        if exchange is not None:
            exchange.gone()
        self.factory.connection_lost(self)

    # IPushProducer: the transport about what we write.

    def pauseProducing(self) -> None:
        """The transport's buffer is over its high-water mark."""
        self.congested = True
        if self._exchange is not None:
            self._exchange.pause()
        if self._state is State.HEAD or self._state is State.BUSY:
            self._await(Wait.SEND, self._send_timeout())

    def resumeProducing(self) -> None:
        """It is empty again."""
        self.congested = False
        if self._state is State.BUSY and self._exchange is not None:
            self._arm_busy()
            self._exchange.resume()
            self._pump()
        elif self._state is State.HEAD:
            self._rest()
            self._pump()

    def stopProducing(self) -> None:
        """`connectionLost` comes next."""

    # What an exchange needs.

    @property
    def serializer(self) -> Serializer:
        """The factory's."""
        return self.factory.serializer

    @property
    def may_keep(self) -> bool:
        """Whether another request is welcome."""
        return not self.factory.draining

    @property
    def phase(self) -> str:
        """``reading`` a request, ``writing`` its answer, or ``waiting`` for one."""
        if self._state is State.HEAD:
            return "waiting" if self._parser is None else "reading"
        return "writing"

    @property
    def waiting_since(self) -> float:
        """When it began to wait for a request, by the factory's clock; NEVER if it does not."""
        if self._state is not State.HEAD or self._wait is not Wait.IDLE or self._pumping:
            return NEVER
        if self._parser is not None:
            return NEVER
        timeout = self._idle_timeout if self.served else self.factory.client_header_timeout
        return self.deadline - timeout

    @property
    def idle_since(self) -> float:
        """The same, if it could be parked now."""
        if self._eof or type(self.transport) is not DirectServer:
            return NEVER
        return self.waiting_since

    def leave(self) -> socket.socket | None:
        """Let go of an idle connection's socket, which lives on; None while it is in use."""
        sock: socket.socket | None = self.transport.leave()
        if sock is not None:
            self._state = State.CLOSED
            self.transport = None
            self.factory.wheel.remove(self)
        return sock

    def now(self) -> float:
        """The time of day."""
        return self.factory.now()

    def answering(self) -> None:
        """An answer could not be sent at once."""
        self._arm_busy()
        self._read_or_not()

    def tunnel(self, over: Callable[[], None]) -> TunnelBody:
        """What the client sends from here on, and what it has sent already."""
        body = TunnelBody(self._body_demanded, self._body_buffer, over)
        parser, self._parser = self._parser, None
        if parser is not None:
            body.receive(parser.take())
        if self._eof:
            body.finish()
        return body

    def close_writing(self) -> bool:
        """Half-close; TLS can't."""
        if self.plain:
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()
        return self.plain

    def exchange_done(self, keep: bool) -> None:
        """An answer is out: on to the next request, or the end."""
        exchange = self._exchange
        if exchange is None or self._state is not State.BUSY:
            return
        body, transfer = exchange.body, exchange.request.transfer
        self._alone = b""
        if body is None or body.complete:
            if keep:
                self._exchange = None
                self._idle_timeout = transfer.keepalive_timeout
                self._state = State.HEAD
                self._rest()
                self._pump()
            else:
                always = transfer.lingering_close == "always"
                self._close(linger=always or self._parser is not None)
        elif keep:
            self._state = State.DRAIN
            self._draining = DRAIN_LIMIT
            self._await(Wait.LINGER, transfer.lingering_timeout)
            self._read_or_not()
        else:
            self._close(linger=True)

    def drain(self, parting: float) -> None:
        """The server stops: close if idle for ``parting`` more seconds, else after the answer."""
        if self._state is State.HEAD and self._parser is None and not self.congested:
            if parting:
                self._await(Wait.IDLE, parting)
            else:
                self._expired(Wait.IDLE)

    # Reading.

    def _feed(self, data: bytes, *, pipelined: bool = False) -> None:
        if self._parser is None:
            limits, named = self.factory.limits, self.factory.named
            name = self._sni()
            if named is not None and name:
                limits = named.find(name)
            self._parser = RequestParser(limits, data, pipelined=pipelined, named=named)
            self._started = self.factory.now()
        else:
            self._parser.feed(data)

    def _receive(self, data: bytes) -> None:
        """Bytes that come while a request is under way: its body, and what follows that."""
        exchange = self._exchange
        if exchange is None:
            return
        body = exchange.body
        if body is not None and not body.complete:
            before = body.received
            data = body.receive(data)
            if self._state is State.DRAIN:
                self._drained(body, data, body.received - before)
                return
        if self._state is State.BUSY:
            if data:
                self._feed(data, pipelined=True)
            self._arm_busy()
            self._read_or_not()
        elif self._state is State.HEAD and data:
            self._feed(data, pipelined=True)

    def _drained(self, body: RequestBody, rest: bytes, count: int) -> None:
        """More of a body that nobody wants."""
        self._draining -= count
        exchange = self._exchange
        if body.complete and exchange is not None:
            if rest:
                self._feed(rest, pipelined=True)
            self._idle_timeout = exchange.request.transfer.keepalive_timeout
            self._exchange = None
            self._state = State.HEAD
            self._rest()
        elif body.failed or self._draining < 0:
            self._close(linger=True)

    def _pump(self) -> None:
        """Take requests from the buffer for as long as they are answered at once."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._state is State.HEAD and self._parser is not None and not self.congested:
                try:
                    parsed = self._parser.next_head()
                except BadRequest as error:
                    self._refuse(error)
                    break
                if parsed is None:
                    self._await_head()
                    break
                self._serve(parsed)
        finally:
            self._pumping = False

    def _await_head(self) -> None:
        parser = self._parser
        if parser is not None and not parser.pending:
            self._parser = None
        elif self._wait is not Wait.HEADER:
            named, name = self.factory.named, self._sni()
            timeout = self.factory.client_header_timeout
            self._await(Wait.HEADER, named.timeout(name) if named and name else timeout)
        if self._eof:
            self._close()

    def _sni(self) -> bytes:
        """The name that TLS was asked for, where it decides about the limits."""
        if self.factory.named is None or not self.factory.secure:
            return b""
        if not self.served:
            self.peer = with_handshake(self.peer, self.transport)
        return (self.peer.sni or b"").lower()

    def _request(self, parsed: ParsedHead, body: RequestBody | None) -> Request:
        if self.factory.secure and not self.served:
            self.peer = with_handshake(self.peer, self.transport)
        if self.factory.asks_socket and not self.served:
            self.peer = with_socket(self.peer, self.transport)
        self.served += 1
        return Request(
            parsed.head,
            self.peer,
            EMPTY if body is None else body,
            self._started,
            parsed.host,
            number=self.served,
            length=parsed.size,
            pipelined=parsed.pipelined,
            transfer=self.factory.transfer,
        )

    def _serve(self, parsed: ParsedHead) -> None:
        body = None
        rest = b""
        if parsed.length != 0:
            body = RequestBody(
                parsed.length, self._max_body_size, self._body_demanded, self._body_buffer
            )
            if self._parser is not None:
                rest, self._parser = self._parser.take(), None
        elif self._parser is not None and not self._parser.pending:
            self._parser = None
        request = self._request(parsed, body)
        misplaced = self.factory.secure and self.peer.tls is None
        exchange = Exchange(
            self,
            self.factory.app,
            request,
            body,
            keep=parsed.keep_alive and not misplaced,
            expects_continue=parsed.expects_continue and not rest,
        )
        self._exchange = exchange
        self._state = State.BUSY
        self._await_nothing()
        if self._alone:
            self._know(parsed)
        if misplaced:
            log.info(
                "client sent plain HTTP request to HTTPS port, client: {client}",
                client=self.peer.address,
            )
            exchange.refuse(PLAIN_TO_TLS)
        else:
            exchange.begin()
        if request.route is None:
            self._alone = b""
        if rest:
            self._receive(rest)
        elif self._state is State.BUSY:
            self._arm_busy()
        if self._parser is not None:
            self._started = self.factory.now()

    def _bodiless(self, request: Request, *, keep: bool) -> Exchange:
        """The exchange of a request that has no body."""
        return Exchange(self, self.factory.app, request, None, keep=keep)

    def _refuse(self, error: BadRequest) -> None:
        """Answer what can't be read; where it ends is anyone's guess, so close."""
        log.info(
            "client sent invalid request: {reason}, client: {client}",
            reason=error.reason,
            client=self.peer.address,
        )
        size = 0 if self._parser is None else self._parser.pending
        request = self._request(evolve(_NOTHING, head=error.head, size=size), None)
        request.refusal = error.reason
        self._exchange = self._bodiless(request, keep=False)
        self._state = State.BUSY
        self._exchange.refuse(error.status)
        if self._state is State.BUSY:
            self._arm_busy()

    def _max_body_size(self) -> int:
        return 0 if self._exchange is None else self._transfer.client_max_body_size

    def _body_buffer(self) -> int:
        return self._transfer.client_body_buffer_size

    def _body_demanded(self) -> None:
        exchange = self._exchange
        if exchange is not None and self._state is State.BUSY:
            exchange.body_demanded()
            self._arm_busy()
            self._read_or_not()

    def _read_or_not(self) -> None:
        """Read while there is a use or a bounded place for what comes."""
        reading = True
        exchange = self._exchange
        if self._state is State.BUSY and exchange is not None:
            body = exchange.body
            if body is not None and not body.complete and not body.failed:
                reading = body.hungry
            elif self._parser is not None:
                reading = self._parser.pending < PIPELINE_BUFFER
        elif self._state is State.HEAD and self.congested:
            reading = self._parser is None or self._parser.pending < PIPELINE_BUFFER
        if reading is not self._reading and not self._eof:
            self._reading = reading
            if reading:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    # Deadlines.

    def _rest(self) -> None:
        """Wait for the next request."""
        if self._parser is None and (self._eof or self.factory.draining):
            self._close()
            return
        if self.congested:
            self._await(Wait.SEND, self._send_timeout())
        else:
            self._await(Wait.IDLE, self._idle_timeout)
            if self._reading:
                return
        self._read_or_not()

    def _arm_busy(self) -> None:
        """The deadline while a request is under way."""
        exchange = self._exchange
        if exchange is None or self._state is not State.BUSY:
            return
        if self.congested or (exchange.phase is Phase.ANSWERING and exchange.pushing):
            if self._wait is not Wait.SEND:
                self._await(Wait.SEND, self._send_timeout())
        elif exchange.body is not None and exchange.body.wanted and exchange.body.timed:
            self._await(Wait.BODY, exchange.request.transfer.client_body_timeout)
        else:
            self._await_nothing()

    def _head_timed_out(self) -> None:
        """As in nginx: without an answer, 408 in the log."""
        self._bodiless(self._request(_NOTHING, None), keep=False).gone(
            BodyTimeout("the head did not come for client_header_timeout")
        )
        self._timed_out()
