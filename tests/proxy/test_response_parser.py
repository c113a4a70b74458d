"""The parser of upstream responses: whole, byte by byte, cut anywhere, and hostile."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.headers import Headers
from imagefarm.proxy.response_parser import Framing, InvalidResponse, ResponseParser


def parse(pieces: list[bytes], method: bytes = b"GET", max_head: int = 8192) -> ResponseParser:
    """Feed all, and keep the body in ``parser.body``."""
    parser, body = Reader(method, max_head), b""
    for piece in pieces:
        body += b"".join(parser.feed(piece))
    parser.body = body
    return parser


class Reader(ResponseParser):
    body = b""


def singly(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


HEAD = b"HTTP/1.1 200 OK\r\n"

GOOD: list[tuple[bytes, bytes, Framing, bytes, bool]] = [
    # what is sent, the body, its framing, what is left, whether the connection may be kept
    (HEAD + b"Content-Length: 3\r\n\r\nabc", b"abc", Framing.LENGTH, b"", True),
    (HEAD + b"Content-Length: 3, 3\r\ncontent-length:3\r\n\r\nabcX",
     b"abc", Framing.LENGTH, b"X", True),
    (HEAD + b"Content-Length: 0\r\n\r\nHTTP", b"", Framing.LENGTH, b"HTTP", True),
    (HEAD + b"Transfer-Encoding: Chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\nT: v\r\n\r\nX",
     b"abc", Framing.CHUNKED, b"X", True),
    (b"HTTP/1.1 204 \r\nContent-Length: 7\r\n\r\nX", b"", Framing.NONE, b"X", True),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", b"", Framing.NONE, b"", True),
    (b"HTTP/1.1 304\r\nConnection: x, Close\r\n\r\n", b"", Framing.NONE, b"", False),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", b"a", Framing.LENGTH, b"", False),
    (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na",
     b"a", Framing.LENGTH, b"", True),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + HEAD
     + b"Content-Length: 1\r\n\r\na", b"a", Framing.LENGTH, b"", True),
]  # fmt: skip

BAD: list[bytes] = [
    b"\r\n", b"SSH-2.0-OpenSSH\r\n", b"HTTP/2.0 200 OK\r\n\r\n", b"http/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1  200 OK\r\n\r\n", b"HTTP/1.1 20 OK\r\n\r\n", b"HTTP/1.1 099 OK\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n\r\n", b"HTTP/1.1 200 O\0K\r\n\r\n", b"HTTP/1.1 101 X\r\n\r\n",
    b"HTTP/1.1 200 OK\n\r\n\r\n", HEAD + b"A: b\nC: d\r\n\r\n", HEAD + b"A : b\r\n\r\n",
    HEAD + b": b\r\n\r\n", HEAD + b"A\r\n\r\n", HEAD + b"A: b\r\n c\r\n\r\n",
    HEAD + b" A: b\r\n\r\n", HEAD + b"A: b\rc\r\n\r\n", HEAD + b"A: \0\r\n\r\n",
    HEAD + b"A\x80: b\r\n\r\n",
    HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    HEAD + b"Content-Length: 3, 4\r\n\r\nabcd", HEAD + b"Content-Length: +3\r\n\r\nabc",
    HEAD + b"Content-Length: -3\r\n\r\nabc", HEAD + b"Content-Length: 0x3\r\n\r\nabc",
    HEAD + b"Content-Length:\r\n\r\nabc", HEAD + b"Content-Length: 1 2\r\n\r\nabc",
    HEAD + b"Content-Length: " + b"9" * 19 + b"\r\n\r\n",
    HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n", HEAD + b"Transfer-Encoding: x\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\nA\r\n",
    b"HTTP/1.1 103 X\r\n\r\n" * 17,
]  # fmt: skip


class GoodTests(SynchronousTestCase):
    def test_whole_byte_by_byte_and_in_two(self) -> None:
        for data, body, framing, excess, persistent in GOOD:
            cuts = [[data], singly(data)]
            cuts += [[data[:cut], data[cut:]] for cut in range(1, len(data))]
            for pieces in cuts:
                parser = parse(pieces)
                assert parser.head is not None
                self.assertTrue(parser.complete, data)
                self.assertEqual(parser.body, body)
                self.assertEqual(parser.excess, excess)
                self.assertIs(parser.head.framing, framing)
                self.assertIs(parser.head.persistent, persistent)

    def test_head(self) -> None:
        parser = parse([HEAD + b"A:b\r\nc: \t d e \t\r\nA: \xe4\r\n\r\n"])
        assert parser.head is not None
        self.assertEqual(parser.head.status, 200)
        self.assertEqual(
            parser.head.headers, Headers([(b"A", b"b"), (b"c", b"d e"), (b"A", b"\xe4")])
        )
        self.assertEqual(repr(parser), "<ResponseParser body>")

    def test_early_hints(self) -> None:
        """They are there as soon as they have come, and before the answer."""
        first = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX: y\r\n\r\n"
        second = b"HTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n"
        parser = parse([first[:-1]])
        self.assertEqual(parser.hints, [])
        parser.feed(first[-1:])
        self.assertIsNone(parser.head)
        self.assertEqual(parser.hints, [(len(first), Headers([(b"Link", b"</a>"), (b"X", b"y")]))])
        parser.feed(b"HTTP/1.1 102 Processing\r\n\r\n" + second + HEAD + b"\r\n")
        self.assertEqual([size for size, _ in parser.hints], [len(first), len(second)])
        assert parser.head is not None
        self.assertEqual(parser.head.status, 200)

    def test_until_close(self) -> None:
        parser = parse([HEAD + b"\r\nab", b"cd"])
        self.assertEqual((parser.body, parser.complete), (b"abcd", False))
        self.assertTrue(parser.close())
        self.assertTrue(parser.complete)

    def test_close_in_the_middle(self) -> None:
        for data in (b"", HEAD, HEAD + b"Content-Length: 2\r\n\r\na",
                     HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n"):  # fmt: skip
            self.assertFalse(parse([data]).close())

    def test_head_request(self) -> None:
        parser = parse([HEAD + b"Content-Length: 5\r\n\r\n"], b"HEAD")
        assert parser.head is not None
        self.assertEqual((parser.complete, parser.head.length), (True, 5))
        parser = parse([HEAD + b"Transfer-Encoding: chunked\r\n\r\n"], b"HEAD")
        assert parser.head is not None
        self.assertEqual((parser.complete, parser.head.length), (True, None))

    @given(
        st.lists(st.binary(min_size=1, max_size=50), max_size=6),
        st.booleans(),
        st.lists(st.integers(0, 600), max_size=6),
    )
    def test_any_body_cut_anywhere(
        self, chunks: list[bytes], chunked: bool, cuts: list[int]
    ) -> None:
        body = b"".join(chunks)
        if chunked:
            coded = b"".join(b"%X\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
            data = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + coded + b"0\r\n\r\n"
        else:
            data = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
        edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        parser = parse([data[a:b] for a, b in pairwise(edges)])
        self.assertEqual((parser.complete, parser.body, parser.excess), (True, body, b""))


class BadTests(SynchronousTestCase):
    def test_refused_however_it_arrives(self) -> None:
        for data in BAD:
            with self.assertRaises(InvalidResponse, msg=repr(data)):
                parse([data])
            with self.assertRaises(InvalidResponse, msg=repr(data)):
                parse(singly(data))

    def test_too_big_a_head(self) -> None:
        ends = HEAD + b"A: " + b"x" * 100 + b"\r\n\r\n"
        self.assertIsNotNone(parse([ends], max_head=len(ends)).head)
        self.assertIsNotNone(parse(singly(ends), max_head=len(ends)).head)
        for pieces in ([ends], singly(ends), [HEAD + b"A: " + b"x" * 200]):
            with self.assertRaises(InvalidResponse) as caught:
                parse(pieces, max_head=len(ends) - 1)
            self.assertIn("too big header", str(caught.exception))

    def test_nonsense_is_noticed_without_waiting(self) -> None:
        with self.assertRaises(InvalidResponse):
            ResponseParser(b"GET").feed(b"X")

    @given(st.binary(max_size=300))
    @example(HEAD + b"Content-Length: 1\r\n\r\n")
    def test_anything_is_read_or_refused_the_same_way(self, data: bytes) -> None:
        outcomes = []
        for pieces in ([data], singly(data)):
            try:
                parser = parse(pieces)
            except InvalidResponse:
                outcomes.append(None)
            else:
                outcomes.append((parser.complete, parser.body, parser.excess))
        self.assertEqual(outcomes[0], outcomes[1])

    @given(st.lists(st.sampled_from([
        b"HTTP/1.1 ", b"HTTP/1.0 ", b"200", b"304", b"100", b" OK", b"\r\n", b"\r\n\r\n", b"\n",
        b"Content-Length: 1", b"Content-Length: 2", b"Transfer-Encoding: chunked", b":", b" ",
        b"0\r\n\r\n", b"1\r\na\r\n", b"a", b"\0", b"Connection: close",
    ]), max_size=14))  # fmt: skip
    def test_pieces_of_responses_are_read_or_refused_the_same_way(
        self, parts: list[bytes]
    ) -> None:
        self.test_anything_is_read_or_refused_the_same_way.hypothesis.inner_test(  # type: ignore[attr-defined]
            self, b"HTTP/1.1 200 OK\r\n" + b"".join(parts)
        )
