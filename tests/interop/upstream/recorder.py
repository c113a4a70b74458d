"""An HTTP server that keeps what it is sent and answers with bytes that a test has chosen."""

from __future__ import annotations

import contextlib
import socket
import threading

SECONDS = 10.0


class Recorder:
    """On a port of its own, or at ``path``. After each answer the connection is closed."""

    def __init__(self, path: str = "") -> None:
        self.answer = b""
        self.seen: list[bytes] = []
        #: Connections that were asked a second time, or sent more than was asked.
        self.again = 0
        if path:
            self._sock = socket.socket(socket.AF_UNIX)
            self._sock.bind(path)
            self._sock.listen()
        else:
            self._sock = socket.create_server(("127.0.0.1", 0))
        self.port = 0 if path else self._sock.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        self._sock.close()

    def take(self) -> list[bytes]:
        """What was sent since the last time."""
        seen, self.seen = self.seen, []
        return seen

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._sock.accept()
            except OSError:
                return
            client.settimeout(SECONDS)
            with client, contextlib.suppress(OSError):
                request = read_request(client)
                if request:
                    self.seen.append(request)
                    client.sendall(self.answer)


def read_request(client: socket.socket) -> bytes:
    """One request, with its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(65536)
        if not more:
            return data
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lines = [line.partition(b":") for line in head.lower().split(b"\r\n")[1:]]
    fields = {name: value.strip() for name, _, value in lines}
    length = int(fields.get(b"content-length", b"0"))
    chunked = fields.get(b"transfer-encoding") == b"chunked"
    while len(body) < length or (chunked and not body.endswith(b"0\r\n\r\n")):
        more = client.recv(65536)
        if not more:
            break
        body += more
    return head + b"\r\n\r\n" + body
