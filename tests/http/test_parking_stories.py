"""Nobody can tell who has been parked: the same stories with parking and without."""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import termios
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.message import Request

from .fakes import text
from .parking import GET, STEP, Bench

REQUESTS = (
    GET % b"/a",
    GET % b"/b" + GET % b"/c",
    GET % b"/plan",
    b"GET /old HTTP/1.0\r\n\r\n",
    b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    b"nonsense\r\n\r\n",
)
CLIENTS = st.integers(0, 3)
STEPS = st.one_of(
    st.tuples(st.just("ask"), CLIENTS, st.sampled_from(REQUESTS)),
    st.tuples(st.just("begin"), CLIENTS, st.sampled_from((b"\r\n", b"GET /a HTT"))),
    st.tuples(st.just("leave"), CLIENTS, st.none()),
    st.tuples(st.just("idle"), st.sampled_from((0.1, 0.3, 0.5, 1.0, 2.5, 6.0)), st.none()),
)


class Story:
    """Clients that do what they are told, and all that they and the log have seen."""

    def __init__(self, awake: int) -> None:
        self.bench = Bench(awake)
        plan = text(b"plan")
        plan.headers_at = lambda _second: plan.headers
        self.bench.app.answers[b"/plan"] = lambda _request: plan
        self.clients: dict[int, socket.socket] = {}
        self.seen: list[object] = []
        self.lines: list[object] = []
        self.most_parked = 0

    def run(self, steps: list[tuple[str, Any, Any]]) -> list[object]:
        try:
            for name, which, data in steps:
                if name == "idle":
                    self._pass_time(which)
                    self._see_closed()
                else:
                    self._act(name, which, data)
                self.most_parked = max(self.most_parked, len(self.bench.lot))
                self.seen.append((self.bench.factory.states(), self.bench.factory.accepted))
            self.bench.factory.drain()
            self._see_closed()
            self.seen += self.lines + self._new_lines()
            return self.seen
        finally:
            self.bench.close()

    def _pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP)):
            self.lines += self._new_lines()
            self.bench.pass_time(STEP)
            # Those that time out at one moment do so in no order.
            self.lines += sorted(self._new_lines(), key=repr)

    def _new_lines(self) -> list[object]:
        done = self.bench.app.done
        new, done[:] = list(map(self._line, done)), []
        return new

    @staticmethod
    def _line(request: Request) -> object:
        outcome = request.outcome
        return (
            request.head.target, outcome.status, outcome.bytes_sent, request.number,
            request.peer.serial, request.peer.address, request.started, request.length,
        )  # fmt: skip

    def _act(self, name: str, which: int, data: bytes) -> None:
        bench = self.bench
        if which not in self.clients:
            self.clients[which] = bench.connect()
        client = self.clients[which]
        if name == "leave":
            del self.clients[which]
            count = bench.factory.count
            client.close()
            bench.until(lambda: bench.factory.count < count)
        else:
            client.sendall(data)
            bench.until(lambda: self._all_read(client))
            if name == "ask" and select.select([client], [], [], 0)[0]:
                self.seen.append((which, client.recv(1 << 20)))
        self._see_closed()

    def _all_read(self, client: socket.socket) -> bool:
        """Whether what was sent has arrived (tty_ioctl(2), tcp(7)) and has been dealt with."""
        on_its_way = struct.unpack("i", fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4)))[0]
        return not on_its_way and not select.select([self.bench.reactor._poller], [], [], 0)[0]

    def _see_closed(self) -> None:
        for which, client in sorted(self.clients.items()):
            if select.select([client], [], [], 0)[0]:
                self.seen.append((which, "closed", client.recv(1 << 20)))
                del self.clients[which]


class Indistinguishable(SynchronousTestCase):
    """The same bytes and the same log, whoever sleeps."""

    most_parked = 0

    @settings(max_examples=80, deadline=None)
    @given(st.lists(STEPS, max_size=25))
    def stories(self, steps: list[tuple[str, Any, Any]]) -> None:
        parking, awake = Story(0), Story(1000)
        self.assertEqual(parking.run(steps), awake.run(steps))
        self.assertEqual(awake.most_parked, 0)
        self.most_parked = max(self.most_parked, parking.most_parked)

    def test_stories(self) -> None:
        self.stories()
        self.assertGreaterEqual(self.most_parked, 1)
