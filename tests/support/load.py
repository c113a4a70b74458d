"""A steady load in a process of its own, whatever the server does: an open loop.

Run as a program, ``python -m tests.support.load PORT RATE KEPT TARGET...``, it asks for the
targets in turn, RATE times a second, on kept connections: on one that is free, or else on a new
one; KEPT times on each (0: for as long as the server likes). For a line on its stdin it writes
how many answers it has seen, and when stdin ends it ends, and writes all that it has seen. `Load`
is that process for a test.

Each body names its target and carries its own digest (`make_body`), so that nothing but the whole
right one counts as good; where the target has a query, a whole JPEG does.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

#: More are an answer of their own: the server can't keep up.
MAX_CONNECTIONS = 1500
#: Seconds after which an answer will not come any more.
PATIENCE = 10.0
#: A turn of the loop that takes longer, in seconds, is one for which there was no processor.
ASLEEP = 0.1


class Answer(NamedTuple):
    """When a request was made, and the seconds until it was answered, by ``time.monotonic``.

    ``outcome`` is "good" with the name of the slave that answered, "status 502", "broken" (a body
    that ended too early, so that it shows), "wrong" (a whole body, but not the right one),
    "excess", "no answer" or "late".
    """

    asked: float
    took: float
    target: str
    outcome: str


def make_body(target: str, size: int) -> bytes:
    """The body for a target: a digest of the rest, the target, and bytes of its own."""
    rest = target.encode() + b"\n"
    rest += hashlib.shake_128(rest).digest(size)
    return hashlib.sha1(rest).hexdigest().encode() + rest


def is_body(body: bytes, target: str) -> bool:
    """Whether it is the whole body for the target."""
    if "?" in target:
        return body.startswith(b"\xff\xd8") and body.endswith(b"\xff\xd9")
    digest, rest = body[:40], body[40:]
    named = rest.startswith(target.encode() + b"\n")
    return named and hashlib.sha1(rest).hexdigest().encode() == digest


class _Client:
    """One connection, and its request if it has one."""

    def __init__(self, port: int) -> None:
        self.sock = socket.socket()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.settimeout(5)
        self.sock.connect(("127.0.0.1", port))
        self.sock.setblocking(False)
        self.target = ""
        self.asked = 0.0
        self.pieces: list[bytes] = []
        self.missing = -1
        self.requests = 0
        #: Whether there is no other request after this.
        self.last = False

    def ask(self, target: str, now: float, kept: int) -> None:
        self.target, self.asked = target, now
        self.pieces, self.missing = [], -1
        self.requests += 1
        self.last = self.requests == kept
        close = "Connection: close\r\n" if self.last else ""
        self.sock.send(f"GET {target} HTTP/1.1\r\nHost: h\r\n{close}\r\n".encode())

    def read(self) -> str:
        """The outcome of its request, or nothing yet."""
        try:
            data = self.sock.recv(1 << 18)
        except BlockingIOError:
            return ""
        except OSError:
            data = b""
        if not data:
            return "broken" if self.missing > 0 else "no answer"
        self.pieces.append(data)
        if self.missing < 0:
            whole = b"".join(self.pieces)
            head, found, body = whole.partition(b"\r\n\r\n")
            if not found:
                return ""
            fields = dict(
                line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line
            )
            self.last = self.last or fields.get(b"connection") == b"close"
            self.missing = int(fields.get(b"content-length", -1)) - len(body)
            self.pieces = [head, body]
        else:
            self.missing -= len(data)
        return self._judge() if self.missing <= 0 else ""

    def _judge(self) -> str:
        head, body = self.pieces[0], b"".join(self.pieces[1:])
        if self.missing < 0 or not head.startswith(b"HTTP/1.1 "):
            return "excess"
        if head[9:12] != b"200":
            return f"status {head[9:12].decode()}"
        if not is_body(body, self.target):
            return "wrong"
        peer = head.lower().partition(b"\r\nx-slave: ")[2].partition(b"\r\n")[0]
        return f"good {peer.decode()}"


class _Generator:
    """The loop."""

    def __init__(self, port: int, rate: float, kept: int, targets: list[str]) -> None:
        self._port, self._rate, self._kept, self._targets = port, rate, kept, targets
        self._poll = select.epoll()
        self._free: list[_Client] = []
        self._busy: dict[int, _Client] = {}
        self._answers: list[Answer] = []
        self._count = 0
        self._asleep = 0.0

    def run(self) -> None:
        self._poll.register(0, select.EPOLLIN)
        before = started = time.monotonic()
        while True:
            now = time.monotonic()
            if now - before > ASLEEP:
                self._asleep += now - before
            before = now
            due = int((now - started) * self._rate)
            while self._count < due:
                self._offer(now)
            wait = started + (self._count + 1) / self._rate - now
            for number, _ in self._poll.poll(max(0.0, wait)):
                if number:
                    self._read(number)
                elif os.read(0, 100):
                    sys.stdout.write(f"{len(self._answers)}\n")
                    sys.stdout.flush()
                else:
                    self._finish(started)
                    return

    def _offer(self, now: float) -> None:
        target = self._targets[self._count % len(self._targets)]
        self._count += 1
        while self._free:
            client = self._free.pop()
            try:
                client.ask(target, now, self._kept)
            except OSError:
                self._drop(client)  # the server has closed it while it was idle
                continue
            self._busy[client.sock.fileno()] = client
            return
        if len(self._busy) >= MAX_CONNECTIONS:
            self._answers.append(Answer(now, 0.0, target, "too many"))
            return
        client = _Client(self._port)
        self._poll.register(client.sock, select.EPOLLIN)
        self._busy[client.sock.fileno()] = client
        client.ask(target, now, self._kept)

    def _read(self, number: int) -> None:
        client = self._busy.get(number)
        if client is None:
            # Something on an idle connection: the end of it, or what nobody has asked for.
            client = next(c for c in self._free if c.sock.fileno() == number)
            self._free.remove(client)
            if client.sock.recv(1):
                self._answers.append(Answer(time.monotonic(), 0.0, client.target, "excess"))
            self._drop(client)
            return
        outcome = client.read()
        if not outcome:
            return
        now = time.monotonic()
        self._answers.append(Answer(client.asked, now - client.asked, client.target, outcome))
        del self._busy[number]
        if client.last or outcome in ("broken", "no answer", "excess"):
            self._drop(client)
        else:
            self._free.append(client)

    def _drop(self, client: _Client) -> None:
        self._poll.unregister(client.sock)
        client.sock.close()

    def _finish(self, started: float) -> None:
        ended = time.monotonic()
        self._poll.unregister(0)
        while self._busy and time.monotonic() < ended + PATIENCE:
            for number, _ in self._poll.poll(0.1):
                self._read(number)
        self._answers += [
            Answer(client.asked, PATIENCE, client.target, "late") for client in self._busy.values()
        ]
        found = {"seconds": ended - started, "asleep": self._asleep, "answers": self._answers}
        json.dump(found, sys.stdout)


class Load:
    """The process. After the ``with`` there are ``answers``.

    ``offered`` is the number of requests a second that were made, ``awake`` the share of the time
    in which it could make any. ``kept`` is how often each connection is used, 0 for ever.
    """

    def __init__(self, port: int, rate: float, targets: Sequence[str], kept: int = 0) -> None:
        self._command = [str(port), str(rate), str(kept), *targets]
        self.answers: list[Answer] = []
        self.offered = 0.0
        self.awake = 1.0

    def __enter__(self) -> Load:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.load", *self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            start_new_session=True,
        )
        return self

    def count(self) -> int:
        """The number of answers so far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def __exit__(self, *reason: object) -> None:
        try:
            output, _ = self._process.communicate(timeout=3 * PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
        found = json.loads(output)
        self.answers = [Answer(*answer) for answer in found["answers"]]
        made = sum(answer.outcome != "too many" for answer in self.answers)
        self.offered = made / found["seconds"]
        self.awake = 1 - found["asleep"] / found["seconds"]


if __name__ == "__main__":
    _Generator(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]).run()
