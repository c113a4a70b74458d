"""An HTTP server that keeps what it is sent and answers with bytes that a test has chosen."""

from __future__ import annotations

import socket

from tests.support.acceptor import Acceptor

SECONDS = 10.0


class Recorder(Acceptor):
    """On a port of its own, or at ``path``. After each answer the connection is closed."""

    def __init__(self, path: str = "") -> None:
        self.answer = b""
        self.seen: list[bytes] = []
        #: Connections that were asked a second time, or sent more than was asked.
        self.again = 0
        self.open(path)

    def take(self) -> list[bytes]:
        """What was sent since the last time."""
        seen, self.seen = self.seen, []
        return seen

    def serve(self, client: socket.socket) -> None:
        client.settimeout(SECONDS)
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
