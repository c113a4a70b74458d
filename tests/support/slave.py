"""A slave that falls sick when it is told to: a small HTTP server in a thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from .acceptor import HttpServer

#: What a check asks for; other requests are clients'.
CHECK = "/health"


class Slave:
    """Answers with its name. ``mode`` is good, error, text, hang, or slow (clients' only).

    ``asked`` counts the requests of clients, ``checked`` those of checks. ``release`` ends what
    hangs or is slow.
    """

    def __init__(
        self,
        name: str,
        cleanup: Callable[..., object],
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.name = name
        self.mode = "good"
        self.asked = self.checked = 0
        self.busy = threading.Event()
        self.release = threading.Event()
        slave = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                slave.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = HttpServer(Handler, address)
        self.port: int = self.server.server_address[1]
        cleanup(self.close)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        check = handler.path == CHECK
        if check:
            self.checked += 1
        else:
            self.asked += 1
        mode = self.mode
        if mode == "hang" or (mode == "slow" and not check):
            self.busy.set()
            self.release.wait(30)
        body = self.name.encode()
        handler.send_response(500 if mode == "error" else 200)
        handler.send_header("Content-Type", "text/html" if mode == "text" else "image/jpeg")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handler.wfile.write(body)

    def close(self) -> None:
        self.release.set()
        self.server.close()
