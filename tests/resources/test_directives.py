"""What the rows of servers and locations say to malformed words; nesting; status pages."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError
from imagefarm.http.headers import Headers
from imagefarm.http.message import Response
from imagefarm.resources.status import json_status, stub_status

from .site import Site


class WordsTests(SynchronousTestCase):
    def test_errors(self) -> None:
        for text, expected in {
            "error_page 404;": 'invalid number of arguments in "error_page" directive',
            "error_page =200 /x;": 'invalid number of arguments in "error_page" directive',
            "error_page 299 /x;": 'value "299" must be between 300 and 599',
            "error_page 499 /x;": 'value "499" must be between 300 and 599',
            "error_page x /x;": 'invalid value "x"',
            "error_page 404 =x /x;": 'invalid value "=x"',
            "allow 1.2.3;": 'invalid parameter "1.2.3"',
            "deny 10.0.0.0/33;": 'invalid parameter "10.0.0.0/33"',
            "disable_symlinks maybe;": 'invalid parameter "maybe"',
            "gzip_static perhaps;": (
                'invalid value "perhaps" in "gzip_static" directive, it must be one of: '
                '"on", "off", "always"'
            ),
            "server_name a*b;": 'invalid server name or wildcard "a*b"',
            "server_name *.*;": 'invalid server name or wildcard "*.*"',
            "server_name ~(;": (
                'pcre2_compile() failed: missing ), unterminated subpattern in "("'
            ),
            "location ! /x { }": 'invalid location modifier "!"',
            "location @ /x { }": 'invalid location modifier "@"',
            "location ~ [ { }": ('pcre2_compile() failed: unterminated character set in "["'),
            "internal;": '"internal" directive is not allowed here',
            "location / { internal on; }": ('invalid number of arguments in "internal" directive'),
        }.items():
            error = self.assertRaises(ConfigurationError, Site, self.addCleanup, text)
            self.assertEqual(error.problems[0].message, expected, text)

    def test_meaningless_bits(self) -> None:
        site = Site(self.addCleanup, "allow 10.1.0.0/8;")
        self.assertEqual(
            [problem.message for problem in site.warnings],
            ["low address bits of 10.1.0.0/8 are meaningless"],
        )

    def test_one_word_locations(self) -> None:
        site = Site(
            self.addCleanup,
            'location =/a { return 200 "="; } location ^~/b { return 200 "^~"; }'
            'location ~^/c { return 200 "~"; } location ~*^/D { return 200 "~*"; }',
        )
        found = [site.ask(target).body for target in ("/a", "/b/x", "/c", "/d")]
        self.assertEqual(found, [b"=", b"^~", b"~", b"~*"])


class NestingTests(SynchronousTestCase):
    def test_settings_and_handlers(self) -> None:
        """Settings are inherited, content handlers are not."""
        site = Site(
            self.addCleanup,
            "location /a/ { add_header X outer; location /a/b/ { }"
            " location /a/c/ { add_header X inner; } }",
            contents={"/a/": lambda request: Response(200, Headers(), b"handler")},
            files=["a/b/f", "a/c/f"],
        )
        outer = site.ask("/a/f")
        self.assertEqual((outer.body, outer.header("x")), (b"handler", "outer"))
        inner = site.ask("/a/b/f")
        self.assertEqual((inner.body, inner.header("x")), (b"content of a/b/f", "outer"))
        self.assertEqual(site.ask("/a/c/f").header("x"), "inner")

    def test_preferred_inside_leaves_the_outer_expressions_on(self) -> None:
        site = Site(
            self.addCleanup,
            "location /a/ { location ^~ /a/b/ { return 200 in; } location ~ f { return 200 re; } }"
            "location ~ g$ { return 200 out; }",
        )
        found = [site.ask(target).body for target in ("/a/b/f", "/a/b/g", "/a/f")]
        self.assertEqual(found, [b"in", b"out", b"re"])


class StatusTests(SynchronousTestCase):
    COUNTS: dict[str, Any] = {
        "requests": 30,
        "connections": {
            "accepted": 10, "handled": 9, "active": 3, "reading": 0, "writing": 1, "waiting": 2,
        },
    }  # fmt: skip

    def ask(self, content: object, **more: object) -> tuple[int, str | None, bytes]:
        site = Site(self.addCleanup, "location /s { }", contents={"/s": content})  # type: ignore[dict-item]
        shown = site.ask("/s", **more)
        return shown.status, shown.header("content-type"), shown.body

    def test_stub_status(self) -> None:
        self.assertEqual(
            self.ask(stub_status(lambda: succeed(self.COUNTS))),
            (
                200,
                "text/plain",
                b"Active connections: 3 \nserver accepts handled requests\n 10 9 31 \n"
                b"Reading: 0 Writing: 1 Waiting: 2 \n",
            ),
        )

    def test_json(self) -> None:
        status, kind, body = self.ask(json_status(lambda: succeed({"pid": 1, "caches": {}})))
        self.assertEqual((status, kind), (200, "application/json"))
        self.assertEqual(json.loads(body), {"pid": 1, "caches": {}})

    def test_methods(self) -> None:
        for content in (
            stub_status(lambda: succeed(self.COUNTS)),
            json_status(lambda: succeed({})),
        ):
            self.assertEqual(self.ask(content, method=b"POST")[0], 405)
            self.assertEqual(self.ask(content, method=b"HEAD")[0], 200)

    def test_each_request_counts_anew(self) -> None:
        counts = iter([self.COUNTS, {**self.COUNTS, "requests": 31}])
        content = stub_status(lambda: succeed(next(counts)))
        first, second = self.ask(content)[2], self.ask(content)[2]
        self.assertIn(b" 10 9 31 ", first)
        self.assertIn(b" 10 9 32 ", second)
