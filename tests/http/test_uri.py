"""Request targets: normalising and escaping."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.uri import (
    BadTarget,
    escape_args,
    escape_uri,
    normalise,
    split_absolute,
)

#: Targets made of what matters to the parser.
PIECES = st.sampled_from(
    [b"/", b"//", b".", b"..", b"a", b"b.c", b"%2e", b"%2E", b"%2f", b"%25", b"%23", b"%3f",
     b"%3F", b"%41", b"?", b"#", b"+", b"%00", b"%zz", b"%4", b"%", b"\x80", b"\xff", b"&"]
)  # fmt: skip
TARGETS = st.lists(PIECES, max_size=9).map(lambda pieces: b"/" + b"".join(pieces))


class NormaliseTests(SynchronousTestCase):
    def check(self, cases: dict[bytes, tuple[bytes, bytes]], merge_slashes: bool = True) -> None:
        for target, expected in cases.items():
            self.assertEqual(normalise(target, merge_slashes), expected, target)

    def test_plain(self) -> None:
        self.check(
            {
                b"/": (b"/", b""),
                b"/a/b.jpg": (b"/a/b.jpg", b""),
                b"/a?x=1&y=%20": (b"/a", b"x=1&y=%20"),
                b"/a??": (b"/a", b"?"),
                b"/a#b?c": (b"/a", b""),
                b"/a?b#c": (b"/a", b"b"),
                b"/a+b": (b"/a+b", b""),
                b"/\xff": (b"/\xff", b""),
            }
        )

    def test_percent_encoding(self) -> None:
        self.check(
            {
                b"/%41%7e": (b"/A~", b""),
                b"/a%2fb": (b"/a/b", b""),
                b"/a%3Fb?c": (b"/a?b", b"c"),
                b"/a%23b": (b"/a#b", b""),
                b"/a%252e": (b"/a%2e", b""),
                b"/a%20b%0a": (b"/a b\n", b""),
                b"/%ed%95%9c": ("/한".encode(), b""),
            }
        )

    def test_dots(self) -> None:
        self.check(
            {
                b"/.": (b"/", b""),
                b"/./a": (b"/a", b""),
                b"/a/.": (b"/a/", b""),
                b"/a/..": (b"/", b""),
                b"/a/../b": (b"/b", b""),
                b"/a/b/../../c": (b"/c", b""),
                b"/a/..?x": (b"/", b"x"),
                b"/a/.#x": (b"/a/", b""),
                b"/...": (b"/...", b""),
                b"/..a/.b": (b"/..a/.b", b""),
                b"/a/%2e%2E/b": (b"/b", b""),
                b"/a%2f..%2fb": (b"/b", b""),
                b"/a/..%2fb": (b"/b", b""),
            }
        )

    def test_slashes(self) -> None:
        self.check({b"//a///b//": (b"/a/b/", b""), b"/a/%2fb": (b"/a/b", b"")})
        self.check({b"//a///b//": (b"//a///b//", b""), b"/a//../b": (b"/a/b", b"")}, False)

    def test_refused(self) -> None:
        for target in (
            b"/..", b"/../a", b"/a/../..", b"/%2e%2e/", b"/a/..%2f..%2f", b"//..//..",
            b"/%", b"/%4", b"/%4?", b"/%g1", b"/%1g", b"/%00", b"/a%00b", b"",
            b"a", b"*", b"example:443", b"http:/a",
        ):  # fmt: skip
            with self.assertRaises(BadTarget, msg=target):
                normalise(target)

    def test_absolute_form(self) -> None:
        self.check(
            {
                b"http://a.example/x/../y?z": (b"/y", b"z"),
                b"http://a.example": (b"/", b""),
                b"https://a.example:8443?z": (b"/", b"z"),
                b"HTTP://[::1]:80/": (b"/", b""),
            }
        )
        self.assertEqual(split_absolute(b"http://a:80/x?y"), (b"a:80", b"/x?y"))
        self.assertEqual(split_absolute(b"/http://a/"), (None, b"/http://a/"))
        for target in (b"http:///x", b"http://u@h/", b"http://a b/", b"http://a:x/"):
            with self.assertRaises(BadTarget, msg=target):
                split_absolute(target)

    @settings(deadline=None)
    @given(TARGETS, st.booleans())
    def test_never_escapes_the_root(self, target: bytes, merge_slashes: bool) -> None:
        try:
            uri, _ = normalise(target, merge_slashes)
        except BadTarget:
            return
        self.assertTrue(uri.startswith(b"/"))
        self.assertNotIn(b"\0", uri)
        segments = uri.split(b"/")
        self.assertNotIn(b"..", segments)
        self.assertNotIn(b".", segments)
        if merge_slashes:
            self.assertNotIn(b"//", uri)

    @settings(deadline=None)
    @given(TARGETS, st.booleans())
    def test_escaping_and_normalising_again_changes_nothing(
        self, target: bytes, merge_slashes: bool
    ) -> None:
        try:
            uri, args = normalise(target, merge_slashes)
        except BadTarget:
            return
        again = escape_uri(uri) + (b"?" + args if args else b"")
        self.assertEqual(normalise(again, merge_slashes), (uri, args))

    @settings(deadline=None)
    @given(st.binary(max_size=30))
    def test_raises_nothing_else(self, target: bytes) -> None:
        try:
            normalise(b"/" + target)
        except BadTarget:
            pass


class EscapeTests(SynchronousTestCase):
    def test_uri(self) -> None:
        """What nginx 1.22 escapes when it sends a changed URI to an upstream."""
        self.assertEqual(
            escape_uri(b" \"#%<>?\\^`{|}~\x7f\x80++&=:;@!$'()*,[]\x01/a"),
            b"%20%22%23%25%3C%3E%3F%5C%5E%60%7B%7C%7D~%7F%80++&=:;@!$'()*,[]%01/a",
        )

    def test_args(self) -> None:
        self.assertEqual(escape_args(b"a&b=c+d;e?f /"), b"a%26b=c%2Bd%3Be%3Ff%20/")

    @settings(deadline=None)
    @given(st.binary())
    def test_escaped_text_can_be_read_back(self, text: bytes) -> None:
        self.assertEqual(unquote_to_bytes(escape_uri(text)), text)
        self.assertEqual(unquote_to_bytes(escape_args(text)), text)
