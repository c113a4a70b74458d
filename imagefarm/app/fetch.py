"""One GET to another daemon, for its status."""

from __future__ import annotations

import json
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from imagefarm.proxy.response_parser import InvalidResponse, ResponseParser
from imagefarm.resources.dashboard import Source

#: The longest answer that is read, in bytes, and how long it may take, in seconds.
MAX_ANSWER: Final = 16 << 20
TIMEOUT: Final = 3.0


class FetchError(Exception):
    """What was asked for did not come; the text says why."""


class _Getting(Protocol):
    """The connection of one request."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._parser = ResponseParser(b"GET")
        self._pieces: list[bytes] = []
        self._size = 0
        self._over = False
        self.done: Deferred[bytes] = Deferred(lambda _: self._drop())

    def connectionMade(self) -> None:
        """Ask."""
        host = self._source.host or "localhost"
        if ":" in host:
            host = f"[{host}]"
        request = (
            f"GET {self._source.target} HTTP/1.1\r\nHost: {host}\r\n"
            "Accept: application/json\r\nConnection: close\r\n\r\n"
        )
        transport: Any = self.transport
        transport.write(request.encode("ascii"))

    def dataReceived(self, data: bytes) -> None:
        """Pieces of the answer."""
        try:
            pieces = self._parser.feed(data)
        except InvalidResponse as error:
            self._fail(str(error).replace("upstream sent", "it sent"))
            return
        self._pieces += pieces
        self._size += sum(map(len, pieces))
        head = self._parser.head
        if head is not None and head.status != 200:
            self._fail(f"it answered with status {head.status}")
        elif self._size > MAX_ANSWER:
            self._fail("its answer is too large")
        elif self._parser.complete:
            self._finish()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The end of it."""
        if self._parser.head is not None and self._parser.close():
            self._finish()
        else:
            self._fail("it closed the connection without an answer")

    def _finish(self) -> None:
        if not self._over:
            self._drop()
            self.done.callback(b"".join(self._pieces))

    def _fail(self, why: str) -> None:
        if not self._over:
            self._drop()
            self.done.errback(FetchError(why))

    def _drop(self) -> None:
        self._over = True
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()


def get(reactor: Any, source: Source) -> Deferred[Any]:
    """The JSON at ``source``. Errs with `FetchError`."""
    if source.path:
        endpoint: Any = UNIXClientEndpoint(reactor, source.path, timeout=TIMEOUT)
    else:
        kind = TCP6ClientEndpoint if ":" in source.host else TCP4ClientEndpoint
        endpoint = kind(reactor, source.host, source.port, timeout=TIMEOUT)
    getting = _Getting(source)
    answer: Deferred[Any] = connectProtocol(endpoint, getting)
    answer.addCallback(lambda _: getting.done)
    answer.addTimeout(TIMEOUT, reactor, onTimeoutCancel=_timed_out)
    return answer.addCallbacks(_read, _explain)


def _timed_out(result: Any, timeout: float) -> Any:
    raise FetchError(f"no answer within {timeout:g} s")


def _read(data: bytes) -> Any:
    try:
        found = json.loads(data)
    except ValueError:
        raise FetchError("its answer is not JSON") from None
    if not isinstance(found, dict):
        raise FetchError("its answer is not a status")
    return found


def _explain(failure: Failure) -> Any:
    if failure.check(FetchError):
        return failure
    error = getattr(failure.value, "osError", None)
    raise FetchError(getattr(error, "strerror", None) or failure.getErrorMessage())
