"""A server that falls sick when it is told to, in a process of its own: HTTP or FastCGI.

``python -m tests.support.sick http|fastcgi PORT`` answers ``/any/SIZE-NAME`` with the body of
`tests.support.load`. A line on stdin is the mode from then on; the answer to it is the number of
requests so far. `Sick` is that process for a test.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import struct
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from imagefarm.fastcgi import records as fcgi

from .load import make_body
from .processes import accepts, wait_until

#: What the modes do, with ``name: how the answer is sent``.
MODES = {
    "good": "as it should be",
    "error": "status 500",
    "hang": "not at all",
    "close": "not at all: the connection is closed when the request has come",
    "reset": "not at all: the connection is reset",
    "garbage": "something else is",
    "truncate": "half of it, then the connection is closed",
    "drip": "a byte a second",
    "drip body": "the head and a little more at once, then a byte a second",
    "pieces": "all of it, in pieces and with pauses of any size",
    "fickle": "all of it, but the connection is closed then, at once or a little later",
    "slow": "all of it, with a pause in the middle of the head",
}
#: A piece of the target.
_SIZE = re.compile(r"/(\d+)-")


@lru_cache
def good(protocol: str, target: str, status: str = "200 OK") -> bytes:
    """The whole answer."""
    found = _SIZE.search(target)
    body = make_body(target, int(found[1]) if found else 0)
    fields = (
        "Content-Type: image/jpeg\r\nX-Slave: sick\r\n"
        f"Last-Modified: Sat, 05 Nov 1994 08:49:37 GMT\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    if protocol == "http":
        return f"HTTP/1.1 {status}\r\nServer: sick\r\n{fields}".encode() + body
    out = fcgi.RecordType.STDOUT
    data = fcgi.encode_stream(out, 1, f"Status: {status}\r\n{fields}".encode() + body)
    return data + fcgi.encode_record(out, 1) + fcgi.encode_end(1, 0)


class _Server:
    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self.mode = "good"
        self.asked = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        read = self._http if self.protocol == "http" else self._fastcgi
        records = fcgi.RecordReader()
        with contextlib.suppress(OSError, EOFError):
            while True:
                target = await read(reader, records)
                self.asked += 1
                if not await self._answer(writer, target):
                    break
        if self.mode == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()

    async def _http(self, reader: asyncio.StreamReader, records: Any) -> str:
        return (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()

    async def _fastcgi(self, reader: asyncio.StreamReader, records: fcgi.RecordReader) -> str:
        params = b""
        while True:
            data = await reader.read(65536)
            if not data:
                raise EOFError
            for record in records.feed(data):
                if record.type == fcgi.RecordType.PARAMS:
                    params += record.content
                elif record.type == fcgi.RecordType.STDIN and not record.content:
                    return dict(fcgi.decode_pairs(params))[b"REQUEST_URI"].decode()

    async def _answer(self, writer: asyncio.StreamWriter, target: str) -> bool:
        """Whether the connection goes on."""
        mode = self.mode
        data = good(self.protocol, target, "500 Sick" if mode == "error" else "200 OK")
        if mode in ("good", "error"):
            writer.write(data)
        elif mode == "hang":
            await asyncio.sleep(60)
        elif mode in ("close", "reset"):
            return False
        elif mode == "garbage":
            writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        elif mode == "truncate":
            writer.write(data[: len(data) // 2])
            return False
        elif mode == "pieces":
            await self._pieces(writer, data)
        elif mode == "slow":
            await self._parts(writer, data, [random.randrange(1, 100)], 0.02)
        elif mode == "fickle":
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(random.choice((0, 0, 0.001, 0.003)))
            return random.random() < 0.5
        else:
            at = 0 if mode == "drip" else 300
            writer.write(data[:at])
            await self._parts(writer, data[at:], range(1, len(data) - at), 1.0)
        await writer.drain()
        return True

    async def _pieces(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        cuts = {random.randrange(1, 400), *(random.randrange(1, len(data)) for _ in range(2))}
        await self._parts(writer, data, sorted(cuts), random.choice((0, 0.002)))

    @staticmethod
    async def _parts(writer: asyncio.StreamWriter, data: bytes, cuts: Any, pause: float) -> None:
        start = 0
        for cut in (*cuts, len(data)):
            writer.write(data[start:cut])
            start = cut
            await writer.drain()
            await asyncio.sleep(pause)

    async def run(self, port: int) -> None:
        """Serve, and do what stdin says, until it ends."""
        loop = asyncio.get_running_loop()
        commands = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        await asyncio.start_server(self.serve, "127.0.0.1", port, backlog=1024)
        while line := (await commands.readline()).decode().strip():
            if line != "count":
                self.mode = line
            sys.stdout.write(f"{self.asked}\n")
            sys.stdout.flush()


class Sick:
    """The process, listening on ``port``; good at first."""

    def __init__(self, protocol: str, port: int) -> None:
        self.port = port
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.sick", protocol, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            start_new_session=True,
        )
        wait_until(lambda: accepts(port), what="sick server")

    def be(self, mode: str) -> int:
        """Change the mode; returns the number of requests so far."""
        assert mode in MODES, mode
        return self._command(mode)

    @property
    def asked(self) -> int:
        """The number of requests so far."""
        return self._command("count")

    def _command(self, line: str) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


if __name__ == "__main__":
    asyncio.run(_Server(sys.argv[1]).run(int(sys.argv[2])))
