"""The body of an upstream's response on its way to whoever asked for it."""

from __future__ import annotations

from typing import Protocol

from imagefarm.http.message import BodySink


class BodyOwner(Protocol):
    """The connection, as its body sees it."""

    def hold(self, body: ResponseBody) -> None:
        """Read no more for now."""

    def flow(self, body: ResponseBody) -> None:
        """Read on."""

    def drop(self, body: ResponseBody) -> None:
        """Nobody wants the rest."""


class ResponseBody:
    """A `BodyStream`. What the connection had read before it could be stopped waits here."""

    __slots__ = ("_complete", "_error", "_length", "_owner", "_paused", "_pending", "_sink")

    def __init__(self, owner: BodyOwner, length: int | None, chunks: list[bytes]) -> None:
        self._owner = owner
        self._length = length
        self._pending = chunks
        self._sink: BodySink | None = None
        self._paused = False
        self._complete = False
        self._error: Exception | None = None

    @property
    def length(self) -> int | None:
        """`BodyStream`."""
        return self._length

    def start(self, sink: BodySink) -> None:
        """`BodyStream`."""
        self._sink = sink
        self._go()

    def pause(self) -> None:
        """`BodyStream`."""
        if not self._paused:
            self._paused = True
            self._owner.hold(self)

    def resume(self) -> None:
        """`BodyStream`."""
        if self._paused:
            self._paused = False
            if self._sink is not None:
                self._go()

    def cancel(self) -> None:
        """`BodyStream`."""
        self._sink = None
        self._pending = []
        self._owner.drop(self)

    def settle(self) -> None:
        """The response was handed over; wait if nobody has started to read."""
        if self._sink is None or self._paused:
            self._owner.hold(self)

    def push(self, chunks: list[bytes], *, complete: bool) -> None:
        """The connection read ``chunks``."""
        self._complete = complete
        self._pending += chunks
        self._flush()

    def broken(self, error: Exception) -> None:
        """The connection broke off."""
        self._error = error
        self._flush()

    def _go(self) -> None:
        self._flush()
        if self._sink is not None and not self._paused:
            self._owner.flow(self)

    def _flush(self) -> None:
        pending = self._pending
        at = 0
        while at < len(pending) and self._sink is not None and not self._paused:
            at += 1
            self._sink.data(pending[at - 1])
        del pending[:at]
        sink = self._sink
        if sink is None or self._paused or self._pending:
            return
        if self._error is not None:
            self._sink = None
            sink.fail(self._error)
        elif self._complete:
            self._sink = None
            sink.end()
