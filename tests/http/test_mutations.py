"""Valid pipelines, mutated: what must hold for any bytes (tests/fuzz/target.py) holds for them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.parser import Limits
from tests.fuzz.target import check
from tests.support.pipeline import TIGHT

NAMES = st.sampled_from([b"A", b"X-Name", b"accept", b"x_y", b"A.B"])
VALUES = st.sampled_from([b"", b"b", b"a, b", b'"q;\\""', b"x\ty", b"\xe4", b"chunked", b"5"])
TARGETS = st.sampled_from([b"/", b"/a%20b?c=d", b"http://b:81/x", b"HTTPS://[::1]/", b"/\xe4"])
EXTENSIONS = st.sampled_from([b"", b";a", b";a=b", b' ; a = "b;\\"c"'])
#: What attacks are made of.
FRAGMENTS = st.sampled_from([
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b" ", b"\t", b"\x0b", b"\x7f", b"\xff", b":", b";",
    b",", b"0", b"-", b"+", b"0x", b"_", b'"', b"Content-Length: 3\r\n", b"Host: b\r\n",
    b"Transfer-Encoding: chunked\r\n", b"chunked", b"0\r\n\r\n", b"HTTP/1.0", b"\r\n ",
    b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
])  # fmt: skip
#: (what, where, how much, with what)
EDITS = st.tuples(
    st.sampled_from(["replace", "insert", "delete", "repeat", "swap"]),
    st.integers(0, 4000),
    st.integers(1, 12),
    FRAGMENTS,
)
PLACES = st.lists(st.integers(0, 4000), max_size=4)
LIMITS = st.sampled_from([
    Limits(), TIGHT, Limits(underscores_in_headers=True), Limits(ignore_invalid_headers=False),
])  # fmt: skip


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A valid request, with or without a body."""
    method = draw(st.sampled_from([b"GET", b"POST", b"PURGE"]))
    body = draw(st.binary(max_size=12))
    framing = draw(st.sampled_from(["none", "length", "chunked"]))
    fields = draw(st.lists(st.tuples(NAMES, VALUES), max_size=3))
    fields.append((b"Host", draw(st.sampled_from([b"a", b"a:80", b"[::1]", b"a."]))))
    if framing == "length":
        fields.append((b"Content-Length", b"%d" % len(body)))
    elif framing == "chunked":
        fields.append((b"Transfer-Encoding", b"chunked"))
    head = b"%b %b HTTP/1.1\r\n" % (method, draw(TARGETS))
    for name, value in draw(st.permutations(fields)):
        head += name + draw(st.sampled_from([b":", b": ", b":\t"])) + value + b"\r\n"
    if framing == "none":
        return head + b"\r\n"
    if framing == "length":
        return head + b"\r\n" + body
    chunk = b"%x%b\r\n%b\r\n" % (len(body), draw(EXTENSIONS), body) if body else b""
    trailer = draw(st.sampled_from([b"", b"T: u\r\n", b"Content-Length: 9\r\n"]))
    return head + b"\r\n" + chunk + b"0" + draw(EXTENSIONS) + b"\r\n" + trailer + b"\r\n"


def mutate(data: bytes, edits: list[tuple[str, int, int, bytes]]) -> bytes:
    for kind, place, count, fragment in edits:
        at = place % (len(data) + 1)
        piece = data[at : at + count]
        before, after = data[:at], data[at + count :]
        data = {
            "replace": before + fragment + after,
            "insert": before + fragment + piece + after,
            "delete": before + after,
            "repeat": before + piece + piece + after,
            "swap": before + piece[::-1] + after,
        }[kind]
    return data


class Mutations(SynchronousTestCase):
    @given(st.lists(messages(), min_size=1, max_size=3), PLACES)
    @settings(deadline=None)
    def test_valid_ones_are_all_accepted(self, pipeline: list[bytes], places: list[int]) -> None:
        reading = check(b"".join(pipeline), Limits(), places)
        self.assertEqual(reading.outcome, "200 " * len(pipeline) + "open")

    @given(
        st.lists(messages(), min_size=1, max_size=3),
        st.lists(EDITS, min_size=1, max_size=4),
        LIMITS,
        PLACES,
    )
    @settings(deadline=None, max_examples=250)
    def test_mutated_ones(
        self,
        pipeline: list[bytes],
        edits: list[tuple[str, int, int, bytes]],
        limits: Limits,
        places: list[int],
    ) -> None:
        check(mutate(b"".join(pipeline), edits), limits, places)

    @given(messages(), st.integers(0, 500), st.integers(0, 255))
    @settings(deadline=None, max_examples=250)
    def test_one_byte_changed(self, message: bytes, place: int, byte: int) -> None:
        at = place % len(message)
        check(message[:at] + bytes((byte,)) + message[at + 1 :], Limits(), (at,))
