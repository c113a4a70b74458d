"""The parent's end of the socket that a worker has as its standard input and output.

A socket pair and not two pipes: a whole picture fits into its buffer, so a worker is free as soon
as it has written it, and the parent reads it in a few pieces; what the parent has to say fits
always, so it is sent at once, without a turn of the event loop.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

_log: Final = Logger(namespace="imagefarm.image")
#: Bytes of an answer that may lie between worker and parent, where the system allows as many.
BUFFER = 1 << 20
#: Bytes that are read at a time, into a buffer that stays.
_PIECE = 1 << 17


@implementer(IReadDescriptor)
class Channel:
    """``received`` is called with what the worker says, while the channel is open."""

    def __init__(self, reactor: Any, received: Callable[[memoryview], object]) -> None:
        self._reactor = reactor
        self._received = received
        self._buffer = memoryview(bytearray(_PIECE))
        #: Whether the worker ended without having read all that was sent (unix(7), ECONNRESET).
        self.unread = False
        self._ours, self.theirs = socket.socketpair()
        self._ours.setblocking(False)
        self.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        reactor.addReader(self)

    def started(self) -> None:
        """The worker has its end now."""
        self.theirs.close()

    def send(self, message: bytes) -> bool:
        """Whether the worker will get it: not if it has died, or left too much unread."""
        try:
            return self._ours.send(message) == len(message)
        except OSError:
            return False  # it has died; that it has is told by its process

    def finish(self) -> None:
        """Nothing more will be sent: the worker ends when it has read everything."""
        try:
            self._ours.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it was quicker

    def drain(self) -> None:
        """The process is gone: read what it has said before, and close."""
        while self._read():
            pass
        self._close()

    def fileno(self) -> int:
        """`IReadDescriptor`."""
        return self._ours.fileno()

    def read_ready(self) -> None:
        """The loop: the worker says something. Never raises (`process.loop`)."""
        try:
            self.doRead()
        except Exception:
            _log.failure("while reading from a worker")

    def doRead(self) -> None:
        """`IReadDescriptor`."""
        if self._read() == 0:
            self._reactor.removeReader(self)

    def _read(self) -> int | None:
        """The number of bytes read, 0 at the end, None where one has to wait."""
        try:
            count = self._ours.recv_into(self._buffer)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            self.unread = True
            return 0
        except OSError:
            return 0
        if count:
            self._received(self._buffer[:count])
        return count

    def connectionLost(self, reason: Failure) -> None:
        """`IReadDescriptor`: the reactor gives up on it."""
        self._close()

    def _close(self) -> None:
        if self._ours.fileno() >= 0:
            self._reactor.removeReader(self)
            self._ours.close()
        self.theirs.close()

    def logPrefix(self) -> str:
        """`IReadDescriptor`."""
        return "worker"

    def __repr__(self) -> str:
        return f"<Channel {'open' if self._ours.fileno() >= 0 else 'closed'}>"
