from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.parser import BadRequest, Limits, ParsedHead, RequestParser, parse_field

H = b"Host: a\r\n"
LONG = b"a" * 8192
POST = b"POST / HTTP/1.1\r\n" + H

#: What is wrong, the bytes, the status.
VECTORS: tuple[tuple[str, bytes, int], ...] = (
    # The request line (RFC 9112 section 3).
    ("HTTP/0.9", b"GET /\r\n\r\n", 400),
    ("HTTP/0.9 at once", b"GET /\r\n", 400),
    ("no target", b"GET HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("empty target", b"GET  HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("two spaces", b"GET  / HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("space in the target", b"GET /a b HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("space at the end", b"GET / HTTP/1.1 \r\n" + H + b"\r\n", 400),
    ("space at the start", b" GET / HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("tabs", b"GET\t/\tHTTP/1.1\r\n" + H + b"\r\n", 400),
    ("tab in the target", b"GET /a\tb HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("NUL in the target", b"GET /a\0b HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("DEL in the target", b"GET /a\x7fb HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("CR in the target", b"GET /a\rb HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("bare LF after the request line", b"GET / HTTP/1.1\n" + H + b"\r\n", 400),
    ("bare LF everywhere", b"GET / HTTP/1.1\nHost: a\n\n", 400),
    ("LF first", b"\nGET / HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("CR first", b"\rGET / HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("method not a token", b"G(T / HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("method with a colon", b"GET: / HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("TLS handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ("lower-case protocol", b"GET / http/1.1\r\n" + H + b"\r\n", 400),
    ("two-digit version", b"GET / HTTP/1.10\r\n" + H + b"\r\n", 400),
    ("no version", b"GET / HTTP/\r\n" + H + b"\r\n", 400),
    ("other protocol", b"GET / RTSP/1.0\r\n" + H + b"\r\n", 400),
    ("HTTP/1.2", b"GET / HTTP/1.2\r\n" + H + b"\r\n", 505),
    ("HTTP/0.9 spelt out", b"GET / HTTP/0.9\r\n" + H + b"\r\n", 505),
    ("HTTP/3.0", b"GET / HTTP/3.0\r\n" + H + b"\r\n", 505),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("request line too long", b"GET /" + LONG + b" HTTP/1.1\r\n" + H + b"\r\n", 414),
    ("request line without end", b"GET /" + LONG, 414),
    # Target forms (section 3.2).
    ("relative target", b"GET a HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("asterisk", b"GET * HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("authority form", b"GET a:80 HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("other scheme", b"GET ftp://a/ HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("absolute form without host", b"GET http:///x HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("absolute form with userinfo", b"GET http://u@a/ HTTP/1.1\r\n" + H + b"\r\n", 400),
    ("absolute form without Host", b"GET http://a/ HTTP/1.1\r\n\r\n", 400),
    ("absolute form, bad Host", b"GET http://a/ HTTP/1.1\r\nHost: /\r\n\r\n", 400),
    ("CONNECT", b"CONNECT a:80 HTTP/1.1\r\n" + H + b"\r\n", 405),
    ("TRACE", b"TRACE / HTTP/1.1\r\n" + H + b"\r\n", 405),
    # Host (section 3.2).
    ("no Host", b"GET / HTTP/1.1\r\n\r\n", 400),
    ("two Hosts", b"GET / HTTP/1.1\r\n" + H + H + b"\r\n", 400),
    ("two Hosts in 1.0", b"GET / HTTP/1.0\r\n" + H + b"host: b\r\n\r\n", 400),
    ("empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("Host with a comma", b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400),
    ("Host with a list", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    ("Host with userinfo", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    ("Host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("Host with a space", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("Host with 8 bits", b"GET / HTTP/1.1\r\nHost: \xe4\r\n\r\n", 400),
    ("Host with two dots", b"GET / HTTP/1.1\r\nHost: a..b\r\n\r\n", 400),
    ("Host that is a dot", b"GET / HTTP/1.1\r\nHost: .\r\n\r\n", 400),
    ("port without host", b"GET / HTTP/1.1\r\nHost: :80\r\n\r\n", 400),
    ("port not a number", b"GET / HTTP/1.1\r\nHost: a:8x\r\n\r\n", 400),
    ("open bracket", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
    # Field lines (section 5).
    ("no colon", b"GET / HTTP/1.1\r\n" + H + b"abc\r\n\r\n", 400),
    ("space before the colon", b"GET / HTTP/1.1\r\n" + H + b"A : b\r\n\r\n", 400),
    ("tab before the colon", b"GET / HTTP/1.1\r\n" + H + b"A\t: b\r\n\r\n", 400),
    ("empty name", b"GET / HTTP/1.1\r\n" + H + b": b\r\n\r\n", 400),
    ("obs-fold", b"GET / HTTP/1.1\r\n" + H + b"A: b\r\n c\r\n\r\n", 400),
    ("obs-fold with a tab", b"GET / HTTP/1.1\r\n" + H + b"A: b\r\n\tc: d\r\n\r\n", 400),
    ("space before the first field", b"GET / HTTP/1.1\r\n Host: a\r\n" + H + b"\r\n", 400),
    ("8 bits in a name", b"GET / HTTP/1.1\r\n" + H + b"A\xe4: b\r\n\r\n", 400),
    ("parenthesis in a name", b"GET / HTTP/1.1\r\n" + H + b"A(: b\r\n\r\n", 400),
    ("NUL in a name", b"GET / HTTP/1.1\r\n" + H + b"A\0: b\r\n\r\n", 400),
    ("NUL in a value", b"GET / HTTP/1.1\r\n" + H + b"A: b\0c\r\n\r\n", 400),
    ("CR in a value", b"GET / HTTP/1.1\r\n" + H + b"A: b\rc\r\n\r\n", 400),
    ("CR before the end of a line", b"GET / HTTP/1.1\r\n" + H + b"A: b\r\r\n\r\n", 400),
    ("bare LF in a value", b"GET / HTTP/1.1\r\n" + H + b"A: b\nB: c\r\n\r\n", 400),
    ("bare LF at the end", b"GET / HTTP/1.1\r\n" + H + b"\n", 400),
    ("escape in a value", b"GET / HTTP/1.1\r\n" + H + b"A: \x1b[1m\r\n\r\n", 400),
    ("DEL in a value", b"GET / HTTP/1.1\r\n" + H + b"A: \x7f\r\n\r\n", 400),
    ("field too long", b"GET / HTTP/1.1\r\n" + H + b"A: " + LONG + b"\r\n\r\n", 400),
    ("field without end", b"GET / HTTP/1.1\r\n" + H + b"A: " + LONG, 400),
    ("head too large", b"GET / HTTP/1.1\r\n" + H + b"A: 1234567890\r\n" * 2300 + b"\r\n", 400),
    ("head without end", b"GET / HTTP/1.1\r\n" + H + b"A: 1234567890\r\n" * 2300, 400),
    ("too many fields", b"GET / HTTP/1.1\r\n" + H + b"A:\r\n" * 1001 + b"\r\n", 400),
    # Framing (section 6).
    ("two equal lengths", POST + b"Content-Length: 1\r\n" * 2 + b"\r\nx", 400),
    (
        "two lengths",
        POST + b"Content-Length: 1\r\ncontent-length: 2\r\n\r\nx",
        400,
    ),
    ("length list", POST + b"Content-Length: 1, 1\r\n\r\nx", 400),
    ("empty length", POST + b"Content-Length:\r\n\r\n", 400),
    ("positive length", POST + b"Content-Length: +1\r\n\r\nx", 400),
    ("negative length", POST + b"Content-Length: -1\r\n\r\nx", 400),
    ("hexadecimal length", POST + b"Content-Length: 0x1\r\n\r\nx", 400),
    ("length with _", POST + b"Content-Length: 1_0\r\n\r\n", 400),
    ("length with a space", POST + b"Content-Length: 1 0\r\n\r\n", 400),
    ("huge length", POST + b"Content-Length: " + b"9" * 20 + b"\r\n\r\n", 400),
    (
        "length and coding",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    (
        "coding and length",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        400,
    ),
    ("coding in 1.0", b"POST / HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n", 400),
    ("xchunked", POST + b"Transfer-Encoding: xchunked\r\n\r\n", 400),
    ("identity", POST + b"Transfer-Encoding: identity\r\n\r\n", 400),
    ("empty coding", POST + b"Transfer-Encoding:\r\n\r\n", 400),
    ("comma first", POST + b"Transfer-Encoding: , chunked\r\n\r\n", 400),
    ("VT", POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n", 400),
    ("quoted", POST + b'Transfer-Encoding: "chunked"\r\n\r\n', 400),
    ("parameter", POST + b"Transfer-Encoding: chunked;a\r\n\r\n", 400),
    ("chunked twice", POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n", 400),
    (
        "chunked not last",
        POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n",
        400,
    ),
    ("gzip", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    ("expectation", b"GET / HTTP/1.1\r\n" + H + b"Expect: tea\r\n\r\n", 417),
    (
        "two expectations",
        b"GET / HTTP/1.1\r\n" + H + b"Expect: 100-continue\r\nExpect: tea\r\n\r\n",
        417,
    ),
)  # fmt: skip


def drive(pieces: list[bytes], limits: Limits | None = None) -> list[object]:
    """What comes out of ``pieces``: heads, then a status or the bytes left."""
    parser = RequestParser(limits or Limits())
    out: list[object] = []
    try:
        for piece in pieces:
            parser.feed(piece)
            while (parsed := parser.next_head()) is not None:
                head = parsed.head
                meaning = (parsed.host, parsed.length, parsed.keep_alive, parsed.size)
                out.append((head.method, head.target, head.version, *head.headers, *meaning))
    except BadRequest as error:
        return [*out, error.status]
    return [*out, parser.take()]


def single(data: bytes) -> list[bytes]:
    return [bytes((byte,)) for byte in data]


def parse(data: bytes, limits: Limits | None = None) -> ParsedHead:
    parser = RequestParser(limits or Limits(), data)
    parsed = parser.next_head()
    assert parsed is not None
    return parsed


class MalformedTests(SynchronousTestCase):
    def test_whole(self) -> None:
        for name, data, status in VECTORS:
            self.assertEqual(drive([data]), [status], name)

    def test_byte_by_byte(self) -> None:
        for name, data, status in VECTORS:
            if len(data) < 10000:
                self.assertEqual(drive(single(data)), [status], name)

    def test_large_ones_in_pieces(self) -> None:
        for name, data, status in VECTORS:
            pieces = [data[i : i + 999] for i in range(0, len(data), 999)]
            self.assertEqual(drive(pieces), [status], name)

    def test_after_a_good_request(self) -> None:
        good = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        for name, data, status in VECTORS:
            if name not in ("LF first", "CR first"):
                self.assertEqual(drive([good + data])[1:], [status], name)

    def test_head_is_known(self) -> None:
        with self.assertRaises(BadRequest) as caught:
            parse(b"GET /x HTTP/1.1\r\n\r\n")
        self.assertEqual(caught.exception.head.target, b"/x")


class AcceptedTests(SynchronousTestCase):
    def test_head(self) -> None:
        parsed = parse(b"GET /a?b HTTP/1.1\r\nHost: Ex.Org.:8080\r\nA:  b \t\r\na:\r\n\r\n")
        self.assertEqual(parsed.head.method, b"GET")
        self.assertEqual(parsed.head.target, b"/a?b")
        self.assertEqual(parsed.head.version, (1, 1))
        self.assertEqual(
            list(parsed.head.headers), [(b"Host", b"Ex.Org.:8080"), (b"A", b"b"), (b"a", b"")]
        )
        self.assertEqual(parsed.host, b"ex.org")
        self.assertEqual(parsed.length, 0)
        self.assertTrue(parsed.keep_alive)

    def test_hosts(self) -> None:
        for host, expected in (
            (b"a", b"a"),
            (b"[::1]:80", b"[::1]"),
            (b"127.0.0.1:", b"127.0.0.1"),
            (b"a_b.c", b"a_b.c"),
            (b"a%2Fb", b"a%2fb"),
        ):
            self.assertEqual(parse(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host).host, expected)

    def test_no_host_in_1_0(self) -> None:
        parsed = parse(b"GET / HTTP/1.0\r\n\r\n")
        self.assertEqual((parsed.host, parsed.keep_alive), (b"", False))

    def test_absolute_form_wins(self) -> None:
        parsed = parse(b"GET HTTP://B:80/x HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual(parsed.host, b"b")
        self.assertEqual(parsed.head.target, b"HTTP://B:80/x")
        self.assertEqual(parse(b"GET http://b?x HTTP/1.1\r\nHost: a\r\n\r\n").host, b"b")

    def test_options_asterisk(self) -> None:
        self.assertEqual(parse(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").head.target, b"*")

    def test_keep_alive(self) -> None:
        for version, field, expected in (
            (b"1.1", b"", True),
            (b"1.1", b"Connection: close\r\n", False),
            (b"1.1", b"Connection: x, CLOSE\r\n", False),
            (b"1.1", b"Connection: x\r\nConnection: close\r\n", False),
            (b"1.1", b"Connection: closed\r\n", True),
            (b"1.0", b"", False),
            (b"1.0", b"Connection: Keep-Alive\r\n", True),
            (b"1.0", b"Connection: keep-alive, close\r\n", False),
        ):
            data = b"GET / HTTP/%b\r\nHost: a\r\n%b\r\n" % (version, field)
            self.assertEqual(parse(data).keep_alive, expected, data)

    def test_body(self) -> None:
        start = b"POST / HTTP/1.1\r\nHost: a\r\n"
        self.assertEqual(parse(start + b"Content-Length: 012\r\n\r\n").length, 12)
        self.assertIsNone(parse(start + b"Transfer-Encoding: Chunked\r\n\r\n").length)

    def test_expectation(self) -> None:
        start = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\n"
        self.assertTrue(parse(start + b"Content-Length: 1\r\n\r\n").expects_continue)
        self.assertTrue(parse(start + b"Transfer-Encoding: chunked\r\n\r\n").expects_continue)
        self.assertFalse(parse(start + b"\r\n").expects_continue)
        old = b"POST / HTTP/1.0\r\nExpect: tea\r\nContent-Length: 1\r\n\r\n"
        self.assertFalse(parse(old).expects_continue)

    def test_empty_lines_before(self) -> None:
        data = b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"
        self.assertEqual(parse(data).head.target, b"/")
        self.assertEqual(drive(single(data)), drive([data]))

    def test_names_that_are_dropped(self) -> None:
        data = b"GET / HTTP/1.1\r\nHost: a\r\nX_A: 1\r\nX.B: 2\r\nX-C: 3\r\n\r\n"

        def names(limits: Limits) -> list[bytes]:
            return [name for name, _ in parse(data, limits).head.headers][1:]

        self.assertEqual(names(Limits()), [b"X-C"])
        self.assertEqual(names(Limits(underscores_in_headers=True)), [b"X_A", b"X-C"])
        self.assertEqual(names(Limits(ignore_invalid_headers=False)), [b"X.B", b"X-C"])

    def test_limits_are_exact(self) -> None:
        limits = Limits(client_header_buffer_size=64, large_client_header_buffers=(2, 64))
        line = b"GET /" + b"a" * 48 + b" HTTP/1.1\r\n"
        self.assertEqual(len(line), 64)
        self.assertEqual(parse(line + H + b"\r\n", limits).size, 64 + 9 + 2)
        self.assertEqual(drive([b"GET /a" + line[5:] + H + b"\r\n"], limits), [414])
        field = b"A: " + b"a" * 59 + b"\r\n"
        self.assertEqual(len(field), 64)
        self.assertEqual(len(parse(line + H + field + b"\r\n", limits).head.headers), 2)
        self.assertEqual(drive([line + H + b"A" + field + b"\r\n"], limits), [400])
        room = 192 - 64 - 9 - 2
        self.assertEqual(
            parse(line + H + field + b"B:%b\r\n\r\n" % (b"b" * (room - 68)), limits).size, 192
        )
        self.assertEqual(
            drive([line + H + field + b"B:%b\r\n\r\n" % (b"b" * (room - 67))], limits), [400]
        )

    def test_field(self) -> None:
        self.assertEqual(parse_field(b"A: b:c "), (b"A", b"b:c"))
        self.assertIsNone(parse_field(b"A"))


TOKENS = st.text("abcXYZ019-", min_size=1, max_size=12).map(str.encode)
VALUES = st.binary(max_size=20).map(
    lambda raw: bytes(b for b in raw if b == 9 or 32 <= b != 127).strip(b" \t")
)
TARGETS = st.binary(max_size=20).map(lambda raw: b"/" + bytes(b for b in raw if 32 < b != 127))


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A valid request without a body."""
    method = draw(st.sampled_from([b"GET", b"HEAD", b"POST", b"PURGE", b"get"]))
    version = draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.0"]))
    fields = draw(st.lists(st.tuples(TOKENS.map(lambda name: b"X-" + name), VALUES), max_size=6))
    place = draw(st.integers(0, len(fields)))
    fields.insert(place, (b"Host", b"example.org"))
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
    return method + b" " + draw(TARGETS) + b" " + version + b"\r\n" + lines + b"\r\n"


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(at)]


class Properties(SynchronousTestCase):
    @given(
        st.lists(requests(), min_size=1, max_size=4), st.lists(st.integers(0, 2000)), st.binary()
    )
    @settings(deadline=None)
    def test_any_cut_gives_the_same(
        self, pipeline: list[bytes], places: list[int], rest: bytes
    ) -> None:
        data = b"".join(pipeline)
        whole = drive([data])
        self.assertEqual(len(whole), len(pipeline) + 1)
        self.assertEqual(whole[-1], b"")
        self.assertEqual(drive(cut(data, places)), whole)
        self.assertEqual(drive(single(data)), whole)

    @given(
        st.lists(
            st.sampled_from([
                b"GET", b"/", b" ", b"HTTP/1.1", b"HTTP/2.0",
                b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0",
                b"Host: a", b"Host:", b"\t", b"A: b", b"Content-Length: 1", b"a" * 40, b"\xff",
                b"GET / HTTP/1.1\r\nHost: a\r\n", b"Transfer-Encoding: gzip, chunked\r\n",
            ]),
            max_size=20,
        ),
        st.lists(st.integers(0, 300)),
    )  # fmt: skip
    @settings(deadline=None, max_examples=300)
    def test_any_cut_of_rubbish_gives_the_same_status(
        self, parts: list[bytes], places: list[int]
    ) -> None:
        data = b"".join(parts)
        limits = Limits(client_header_buffer_size=64, large_client_header_buffers=(2, 64))
        whole = drive([data], limits)
        for pieces in (cut(data, places), single(data)):
            self.assertEqual(drive(pieces, limits), whole)

    @given(requests(), st.binary(max_size=50))
    @settings(deadline=None)
    def test_what_follows_is_kept(self, request: bytes, rest: bytes) -> None:
        parser = RequestParser(Limits())
        for byte in single(request):
            self.assertIsNone(parser.next_head())
            parser.feed(byte)
        parser.feed(rest)
        self.assertIsNotNone(parser.next_head())
        self.assertEqual(parser.take(), rest)
