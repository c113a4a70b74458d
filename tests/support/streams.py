"""Bodies of any size that neither side keeps: one block again and again, checked as it comes.

Run as a program it is an origin: ``python -m tests.support.streams HTTP_PORT FASTCGI_PORT``.

- ``GET /bytes/N``, ``/chunked/N``, ``/close/N``: N bytes, framed like that. ``?rate=R`` slows them
  down to R bytes a second, ``?short=S`` leaves S of them out, ``?more=S`` sends S too many,
  ``?field=`` and ``?trailer=`` add lines;
- ``POST /upload``: reads the body; the answer says how long it was, ``good`` or ``bad``, and how
  it was framed. ``?rate=R`` reads slowly;
- ``GET /requests``: how many requests there have been, and how many are being answered.

The FastCGI port knows ``/bytes/N`` and ``/upload``.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
import threading
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

#: A megabyte in which no two places look alike.
BLOCK = random.Random(4).randbytes(1 << 20)
_TWICE = memoryview(BLOCK + BLOCK)
#: Divides the block.
_RECORD = 1 << 15


class Checker:
    """Takes a body in pieces; ``good`` as long as it is the one that `pieces` makes."""

    def __init__(self) -> None:
        self.count = 0
        self.good = True

    def feed(self, data: bytes | memoryview) -> None:
        at = 0
        while at < len(data):
            start = self.count % len(BLOCK)
            piece = data[at : at + len(BLOCK)]
            self.good = self.good and _TWICE[start : start + len(piece)] == piece
            self.count += len(piece)
            at += len(piece)


def pieces(count: int, size: int = len(BLOCK)) -> Any:
    """A body of ``count`` bytes in pieces of ``size`` at most, which divides the block."""
    at = 0
    while at < count:
        start = at % len(BLOCK)
        piece = _TWICE[start : start + min(size, count - at)]
        at += len(piece)
        yield piece


class _Gone(Exception):
    pass


class _Reader:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""

    def more(self, size: int = 1 << 18) -> None:
        data = self.sock.recv(size)
        if not data:
            raise _Gone
        self.buffer += data

    def until(self, end: bytes) -> bytes:
        while end not in self.buffer:
            self.more()
        found, _, self.buffer = self.buffer.partition(end)
        return found

    def exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self.more()
        found, self.buffer = self.buffer[:count], self.buffer[count:]
        return found

    def some(self, most: int) -> bytes:
        if not self.buffer:
            self.more()
        found, self.buffer = self.buffer[:most], self.buffer[most:]
        return found


class Origin:
    def __init__(self) -> None:
        self.requests = 0
        self.active = 0

    def serve(self, port: int, handle: Any) -> None:
        listener = socket.create_server(("127.0.0.1", port), backlog=64)
        threading.Thread(target=self._accept, args=(listener, handle), daemon=True).start()

    def _accept(self, listener: socket.socket, handle: Any) -> None:
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=self._run, args=(sock, handle), daemon=True).start()

    def _run(self, sock: socket.socket, handle: Any) -> None:
        reader = _Reader(sock)
        try:
            with sock:
                while handle(sock, reader):
                    pass
        except (_Gone, OSError):
            pass

    # HTTP

    def http(self, sock: socket.socket, reader: _Reader) -> bool:
        head = reader.until(b"\r\n\r\n").decode("latin-1")
        line, *fields = head.split("\r\n")
        headers = {name.lower(): value for name, _, value in (f.partition(": ") for f in fields)}
        target = line.split(" ")[1]
        self.requests += 1
        self.active += 1
        try:
            url = urlsplit(target)
            query = parse_qs(url.query, keep_blank_values=True)
            if url.path == "/requests":
                text = f"{self.requests} {self.active - 1}"
                _answer(sock, text)
                return True
            if url.path == "/upload":
                return self._upload(sock, reader, headers, query)
            return self._download(sock, url.path, query)
        finally:
            self.active -= 1

    def _upload(self, sock: Any, reader: _Reader, headers: Any, query: Any) -> bool:
        checker = Checker()
        rate = int(query.get("rate", "0")[0])
        if "content-length" in headers:
            framing = "length"
            left = int(headers["content-length"])
            while left:
                piece = reader.some(left)
                left -= len(piece)
                checker.feed(piece)
                _sleep(len(piece), rate)
        else:
            framing = headers["transfer-encoding"]
            while size := int(reader.until(b"\r\n"), 16):
                checker.feed(reader.exactly(size))
                _sleep(size, rate)
                reader.exactly(2)
            reader.until(b"\r\n")
        _answer(sock, f"{checker.count} {'good' if checker.good else 'bad'} {framing}")
        return True

    def _download(self, sock: socket.socket, path: str, query: Any) -> bool:
        _, kind, number = path.split("/")
        count = int(number)
        rate = int(query.get("rate", "0")[0])
        framing = {
            "bytes": f"Content-Length: {count}\r\n",
            "chunked": "Transfer-Encoding: chunked\r\n",
            "close": "Connection: close\r\n",
        }[kind]
        extra = "".join(f"{v}\r\n" for v in query.get("field", ()))
        sock.sendall(f"HTTP/1.1 200 OK\r\n{framing}{extra}\r\n".encode())
        wanted = count - int(query.get("short", "0")[0]) + int(query.get("more", "0")[0])
        for piece in pieces(wanted, 1 << 14 if rate else len(BLOCK)):
            if kind == "chunked":
                sock.sendall(b"%x\r\n" % len(piece))
            sock.sendall(piece)
            if kind == "chunked":
                sock.sendall(b"\r\n")
            _sleep(len(piece), rate)
        if wanted < count:
            return False
        if kind == "chunked":
            trailers = "".join(f"{v}\r\n" for v in query.get("trailer", ()))
            sock.sendall(f"0\r\n{trailers}\r\n".encode())
        return kind != "close"

    # FastCGI

    def fastcgi(self, sock: socket.socket, reader: _Reader) -> bool:
        params = b""
        checker = Checker()
        self.requests += 1
        while True:
            _, kind, _, size, padding, _ = struct.unpack("!BBHHBB", reader.exactly(8))
            content = reader.exactly(size + padding)[:size]
            if kind == 4:
                params += content
            elif kind == 5 and content:
                checker.feed(content)
            elif kind == 5:
                break
        path = _params(params)["PATH"].partition("?")[0]
        if path == "/upload":
            verdict = f"{checker.count} {'good' if checker.good else 'bad'} fastcgi"
            _records(sock, f"Content-Length: {len(verdict)}\r\n\r\n{verdict}".encode())
        else:
            count = int(path.split("/")[2])
            _records(sock, f"Content-Length: {count}\r\n\r\n".encode())
            wire = b"".join(
                _header(6, _RECORD) + BLOCK[at : at + _RECORD]
                for at in range(0, len(BLOCK), _RECORD)
            )
            for _ in range(count // len(BLOCK)):
                sock.sendall(wire)
            for piece in pieces(count % len(BLOCK), _RECORD):
                _records(sock, bytes(piece))
        sock.sendall(_header(6, 0) + _header(3, 8) + bytes(8))
        return False


def _sleep(count: int, rate: int) -> None:
    if rate:
        time.sleep(count / rate)


def _answer(sock: socket.socket, text: str) -> None:
    sock.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())


def _header(kind: int, size: int) -> bytes:
    return struct.pack("!BBHHBB", 1, kind, 1, size, 0, 0)


def _records(sock: socket.socket, data: bytes) -> None:
    sock.sendall(_header(6, len(data)) + data)


def _params(data: bytes) -> dict[str, str]:
    found = {}
    while data:
        sizes = []
        for _ in range(2):
            size = data[0]
            if size & 0x80:
                size = int.from_bytes(data[:4], "big") & 0x7FFFFFFF
                data = data[4:]
            else:
                data = data[1:]
            sizes.append(size)
        name, value = data[: sizes[0]], data[sizes[0] : sum(sizes)]
        data = data[sum(sizes) :]
        found[name.decode()] = value.decode()
    return found


def main() -> None:
    origin = Origin()
    origin.serve(int(sys.argv[1]), origin.http)
    origin.serve(int(sys.argv[2]), origin.fastcgi)
    threading.Event().wait()


if __name__ == "__main__":
    main()
