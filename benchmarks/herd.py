"""Many simultaneous requests for one cold key: when does the last of them have its answer?

The origin and all clients are one loop in this process, so that one clock times both.
"""

from __future__ import annotations

import select
import socket
import time
from dataclasses import dataclass, field

#: How long nothing must have happened before all are taken to be waiting, in seconds.
_CALM = 0.3
_LISTEN = 512


@dataclass
class Herd:
    """What one herd saw: requests to the origin, right answers, and when they came.

    ``arrivals`` are seconds from when the origin's answer was written, one for each client.
    """

    asked: int = 0
    right: int = 0
    arrivals: list[float] = field(default_factory=list)


def stampede(port: int, origin: socket.socket, clients: int, body: bytes) -> Herd:
    """Let ``clients`` ask the server at ``port`` for a new path, then answer them.

    ``origin`` is a listening socket, the server's upstream, which answers ``body`` once all
    clients have been waiting for a while.
    """
    return _Stampede(port, origin, clients, body).run()


class _Stampede:
    def __init__(self, port: int, origin: socket.socket, clients: int, body: bytes) -> None:
        self.herd = Herd()
        self.body = body
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        self.origin = origin
        self.poll = select.epoll()
        self.poll.register(origin, select.EPOLLIN)
        self.upstreams: dict[int, socket.socket] = {}
        self.held: list[socket.socket] = []
        self.answered: float | None = None
        self.clients: dict[int, tuple[socket.socket, bytearray]] = {}
        request = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % time.time_ns()
        sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(clients)]
        time.sleep(_CALM)  # all are accepted
        for sock in sockets:
            self.clients[sock.fileno()] = sock, bytearray()
            self.poll.register(sock, select.EPOLLIN)
            sock.sendall(request)

    def run(self) -> Herd:
        end = time.monotonic() + 30
        while self.clients and time.monotonic() < end:
            events = self.poll.poll(_CALM)
            if not events and self.held and self.answered is None:
                self.answered = time.perf_counter()
            for fd, _ in events:
                self._event(fd)
            if self.answered is not None:
                while self.held:
                    self.held.pop().sendall(self.answer)
        for sock in [*self.upstreams.values(), *(sock for sock, _ in self.clients.values())]:
            sock.close()
        self.poll.close()
        return self.herd

    def _event(self, fd: int) -> None:
        if fd == self.origin.fileno():
            sock = self.origin.accept()[0]
            self.upstreams[sock.fileno()] = sock
            self.poll.register(sock, select.EPOLLIN)
        elif fd in self.upstreams:
            sock = self.upstreams[fd]
            if sock.recv(65536):
                self.herd.asked += 1
                self.held.append(sock)
            else:
                self.poll.unregister(fd)
                self.upstreams.pop(fd).close()
        else:
            self._client(fd)

    def _client(self, fd: int) -> None:
        sock, data = self.clients[fd]
        chunk = sock.recv(65536)
        data += chunk
        if chunk and not data.endswith(self.body):
            return
        self.herd.arrivals.append(time.perf_counter() - (self.answered or 0.0))
        head, _, body = bytes(data).partition(b"\r\n\r\n")
        self.herd.right += head.startswith(b"HTTP/1.1 200") and body == self.body
        self.poll.unregister(fd)
        del self.clients[fd]
        sock.close()
