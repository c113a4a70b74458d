"""CGI heads: nginx's rules, any split, limits."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.fastcgi.cgi import CGIHead, HeadParser, HeadTooLarge, InvalidHead, parse_head

from .strategies import each_byte, split

TOKEN = st.text("abcXYZ-0123_!", min_size=1, max_size=12).map(str.encode)
VALUE = st.text('abc ,;="\x80\xff:/', max_size=20).map(lambda t: t.encode("latin-1").strip(b" "))


def feed_all(pieces: object) -> tuple[CGIHead, bytes] | None:
    parser, result, rest = HeadParser(), None, b""
    for piece in pieces:  # type: ignore[attr-defined]
        if result is not None:
            rest += piece
            continue
        found = parser.feed(piece)
        if found is not None:
            result, rest = found
    return None if result is None else (result, rest)


class StatusTests(SynchronousTestCase):
    def status(self, head: bytes) -> int:
        return parse_head(head + b"\r\n").status

    def test_default(self) -> None:
        self.assertEqual(self.status(b"Content-Type: text/plain\r\n"), 200)

    def test_status(self) -> None:
        head = parse_head(b"Status: 404 Not Found\nX: y\n\n")
        self.assertEqual(head.status, 404)
        self.assertEqual(list(head.headers), [(b"X", b"y")])
        self.assertEqual(self.status(b"status:201\r\n"), 201)

    def test_location_without_status(self) -> None:
        self.assertEqual(self.status(b"Location: http://a/\r\n"), 302)
        self.assertEqual(self.status(b"Location: /local\r\n"), 302)
        self.assertEqual(self.status(b"Location: /x\r\nStatus: 301 Moved\r\n"), 301)

    def test_invalid_status(self) -> None:
        for value in (b"", b"ok", b"20", b"2000", b"099", b"100", b"199 x", b"-200", b"+20"):
            with self.assertRaisesRegex(InvalidHead, "invalid status"):
                self.status(b"Status: " + value + b"\r\n")

    def test_status_twice(self) -> None:
        with self.assertRaisesRegex(InvalidHead, "duplicate header line"):
            self.status(b"Status: 200\r\nStatus: 404\r\n")


class FieldTests(SynchronousTestCase):
    def test_line_ends(self) -> None:
        for head in (b"A: b\nC:d\n\n", b"A: b\r\nC:d\r\n\r\n", b"A: b\nC:d\r\n\n"):
            self.assertEqual(list(parse_head(head).headers), [(b"A", b"b"), (b"C", b"d")])

    def test_repeated_fields_stay(self) -> None:
        head = parse_head(b"Set-Cookie: a\nSet-Cookie: b\n\n")
        self.assertEqual(head.headers.getall(b"set-cookie"), [b"a", b"b"])

    def test_no_fields(self) -> None:
        for raw in (b"\n", b"\r\n"):
            found = HeadParser().feed(raw + b"body")
            assert found is not None
            self.assertEqual((found[0].status, len(found[0].headers), found[1]), (200, 0, b"body"))

    def test_content_length(self) -> None:
        self.assertEqual(parse_head(b"Content-Length: 12\n\n").content_length, 12)
        self.assertIsNone(parse_head(b"A: b\n\n").content_length)
        for value in (b"", b"-1", b"+1", b"0x10", b"1 2", b"1,1", b"9" * 19):
            with self.assertRaisesRegex(InvalidHead, "Content-Length"):
                parse_head(b"Content-Length: " + value + b"\n\n")
        with self.assertRaisesRegex(InvalidHead, "duplicate"):
            parse_head(b"Content-Length: 1\nContent-Length: 1\n\n")

    def test_malformed(self) -> None:
        for line in (
            b"HTTP/1.1 200 OK", b"nothing", b": value", b" folded: x", b"Name : x", b"N\x00: x",
            b"A: x\x00y", b"A: x\ry", b"A: b\x01", b"A: b\x7f", b"<html>", b"N\xe4me: x",
        ):  # fmt: skip
            with self.assertRaisesRegex(InvalidHead, "invalid header"):
                parse_head(b"Good: yes\r\n" + line + b"\r\n\r\n")

    def test_the_message_is_safe_to_log(self) -> None:
        with self.assertRaises(InvalidHead) as caught:
            parse_head(b"\x1b[31m\x00\xff\n\n")
        self.assertEqual(
            str(caught.exception), r'upstream sent invalid header: "\x1b[31m\x00\xff"'
        )


class SplitTests(SynchronousTestCase):
    @settings(deadline=None)
    @given(
        st.lists(st.tuples(TOKEN.filter(lambda t: t.lower() != b"status"), VALUE), max_size=5),
        st.sampled_from([b"\n", b"\r\n"]),
        st.binary(max_size=30),
        st.lists(st.integers(0, 200)),
    )
    def test_any_split(
        self, fields: list[tuple[bytes, bytes]], eol: bytes, body: bytes, cuts: list[int]
    ) -> None:
        raw = b"".join(name + b": " + value + eol for name, value in fields) + eol + body
        for pieces in ([raw], split(raw, cuts), each_byte(raw)):
            result = feed_all(pieces)
            assert result is not None
            self.assertEqual(list(result[0].headers), fields)
            self.assertEqual(result[1], body)

    @settings(deadline=None)
    @given(st.binary(max_size=80), st.lists(st.integers(0, 80)))
    def test_noise(self, noise: bytes, cuts: list[int]) -> None:
        try:
            whole = feed_all([noise])
        except InvalidHead as error:
            with self.assertRaises(InvalidHead) as caught:
                feed_all(split(noise, cuts))
            self.assertEqual(str(caught.exception), str(error))
            return
        again = feed_all(split(noise, cuts))
        self.assertEqual(whole is None, again is None)
        if whole is not None and again is not None:
            self.assertEqual((whole[0].headers, whole[1]), (again[0].headers, again[1]))


class LimitTests(SynchronousTestCase):
    def test_the_limit_is_exact(self) -> None:
        head = b"A: " + b"x" * 20 + b"\r\n\r\n"
        self.assertIsNotNone(HeadParser(len(head)).feed(head + bytes(1000)))
        with self.assertRaisesRegex(HeadTooLarge, "upstream sent too big header"):
            HeadParser(len(head) - 1).feed(head)

    def test_a_head_without_an_end(self) -> None:
        parser = HeadParser(100)
        self.assertIsNone(parser.feed(b"A: " + b"x" * 97))
        self.assertEqual(repr(parser), "<HeadParser 100 of 100 bytes>")
        with self.assertRaises(HeadTooLarge):
            parser.feed(b"x")
