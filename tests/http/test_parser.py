from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.parser import (
    BadRequest,
    Limits,
    NamedLimits,
    ParsedHead,
    RequestParser,
    parse_field,
    widest,
)
from tests.support.pipeline import cut, single

H = b"Host: a\r\n"


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


def parse(data: bytes, limits: Limits | None = None) -> ParsedHead:
    parser = RequestParser(limits or Limits(), data)
    parsed = parser.next_head()
    assert parsed is not None
    return parsed


class AcceptedTests(SynchronousTestCase):
    def test_limits_by_name(self) -> None:
        """They hold from where the server is named; what some server takes is waited for."""
        tight = Limits(large_client_header_buffers=(1, 1024), underscores_in_headers=True)
        wide = Limits(large_client_header_buffers=(4, 4096))
        named = NamedLimits(
            lambda name: wide if name == b"wide" else tight,
            lambda name: 1.0,
            widest([tight, wide]),
        )
        long, under = b"X: " + b"x" * 2000, b"A_B: 1"
        for lines, status, fields in (
            ((b"GET / HTTP/1.1", b"Host: Wide:80", long, under), 0, 2),
            ((b"GET / HTTP/1.1", under, b"Host: wide", long), 0, 3),
            ((b"GET / HTTP/1.1", long, b"Host: wide"), 400, 0),
            ((b"GET / HTTP/1.1", b"Host: tight", under), 0, 2),
            ((b"GET / HTTP/1.1", b"Host: tight", long), 400, 0),
            ((b"GET http://wide/ HTTP/1.1", b"Host: tight", long), 0, 2),
            ((b"GET http://tight/ HTTP/1.1", b"Host: wide", long), 400, 0),
        ):
            data = b"\r\n".join([*lines, b"", b""])
            for pieces in ([data], single(data)):
                parser = RequestParser(tight, named=named)
                found = None
                try:
                    for piece in pieces:
                        parser.feed(piece)
                        found = found or parser.next_head()
                    assert found is not None
                    self.assertEqual((0, len(found.head.headers)), (status, fields), lines)
                except BadRequest as error:
                    self.assertEqual(error.status, status, lines)

    def test_pipelined(self) -> None:
        head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        parser = RequestParser(Limits(), head * 2)
        found = [parser.next_head(), parser.next_head()]
        parser.feed(head)
        found.append(parser.next_head())
        self.assertEqual([parsed and parsed.pipelined for parsed in found], [False, True, False])

    def test_head_is_known(self) -> None:
        with self.assertRaises(BadRequest) as caught:
            parse(b"GET /x HTTP/1.1\r\n\r\n")
        self.assertEqual(caught.exception.head.target, b"/x")

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

    def test_higher_minor_version(self) -> None:
        """RFC 9110 section 2.5: as the highest one that we know."""
        self.assertEqual(parse(b"GET / HTTP/1.7\r\nHost: a\r\n\r\n").head.version, (1, 1))

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
