"""The rewrite module and its conditions, and what it says to malformed ones."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError
from imagefarm.http.headers import Headers
from imagefarm.http.message import Response
from imagefarm.resources.rewrite import _unquoted

from .site import Shown, Site


class RewriteCase(SynchronousTestCase):
    def ask(self, text: str, target: str = "/x", **more: Any) -> Shown:
        return Site(self.addCleanup, text).ask(target, **more)

    def body(self, text: str, target: str = "/x", **more: Any) -> str:
        return self.ask(text, target, **more).body.decode()

    def refused(self, text: str) -> str:
        error = self.assertRaises(ConfigurationError, Site, self.addCleanup, text)
        return str(error.problems[0]).removesuffix(" in site.conf:3")


class StepsTests(RewriteCase):
    def test_only_a_rate_is_taken_for_one(self) -> None:
        steps = "set $limit_rate $arg_a; set $limit_rate $arg_b; return 200 $limit_rate;"
        for target, expected in (
            ("/?a=2k&b=3k", "3072"), ("/?a=2k&b=fast", "2048"), ("/?a=&b=-1", "0"),
        ):  # fmt: skip
            self.assertEqual(self.body(f"location / {{ {steps} }}", target), expected, target)

    SHOW = 'location /show { return 200 "$uri|$args"; }'

    def rewritten(self, words: str, target: str) -> str:
        return self.body(f"{self.SHOW} location / {{ rewrite {words} last; }}", target)

    def test_arguments(self) -> None:
        for words, target, expected in (
            ("^/a$ /show", "/a?q=1", "/show|q=1"),
            ("^/a$ /show?", "/a?q=1", "/show|"),
            ("^/a$ /show?b=2", "/a?q=1", "/show|b=2&q=1"),
            ("^/a$ /show?b=2", "/a", "/show|b=2"),
            ("^/a$ /show?b=2?", "/a?q=1", "/show|b=2"),
            ("^/a$ /show??", "/a?q=1", "/show|"),
            ("^/a$ /show?b=2&", "/a?q=1", "/show|b=2&&q=1"),
        ):
            self.assertEqual(self.rewritten(words, target), expected, words)

    def test_captures_are_escaped_in_arguments_of_encoded_paths(self) -> None:
        for target, expected in {
            "/a b": "/show|b=a b",
            "/a%26b": "/show|b=a%26b",
            "/a%20b": "/show|b=a%20b",
            "/a+b": "/show|b=a%2Bb",
            "/a&b?%20": "/show|b=a&b&%20",
            "/%D9%A3": "/show|b=%D9%A3",
        }.items():
            self.assertEqual(self.rewritten("^/(.*)$ /show?b=$1", target), expected, target)

    def test_named_captures(self) -> None:
        text = 'rewrite ^/(?<First>\\w)(?<rest>.*)$ /z; return 200 "$first-$rest-$1";'
        self.assertEqual(self.body(f"location / {{ {text} }}", "/abc"), "a-bc-a")

    def test_break_ends_the_steps(self) -> None:
        text = "rewrite ^ /show last; break; return 200 never;"
        self.assertEqual(self.body(f"{self.SHOW} location /x {{ {text} }}"), "/show|")
        text = "rewrite ^ /elsewhere; break; return 200 never;"
        self.assertEqual(self.ask(f"location /x {{ {text} }}").status, 404)

    def test_the_server_goes_first(self) -> None:
        self.assertEqual(self.body(f"rewrite ^/x$ /show?s=1; {self.SHOW}"), "/show|s=1")
        self.assertEqual(self.ask(f"return 410; {self.SHOW}").status, 410)

    def test_redirects(self) -> None:
        for words, target, expected in (
            ("^ /y redirect", "/x", (302, "http://site:8080/y")),
            ("^ /y permanent", "/x?a", (301, "http://site:8080/y?a")),
            ("^ /y? permanent", "/x?a", (301, "http://site:8080/y")),
            ("^/(.*)$ http://other/$1", "/a%20b", (302, "http://other/a%20b")),
            ("^/(.*)$ https://other/$1?c=$1 permanent", "/a%26?b",
             (301, "https://other/a&?c=a%26&b")),
            ("^ $scheme://other/", "/x", (302, "http://other/")),
        ):  # fmt: skip
            shown = self.ask(f"location / {{ rewrite {words}; }}", target)
            self.assertEqual((shown.status, shown.header("location")), expected, words)

    def test_zero_length(self) -> None:
        shown = self.ask("location / { rewrite ^/(y?).* $1 last; }")
        self.assertEqual(shown.status, 500)

    def test_a_uri_without_slash_finds_no_prefix(self) -> None:
        self.assertEqual(self.ask("location / { rewrite ^ y last; }").status, 404)

    def test_captures_of_a_failed_expression_are_gone(self) -> None:
        text = 'location ~ ^/(x) { set $a $1; if ($host ~ nothing) { } return 200 "$a[$1]"; }'
        self.assertEqual(self.body(text), "x[]")

    def test_set(self) -> None:
        text = (
            'set $a 1; set $b "$a$a";location / { set $b "${b}2"; return 200 "$b[$c]"; set $c 3; }'
        )
        self.assertEqual(self.body(text), "112[]")

    def test_set_args(self) -> None:
        text = 'location / { set $args "a=1&$args"; return 200 "$args $arg_a $arg_b"; }'
        self.assertEqual(self.body(text, "/x?b=2"), "a=1&b=2 1 2")

    def test_return(self) -> None:
        for words, expected in {
            "204": (204, "", None), "200": (200, "", None), '200 "t$uri"': (200, "t/x", None),
            '404 ""': (404, None, None), '404 "$arg_a"': (404, "", None),
            "301 /y": (301, None, "http://site:8080/y"), "308 y": (308, None, "y"),
            "http://other/$uri": (302, None, "http://other//x"), "444": (444, "", None),
        }.items():  # fmt: skip
            shown = self.ask(f"location / {{ return {words}; }}")
            body = None if expected[1] is None else shown.body.decode()
            found = (shown.status, body, shown.header("location"))
            self.assertEqual(found, expected, words)

    def test_type_of_the_text(self) -> None:
        text = "types { text/css css; } default_type text/x; location / { return 200 t; }"
        self.assertEqual(self.ask(text, "/a.css").header("content-type"), "text/css")
        self.assertEqual(self.ask(text, "/a").header("content-type"), "text/x")

    def test_log(self) -> None:
        with capturedLogs() as logs:
            self.ask("rewrite_log on; location / { rewrite ^/y z; rewrite ^/(.) /é$1? break; }")
        said = [formatEvent(event).partition(", client")[0] for event in logs]
        self.assertEqual(
            said[:3],
            ['"^/y" does not match "/x"', '"^/(.)" matches "/x"',
             'rewritten data: "/\\xc3\\xa9x", args: ""'],
        )  # fmt: skip

    def test_errors(self) -> None:
        for text, expected in {
            "return 1000;": 'invalid return code "1000"',
            "return x;": 'invalid return code "x"',
            "return /y;": 'invalid return code "/y"',
            "set a b;": 'invalid variable name "a"',
            "set $a-b c;": 'invalid variable name "$a-b"',
            "set $a $unknown;": 'unknown "unknown" variable',
            "rewrite ^ /y always;": 'invalid parameter "always"',
            "rewrite ( /y;": 'pcre2_compile() failed: missing ), unterminated subpattern in "("',
            "rewrite ^ $b;": 'unknown "b" variable',
        }.items():
            self.assertEqual(self.refused(f"location / {{ {text} }}"), expected, text)

    @given(st.binary())
    def test_unquoting_keeps_what_a_location_may_not_have(self, target: bytes) -> None:
        quoted = b"".join(b"%%%02X" % c for c in target)
        found = _unquoted(quoted)
        path = found.partition(b"?")[0]
        self.assertEqual([c for c in path if c <= 0x20 or c >= 0x7F], [])
        self.assertEqual(_unquoted(b"/a?%41" + quoted), b"/a?%41" + quoted)


class IfTests(RewriteCase):
    def holds(self, condition: str, target: str = "/x", prelude: str = "") -> bool:
        text = f"location / {{ {prelude} if ({condition}) {{ return 200 y; }} return 200 n; }}"
        return self.body(text, target) == "y"

    def test_truth(self) -> None:
        for value, expected in {"": False, "0": False, "00": True, "a": True, "1": True}.items():
            self.assertIs(self.holds("$arg_v", f"/x?v={value}"), expected, value)

    def test_comparing(self) -> None:
        for condition, expected in {
            "$arg_v = a": True, "$arg_v = b": False, "$arg_v != b": True, "$arg_v != a": False,
            '$arg_v = ""': False, '$arg_w = ""': True, "$arg_v = $arg_v": True,
            "$arg_v = A": False, " $arg_v = a ": True, '$arg_v = "a"': True,
        }.items():  # fmt: skip
            self.assertIs(self.holds(condition, "/x?v=a"), expected, condition)

    def test_matching(self) -> None:
        for condition, expected in {
            "$uri ~ ^/x": True, "$uri ~ ^/X": False, "$uri ~* ^/X": True, "$uri !~ y": True,
            "$uri !~ x": False, "$uri !~* X": False, '$uri ~ "^/x$"': True,
        }.items():  # fmt: skip
            self.assertIs(self.holds(condition), expected, condition)

    def test_captures(self) -> None:
        text = 'location / { if ($uri ~ "/(.)(?<Two>.)") { return 200 "$1$2$two"; } }'
        self.assertEqual(self.body(text, "/ab"), "abb")

    def test_files(self) -> None:
        site = Site(
            self.addCleanup,
            "".join(
                f"location /{number}/ {{ if ({test} $document_root/$arg_f) {{ return 200; }} }}"
                for number, test in enumerate(("-f", "-d", "-e", "-x", "!-f", "!-e"))
            ),
            files=["file", "program", "others", "dir/x"],
        )
        (site.root / "program").chmod(0o744)
        (site.root / "others").chmod(0o655)
        os.mkfifo(site.root / "fifo")
        for name, expected in {
            "file": "fe", "dir": "dex!f", "program": "fex", "others": "fe", "none": "!f!e",
            "fifo": "!f!e",
        }.items():  # fmt: skip
            found = "".join(
                test.replace("-", "")
                for number, test in enumerate(("-f", "-d", "-e", "-x", "!-f", "!-e"))
                if site.ask(f"/{number}/?f={name}").status == 200
            )
            self.assertEqual(found, expected, name)

    def test_settings_inside(self) -> None:
        text = (
            "location /x { add_header X out; if ($arg_a) { add_header X in-a; }"
            " if ($arg_b) { add_header X in-b; set $seen 1; } return 200 $seen; }"
        )
        for target, expected in {
            "/x": ("out", b""), "/x?a=1": ("in-a", b""), "/x?b=1": ("in-b", b"1"),
            "/x?a=1&b=1": ("in-b", b"1"),
        }.items():  # fmt: skip
            shown = self.ask(text, target)
            self.assertEqual((shown.header("x"), shown.body), expected, target)

    def test_the_outer_handler_answers(self) -> None:
        site = Site(
            self.addCleanup,
            "location /x { if ($arg_a) { add_header X in; } }",
            contents={"/x": lambda request: Response(200, Headers(), b"outer")},
        )
        shown = site.ask("/x?a=1")
        self.assertEqual((shown.body, shown.header("x")), (b"outer", "in"))

    def test_break_inside_ends_the_outer_steps(self) -> None:
        text = "location /x { if ($arg_a) { break; } return 200 after; }"
        self.assertEqual(self.ask(text, "/x?a=1").status, 404)
        self.assertEqual(self.body(text), "after")

    def test_in_server(self) -> None:
        text = 'if ($arg_a) { set $b "set"; } location / { return 200 "[$b]"; }'
        self.assertEqual(self.body(text, "/x?a=1"), "[set]")
        self.assertEqual(self.body(text), "[]")

    def test_errors(self) -> None:
        for condition, expected in {
            "()": 'invalid condition "()"',
            "$uri": 'invalid condition "$uri"',
            "($uri": 'invalid condition "($uri"',
            "(!$uri)": 'invalid condition "!$uri"',
            "(uri)": 'invalid condition "uri"',
            "($uri == a)": 'unexpected "==" in condition',
            "($uri a b)": 'unexpected "a" in condition',
            "($uri = a b)": 'invalid condition "b"',
            "(-f)": 'invalid condition "-f"',
            "(-z a)": 'invalid condition "-z"',
            "(-f a b)": 'invalid condition "-f"',
            "($unknown)": 'unknown "unknown" variable',
            "($uri ~ [)": 'pcre2_compile() failed: unterminated character set in "["',
        }.items():
            said = self.refused(f"location / {{ if {condition} {{ }} }}")
            self.assertEqual(said, expected, condition)
