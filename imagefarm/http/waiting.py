"""What a connection is doing, what it waits for, and for how long (on the factory's wheel)."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from .transport import Direct

if TYPE_CHECKING:
    from .factory import HttpFactory


class State(Enum):
    """What the connection is doing."""

    HEAD = "waits for a request"
    BUSY = "a request is being answered"
    DRAIN = "answered; drops the rest of the request's body"
    LINGER = "said its last; drops what still comes, so that the answer is not reset away"
    CLOSED = "closing or closed"


class Wait(Enum):
    """What the deadline is for."""

    NOTHING = "nothing"
    IDLE = "the next request"
    HEADER = "the rest of a head"
    BODY = "more of a request body"
    SEND = "the client to read"
    LINGER = "the client to stop sending"
    CLOSE = "the transport to close"


#: How often in ``send_timeout`` it is looked whether the client takes anything.
LOOKS: Final = 4


class Waiting:
    """A base class of the connection, because an object of its own would cost memory.

    SEND and CLOSE are about progress: their deadline is counted from when the client last took
    something, so that a slow reader is not taken for one that has stopped. What the client's
    system has acknowledged counts, not what ours has room for: a large buffer that is read from
    slowly has no room for long, and one that fills slowly (``limit_rate``) proves nothing. That
    has to be asked; it is, `LOOKS` times in a timeout.
    """

    __slots__ = ("_mark", "_wait", "deadline", "factory", "slot", "transport")

    factory: HttpFactory
    transport: Any
    deadline: float
    slot: int
    _wait: Wait
    #: How much the client had taken at the last look, and when it last took something.
    _mark: tuple[int, float]

    def timed_out(self) -> None:
        """The wheel: the deadline has passed."""
        progress = self._wait is Wait.SEND or self._wait is Wait.CLOSE
        left = self._time_left() if progress else 0.0
        if left > 0:
            self.factory.wheel.schedule(self, min(left, self._send_timeout() / LOOKS))
        else:
            wait, self._wait = self._wait, Wait.NOTHING
            self._expired(wait)

    def _time_left(self) -> float:
        """Seconds from now that the client still has."""
        transport, now = self.transport, self.factory.clock.seconds()
        progress = self._progress()
        if progress != self._mark[0] and transport.moved == self._mark[1]:
            transport.moved = now  # some time since the last look
        self._mark = progress, transport.moved
        left: float = transport.moved + self._send_timeout() - now
        return left

    def _await(self, wait: Wait, seconds: float) -> None:
        """Wait so long for that, and for nothing else."""
        self._wait = wait
        if wait is Wait.SEND or wait is Wait.CLOSE:
            self.transport.moved = self.factory.clock.seconds()
            self._mark = self._progress(), self.transport.moved
            seconds /= LOOKS
        self.factory.wheel.schedule(self, seconds)

    def _await_nothing(self) -> None:
        self._wait = Wait.NOTHING
        self.factory.wheel.cancel(self)

    def _progress(self) -> int:
        """A number that grows as long as the client reads."""
        taken: int = getattr(self.transport, "taken", 0)
        return taken

    def _break_off(self, reset: bool) -> None:
        """Close the socket now; ``reset`` makes sure that the client gets nothing more."""
        if not reset and isinstance(self.transport, Direct):
            self.transport.drop()
        else:
            self.transport.abortConnection()

    def _send_timeout(self) -> float:
        raise NotImplementedError

    def _expired(self, wait: Wait) -> None:
        """Nothing has come of it."""
        raise NotImplementedError
