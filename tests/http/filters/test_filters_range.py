"""The range filter."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.dates import format_http
from imagefarm.http.errorpages import page, server_token
from imagefarm.http.filters import run
from imagefarm.http.filters.range import cut
from imagefarm.http.message import (
    Body,
    FileBody,
    PartsBody,
    Response,
    body_length,
)
from tests.http.samples import (
    NOW,
    Source,
    file_body,
    open_file,
    read,
)

from .chain import MODIFIED, TAG, answer, asking, chain, fields


class RangeTests(SynchronousTestCase):
    def ask(
        self, value: bytes, body: Body = b"0123456789", lines: str = "", **more: Any
    ) -> Response:
        extra = more.pop("asked", ())
        method = more.pop("method", b"GET")
        asked = asking((b"Range", value), *extra, method=method)
        return run(asked, answer(body, b"image/jpeg", **more), chain(lines))

    def test_offered(self) -> None:
        found = run(asking(), answer(b"x"), chain())
        self.assertEqual(found.headers.get(b"accept-ranges"), b"bytes")
        for response in (
            run(asking(), answer(b"x", ranges=False), chain()),
            run(asking(), answer(b"x"), chain("max_ranges 0;")),
            run(asking(), answer(Source()), chain()),
            run(asking(version=(0, 9)), answer(b"x"), chain()),
            run(asking(), answer(b"x", status=404), chain()),
        ):
            self.assertNotIn(b"accept-ranges", response.headers)

    def test_single_from_each_kind_of_body(self) -> None:
        file = open_file(b"__0123456789")
        parts = PartsBody((b"01", FileBody(open_file(b"234567"), 0, 6), b"89"), 10)
        for body in (
            b"0123456789",
            FileBody(file, 2, 10),
            parts,
            Source(b"012", b"3456789", length=10),
        ):
            found = self.ask(b"bytes=1-8", body)
            self.assertEqual(found.status, 206)
            self.assertEqual(found.headers.get(b"content-range"), b"bytes 1-8/10")
            self.assertNotIn(b"accept-ranges", found.headers)
            self.assertEqual(body_length(found.body), 8)
            self.assertEqual(read(found.body), b"12345678")

    def test_multiple(self) -> None:
        for body in (b"0123456789", file_body(b"0123456789")):
            found = self.ask(b"bytes=0-1,-2", body, "charset utf-8; charset_types image/jpeg;")
            kind = fields(found)[b"content-type"]
            self.assertRegex(kind, rb"^multipart/byteranges; boundary=\d{20}$")
            boundary = kind[-20:]
            expected = (
                b"\r\n--%b\r\nContent-Type: image/jpeg; charset=utf-8\r\n"
                b"Content-Range: bytes 0-1/10\r\n\r\n01"
                b"\r\n--%b\r\nContent-Type: image/jpeg; charset=utf-8\r\n"
                b"Content-Range: bytes 8-9/10\r\n\r\n89\r\n--%b--\r\n"
            ) % (boundary, boundary, boundary)
            self.assertEqual(read(found.body), expected)
            self.assertEqual((found.status, body_length(found.body)), (206, len(expected)))
            self.assertNotIn(b"content-range", found.headers)

    def test_boundaries_differ(self) -> None:
        def boundary(started: float) -> bytes | None:
            asked = asking((b"Range", b"bytes=0-0,2-2"), started=started)
            return run(asked, answer(b"0123456789"), chain()).headers.get(b"content-type")

        self.assertNotEqual(boundary(1.0), boundary(2.0))

    def test_head(self) -> None:
        whole = self.ask(b"bytes=0-1,-2")
        for value, expected in ((b"bytes=2-4", 3), (b"bytes=0-1,-2", body_length(whole.body))):
            found = self.ask(value, b"", length=10, method=b"HEAD")
            self.assertEqual((found.status, found.body, found.length), (206, b"", expected))

    def test_several_of_a_stream_or_a_cached_answer_are_the_whole(self) -> None:
        for more in ({"body": Source(b"0123456789", length=10)}, {"single_range": True}):
            found = self.ask(b"bytes=0-0,2-2", **more)  # type: ignore[arg-type]
            self.assertEqual((found.status, read(found.body)), (200, b"0123456789"))
            self.assertEqual(found.headers.get(b"accept-ranges"), b"bytes")
        self.assertEqual(self.ask(b"bytes=0-0", single_range=True).status, 206)

    def test_max_ranges(self) -> None:
        self.assertEqual(self.ask(b"bytes=0-0,2-2", lines="max_ranges 2;").status, 206)
        self.assertEqual(self.ask(b"bytes=0-0,2-2", lines="max_ranges 1;").status, 200)

    def test_not_satisfiable(self) -> None:
        body = file_body(b"0123456789")
        found = self.ask(b"bytes=10-", body, "charset utf-8; add_header A 1; expires 1m;")
        self.assertEqual((found.status, found.body), (416, page(416, server_token(True))))
        self.assertEqual(
            fields(found),
            {
                b"content-range": b"bytes */10",
                b"content-type": b"text/html; charset=utf-8",
                b"a": b"1",
                b"expires": format_http(NOW + 60),
                b"cache-control": b"max-age=60",
            },
        )
        self.assertEqual(body.file.fd, -1)

    def test_if_range(self) -> None:
        for value, status in {
            TAG: 206,
            b'"x"': 200,
            MODIFIED: 206,
            format_http(NOW): 200,
        }.items():
            found = self.ask(b"bytes=0-0", asked=[(b"If-Range", value)])
            self.assertEqual(found.status, status, value)

    def test_empty(self) -> None:
        self.assertEqual(self.ask(b"bytes=0-0", b"").status, 200)

    @settings(deadline=None)
    @given(st.lists(st.binary(max_size=6), max_size=5), st.data())
    def test_cut_from_parts(self, pieces: list[bytes], data: st.DataObject) -> None:
        whole = b"".join(pieces)
        start = data.draw(st.integers(0, len(whole)))
        length = data.draw(st.integers(0, len(whole) - start))
        files = [open_file(piece) for piece in pieces[::2]]
        bodies: list[bytes | FileBody] = list(pieces)
        bodies[::2] = [FileBody(file, 0, file.size) for file in files]
        try:
            found = cut(PartsBody(tuple(bodies), len(whole)), start, length)
            self.assertEqual(read(found), whole[start : start + length])
            self.assertEqual(body_length(found), length)
        finally:
            for file in files:
                file.close()
