"""A request's body on its way to the application as FCGI_STDIN, with backpressure."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from imagefarm.http.message import BodyStream

from .exchange import Exchange
from .wire import Transport, Watch


@implementer(IPushProducer)
class Upload:
    """`BodySink` of the request's body and producer of the connection that it goes to.

    ``blocked`` watches the time that the application does not take our bytes; a client that
    sends slowly is not the application's fault. ``write`` sends to ``transport``.
    ``sent`` is called when the body is complete, ``failed`` when it broke off. After `cancel`
    neither is.
    """

    def __init__(
        self,
        body: BodyStream,
        exchange: Exchange,
        transport: Transport,
        write: Callable[[bytes], None],
        blocked: Watch,
        *,
        sent: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._body = body
        self._exchange = exchange
        self._transport = transport
        self._write = write
        self._blocked = blocked
        self._sent = sent
        self._failed = failed
        #: Everything has been written, or nothing more will be.
        self.done = False

    def start(self) -> None:
        """Ask for the body; it may all come before this returns."""
        self._transport.registerProducer(self, True)
        if not self.done:
            self._body.start(self)

    def cancel(self) -> None:
        """Nobody reads the rest."""
        if not self.done:
            self._close()
            self._body.cancel()

    def _close(self) -> None:
        self.done = True
        self._blocked.stop()
        self._transport.unregisterProducer()

    def data(self, chunk: bytes) -> None:
        """`BodySink`."""
        if not self.done:
            self._write(self._exchange.stdin(chunk))

    def end(self) -> None:
        """`BodySink`."""
        if not self.done:
            self._write(self._exchange.stdin_end())
            self._close()
            self._sent()

    def fail(self, error: Exception) -> None:
        """`BodySink`."""
        if not self.done:
            self._close()
            self._failed(error)

    def pauseProducing(self) -> None:
        """`IPushProducer`: the connection is behind."""
        if not self.done:
            self._blocked.start()
            self._body.pause()

    def resumeProducing(self) -> None:
        """`IPushProducer`: it has caught up."""
        if not self.done:
            self._blocked.stop()
            self._body.resume()

    def stopProducing(self) -> None:
        """`IPushProducer`: the connection is gone, which its protocol is told as well."""
        self.cancel()
