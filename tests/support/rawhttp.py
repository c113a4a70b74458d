"""A client that sends bytes as they are and reads exactly one answer: nothing is hidden."""

from __future__ import annotations

import gzip
import socket
import ssl
from dataclasses import dataclass, field

TIMEOUT = 20.0


@dataclass(frozen=True)
class Answer:
    """One response: the head's parts, the body as framed (chunks joined)."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    #: Bytes that came after the answer.
    rest: bytes = b""
    closed: bool = False
    raw: bytes = field(default=b"", repr=False)

    def header(self, name: str) -> str | None:
        values = [v for k, v in self.headers if k.lower() == name.lower()]
        return ", ".join(values) if values else None

    @property
    def plain(self) -> bytes:
        """The body without its content coding."""
        return (
            gzip.decompress(self.body) if self.header("content-encoding") == "gzip" else self.body
        )


def connect(port: int, *, tls: bool = False, server_name: str = "localhost") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), TIMEOUT)
    if not tls:
        return sock
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(sock, server_hostname=server_name)


class Reader:
    """Reads answers one after another from a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""
        self.closed = False
        self.raw = b""

    def _more(self) -> bool:
        try:
            data = self.sock.recv(65536)
        except (ConnectionResetError, ssl.SSLEOFError):
            data = b""
        self.buffer += data
        self.raw += data
        self.closed = self.closed or not data
        return bool(data)

    def _line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            if not self._more():
                raise AssertionError(f"closed in the middle of a line: {self.buffer!r}")
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def _exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            if not self._more():
                raise AssertionError(f"closed {count - len(self.buffer)} bytes before the end")
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def answer(self, method: str = "GET") -> Answer | None:
        """The next answer; None if the connection was closed without one."""
        self.raw = self.buffer
        while not self.buffer:
            if not self._more():
                return None
        _, _, rest = self._line().decode("latin-1").partition(" ")
        status, _, reason = rest.partition(" ")
        headers = []
        while line := self._line().decode("latin-1"):
            name, _, value = line.partition(":")
            headers.append((name, value.strip(" \t")))
        body = self._body(method, int(status), {k.lower(): v for k, v in headers})
        return Answer(int(status), reason, headers, body, self.buffer, self.closed, self.raw)

    def _body(self, method: str, status: int, headers: dict[str, str]) -> bytes:
        if method == "HEAD" or status in (204, 304) or status < 200:
            return b""
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self._line().split(b";")[0], 16):
                body += self._exactly(size)
                assert self._line() == b""
            while self._line():
                pass
            return body
        if "content-length" in headers:
            return self._exactly(int(headers["content-length"]))
        while self._more():
            pass
        body, self.buffer = self.buffer, b""
        return body


def exchange(
    port: int, data: bytes, *, tls: bool = False, server_name: str = "localhost"
) -> Answer | None:
    """Send ``data`` on a new connection, read one answer; notices whether it was closed."""
    with connect(port, tls=tls, server_name=server_name) as sock:
        sock.sendall(data)
        reader = Reader(sock)
        return reader.answer(data.split(b" ", 1)[0].decode("latin-1"))


def request(
    target: str,
    *fields: str,
    method: str = "GET",
    host: str | None = "localhost",
    version: str = "1.1",
    body: bytes = b"",
) -> bytes:
    """A request's bytes; ``fields`` are whole lines."""
    lines = [f"{method} {target} HTTP/{version}"]
    if host is not None:
        lines.append(f"Host: {host}")
    lines += fields
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
