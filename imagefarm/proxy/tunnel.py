"""The client's bytes on their way through a connection that has changed its protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from imagefarm.http.message import BodyStream, Traffic


@implementer(IPushProducer)
class TunnelWriter:
    """Takes the place of the `RequestWriter`.

    ``alive`` is called for every piece, ``ended`` when the client will send no more.
    """

    #: The request itself was written long ago.
    done = True
    stalled = False

    def __init__(
        self,
        transport: Any,
        source: BodyStream,
        traffic: Traffic,
        *,
        alive: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._source: BodyStream | None = source
        self._traffic = traffic
        self._alive = alive
        self._ended = ended
        self._registered = False
        #: The client's end has come.
        self.over = False

    def start(self) -> None:
        """Let it flow."""
        source = self._source
        if source is not None:
            self._transport.registerProducer(self, True)
            self._registered = True
            source.start(self)

    def cancel(self) -> None:
        """The connection takes no more."""
        self._unregister()
        source, self._source = self._source, None
        if source is not None:
            source.cancel()

    # -- BodySink

    def data(self, chunk: bytes) -> None:
        """Some bytes."""
        self._traffic.sent += len(chunk)
        self._alive()
        self._transport.write(chunk)

    def end(self) -> None:
        """The client has ended its side."""
        self._unregister()
        self._source = None
        self.over = True
        self._ended()

    def fail(self, error: Exception) -> None:
        """The client has gone; the answer's body tells of that as well."""
        self._unregister()
        self._source = None

    # -- IPushProducer

    def pauseProducing(self) -> None:
        """The transport is full."""
        if self._source is not None:
            self._source.pause()

    def resumeProducing(self) -> None:
        """The transport has drained."""
        if self._source is not None:
            self._source.resume()

    def stopProducing(self) -> None:
        """The transport is gone; the connection calls `cancel`."""
        self._registered = False

    def _unregister(self) -> None:
        if self._registered:
            self._registered = False
            self._transport.unregisterProducer()
