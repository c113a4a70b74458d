"""The dashboard's directive and page."""

from __future__ import annotations

import base64
import hashlib
import json
import re

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError, Invalid
from imagefarm.resources.dashboard import Source, dashboard, page, parse_source

from .site import Site


class SourceTests(SynchronousTestCase):
    def test_good_ones(self) -> None:
        for url, expected in {
            "http://127.0.0.1:81/s?x=1": ("127.0.0.1", 81, "", "/s?x=1"),
            "http://localhost/s": ("127.0.0.1", 80, "", "/s"),
            "http://[::1]:8080": ("::1", 8080, "", "/"),
            "http://unix:run/a.sock:/s": ("", 80, "/prefix/run/a.sock", "/s"),
        }.items():
            found = parse_source("a", url, lambda path: f"/prefix/{path}")
            host, port, path, target = expected
            self.assertEqual(found, Source("a", url, host, port, path, target))

    def test_bad_ones(self) -> None:
        for url in (
            "", "x", "https://127.0.0.1/", "http://example.org/", "http://user@127.0.0.1/",
            "http://127.0.0.1:99999/", "http://127.0.0.1:x/", "http://unix:/a.sock",
            "http://unix::/s", "http://127.0.0.1/a b", "http://127.0.0.1/\r\nX: y", "http://[::1/",
            "ftp://127.0.0.1/", "http://127.0.0.1/\u00e9",
        ):  # fmt: skip
            self.assertRaises(Invalid, parse_source, "a", url)
        self.assertRaises(Invalid, parse_source, "<b>", "http://127.0.0.1/")


class DirectiveTests(SynchronousTestCase):
    def test_errors(self) -> None:
        for words, expected in {
            "a b": 'invalid parameter "b"',
            "a a=http://127.0.0.1/": 'duplicate name "a"',
            "b=http://127.0.0.1/ b=http://127.0.0.1/x": 'duplicate name "b"',
            "b=http://example.org/": '"http://example.org/" is no URL with an address',
            "&": 'invalid name "&"',
        }.items():
            with self.assertRaises(ConfigurationError) as caught:
                Site(self.addCleanup, f"location / {{ dashboard {words}; }}")
            self.assertIn(expected, str(caught.exception))


class PageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.asked: list[bool] = []
        content = dashboard(self.figures)
        self.site = Site(self.addCleanup, "location /d { }", contents={"/d": content})

    def figures(self, history: bool) -> Deferred[dict[str, str]]:
        self.asked.append(history)
        return succeed({"name": "</script><b>"})

    def test_page(self) -> None:
        shown = self.site.ask("/d")
        self.assertEqual((shown.status, shown.body), (200, page()[0]))
        self.assertEqual(self.asked, [])

    def test_figures(self) -> None:
        for target in ("/d?data", "/d?data=all"):
            shown = self.site.ask(target)
            self.assertEqual(json.loads(shown.body), {"name": "</script><b>"})
            self.assertEqual(shown.header("cache-control"), "no-store")
        self.assertEqual(self.asked, [False, True])

    def test_methods(self) -> None:
        self.assertEqual(self.site.ask("/d", method=b"POST").status, 405)

    def test_nothing_from_elsewhere(self) -> None:
        text = page()[0].decode()
        pattern = r"""\b(?:src|href)\s*=\s*["']?([^\s"'>]*)|(//\w+\.\w+|@import|url\()"""
        self.assertEqual(re.findall(pattern, text), [("?data", "")])
        for dangerous in ("innerHTML", "insertAdjacent", "document.write", "eval("):
            self.assertNotIn(dangerous, text)

    def test_only_its_own_script_runs(self) -> None:
        text, policy = page()
        (script,) = re.findall(rb"<script>(.*?)</script>", text, re.DOTALL)
        self.assertEqual(self.site.ask("/d").header("content-security-policy"), policy.decode())
        digest = base64.b64encode(hashlib.sha256(script).digest())
        self.assertIn(b"script-src 'sha256-%b'" % digest, policy)
        self.assertIn(b"default-src 'none'", policy)
