"""How a connection ends: by its timeouts, at once, or after lingering."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .body import BodyTimeout
from .exchange import Exchange, Phase
from .message import TransferSettings
from .parser import RequestParser
from .relays import Relaying
from .replaying import Replaying
from .transport import Direct
from .tunnel import TunnelBody
from .waiting import State, Wait

if TYPE_CHECKING:
    pass


class Ending(Replaying):
    """A base class of the connection, because an object of its own would cost memory."""

    __slots__ = ("_eof", "_exchange", "_linger", "_parser", "_state", "congested", "plain")

    plain: bool
    #: Whether the transport has more than it likes.
    congested: bool
    _state: State
    _parser: RequestParser | None
    _exchange: Exchange | Relaying | None
    #: When lingering ends at the latest, and how long it waits for more, in seconds.
    _linger: tuple[float, float]
    _eof: bool

    def abort(self, *, reset: bool = True) -> None:
        """Break off; what was sent can't be mistaken for a whole.

        Without ``reset`` what has reached the socket may still reach the client.
        """
        if self._state is State.CLOSED:
            return
        self._state = State.CLOSED
        exchange, self._exchange = self._exchange, None
        self._parser = None
        self._await_nothing()
        self._break_off(reset)
        if exchange is not None:
            exchange.gone()

    @property
    def _transfer(self) -> TransferSettings:
        """The settings in force: of the request's location, else of the default server."""
        exchange = self._exchange
        return self.factory.transfer if exchange is None else exchange.request.transfer

    # IHalfCloseableProtocol.

    def readConnectionLost(self) -> None:
        """The client will send no more.

        As in nginx, it counts as gone while the answer is being made (it most likely is, and the
        work is stopped), unless the location ignores that. It gets an answer that has begun;
        here, also if that is a file.
        """
        self._eof = True
        exchange = self._exchange
        if self._state is State.BUSY and exchange is not None:
            body = exchange.body
            if isinstance(body, TunnelBody):
                body.finish()
            elif body is not None and not body.complete:
                self.abort()
            elif exchange.phase is Phase.PENDING and not exchange.request.outcome.patient:
                self.abort(reset=False)
        elif self._parser is None or not self.congested:
            self._close()

    def writeConnectionLost(self) -> None:
        """Our own half-close is out."""

    # Timeouts.

    def _send_timeout(self) -> float:
        return self._transfer.send_timeout

    def _expired(self, wait: Wait) -> None:
        exchange = self._exchange
        if wait is Wait.SEND:
            if exchange is not None and exchange.resting:
                self._await(Wait.SEND, self._send_timeout())
            else:
                # A normal close would make an answer look complete that it is the end of.
                unframed = exchange is not None and exchange.unframed
                self.abort(reset=unframed or self._transfer.reset_timedout_connection)
        elif wait is Wait.CLOSE:
            self._break_off(self.factory.transfer.reset_timedout_connection)
        elif wait is Wait.BODY:
            self._body_timed_out()
        elif wait is Wait.HEADER:
            self._head_timed_out()
        elif wait is Wait.IDLE and isinstance(self.transport, Direct) and self.transport.unread():
            self._await(Wait.IDLE, 0.0)  # to close now would reset what the client has asked
        else:
            self._close(linger=self._state is State.DRAIN)

    def _timed_out(self) -> None:
        """The client was too slow to send."""
        if self._transfer.reset_timedout_connection:
            self.abort()
        else:
            self._close()

    def _body_timed_out(self) -> None:
        exchange = self._exchange
        if exchange is None or exchange.body is None:
            return
        exchange.keep = False
        error = BodyTimeout("nothing came for client_body_timeout")
        exchange.body.fail(error)
        if exchange.phase is Phase.PENDING:
            # As in nginx: without an answer, 408 in the log.
            exchange.gone(error)
            self._timed_out()

    def _head_timed_out(self) -> None:
        """The head did not come in time."""
        raise NotImplementedError

    # Closing.

    def _close(self, *, linger: bool = False, transfer: TransferSettings | None = None) -> None:
        """Close once everything is written; ``linger`` where the client may still be sending.

        Closing a socket that has unread bytes resets it, and the client may lose the answer.
        ``transfer`` has the settings, if they are not those of the exchange.
        """
        if self._state is State.CLOSED or (linger and self._state is State.LINGER):
            return
        transfer = transfer or self._transfer
        self._exchange = None
        self._parser = None
        transport = self.transport
        if self._state is not State.LINGER:
            transport.unregisterProducer()
        if linger and not self._eof and transfer.lingering_close != "off":
            self._state = State.LINGER
            end = self.factory.clock.seconds() + transfer.lingering_time
            self._linger = (end, transfer.lingering_timeout)
            if isinstance(transport, Direct):
                transport.loseWriteConnection()
            self._read_or_not()
            self._arm_linger()
            return
        self._state = State.CLOSED
        if isinstance(transport, Direct):
            transport.close_now()
        else:
            transport.loseConnection()
        if transport.connected:
            self._await(Wait.CLOSE, transfer.send_timeout)

    def _arm_linger(self) -> None:
        end, timeout = self._linger
        left = end - self.factory.clock.seconds()
        self._await(Wait.LINGER, max(0.0, min(left, timeout)))

    def _read_or_not(self) -> None:
        """Read while there is a use or a bounded place for what comes."""
        raise NotImplementedError
