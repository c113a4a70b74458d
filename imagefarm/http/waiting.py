"""What a connection is doing, what it waits for, and for how long (on the factory's wheel)."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from .timers import NEVER
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


class Waiting:
    """A base class of the connection, because an object of its own would cost memory.

    SEND and CLOSE are about progress: their deadline moves on for as long as bytes have reached
    the socket since it was set, so that a slow reader is not taken for one that has stopped.
    """

    __slots__ = ("_mark", "_wait", "deadline", "factory", "slot", "transport")

    def __init__(self, factory: HttpFactory) -> None:
        self.factory = factory
        self.transport: Any = None
        self.deadline = NEVER
        self.slot = -1
        self._wait = Wait.NOTHING
        self._mark = 0

    def timed_out(self) -> None:
        """The wheel: the deadline has passed."""
        wait, self._wait = self._wait, Wait.NOTHING
        left = self._time_left(wait)
        if left > 0:
            self._await(wait, left)
        else:
            self._expired(wait)

    def _time_left(self, wait: Wait) -> float:
        """Seconds, if the client has read something since the deadline was set."""
        if wait not in (Wait.SEND, Wait.CLOSE) or self._progress() == self._mark:
            return 0.0
        timeout = self._send_timeout()
        moved: float = getattr(self.transport, "moved", 0.0)
        return moved + timeout - self.factory.clock.seconds() if moved else timeout

    def _await(self, wait: Wait, seconds: float) -> None:
        """Wait so long for that, and for nothing else."""
        self._wait = wait
        if wait is Wait.SEND or wait is Wait.CLOSE:
            self._mark = self._progress()
        self.factory.wheel.schedule(self, seconds)

    def _await_nothing(self) -> None:
        self._wait = Wait.NOTHING
        self.factory.wheel.cancel(self)

    def _progress(self) -> int:
        """A number that grows as long as the client reads."""
        written: int = getattr(self.transport, "written", 0)
        return written

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
