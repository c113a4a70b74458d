"""The filters, one by one and as a chain."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError
from imagefarm.http.conditional import IfModifiedSince
from imagefarm.http.dates import format_http
from imagefarm.http.errorpages import page, server_token
from imagefarm.http.filters import FilterSettings, run
from imagefarm.http.filters.charset import SAID
from imagefarm.http.filters.gzip import client_accepts_gzip
from imagefarm.http.filters.headers import Expires, Kind, parse_expires
from imagefarm.http.headers import Headers
from imagefarm.http.message import (
    Response,
)
from tests.http.samples import (
    NOW,
    file_body,
    http_scope,
    location_scope,
    request,
)

from .chain import GZIP, MODIFIED, TAG, TAKES, answer, asking, chain, fields


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
        self.assertFalse(found.etag)

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
        # An upstream's answer has a Last-Modified, or nothing to count from but now.
        self.check("modified 2h", NOW + 3600, b"max-age=3600", mtime=None)
        self.check("modified 2h", NOW + 7200, b"max-age=7200", mtime=None, headers=Headers())

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

    def test_values_that_tell_of_the_answer(self) -> None:
        rules = chain(
            "expires 1m; add_header A $sent_http_cache_control always; add_header B $sent_http_a;"
            "add_header C '$status $sent_http_content_type' always;"
        )
        asked = asking()
        found = fields(run(asked, answer(b"x"), rules))
        self.assertEqual((found[b"a"], found[b"b"]), (b"max-age=60", b"max-age=60"))
        self.assertEqual(found[b"c"], b"200 text/plain")
        found = fields(run(asked, answer(b"x", status=404), rules))
        self.assertEqual((found.get(b"a"), found[b"c"]), (None, b"404 text/plain"))
        self.assertEqual((asked.outcome.status, asked.outcome.drafted), (0, None))

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

    def test_what_an_upstream_says_is_for_any_answer(self) -> None:
        """X-Accel-Charset: whatever ``charset`` is here, if it is one of the configuration's."""
        for said, before, status, expected in (
            (b"utf-8", b"image/png", 200, b"image/png; charset=utf-8"),
            (b"utf-8", b'a/b; c=d; Charset="UTF-8"', 200, b"a/b; c=d; charset=utf-8"),
            (b"utf-8", b"a/b; charset=koi8-r", 200, b"a/b; charset=koi8-r"),
            (b"koi8-r", b"text/html", 200, b"text/html"),
            (b"utf-8", b"text/html", 302, b"text/html"),
            (b"utf-8", b"text/html; charset=utf-8", 301, b"text/html"),
        ):
            request = asking()
            request.variables[SAID] = said
            lines = "charset UTF-8; override_charset on;"
            found = run(request, answer(b"x", before, status=status), chain(lines))
            self.assertEqual(found.headers.get(b"content-type"), expected, (said, before))
            refused = [text for _, text in request.notes if "charset" in text]
            self.assertEqual(len(refused), expected == before and status == 200)

    def test_statuses(self) -> None:
        self.assertEqual(self.kind(b"text/html", status=404), b"text/html; charset=UTF-8")
        self.assertEqual(self.kind(b"text/html", status=307), b"text/html; charset=UTF-8")
        self.assertEqual(self.kind(b"text/html", status=302), b"text/html")

    def test_without_a_type(self) -> None:
        found = run(asking(), Response(200), chain("charset UTF-8;"))
        self.assertNotIn(b"content-type", found.headers)


class OrderTests(SynchronousTestCase):
    def test_an_error_page_closes_the_connection_if_the_answer_would_have(self) -> None:
        for name, value in ((b"If-Match", b'"x"'), (b"Range", b"bytes=9-")):
            for close in (True, False):
                found = run(asking((name, value)), answer(b"x", close=close), chain())
                self.assertGreaterEqual(found.status, 412)
                self.assertIs(found.close, close)

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
