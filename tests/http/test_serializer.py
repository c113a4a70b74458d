from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.headers import Headers
from imagefarm.http.serializer import (
    CHUNKED,
    CLOSE,
    KEEP_ALIVE,
    BadResponse,
    Serializer,
    connection_field,
    content_length,
)

from .fakes import NOW


class SerializerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.serializer = Serializer(b"imagefarm", b"1.0")

    def head(self, status: int = 200, *fields: tuple[bytes, bytes]) -> bytes:
        headers = Headers(fields)
        return self.serializer.head(status, headers, content_length(5), KEEP_ALIVE, NOW)

    def test_order_is_nginx_s(self) -> None:
        head = self.head(
            200,
            (b"ETag", b'"1"'),
            (b"Location", b"/x"),
            (b"X-A", b"b"),
            (b"last-modified", b"now"),
            (b"Content-Type", b"text/html"),
        )
        self.assertEqual(
            head.split(b"\r\n"),
            [
                b"HTTP/1.1 200 OK",
                b"Server: imagefarm/1.0",
                b"Date: Sun, 06 Nov 1994 08:49:37 GMT",
                b"Content-Type: text/html",
                b"Content-Length: 5",
                b"last-modified: now",
                b"Location: /x",
                b"Connection: keep-alive",
                b'ETag: "1"',
                b"X-A: b",
                b"",
                b"",
            ],
        )

    def test_chunked_comes_before_connection(self) -> None:
        headers = Headers([(b"Location", b"/x")])
        head = self.serializer.head(200, headers, CHUNKED, CLOSE, NOW, tokens=False)
        self.assertIn(b"\r\nServer: imagefarm\r\n", head)
        self.assertTrue(
            head.endswith(
                b"Location: /x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            )
        )

    def test_reasons(self) -> None:
        for status, line in (
            (302, b"HTTP/1.1 302 Moved Temporarily"),
            (405, b"HTTP/1.1 405 Not Allowed"),
            (418, b"HTTP/1.1 418 "),
        ):
            self.assertEqual(self.head(status).split(b"\r\n")[0], line)

    def test_connection_belongs_to_the_connection(self) -> None:
        head = self.head(
            200,
            (b"Content-Length", b"9"),
            (b"transfer-encoding", b"chunked"),
            (b"Connection", b"close"),
            (b"Keep-Alive", b"x"),
        )
        self.assertEqual(head, self.head(200))

    def test_a_handler_s_own_server_and_date(self) -> None:
        head = self.head(200, (b"Server", b"other"), (b"Date", b"then"))
        self.assertEqual(head.split(b"\r\n")[1:3], [b"Server: other", b"Date: then"])

    def test_repeated_fields(self) -> None:
        head = self.head(200, (b"Set-Cookie", b"a"), (b"Location", b"x"), (b"Set-Cookie", b"b"))
        self.assertTrue(head.endswith(b"Set-Cookie: a\r\nSet-Cookie: b\r\n\r\n"))

    def test_the_date_moves_on(self) -> None:
        self.head()
        head = self.serializer.head(200, Headers(), b"", CLOSE, NOW + 1)
        self.assertIn(b"Date: Sun, 06 Nov 1994 08:49:38 GMT", head)

    def test_splitting_is_refused(self) -> None:
        for name, value in (
            (b"X", b"a\r\nSet-Cookie: b"),
            (b"X", b"a\nb"),
            (b"X", b"a\rb"),
            (b"X", b"a\0b"),
            (b"X\r\nY", b"a"),
            (b"Location", b"/\r\n\r\n<html>"),
            (b"Server", b"a\r\nX: b"),
            (b"Content-Type", b"a\n"),
        ):
            with self.assertRaises(BadResponse):
                self.head(200, (name, value))

    def test_impossible_status(self) -> None:
        for status in (0, 99, 100, 102, 1000, -1):
            with self.assertRaises(BadResponse):
                self.head(status)

    def test_connection_field(self) -> None:
        self.assertEqual(connection_field(False, 65), CLOSE)
        self.assertEqual(connection_field(True, None), KEEP_ALIVE)
        self.assertEqual(
            connection_field(True, 65), b"Connection: keep-alive\r\nKeep-Alive: timeout=65\r\n"
        )

    @given(
        st.lists(st.tuples(st.sampled_from([b"A", b"Location", b"Content-Type"]),
                           st.binary(max_size=8))),
        st.sampled_from([CHUNKED, b"", content_length(7)]),
        st.booleans(),
    )  # fmt: skip
    def test_a_head_is_what_we_meant_or_nothing(
        self, fields: list[tuple[bytes, bytes]], framing: bytes, keep: bool
    ) -> None:
        bad = any(byte in value for _, value in fields for byte in b"\r\n\0")
        connection = connection_field(keep, 5)
        try:
            head = self.serializer.head(200, Headers(fields), framing, connection, NOW)
        except BadResponse:
            self.assertTrue(bad)
            return
        self.assertFalse(bad)
        self.assertTrue(head.endswith(b"\r\n\r\n"))
        self.assertEqual(head.count(b"\r\n\r\n"), 1)
        for name, value in fields:
            self.assertIn(b"\r\n%b: %b\r\n" % (name, value), head)
