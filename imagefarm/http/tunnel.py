"""A connection that has changed its protocol (101): what the client sends from then on.

The answer's body is what the client gets; here is the other direction. Each may end before the
other one: the end is passed on, and the connection closes when both have ended.
"""

from __future__ import annotations

from collections.abc import Callable

from .body import RequestBody


class TunnelBody(RequestBody):
    """A `BodyStream` of all that comes, until the client's end of it.

    ``over`` is called once, when it has been delivered whole or nobody wants the rest.
    """

    __slots__ = ("_over",)

    #: Silence is no fault of the client's: the upstream's idle time counts.
    timed = False

    def __init__(
        self, on_demand: Callable[[], None], buffer: Callable[[], int], over: Callable[[], None]
    ) -> None:
        super().__init__(None, lambda: 0, on_demand, buffer)
        self._decoder = None
        self._over: Callable[[], None] | None = over

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the socket; all of them belong to it."""
        self.received += len(data)
        if not self._stopped and not self.complete:
            self._queue.append(data)
            self._queued += len(data)
            self._deliver()
        return b""

    def finish(self) -> None:
        """The client will send no more."""
        self.complete = True
        self._deliver()

    def cancel(self) -> None:
        """Nobody wants the rest."""
        super().cancel()
        self._tell()

    @property
    def ended(self) -> bool:
        """Whether ``over`` has been called."""
        return self._over is None

    def _deliver(self) -> None:
        super()._deliver()
        if self._stopped:
            self._tell()

    def _tell(self) -> None:
        over, self._over = self._over, None
        if over is not None:
            over()
