from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.chunked import (
    LAST_CHUNK,
    MAX_EXTENSIONS,
    MAX_TRAILERS,
    ChunkedDecoder,
    encode_chunk,
    last_chunk,
)
from imagefarm.http.parser import BadRequest

MALFORMED: tuple[tuple[str, bytes], ...] = (
    ("empty size", b"\r\n"),
    ("prefix", b"0x5\r\nhello\r\n"),
    ("sign", b"+5\r\nhello\r\n"),
    ("negative", b"-5\r\nhello\r\n"),
    ("underscore", b"1_0\r\n"),
    ("not hexadecimal", b"g\r\n"),
    ("space before", b" 5\r\nhello\r\n"),
    ("space after", b"5 \r\nhello\r\n"),
    ("huge", b"1" * 16 + b"\r\n"),
    ("bare LF after the size", b"5\nhello\r\n"),
    ("bare CR after the size", b"5\rhello\r\n"),
    ("bare LF after the data", b"5\r\nhello\n0\r\n\r\n"),
    ("too much data", b"5\r\nhellox\r\n"),
    ("data ends in CR CR", b"5\r\nhello\r\r"),
    ("extension without a name", b"5;\r\nhello\r\n"),
    ("extension with a bare value", b"5;=a\r\nhello\r\n"),
    ("extension without a value", b"5;a=\r\nhello\r\n"),
    ("open quote", b'5;a="b\r\nhello\r\n'),
    ("LF in an extension", b"5;a\nb\r\nhello\r\n"),
    ("NUL in an extension", b"5;a\0\r\nhello\r\n"),
    ("CR in a quoted value", b'5;a="\rb"\r\nhello\r\n'),
    ("endless size line", b"5;" + b"a" * 2000),
    ("endless extensions", (b"1;" + b"a" * 1000 + b"\r\nx\r\n") * (MAX_EXTENSIONS // 1000 + 1)),
    ("bare LF at the end", b"0\r\n\n"),
    ("bare CR at the end", b"0\r\n\rx"),
    ("trailer without a colon", b"0\r\nabc\r\n\r\n"),
    ("trailer with a space", b"0\r\na : b\r\n\r\n"),
    ("folded trailer", b"0\r\na: b\r\n c\r\n\r\n"),
    ("NUL in a trailer", b"0\r\na: \0\r\n\r\n"),
    ("endless trailer", b"0\r\na: " + b"b" * MAX_TRAILERS),
    ("endless trailers", b"0\r\n" + b"a: b\r\n" * (MAX_TRAILERS // 6 + 1)),
)


def drive(pieces: list[bytes]) -> tuple[bytes, bytes, bool]:
    """Payload, what follows, whether it is complete."""
    decoder = ChunkedDecoder()
    out: list[bytes] = []
    rest = b""
    for piece in pieces:
        if decoder.done:
            rest += piece
            continue
        data, rest = decoder.feed(piece)
        out += data
    return b"".join(out), rest, decoder.done


def single(data: bytes) -> list[bytes]:
    return [bytes((byte,)) for byte in data]


class DecoderTests(SynchronousTestCase):
    def test_body(self) -> None:
        data = b'5\r\nhello\r\n00A;x="a;\\"b" ; y = z;w\r\n0123456789\r\n0\r\n\r\nGET'
        self.assertEqual(drive([data]), (b"hello0123456789", b"GET", True))
        self.assertEqual(drive(single(data)), (b"hello0123456789", b"GET", True))

    def test_trailers_are_kept_apart(self) -> None:
        decoder = ChunkedDecoder()
        self.assertEqual(decoder.feed(b"0\r\nA: b\r\nHost: c\r\n\r\nx"), ([], b"x"))
        self.assertEqual(decoder.trailers, [(b"A", b"b"), (b"Host", b"c")])

    def test_unfinished(self) -> None:
        for data in (b"", b"5", b"5\r", b"5\r\nhel", b"5\r\nhello\r", b"0\r\n", b"0\r\n\r"):
            self.assertFalse(drive([data])[2], data)

    def test_malformed_whole(self) -> None:
        for name, data in MALFORMED:
            with self.assertRaises(BadRequest, msg=name) as caught:
                drive([data])
            self.assertEqual(caught.exception.status, 400)

    def test_malformed_byte_by_byte(self) -> None:
        for name, data in MALFORMED:
            with self.assertRaises(BadRequest, msg=name):
                drive(single(data))

    @given(
        st.lists(st.binary(min_size=1, max_size=50)),
        st.binary(max_size=20),
        st.lists(st.integers(0, 1000)),
    )
    def test_any_cut_gives_it_back(
        self, chunks: list[bytes], rest: bytes, places: list[int]
    ) -> None:
        data = b"".join(map(encode_chunk, chunks)) + LAST_CHUNK + rest
        expected = (b"".join(chunks), rest, True)
        at = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
        pieces = [data[a:b] for a, b in zip(at, [*at[1:], len(data)], strict=True)]
        self.assertEqual(drive([data]), expected)
        self.assertEqual(drive(pieces), expected)

    @given(st.lists(st.sampled_from(
        [b"5", b"0", b"\r\n", b"\r", b"\n", b";", b"a=b", b"hello", b'"', b" ", b"A: b", b"\0"]
    )))  # fmt: skip
    def test_rubbish_is_judged_the_same_in_bytes(self, parts: list[bytes]) -> None:
        data = b"".join(parts)

        def verdict(pieces: list[bytes]) -> object:
            try:
                return drive(pieces)
            except BadRequest as error:
                return error.status

        self.assertEqual(verdict([data]), verdict(single(data)))


class LastChunkTests(SynchronousTestCase):
    def test_trailers_are_read_back(self) -> None:
        decoder = ChunkedDecoder()
        fields = [(b"Sum", b"9"), (b"Sum", b"10")]
        self.assertEqual(decoder.feed(last_chunk(fields) + b"more"), ([], b"more"))
        self.assertEqual(decoder.trailers, fields)
        self.assertEqual(last_chunk([]), LAST_CHUNK)
