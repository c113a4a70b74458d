"""The connection's part in passing requests on without an exchange (`http.relays`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .body import RequestBody
from .ending import Ending
from .exchange import Exchange
from .message import Request
from .parser import ParsedHead, RequestParser
from .relays import Relaying, Wire
from .requestid import REQUEST_ID
from .waiting import State

if TYPE_CHECKING:
    pass


class Passing(Ending):
    """A base class of the connection, because an object of its own would cost memory."""

    __slots__ = ("_started",)

    #: When the request was begun, in seconds of the time of day.
    _started: float

    @property
    def occupied(self) -> bool:
        """Whether there is more to do than to write an answer: the next request has come, or
        the last answer is not out.
        """
        return self.congested or self._parser is not None

    def _hold(self, relaying: Relaying | None) -> None:
        """A request is being passed on without an exchange, or no longer."""
        self._exchange = relaying
        self._state = State.HEAD if relaying is None else State.BUSY
        self._await_nothing()

    def take_up(self, data: bytes, started: float, wire: Wire, name: bytes) -> Exchange:
        """Go on with a request that has been sent on already, on the ordinary path.

        ``name`` is the request id that the peer has been told, if it was.

        Where the connection is closed nobody waits for the answer.
        """
        parsed = RequestParser(self.factory.limits, data).next_head()
        assert parsed is not None
        following, self._started = self._started, started
        request = self._request(parsed, None)
        self._started = following
        request.wire = wire
        if name:
            request.variables[REQUEST_ID] = name
        exchange = self._bodiless(request, keep=parsed.keep_alive)
        if self._state is not State.CLOSED:
            self._exchange = exchange
            self._state = State.BUSY
            self._await_nothing()
            if self._parser is None:
                self._alone = data
        exchange.begin()
        if self._state is State.BUSY:
            self._arm_busy()
        return exchange

    def _request(self, parsed: ParsedHead, body: RequestBody | None) -> Request:
        """The request whose head has been read."""
        raise NotImplementedError

    def _bodiless(self, request: Request, *, keep: bool) -> Exchange:
        """The exchange of a request that has no body."""
        raise NotImplementedError

    def _arm_busy(self) -> None:
        """The deadline while a request is under way."""
        raise NotImplementedError
