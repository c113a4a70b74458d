"""Clients that stall, many at a time, and what becomes of them."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Sequence

#: A client's receive buffer: small, so that a server feels at once that nobody reads.
RECEIVE_BUFFER = 4096


def connect(port: int) -> socket.socket:
    """A client whose buffer is small."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    sock.settimeout(10)
    sock.connect(("127.0.0.1", port))
    return sock


class Stalled:
    """Connections that said ``data`` and then stall; knows when each of them was cut off.

    They read nothing: what the server sends stays in the buffers. Times are seconds since
    ``data`` was sent.
    """

    def __init__(self, port: int, requests: Sequence[bytes]) -> None:
        self._poll = select.poll()
        self._since: dict[int, float] = {}
        self._sockets: dict[int, socket.socket] = {}
        self.ended: list[float] = []
        for data in requests:
            sock = connect(port)
            sock.sendall(data)
            self._sockets[sock.fileno()] = sock
            self._since[sock.fileno()] = time.monotonic()
            self._poll.register(sock, select.POLLRDHUP)

    @property
    def left(self) -> int:
        """How many the server still holds."""
        return len(self._sockets)

    def look(self, seconds: float = 0.0) -> None:
        """Note which have been cut off."""
        for number, _ in self._poll.poll(seconds * 1000):
            self._poll.unregister(number)
            self.ended.append(time.monotonic() - self._since[number])
            self._sockets.pop(number).close()

    def wait(self, seconds: float, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Look, and do something else in turns, until none is left or the time is over."""
        end = time.monotonic() + seconds
        while self._sockets and time.monotonic() < end:
            self.look(0.01)
            meanwhile()

    def send(self, data: bytes) -> None:
        """Say some more."""
        for sock in self._sockets.values():
            try:
                sock.sendall(data)
            except OSError:
                pass  # cut off a moment ago

    def close(self) -> None:
        """Let go of the rest."""
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()
