"""Servers in threads that end when they are closed, with all their connections."""

from __future__ import annotations

import contextlib
import socket
import threading
from http.server import ThreadingHTTPServer
from typing import Any


class Acceptor:
    """Serves each connection in a thread of its own.

    It listens from `open` on, on loopback at ``port`` (0: one of the kernel's choice), or at
    ``path``.
    """

    port = 0

    def serve(self, client: socket.socket) -> object:
        """Have a conversation. The connection is closed then; an OSError ends it too."""
        raise NotImplementedError

    def open(self, path: str = "", *, port: int = 0, host: str = "127.0.0.1") -> None:
        if path:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(path)
            self._listener.listen(128)
        else:
            self._listener = socket.create_server((host, port), backlog=128)
            self.port = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._clients: dict[threading.Thread, socket.socket] = {}
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """Stop listening, end all conversations, and wait for the threads."""
        self._listener.shutdown(socket.SHUT_RDWR)  # a close alone would not wake up accept()
        self._accepting.join()
        self._listener.close()
        with self._lock:
            clients = dict(self._clients)
            for client in clients.values():
                _shut(client)
        for thread in clients:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._run, args=(client,), daemon=True)
            with self._lock:
                self._clients[thread] = client
            thread.start()

    def _run(self, client: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError):
                self.serve(client)
        finally:
            with self._lock:
                del self._clients[threading.current_thread()]
                client.close()


class HttpServer(ThreadingHTTPServer):
    """`serve_forever` in a thread, until `close`."""

    daemon_threads = False  # so that server_close() waits for them
    request_queue_size = 512

    def __init__(self, handler: Any, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        super().__init__(address, handler)
        self._lock = threading.Lock()
        self._clients: set[socket.socket] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._clients.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._clients.discard(request)
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The other side has gone away, which is often the point of a test."""

    def close(self) -> None:
        """Stop listening, end all conversations, and wait for the threads."""
        self.shutdown()
        with self._lock:
            for client in self._clients:
                _shut(client)
        self.server_close()
        self._thread.join()


def _shut(client: socket.socket) -> None:
    """Let both directions end, so that whoever waits for the other side does so no longer."""
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)
