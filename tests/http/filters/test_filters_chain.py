"""The filters, one by one and as a chain."""

from __future__ import annotations

import gzip
import os
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError
from imagefarm.http.conditional import IfModifiedSince
from imagefarm.http.dates import format_http
from imagefarm.http.errorpages import page, server_token
from imagefarm.http.filters import FilterSettings, run
from imagefarm.http.filters.gzip import accepts, add_vary, client_accepts_gzip
from imagefarm.http.filters.headers import Expires, Kind, parse_expires
from imagefarm.http.filters.range import cut
from imagefarm.http.headers import Headers
from imagefarm.http.message import (
    Body,
    FileBody,
    PartsBody,
    Request,
    Response,
    body_length,
)
from tests.http.samples import (
    NOW,
    Sink,
    Source,
    file_body,
    http_scope,
    location_scope,
    open_file,
    read,
    request,
)

TAG = b'"2ebc9ae1-2710"'
MODIFIED = format_http(NOW - 3600)


def chain(text: str = "", **more: Any) -> FilterSettings:
    """The settings of these lines of configuration."""
    return FilterSettings.from_scope(http_scope(text), clock=lambda: NOW, **more)


def answer(body: Body = b"", kind: bytes = b"text/plain", **more: Any) -> Response:
    """What the static leaf answers."""
    fields = [(b"Content-Type", kind), (b"Last-Modified", MODIFIED), (b"ETag", TAG)]
    return Response(
        **{
            "status": 200,
            "headers": Headers(fields),
            "body": body,
            "mtime": NOW - 3600,
            "ranges": True,
            **more,
        }
    )


def asking(*fields: tuple[bytes, bytes], **more: Any) -> Request:
    return request(b"/a.txt", fields, **more)


def fields(response: Response) -> dict[bytes, bytes]:
    return {name.lower(): value for name, value in response.headers}


class SettingsTests(SynchronousTestCase):
    def test_defaults(self) -> None:
        self.assertEqual(
            FilterSettings.from_scope(http_scope("")),
            FilterSettings(),
        )

    def test_nothing_to_do(self) -> None:
        response = answer(b"hello", ranges=False)
        self.assertIs(run(asking(), response, chain()), response)

    def test_the_farms_own(self) -> None:
        found = chain(
            "gzip on; gzip_min_length 1k; gzip_buffers 4 8k; gzip_http_version 1.1;"
            "gzip_comp_level 2; gzip_types text/plain application/x-javascript text/css;"
            'gzip_vary on; gzip_disable "MSIE [1-6]\\.(?!.*SV1)"; charset UTF-8; expires 10s;'
        )
        self.assertEqual(
            (found.gzip.on, found.gzip.min_length, found.gzip.buffer, found.gzip.level),
            (True, 1024, 32768, 2),
        )
        self.assertEqual(
            found.gzip.types,
            {b"text/html", b"text/plain", b"application/x-javascript", b"text/css"},
        )
        self.assertEqual((found.charset, found.expires), (b"UTF-8", Expires(Kind.ACCESS, 10)))
        old = asking((b"Accept-Encoding", b"gzip"), (b"User-Agent", b"x MSIE 6.0; y"))
        patched = asking((b"Accept-Encoding", b"gzip"), (b"User-Agent", b"x MSIE 6.0; SV1"))
        self.assertFalse(client_accepts_gzip(old, found.gzip))
        self.assertTrue(client_accepts_gzip(patched, found.gzip))

    def test_inheritance(self) -> None:
        inner = location_scope("add_header A 1; location / { add_header B 2; etag off; }")
        found = FilterSettings.from_scope(inner)
        self.assertEqual([rule.name for rule in found.add_headers], [b"B"])

    def test_errors(self) -> None:
        for line, message in {
            "expires soon;": '"expires" directive invalid value',
            "expires before 1h;": '"expires" directive invalid value',
            "expires modified @1h;": 'daily time cannot be used with "modified" parameter',
            "expires @25h;": "daily time value must be less than 24 hours",
            "add_header A 1 sometimes;": 'invalid parameter "sometimes"',
            "gzip_comp_level 10;": "value must be equal to or less than 9",
            "gzip_comp_level 0;": "value must be equal to or greater than 1",
            "gzip_proxied now;": 'invalid value "now"',
            "gzip_buffers 0 8k;": "invalid value",
            'gzip_disable "(";': "pcre2_compile() failed",
            "if_modified_since after;": 'invalid value "after"',
            "charset $x;": "variables are not supported",
        }.items():
            with self.assertRaises(ConfigurationError, msg=line) as raised:
                http_scope(line)
            self.assertIn(message, str(raised.exception))
            self.assertIn("in test.conf:2", str(raised.exception))


class NotModifiedTests(SynchronousTestCase):
    def test_304_keeps_what_describes_the_resource(self) -> None:
        body = file_body(b"x" * 5000)
        found = run(
            asking(
                (b"If-None-Match", TAG), (b"Accept-Encoding", b"gzip"), (b"Range", b"bytes=0-1")
            ),
            answer(body),
            chain("gzip on; gzip_types text/plain; gzip_vary on; charset utf-8; expires 1m;"),
        )
        self.assertEqual((found.status, found.body, found.length), (304, b"", None))
        self.assertEqual(
            set(fields(found)), {b"last-modified", b"etag", b"expires", b"cache-control"}
        )
        self.assertEqual(body.file.fd, -1)

    def test_412(self) -> None:
        body = file_body(b"x")
        found = run(
            asking((b"If-Match", b'"x"')),
            answer(body),
            chain("add_header A 1; add_header B 2 always; charset utf-8; expires 1m;"),
        )
        self.assertEqual((found.status, found.body), (412, page(412, server_token(True))))
        self.assertEqual(fields(found), {b"content-type": b"text/html; charset=utf-8", b"b": b"2"})
        self.assertEqual(body.file.fd, -1)

    def test_only_200(self) -> None:
        found = run(asking((b"If-None-Match", b"*")), answer(b"x", status=404), chain())
        self.assertEqual(found.status, 404)

    def test_not_what_the_upstream_has_tested(self) -> None:
        response = answer(b"x", conditional=False)
        self.assertEqual(run(asking((b"If-Match", b'"x"')), response, chain()).status, 200)

    def test_if_modified_since(self) -> None:
        self.assertIs(chain("if_modified_since before;").if_modified_since, IfModifiedSince.BEFORE)
        asked = asking((b"If-Modified-Since", format_http(NOW)))
        for line, status in {
            "": 200,
            "if_modified_since before;": 304,
            "if_modified_since off;": 200,
        }.items():
            self.assertEqual(run(asked, answer(b"x"), chain(line)).status, status, line)


class ExpiresTests(SynchronousTestCase):
    def check(self, text: str, when: float | None, control: bytes | None, **more: Any) -> None:
        found = fields(run(asking(), answer(b"x", **more), chain(f"expires {text};")))
        expected = None if when is None else format_http(when)
        self.assertEqual(
            (found.get(b"expires"), found.get(b"cache-control")), (expected, control), text
        )

    def test_forms(self) -> None:
        self.check("5m", NOW + 300, b"max-age=300")
        self.check("+5m", NOW + 300, b"max-age=300")
        self.check("0", NOW, b"max-age=0")
        self.check("-1", NOW - 1, b"no-cache")
        self.check("epoch", 1, b"no-cache")
        self.check("max", 2145916555, b"max-age=315360000")
        self.check("off", None, None)
        self.check("modified 2h", NOW + 3600, b"max-age=3600")
        self.check("modified +30m", NOW - 1800, b"no-cache")
        self.check("modified -1h", NOW - 7200, b"no-cache")
        self.check("modified 2h", NOW + 7200, b"max-age=7200", mtime=None)

    def test_daily(self) -> None:
        found = fields(run(asking(), answer(b"x"), chain("expires @15h30m;")))
        age = int(found[b"cache-control"].removeprefix(b"max-age="))
        self.assertTrue(0 < age <= 86400)
        self.assertEqual(found[b"expires"], format_http(NOW + age))

    def test_only_some_statuses(self) -> None:
        for status in (200, 201, 204, 206, 301, 302, 303, 304, 307, 308):
            self.check("1m", NOW + 60, b"max-age=60", status=status)
        for status in (202, 400, 404, 500):
            self.check("1m", None, None, status=status)

    def test_replaces_what_an_upstream_said(self) -> None:
        response = answer(b"x")
        for value in (b"private", b"no-store"):
            response.headers.add(b"cache-control", value)
        response.headers.add(b"EXPIRES", b"0")
        found = run(asking(), response, chain("expires 1m;"))
        self.assertEqual(found.headers.getall(b"cache-control"), [b"max-age=60"])
        self.assertEqual(len(found.headers.getall(b"expires")), 1)
        self.assertEqual(response.headers.getall(b"expires"), [b"0"])

    def test_variables(self) -> None:
        rules = chain("expires $arg_e;")
        for target, expected in {
            b"/?e=1m": b"max-age=60",
            b"/?e=epoch": b"no-cache",
            b"/?e=off": None,
            b"/?e=x": None,
            b"/": None,
        }.items():
            found = run(request(target), answer(b"x"), rules)
            self.assertEqual(found.headers.get(b"cache-control"), expected, target)

    def test_parse(self) -> None:
        self.assertEqual(parse_expires("@1h"), Expires(Kind.DAILY, 3600))
        self.assertEqual(parse_expires("-1h30m"), Expires(Kind.ACCESS, -5400))


class AddHeaderTests(SynchronousTestCase):
    def test_always_and_not(self) -> None:
        rules = chain("add_header A 1; add_header B $uri always; add_header C $arg_x always;")
        found = fields(run(asking(), answer(b"x", ranges=False), rules))
        self.assertEqual((found[b"a"], found[b"b"]), (b"1", b"/a.txt"))
        self.assertNotIn(b"c", found)
        found = fields(run(asking(), answer(b"x", status=404), rules))
        self.assertEqual((found.get(b"a"), found[b"b"]), (None, b"/a.txt"))

    def test_several_of_one_name(self) -> None:
        rules = chain("add_header Cache-Control public; add_header Cache-Control immutable;")
        found = run(asking(), answer(b"x"), rules)
        self.assertEqual(found.headers.getall(b"cache-control"), [b"public", b"immutable"])

    def test_validators_are_replaced(self) -> None:
        rules = chain(f'add_header Last-Modified "{MODIFIED.decode()}"; add_header ETag "";')
        found = run(asking(), answer(b"x", mtime=1.0), rules)
        self.assertEqual(found.headers.getall(b"last-modified"), [MODIFIED])
        self.assertEqual(found.mtime, NOW - 3600)
        self.assertNotIn(b"etag", found.headers)

    def test_no_response_splitting(self) -> None:
        asked = request(b"/")
        asked.uri = b"/x\r\nSet-Cookie: y\0"
        found = run(asked, answer(b"x"), chain("add_header A $uri;"))
        self.assertEqual(found.headers.get(b"a"), b"/x  Set-Cookie: y ")


class CharsetTests(SynchronousTestCase):
    def kind(self, before: bytes, lines: str = "charset UTF-8;", **more: Any) -> bytes | None:
        return run(asking(), answer(b"x", before, **more), chain(lines)).headers.get(
            b"content-type"
        )

    def test_types(self) -> None:
        self.assertEqual(self.kind(b"text/plain"), b"text/plain; charset=UTF-8")
        self.assertEqual(self.kind(b"TEXT/HTML"), b"TEXT/HTML; charset=UTF-8")
        self.assertEqual(self.kind(b"image/png"), b"image/png")
        self.assertEqual(self.kind(b"text/css"), b"text/css")
        self.assertEqual(self.kind(b"text/plain", ""), b"text/plain")
        self.assertEqual(self.kind(b"text/plain", "charset off;"), b"text/plain")
        lines = "charset UTF-8; charset_types text/css;"
        self.assertEqual(self.kind(b"text/css", lines), b"text/css; charset=UTF-8")
        self.assertEqual(self.kind(b"text/html", lines), b"text/html; charset=UTF-8")
        self.assertEqual(self.kind(b"text/plain", lines), b"text/plain")
        lines = "charset UTF-8; charset_types *;"
        self.assertEqual(self.kind(b"image/png", lines), b"image/png; charset=UTF-8")

    def test_an_upstreams_charset(self) -> None:
        kind = b"text/html; Charset=euc-kr"
        self.assertEqual(self.kind(kind), kind)
        self.assertEqual(
            self.kind(kind, "charset UTF-8; override_charset on;"), b"text/html; charset=UTF-8"
        )

    def test_statuses(self) -> None:
        self.assertEqual(self.kind(b"text/html", status=404), b"text/html; charset=UTF-8")
        self.assertEqual(self.kind(b"text/html", status=307), b"text/html; charset=UTF-8")
        self.assertEqual(self.kind(b"text/html", status=302), b"text/html")

    def test_without_a_type(self) -> None:
        found = run(asking(), Response(200), chain("charset UTF-8;"))
        self.assertNotIn(b"content-type", found.headers)


GZIP = "gzip on; gzip_types text/plain; gzip_min_length 10; gzip_buffers 4 1k;"
TAKES = (b"Accept-Encoding", b"gzip")


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


class OrderTests(SynchronousTestCase):
    def test_gzip_goes_before_ranges(self) -> None:
        asked = asking(TAKES, (b"Range", b"bytes=0-1"))
        found = run(asked, answer(b"x" * 100), chain(GZIP))
        self.assertEqual((found.status, found.headers.get(b"content-encoding")), (200, b"gzip"))

    def test_the_response_given_is_not_changed(self) -> None:
        response = answer(b"x" * 100)
        before = attrs.evolve(response, headers=response.headers.copy())
        for asked in (
            asking(TAKES),
            asking((b"Range", b"bytes=0-0")),
            asking((b"If-Match", b"x")),
        ):
            run(asked, response, chain(GZIP + "charset a; expires 1m; add_header B 1;"))
            self.assertEqual(response.headers, before.headers)
            self.assertEqual((response.status, response.body), (200, before.body))
