"""One health check of one peer: connect, send, read, judge. The same way as clients' requests go,
through the protocol's own `UpstreamConnection`."""

from __future__ import annotations

import errno
from typing import Any, Final

from attrs import define
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError
from twisted.python.failure import Failure

from imagefarm.http.message import Request, Response, discard
from imagefarm.http.reading import read_up_to
from imagefarm.http.upstream import (
    ExchangeRules,
    Fault,
    Outgoing,
    UpstreamConnection,
    UpstreamError,
)
from imagefarm.proxy.connector import Connecting
from imagefarm.proxy.peer import Address

from .match import MAX_BODY, Match

#: What a connection fails with because of us, not of the peer: descriptors, ports, memory.
_OURS: Final = frozenset({
    errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL,
})  # fmt: skip


class Undecided(Exception):
    """The check could not be made, through no fault of the peer."""


@define(eq=False)
class Line:
    """A connection that checks of one peer have for themselves. Times as of the reactor."""

    connection: UpstreamConnection
    opened: float
    served: int = 0
    idle: bool = False

    def idled(self, connection: UpstreamConnection) -> None:
        """`UpstreamConnection.on_idle`."""
        self.idle = True

    def closed(self, connection: UpstreamConnection) -> None:
        """`UpstreamConnection.on_closed`."""
        self.idle = False


class Probe:
    """One check. `start` fires with what was not as wanted, or None; errs with `Undecided`.

    The whole of it may take the connect and the read timeout of ``rules`` together: a peer that
    drips its answer does not pass for a healthy one. ``line`` is the connection of an earlier
    check, used again if it still stands; afterwards `line` is what may serve the next one.
    """

    def __init__(
        self,
        reactor: Any,
        address: Address,
        request: Request,
        outgoing: Outgoing,
        rules: ExchangeRules,
        tests: Match,
        line: Line | None = None,
    ) -> None:
        self.line = line
        self._reactor = reactor
        self._address = address
        self._request = request
        self._outgoing = outgoing
        self._rules = rules
        self._tests = tests
        self._done: Deferred[str | None] = Deferred(self._cancelled)
        self._current: Deferred[Any] | None = None
        self._answering = False
        self._deadline: Any = None

    def start(self) -> Deferred[str | None]:
        """Begin."""
        timeouts = self._rules.timeouts
        self._deadline = self._reactor.callLater(timeouts.connect + timeouts.read, self._late)
        line = self.line
        if line is not None and line.idle:
            self._send(line)
        else:
            self._connect()
        return self._done

    def _connect(self) -> None:
        bind = self._rules.bind
        local = None if bind is None else bind.of(self._request)
        connecting = Connecting(self._reactor, self._address, self._rules, local).start()
        self._current = connecting
        connecting.addCallbacks(self._connected, self._failed).addErrback(self._broke)

    def _connected(self, connection: UpstreamConnection) -> None:
        line = self.line = Line(connection, self._reactor.seconds())
        connection.on_idle = line.idled
        connection.on_closed = line.closed
        self._send(line)

    def _send(self, line: Line) -> None:
        reused = line.served > 0
        line.served += 1
        line.idle = False
        sending = line.connection.send(self._outgoing, self._rules.timeouts, reused=reused)
        self._current = sending
        sending.addCallbacks(self._answered, self._failed).addErrback(self._broke)

    def _answered(self, response: Response) -> None:
        self._current = None
        self._request.outcome.upstream_headers = response.headers
        self._request.outcome.status = response.status
        wrong = self._tests.head(
            response.status, response.headers, lambda variable: variable(self._request)
        )
        if wrong is not None:
            discard(response.body)
            self._end(wrong)
            return
        self._answering = True
        self._current = reading = read_up_to(response.body, MAX_BODY)
        reading.addCallbacks(self._read, self._broken_off).addErrback(self._broke)

    def _read(self, beginning: tuple[bytes, bool]) -> None:
        self._end(self._tests.body(beginning[0]))

    def _broken_off(self, failure: Failure) -> None:
        error = failure.value
        words = f"{failure.getErrorMessage()} while reading upstream"
        if not failure.check(CancelledError):
            self._end(error.reason if isinstance(error, UpstreamError) else words)

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if not isinstance(error, UpstreamError):
            self._broke(failure)
        elif error.stale:
            # The peer closed the connection just as we used it again: that says nothing.
            self._connect()
        elif error.fault is Fault.LOCAL or (
            isinstance(error.__cause__, ConnectError) and error.__cause__.osError in _OURS
        ):
            self._end(Undecided(error.reason))
        else:
            self._end(error.reason)

    def _broke(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._end(failure)

    def _late(self) -> None:
        # Where the whole process was held up, the answer may be there, only not read yet.
        self._deadline = self._reactor.callLater(0, self._too_late)

    def _too_late(self) -> None:
        self._deadline = None
        doing = "reading response header from upstream"
        if self._answering:
            doing = "reading upstream"
        self._end(f"upstream timed out (110: Connection timed out) while {doing}")

    def _end(self, result: str | Exception | Failure | None) -> None:
        done = self._done
        if done.called:
            return
        self._release()
        if isinstance(result, Exception | Failure):
            done.errback(result)
        else:
            done.callback(result)

    def _cancelled(self, done: Deferred[str | None]) -> None:
        self._release()

    def _release(self) -> None:
        """Stop the clock and whatever is under way."""
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()
        current, self._current = self._current, None
        if current is not None and not current.called:
            current.cancel()
