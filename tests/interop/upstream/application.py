"""A FastCGI application that keeps what it is sent and answers with bytes chosen by a test."""

from __future__ import annotations

import socket
import struct
from typing import Any

from tests.support.acceptor import Acceptor

SECONDS = 10.0
STDOUT, STDERR, END, PARAMS, STDIN = 6, 7, 3, 4, 5


def record(kind: int, content: bytes = b"", *, request_id: int = 1, version: int = 1) -> bytes:
    """A record, without padding."""
    return struct.pack("!BBHHBB", version, kind, request_id, len(content), 0, 0) + content


def whole(stdout: bytes, stderr: bytes = b"") -> bytes:
    """An answer to its end."""
    complaint = record(STDERR, stderr) if stderr else b""
    return complaint + record(STDOUT, stdout) + record(STDOUT) + record(END, bytes(8))


class Application(Acceptor):
    """On a port of its own, or at ``path``; one request a connection."""

    def __init__(self, path: str = "") -> None:
        self.answer = b""
        self.seen: list[Any] = []
        self.open(path)

    def take(self) -> list[Any]:
        """The keep flag, the parameters and the body of each request since the last time."""
        seen, self.seen = self.seen, []
        return seen

    def serve(self, client: socket.socket) -> None:
        client.settimeout(SECONDS)
        request = _read(client)
        if request is not None:
            self.seen.append(request)
            client.sendall(self.answer)


def _read(client: socket.socket) -> Any:
    file = client.makefile("rb")
    keep, params, body = False, b"", b""
    while head := file.read(8):
        _, kind, _, length, padding, _ = struct.unpack("!BBHHBB", head)
        content = file.read(length)
        file.read(padding)
        if kind == 1:
            keep = bool(content[2])
        elif kind == PARAMS:
            params += content
        elif kind == STDIN:
            body += content
            if not content:
                return keep, _pairs(params), body
    return None


def _pairs(data: bytes) -> list[tuple[str, str]]:
    found, at = [], 0
    while at < len(data):
        sizes = []
        for _ in range(2):
            size = data[at]
            if size >> 7:
                size = struct.unpack_from("!I", data, at)[0] & 0x7FFFFFFF
                at += 3
            at += 1
            sizes.append(size)
        name, value = data[at : at + sizes[0]], data[at + sizes[0] : at + sum(sizes)]
        at += sum(sizes)
        found.append((name.decode("latin-1"), value.decode("latin-1")))
    return found
