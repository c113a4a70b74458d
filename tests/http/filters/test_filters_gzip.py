"""Compression on the fly."""

from __future__ import annotations

import gzip
import os
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.dates import format_http
from imagefarm.http.filters import run
from imagefarm.http.filters.gzip import accepts, add_vary
from imagefarm.http.headers import Headers
from imagefarm.http.message import (
    FileBody,
    PartsBody,
    body_length,
)
from tests.http.samples import (
    NOW,
    Sink,
    Source,
    file_body,
    open_file,
    read,
)

from .chain import GZIP, MODIFIED, TAG, TAKES, answer, asking, chain, fields


class GzipTests(SynchronousTestCase):
    def gzipped(self, lines: str = GZIP, *extra: tuple[bytes, bytes], **more: Any) -> bool:
        asked = asking(TAKES, *extra, version=more.pop("version", (1, 1)))
        found = run(asked, answer(**{"body": b"x" * 100, **more}), chain(lines))
        return found.headers.get(b"content-encoding") == b"gzip"

    def test_bytes(self) -> None:
        found = run(asking(TAKES), answer(b"x" * 5000), chain(GZIP))
        self.assertIsInstance(found.body, bytes)
        self.assertEqual(gzip.decompress(read(found.body)), b"x" * 5000)
        self.assertEqual(
            fields(found),
            {
                b"content-type": b"text/plain",
                b"last-modified": MODIFIED,
                b"etag": b"W/" + TAG,
                b"content-encoding": b"gzip",
            },
        )
        self.assertFalse(found.ranges)

    def test_a_small_file_is_compressed_whole(self) -> None:
        body = file_body(b"x" * 4096)
        found = run(asking(TAKES), answer(body), chain(GZIP))
        self.assertIsInstance(found.body, bytes)
        self.assertEqual(gzip.decompress(read(found.body)), b"x" * 4096)
        self.assertEqual(body.file.fd, -1)

    def test_a_large_file_streams(self) -> None:
        content = os.urandom(50000)
        body = file_body(content)
        found = run(asking(TAKES), answer(body), chain(GZIP))
        self.assertIsNone(body_length(found.body))
        self.assertEqual(gzip.decompress(read(found.body)), content)
        self.assertEqual(body.file.fd, -1)

    def test_a_large_file_takes_turns(self) -> None:
        turns: list[Any] = []
        found = run(asking(TAKES), answer(file_body(b"x" * 9000)), chain(GZIP, later=turns.append))
        sink = Sink()
        assert not isinstance(found.body, bytes | FileBody | PartsBody)
        found.body.start(sink)
        count = 0
        while turns:
            turns.pop()()
            count += 1
        self.assertEqual((gzip.decompress(sink.body), sink.ends), (b"x" * 9000, 1))
        self.assertEqual(count, 3)

    def test_a_stream(self) -> None:
        source = Source(b"x" * 50, b"y" * 50)
        found = run(asking(TAKES), answer(source), chain(GZIP))
        self.assertEqual(gzip.decompress(read(found.body)), b"x" * 50 + b"y" * 50)

    def test_parts(self) -> None:
        parts = PartsBody((b"x" * 50, file_body(b"y" * 50)), 100)
        found = run(asking(TAKES), answer(parts), chain(GZIP))
        self.assertEqual(gzip.decompress(read(found.body)), b"x" * 50 + b"y" * 50)

    def test_a_truncated_file_does_not_look_complete(self) -> None:
        file = open_file(b"x" * 100)
        found = run(asking(TAKES), answer(FileBody(file, 0, 200)), chain(GZIP))
        sink = Sink()
        assert not isinstance(found.body, bytes | FileBody | PartsBody)
        found.body.start(sink)
        self.assertEqual((sink.ends, sink.error is not None), (0, True))

    def test_head_has_no_length(self) -> None:
        for body, length in ((b"", 100), (file_body(b"x" * 100), None)):
            asked = asking(TAKES, method=b"HEAD")
            found = run(asked, answer(body, length=length), chain(GZIP))
            self.assertEqual(found.headers.get(b"content-encoding"), b"gzip")
            self.assertEqual((body_length(found.body), found.length), (None, None))

    def test_when_not(self) -> None:
        self.assertTrue(self.gzipped())
        self.assertTrue(self.gzipped(status=404))
        self.assertFalse(self.gzipped("gzip off; gzip_types text/plain;"))
        self.assertFalse(self.gzipped(status=500))
        self.assertFalse(self.gzipped(kind=b"image/png"))
        self.assertTrue(self.gzipped(kind=b"text/plain; charset=x"))
        self.assertFalse(self.gzipped(version=(1, 0)))
        self.assertTrue(self.gzipped(GZIP + "gzip_http_version 1.0;", version=(1, 0)))
        self.assertFalse(self.gzipped(GZIP.replace("10;", "101;")))
        self.assertTrue(self.gzipped(GZIP.replace("10;", "100;")))
        self.assertTrue(self.gzipped("gzip on; gzip_types *;", kind=b"image/png"))
        self.assertTrue(self.gzipped("gzip on;", kind=b"text/html"))
        self.assertTrue(self.gzipped(body=Source(b"x" * 5)))  # of unknown length
        coded = answer(b"x" * 100)
        coded.headers.add(b"Content-Encoding", b"br")
        found = run(asking(TAKES), coded, chain(GZIP))
        self.assertEqual((found.body, found.headers.get(b"content-encoding")), (coded.body, b"br"))

    def test_accept_encoding(self) -> None:
        for value in (
            b"gzip", b"GZIP", b"deflate, gzip", b"gzip;q=0.5", b"gzip; q=1.000", b"gzip ;q=1",
            b"gzip;q=0.001", b"gzip;", b"xgzip, gzip", b"br;q=1,gzip", b"gzip;Q=1",
        ):  # fmt: skip
            self.assertTrue(accepts(value), value)
        for absent in (
            None, b"", b"br", b"*", b"gzip;q=0", b"gzip;q=0.000", b"gzip;q=1.1", b"gzip;q=",
            b"gzip;x=1", b"gzipx", b"xgzip", b"gzip x", b"gzip;q=0.0001", b"gzip;q=2",
        ):  # fmt: skip
            self.assertFalse(accepts(absent), absent)

    @settings(deadline=None)
    @given(st.lists(st.sampled_from([b"gzip", b";", b"q=", b"0", b"1", b".", b",", b" ", b"x"])))
    def test_accept_encoding_never_raises(self, pieces: list[bytes]) -> None:
        self.assertIn(accepts(b"".join(pieces)), (True, False))

    def test_vary(self) -> None:
        lines = GZIP + "gzip_vary on;"
        self.assertEqual(
            run(asking(TAKES), answer(b"x" * 100), chain(lines)).headers.get(b"vary"),
            b"Accept-Encoding",
        )
        plain = run(asking(), answer(b"x" * 100), chain(lines))
        self.assertEqual(plain.headers.get(b"vary"), b"Accept-Encoding")
        self.assertEqual((plain.body, plain.headers.get(b"etag")), (b"x" * 100, TAG))
        self.assertNotIn(b"vary", run(asking(), answer(b"x"), chain(lines)).headers)
        self.assertNotIn(b"vary", run(asking(TAKES), answer(b"x" * 100), chain(GZIP)).headers)

    def test_vary_once(self) -> None:
        headers = Headers([(b"Vary", b"Cookie, accept-encoding")])
        add_vary(headers)
        self.assertEqual(len(headers), 1)

    def test_disable(self) -> None:
        lines = GZIP + "gzip_disable msie6 Bot[0-9];"
        for agent, expected in {
            b"Mozilla/4.0 (compatible; MSIE 6.0; Windows)": False,
            b"Mozilla/4.0 (compatible; MSIE 5.5; Windows)": False,
            b"Mozilla/4.0 (compatible; MSIE 6.0; SV1)": True,
            b"Mozilla/4.0 (compatible; MSIE 6.0) Opera": True,
            b"Mozilla/4.0 (compatible; MSIE 7.0)": True,
            b"bot7": False,
        }.items():
            self.assertIs(self.gzipped(lines, (b"User-Agent", agent)), expected, agent)

    def test_proxied(self) -> None:
        via = (b"Via", b"1.1 x")

        def proxied(words: str, *said: tuple[bytes, bytes], **more: Any) -> bool:
            response = answer(b"x" * 100)
            for name, value in said:
                response.headers.add(name, value)
            asked = asking(TAKES, via, *more.get("asked", ()))
            found = run(asked, response, chain(GZIP + f"gzip_proxied {words};"))
            return found.headers.get(b"content-encoding") == b"gzip"

        past, future = (b"Expires", format_http(NOW - 1)), (b"Expires", format_http(NOW + 1))
        self.assertFalse(proxied("off"))
        self.assertTrue(proxied("any"))
        self.assertTrue(proxied("auth", future, asked=[(b"Authorization", b"x")]))
        self.assertTrue(proxied("expired", past))
        self.assertFalse(proxied("expired", future))
        self.assertFalse(proxied("expired", (b"Expires", b"x")))
        self.assertTrue(proxied("expired", future, (b"Date", format_http(NOW + 2))))
        self.assertFalse(proxied("no-cache", past))
        for word in ("no-cache", "no-store", "private"):
            control = (b"Cache-Control", b"max-age=1, " + word.encode())
            self.assertTrue(proxied(word, control), word)
            self.assertFalse(proxied("expired", control), word)
        self.assertFalse(proxied("no_last_modified"))
        self.assertFalse(proxied("no_etag"))
        self.assertTrue(proxied("expired"))
