"""Server names and locations are matched as nginx's documentation says."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.resources.matching import (
    Entry,
    Found,
    Locations,
    Modifier,
    ServerName,
    ServerNames,
)


def names(*texts: bytes) -> list[ServerName]:
    return [ServerName(t, re.compile(t[1:]) if t.startswith(b"~") else None) for t in texts]


class ServerNamesTests(SynchronousTestCase):
    servers = ServerNames(
        [
            (names(b"example.org", b"www.example.org"), "exact"),
            (names(b"*.example.org"), "leading"),
            (names(b"*.static.example.org"), "longer leading"),
            (names(b"mail.*"), "trailing"),
            (names(b".dotted.net"), "dotted"),
            (names(rb"~^(?P<user>.+)\.users\.net$"), "regex"),
            (names(b"~users"), "second regex"),
            (names(b"stillshot-origin.*"), "stillshot"),
        ],
        "default",
    )

    def test_precedence(self) -> None:
        cases = {
            b"example.org": "exact",
            b"www.example.org": "exact",
            b"a.example.org": "leading",
            b"a.b.example.org": "leading",
            b"a.static.example.org": "longer leading",
            b"mail.example.org": "leading",
            b"mail.example.com": "trailing",
            b"dotted.net": "dotted",
            b"x.dotted.net": "dotted",
            b"joe.users.net": "regex",
            b"users.example": "second regex",
            b"stillshot-origin.localhost": "stillshot",
            b"stillshot-origin": "default",
            b"other": "default",
            b"": "default",
            b"xexample.org": "default",
        }
        for host, expected in cases.items():
            self.assertEqual(self.servers.find(host).item, expected, host)

    def test_captures(self) -> None:
        found = self.servers.find(b"joe.users.net")
        assert found.captures is not None
        self.assertEqual(found.captures["user"], b"joe")

    def test_first_server_with_a_name_wins(self) -> None:
        both = ServerNames([(names(b"a"), 1), (names(b"a"), 2)], 0)
        self.assertEqual(both.find(b"a"), Found(1))
        self.assertEqual(both.conflicts, [(b"a", 2)])

    def test_a_name_of_which_half_is_taken_is_ignored(self) -> None:
        both = ServerNames(
            [(names(b"c", b"*.d", b"e.*", b"~f"), 1), (names(b".c", b".d", b"e.*", b"~f"), 2)], 0
        )
        self.assertEqual(both.conflicts, [(b".c", 2), (b".d", 2), (b"e.*", 2)])
        self.assertEqual(
            [both.find(host).item for host in (b"c", b"a.c", b"d", b"a.d")], [1, 0, 0, 1]
        )

    def test_no_name(self) -> None:
        some = ServerNames([(names(b"a"), 1), (names(b""), 2)], 1)
        self.assertEqual(some.find(b"").item, 2)


def location(text: str, inner: Locations[str] | None = None) -> Entry[str]:
    word, _, name = text.rpartition(" ")
    modifier = Modifier(word)
    pattern = None
    if modifier in (Modifier.REGEX, Modifier.REGEX_NO_CASE):
        flags = re.IGNORECASE if modifier is Modifier.REGEX_NO_CASE else 0
        pattern = re.compile(name.encode(), flags)
    return Entry(modifier, name.encode(), text, pattern, inner)


class LocationsTests(SynchronousTestCase):
    def find(self, locations: Locations[str], uri: str) -> str | None:
        found = locations.find(uri.encode())
        return found.item if found else None

    def test_the_documentations_example(self) -> None:
        """The letters A to E of nginx's documentation of ``location``."""
        locations = Locations(
            map(location, ["= /", " /", " /documents/", "^~ /images/", r"~* \.(gif|jpg|jpeg)$"])
        )
        cases = {
            "/": "= /",
            "/index.html": " /",
            "/documents/document.html": " /documents/",
            "/images/1.gif": "^~ /images/",
            "/documents/1.jpg": r"~* \.(gif|jpg|jpeg)$",
            "/documents/1.JPG": r"~* \.(gif|jpg|jpeg)$",
        }
        for uri, expected in cases.items():
            self.assertEqual(self.find(locations, uri), expected, uri)

    def test_regex_order_is_file_order(self) -> None:
        locations = Locations(map(location, ["~ ^/a", "~ ^/ab", " /abc"]))
        self.assertEqual(self.find(locations, "/abc"), "~ ^/a")

    def test_nothing_matches(self) -> None:
        self.assertIsNone(Locations(map(location, [" /a"])).find(b"/b"))

    def test_nested(self) -> None:
        inner = Locations(map(location, [r"~ \.php$", " /app/img/", "= /app/x"]))
        locations = Locations([location(" /app/", inner), location(r"~ \.(php|png)$")])
        self.assertEqual(self.find(locations, "/app/a.php"), r"~ \.php$")
        self.assertEqual(self.find(locations, "/app/x"), "= /app/x")
        self.assertEqual(self.find(locations, "/app/img/a.txt"), " /app/img/")
        self.assertEqual(self.find(locations, "/app/img/a.png"), r"~ \.(php|png)$")
        self.assertEqual(self.find(locations, "/app/a"), " /app/")

    def test_named_are_not_matched_by_uri(self) -> None:
        locations = Locations([Entry(Modifier.NAMED, b"@x", "named")])
        self.assertIsNone(locations.find(b"@x"))
        self.assertEqual(locations.named[b"@x"], "named")

    @given(st.lists(st.text("ab/", max_size=4).map("/".__add__), max_size=6), st.text("ab/"))
    def test_longest_prefix(self, prefixes: list[str], rest: str) -> None:
        uri = "/" + rest
        found = self.find(Locations(location(" " + p) for p in prefixes), uri)
        expected = max((p for p in prefixes if uri.startswith(p)), key=len, default=None)
        self.assertEqual(found, None if expected is None else " " + expected)
