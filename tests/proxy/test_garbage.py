"""Whatever an upstream sends, only its answer reaches the client, and only a sound one.

The judge reads the bytes again with rules of its own: a head is of RFC 9112's grammar to the last
byte, its framing has one reading, and a body is what that framing says.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.headers import Headers
from imagefarm.http.message import Response
from imagefarm.http.upstream import Outgoing, Timeouts, UpstreamError
from imagefarm.proxy.connection import HttpUpstreamConnection

from .support import Sink, Transport

_HEAD = re.compile(
    rb"HTTP/1\.[0-9] ([1-9][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?\r\n"
    rb"((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n)*)\r\n"
)
_CHUNK = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")

#: What answers are made of, well and badly.
_PIECES = st.sampled_from([
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 204 No\r\n",
    b"HTTP/1.1 100 C\r\n\r\n",
    b"HTTP/1.1 304\r\n", b"Content-Length: 3\r\n", b"Content-Length: 2\r\n",
    b"Content-Length: x\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: x\r\n", b"X: y\r\n", b"X : y\r\n",
    b"Connection: close\r\n", b"\r\n", b"abc", b"3\r\nabc\r\n", b"0\r\n\r\n", b"0\r\n", b"\n",
    b"\0", b"\r", b" ", b"zz\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
])  # fmt: skip
_ANSWERS = st.one_of(
    st.binary(max_size=60),
    st.lists(_PIECES, max_size=10).map(b"".join),
    st.lists(_PIECES, max_size=8).map(lambda p: b"HTTP/1.1 200 OK\r\n" + b"".join(p)),
    st.lists(_PIECES, max_size=4).map(
        lambda p: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(p)
    ),
)


def judged(data: bytes) -> tuple[int, bytes, bool, int] | None:
    """Status, body, whether it is whole, and where the answer ends; None if there is none."""
    at = 0
    while True:
        head = _HEAD.match(data, at)
        if head is None:
            return None
        at = head.end()
        if not head[1].startswith(b"1"):
            break
    named: dict[bytes, list[bytes]] = {}
    for line in head[2].split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        named.setdefault(name.lower(), []).append(value.strip(b" \t"))
    lengths = set(named.get(b"content-length", ()))
    codings = named.get(b"transfer-encoding", [])
    if head[1] in (b"204", b"304"):
        return int(head[1]), b"", True, at
    if codings:
        return (int(head[1]), *_chunked(data, at))
    if lengths:
        (length,) = lengths
        body = data[at : at + int(length)]
        return int(head[1]), body, len(body) == int(length), at + len(body)
    return int(head[1]), data[at:], False, len(data)


def _chunked(data: bytes, at: int) -> tuple[bytes, bool, int]:
    body = b""
    while (size := _CHUNK.match(data, at)) is not None:
        count = int(size[1], 16)
        at = size.end()
        if not count:
            end = re.compile(rb"(?:[^\r\n]+\r\n)*\r\n").match(data, at)
            return body, end is not None, len(data) if end is None else end.end()
        body += data[at : at + count]
        at += count + 2
    return body, False, len(data)


class GarbageTests(SynchronousTestCase):
    def play(self, data: bytes, cuts: list[int]) -> tuple[Response | None, Sink | None]:
        """Feed ``data`` in pieces, then close; leaves ``idle`` and ``transport``."""
        self.idle: list[Any] = []
        connection = HttpUpstreamConnection(Clock())
        connection.on_idle = self.idle.append
        self.transport = Transport()
        connection.makeConnection(self.transport)
        responses: list[Response] = []
        sinks: list[Sink] = []

        def answered(response: Response) -> None:
            responses.append(response)
            sink = Sink()
            sinks.append(sink)
            if isinstance(response.body, bytes):
                if response.body:
                    sink.data(response.body)
                sink.end()
            else:
                response.body.start(sink)  # type: ignore[union-attr]

        outgoing = Outgoing(b"GET", b"/", Headers([(b"Host", b"a")]))
        sending = connection.send(outgoing, Timeouts(), reused=False)
        sending.addCallbacks(answered, lambda failure: failure.trap(UpstreamError))
        places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
        for start, end in itertools.pairwise(places):
            if not self.transport.disconnecting and not self.transport.disconnected:
                connection.dataReceived(data[start:end])
        #: Whether another request would go over the connection.
        self.kept = bool(self.idle) and not self.transport.disconnecting
        connection.connectionLost(Failure(ConnectionDone()))
        return (responses[0], sinks[0]) if responses else (None, None)

    @given(_ANSWERS, st.lists(st.integers(0, 400), max_size=6))
    def test_only_the_answer(self, data: bytes, cuts: list[int]) -> None:
        response, sink = self.play(data, cuts)
        verdict = judged(data)
        if response is None or sink is None:
            self.assertFalse(self.kept)
            return
        assert verdict is not None, data
        status, body, whole, end = verdict
        self.assertEqual(response.status, status)
        self.assertTrue(body.startswith(sink.received), (body, sink.received))
        if sink.error is None:
            self.assertEqual(sink.received, body)
        if self.kept:
            self.assertTrue(whole and end == len(data), data)

    @given(st.binary(min_size=1, max_size=40))
    def test_what_comes_behind_an_answer(self, garbage: bytes) -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
        for cuts in ([], [len(answer)]):
            response, sink = self.play(answer + garbage, cuts)
            assert response is not None
            assert sink is not None
            self.assertEqual((sink.received, sink.ended), (b"abc", 1))
            self.assertFalse(self.kept)
