"""``match`` blocks: nginx's forms, what they let pass, and words for what is wrong with them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError
from imagefarm.config.variables import Template
from imagefarm.http.headers import Headers
from imagefarm.proxy.health.directives import MATCH
from imagefarm.proxy.health.match import DEFAULT, Match, StatusTest
from tests.proxy.support import load


def match(text: str) -> Match:
    (scope,) = load(f"match m {{ {text} }}").blocks(MATCH)
    found: Match = scope.value
    return found


def judged(
    text: str, status: int = 200, *fields: tuple[bytes, bytes], body: bytes = b"", **values: bytes
) -> str | None:
    tests = match(text)

    def value(variable: Template) -> bytes:
        return values[variable.source.removeprefix("$")]

    return tests.head(status, Headers(fields), value) or tests.body(body)


class StatusTests(SynchronousTestCase):
    def test_nginx_examples(self) -> None:
        for text, good, bad in (
            ("200", (200,), (201, 500)),
            ("! 500", (200, 404), (500,)),
            ("200 204", (200, 204), (201,)),
            ("! 301 302", (200, 303), (301, 302)),
            ("200-399", (200, 301, 399), (199, 400)),
            ("! 400-599", (399, 600), (400, 599)),
            ("301-303 307", (301, 303, 307), (304, 308)),
        ):
            for status in good:
                self.assertIsNone(judged(f"status {text};", status), (text, status))
            for status in bad:
                self.assertEqual(judged(f"status {text};", status), "checking status code")

    def test_without_match(self) -> None:
        self.assertIsNotNone(DEFAULT.status)
        passed = [s for s in range(100, 600) if DEFAULT.head(s, Headers(), lambda v: b"") is None]
        self.assertEqual(passed, list(range(200, 400)))

    @given(
        st.lists(st.tuples(st.integers(100, 599), st.integers(0, 50)), min_size=1, max_size=4),
        st.booleans(),
        st.integers(100, 599),
    )
    def test_property(self, ranges: list[tuple[int, int]], negated: bool, status: int) -> None:
        words = [f"{low}-{min(low + span, 999)}" if span else str(low) for low, span in ranges]
        tests = match(f"status {'! ' if negated else ''}{' '.join(words)};")
        inside = any(low <= status <= low + span for low, span in ranges)
        assert isinstance(tests.status, StatusTest)
        self.assertEqual(tests.status.holds(status), inside != negated)


class HeaderTests(SynchronousTestCase):
    def test_values(self) -> None:
        image = (b"Content-Type", b"image/jpeg")
        for text, good, bad in (
            ("Content-Type = image/jpeg", [image], [(b"Content-Type", b"text/html")]),
            ("content-type != text/html", [image], [(b"CONTENT-TYPE", b"text/html")]),
            ("Content-Type ~ image", [image], [(b"Content-Type", b"text/html")]),
            ("Content-Type !~ ^text", [image], [(b"Content-Type", b"text/plain")]),
            ("Content-Type", [image], [(b"Content-Length", b"1")]),
            ("! X-Accel-Redirect", [image], [(b"X-Accel-Redirect", b"/x")]),
        ):
            self.assertIsNone(judged(f"header {text};", 200, *good), text)
            self.assertEqual(judged(f"header {text};", 200, *bad), "checking header", text)

    def test_of_several_fields_one_has_to_fit(self) -> None:
        both = ((b"Via", b"a"), (b"Via", b"b"))
        self.assertIsNone(judged("header Via = b;", 200, *both))
        self.assertEqual(judged("header Via != b;", 200, *both), "checking header")
        self.assertIsNone(judged("header Via != b;", 200))
        self.assertEqual(judged("header Via ~ .;", 200), "checking header")


class OtherTests(SynchronousTestCase):
    def test_body(self) -> None:
        self.assertIsNone(judged('body ~ "Welcome to nginx!";', body=b"<p>Welcome to nginx!"))
        self.assertEqual(judged('body ~ "Welcome";', body=b"welcome"), "checking body")
        self.assertEqual(judged('body !~ "Error";', body=b"Error 5"), "checking body")

    def test_required_variables(self) -> None:
        text = "require $upstream_http_x $host;"
        self.assertIsNone(judged(text, upstream_http_x=b"1", host=b"y"))
        for bad in (b"", b"0"):
            self.assertEqual(
                judged(text, upstream_http_x=b"1", host=bad), "checking required variables"
            )

    def test_all_have_to_hold(self) -> None:
        text = 'status 200; header X; header Y = 1; body ~ "a"; body ~ "b";'
        fields = ((b"X", b""), (b"Y", b"1"))
        self.assertIsNone(judged(text, 200, *fields, body=b"ab"))
        self.assertEqual(judged(text, 200, *fields, body=b"a"), "checking body")
        self.assertEqual(judged(text, 200, fields[0], body=b"ab"), "checking header")

    def test_errors(self) -> None:
        for text, words in (
            ("status;", 'invalid number of arguments in "status" directive'),
            ("status !;", 'invalid number of arguments in "status" directive'),
            ("status 20;", 'invalid status code "20"'),
            ("status 300-200;", 'invalid status code "300-200"'),
            ("status 200; status 201;", '"status" directive is duplicate'),
            ("header A ! b;", 'invalid operator "!"'),
            ("header A =;", 'invalid number of arguments in "header" directive'),
            ("header ! A B;", 'invalid number of arguments in "header" directive'),
            ("header (;", 'invalid header name "("'),
            ("header A ~ (;", "pcre2_compile() failed: missing ), unterminated subpattern"),
            ("body = x;", 'invalid operator "="'),
            ("body ~;", 'invalid number of arguments in "body" directive'),
            ("require host;", 'invalid variable name "host"'),
            ("require $nothing;", 'unknown "nothing" variable'),
            ("send x;", 'unknown directive "send"'),
            ("status { }", 'directive "status" is not terminated by ";"'),
        ):
            with self.assertRaises(ConfigurationError) as caught:
                match(f"\n{text}")
            (problem,) = caught.exception.problems
            self.assertIn(words, problem.message)
            self.assertEqual(problem.line, 3)
