"""Whatever an application sends, only the body of its answer reaches the client."""

from __future__ import annotations

import itertools
import struct

from hypothesis import given
from hypothesis import strategies as st

from imagefarm.http.message import Response
from imagefarm.http.upstream import UpstreamError

from .client_case import ClientCase
from .fakes import Sink, end, lost, stderr, stdout, stdout_end

_RECORDS = st.one_of(
    st.sampled_from([
        stdout(b"Content-Type: a/b\r\n\r\n"), stdout(b"Status: 200\n\nab"), stdout(b"abc"),
        stdout(b"Content-Length: 3\r\n\r\n"), stdout(b"Content-Length: x\r\n\r\n"), stdout_end(),
        stdout(b"\r\n\r\n"), stderr(b"oh"), end(), end(1), stdout(b"abc", 2), b"\x01", b"HTTP/1.1",
    ]),
    st.binary(max_size=12),
    st.builds(stdout, st.binary(min_size=1, max_size=30)),
)  # fmt: skip


def _stdout(data: bytes) -> bytes:
    """All standard output before the first record that is not sound, or the end."""
    out, at = b"", 0
    while at + 8 <= len(data):
        version, kind, request_id, length, padding = struct.unpack_from("!BBHHB", data, at)
        if version != 1 or request_id != 1 or kind not in (3, 6, 7) or kind == 3:
            break
        content = data[at + 8 : at + 8 + length]
        if len(content) < length or (kind == 6 and not content):
            break
        if kind == 6:
            out += content
        at += 8 + length + padding
    return out


class GarbageTests(ClientCase):
    @given(st.lists(_RECORDS, max_size=8).map(b"".join), st.lists(st.integers(0, 300), max_size=5))
    def test_only_the_answer(self, data: bytes, cuts: list[int]) -> None:
        self.setUp()
        sink = Sink()
        responses: list[Response] = []

        def answered(response: Response) -> None:
            responses.append(response)
            if isinstance(response.body, bytes):
                if response.body:
                    sink.data(response.body)
                sink.end()
            else:
                response.body.start(sink)  # type: ignore[union-attr]

        waiting = self.send()
        waiting.addCallbacks(answered, lambda failure: failure.trap(UpstreamError))
        places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
        for start, stop in itertools.pairwise(places):
            if not self.wire.aborted:
                self.feed(data[start:stop])
        kept = self.happened == ["idle"] and not self.wire.aborted
        lost(self.connection)
        if not responses:
            self.assertFalse(kept)
            return
        self.assertIn(sink.bytes, _stdout(data))
        if sink.outcome == "end":
            self.assertTrue(data.count(end()[:8]) or data.count(b"Content-Length"), data)
        if kept:
            self.assertTrue(data.endswith((end(), end(1))), data)
