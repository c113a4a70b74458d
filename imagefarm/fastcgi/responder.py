"""The FastCGI responder: an application server on Twisted.

Thin glue: `Session` knows the protocol, `Answer` turns a `Response` into records, the connection
between them owns the transport. Many requests may be in progress on one connection.
"""

from __future__ import annotations

from typing import Any, Final, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from .answer import Answer, ResponderHandler
from .records import FastCGIError
from .session import Reply, ResponderLimits, Session, SessionEvent, Start, Stop
from .wire import Clock, Transport, Watch

_log: Final = Logger(namespace="imagefarm.fastcgi")


@implementer(IPushProducer)
class ResponderConnection(Protocol):
    """One connection from a web server."""

    def __init__(self, factory: ResponderFactory) -> None:
        limits = factory.limits
        self._factory = factory
        self._session = Session(limits, factory.admit, factory.leave)
        self._answers: dict[int, Answer] = {}
        self.paused = False
        #: A request that arrives slowly, or an answer that is not read.
        self._stalled = Watch(factory.clock, limits.timeout, self._stall)
        self._idle = Watch(factory.clock, limits.keepalive, self._drop)
        #: Runs while the connection waits for its last request.
        self._parting: Watch | None = None

    @property
    def _wire(self) -> Transport:
        return cast(Transport, self.transport)

    def connectionMade(self) -> None:
        """`Protocol`."""
        self._factory.connections.add(self)
        self._wire.registerProducer(self, True)
        self._watch()

    def dataReceived(self, data: bytes) -> None:
        """`Protocol`."""
        try:
            events = self._session.receive(data)
        except FastCGIError as error:
            _log.error("FastCGI client {peer}: {error}", peer=self._wire.getPeer(), error=error)
            self._drop()
            return
        self._perform(events)
        if self._parting is not None and self._session.busy:
            self._part()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """`Protocol`: nobody is left to answer."""
        self._stalled.stop()
        self._idle.stop()
        if self._parting is not None:
            self._parting.stop()
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            answer.cancel()
        self._session.close()
        self._factory.gone(self)

    def drain(self, parting: float) -> None:
        """Take no more requests, and close when the last one is answered.

        Where there is none it may come in the next ``parting`` seconds.
        """
        if parting and not self._session.busy:
            self._parting = Watch(self._factory.clock, parting, self._part)
            self._parting.start()
        else:
            self._part()

    def _part(self) -> None:
        if self._parting is not None:
            self._parting.stop()
            self._parting = None
        self._perform(self._session.drain())

    # What answers want: `Outlet`.

    def write(self, request_id: int, data: bytes) -> None:
        """Send a piece of an answer."""
        self._wire.write(self._session.stdout(request_id, data))

    def finish(self, request_id: int, last: bytes, app_status: int) -> None:
        """Send the end of an answer."""
        self._answers.pop(request_id, None)
        self._perform(self._session.end(request_id, last, app_status))

    def broken(self, request_id: int) -> None:
        """Only a lost connection says that an answer is not whole."""
        self._answers.pop(request_id, None)
        self._drop()

    # What the transport says: `IPushProducer`.

    def pauseProducing(self) -> None:
        """The web server is behind with reading; until it catches up we read nothing either."""
        self.paused = True
        self._wire.pauseProducing()
        for answer in tuple(self._answers.values()):
            answer.pause()
        self._watch()

    def resumeProducing(self) -> None:
        """It has caught up."""
        self.paused = False
        self._wire.resumeProducing()
        for answer in tuple(self._answers.values()):
            if self.paused:
                break  # one of them has filled the queue again; all wait for the next time
            answer.resume()
        self._watch()

    def stopProducing(self) -> None:
        """The connection is gone, which `connectionLost` tells as well."""

    def _perform(self, events: list[SessionEvent]) -> None:
        for event in events:
            if isinstance(event, Reply):
                self._wire.write(event.data)
            elif isinstance(event, Start):
                answer = Answer(self, event.request)
                self._answers[event.request.request_id] = answer
                answer.start(self._factory.handler)
            elif isinstance(event, Stop):
                self._stop(event.request_id)
            else:
                self._wire.unregisterProducer()
                self._wire.loseConnection()
        self._watch()

    def _stop(self, request_id: int) -> None:
        answer = self._answers.pop(request_id, None)
        if answer is not None:
            answer.cancel()
            self._perform(self._session.end(request_id, b"", 1))

    def _watch(self) -> None:
        """See to it that nobody holds the connection for nothing."""
        if self._session.arriving or self.paused:
            self._stalled.start()
        else:
            self._stalled.stop()
        if self._session.busy:
            self._idle.stop()
        else:
            self._idle.start()

    def _stall(self) -> None:
        _log.info("FastCGI client {peer} timed out", peer=self._wire.getPeer())
        self._drop()

    def _drop(self) -> None:
        self._wire.abortConnection()

    def __repr__(self) -> str:
        return f"<ResponderConnection {self._session!r}{' paused' if self.paused else ''}>"


class ResponderFactory(Factory):
    """Listens for web servers and answers their requests with ``handler``.

    ``handler`` takes a `FastCGIRequest` and returns a `Response` or a Deferred of one, which is
    cancelled when the web server aborts the request or goes away.
    """

    noisy = False

    def __init__(
        self, handler: ResponderHandler, clock: Clock, limits: ResponderLimits | None = None
    ) -> None:
        self.handler = handler
        self.clock = clock
        self.limits = limits or ResponderLimits()
        self.connections: set[ResponderConnection] = set()
        #: Requests in progress in the whole process.
        self.active = 0
        self._drained: Deferred[None] | None = None

    def buildProtocol(self, addr: Any) -> ResponderConnection | None:
        """A connection, or None (which closes it) for one too many."""
        if self._drained is not None or len(self.connections) >= self.limits.connections:
            return None
        return ResponderConnection(self)

    def drain(self, parting: float = 0.0) -> Deferred[None]:
        """Stop gracefully: fires when every request in progress is answered.

        A web server may be sending when we close: what comes within ``parting`` seconds on a
        connection that has no request is answered. The caller closes the listening port.
        """
        if self._drained is None:
            self._drained = Deferred() if self.connections else succeed(None)
            for connection in tuple(self.connections):
                connection.drain(parting)
        return self._drained

    def admit(self) -> bool:
        """Take one of the places, if there is one."""
        if self.active >= self.limits.requests:
            return False
        self.active += 1
        return True

    def leave(self) -> None:
        """Give a place back."""
        self.active -= 1

    def gone(self, connection: ResponderConnection) -> None:
        """``connection`` was closed."""
        self.connections.discard(connection)
        if self._drained is not None and not self.connections and not self._drained.called:
            self._drained.callback(None)

    def __repr__(self) -> str:
        return f"<ResponderFactory {len(self.connections)} connections, {self.active} requests>"
