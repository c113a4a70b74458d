"""The static leaf and ``try_files``."""

from __future__ import annotations

import os
from typing import Any

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError
from tests.support.descriptors import descriptors, keep_garbage

from .site import Site

FILES = (
    "a.txt", "dir/index.html", "dir/b.txt", "other/c.txt", "zipped.txt", "zipped.txt.gz",
    "only.txt.gz", "sp ace/index.html", "list/second.html",
)  # fmt: skip


class StaticCase(SynchronousTestCase):
    def site(self, text: str = "") -> Site:
        site = Site(self.addCleanup, text, files=FILES)
        keep_garbage(self)
        self.before = descriptors()
        self.addCleanup(self.check_descriptors)
        return site

    def check_descriptors(self) -> None:
        self.assertEqual(descriptors(), self.before)


class FileTests(StaticCase):
    def test_file(self) -> None:
        shown = self.site("types { text/plain txt; }").ask("/a.txt")
        self.assertEqual((shown.status, shown.body), (200, b"content of a.txt"))
        self.assertEqual(shown.header("content-type"), "text/plain")
        self.assertEqual(shown.header("accept-ranges"), "bytes")
        self.assertIsNotNone(shown.header("last-modified"))
        self.assertIsNotNone(shown.header("etag"))

    def test_etag_off(self) -> None:
        self.assertIsNone(self.site("etag off;").ask("/a.txt").header("etag"))

    def test_methods(self) -> None:
        site = self.site()
        for method, target, status in (
            (b"HEAD", "/a.txt", 200), (b"POST", "/a.txt", 405), (b"POST", "/none", 404),
            (b"POST", "/dir", 301), (b"POST", "/dir/", 405), (b"PUT", "/a.txt", 405),
            (b"DELETE", "/none", 405), (b"OPTIONS", "/dir/", 405), (b"get", "/a.txt", 405),
        ):  # fmt: skip
            self.assertEqual(site.ask(target, method=method).status, status, (method, target))

    def test_reasons_are_logged(self) -> None:
        site = self.site("location /quiet/ { log_not_found off; }")
        os.mkfifo(site.root / "fifo")
        for target, status, reason in (
            ("/none", 404, "failed (2: No such file or directory)"),
            ("/a.txt/b", 404, "failed (20: Not a directory)"),
            ("/fifo", 404, "failed is not a regular file"),
            ("/none/", 404, '/none/index.html" is not found (2: No such file or directory)'),
            ("/other/", 403, '/other/" is forbidden'),
            ("/quiet/none", 404, ""),
        ):
            with capturedLogs() as logs:
                self.assertEqual(site.ask(target).status, status, target)
            said = "".join(formatEvent(event) for event in logs)
            self.assertIn(reason, said)
            self.assertEqual(bool(said), bool(reason), target)

    def test_names_in_the_log_are_printable(self) -> None:
        with capturedLogs() as logs:
            self.site().ask(b"/%0a\x1b%e2")
        self.assertIn("/\\n\\x1b\\xe2", formatEvent(logs[0]))

    def test_directories_get_a_slash(self) -> None:
        site = self.site("absolute_redirect off;")
        for target, expected in {
            "/dir": "/dir/", "/dir?a=%20": "/dir/?a=%20", "/sp%20ace": "/sp%20ace/",
        }.items():  # fmt: skip
            shown = site.ask(target)
            self.assertEqual((shown.status, shown.header("location")), (301, expected))

    def test_symlinks(self) -> None:
        site = self.site(
            "location /on/ { disable_symlinks on from=PREFIX; alias PREFIX/www/; }"
            "location /part/ { disable_symlinks on from=$document_root; root PREFIX/www; }"
        )
        (site.root / "link.txt").symlink_to("a.txt")
        self.assertEqual(site.ask("/link.txt").status, 200)
        self.assertEqual(site.ask("/on/link.txt").status, 403)
        self.assertEqual(site.ask("/on/a.txt").status, 200)


class IndexTests(StaticCase):
    def test_index(self) -> None:
        site = self.site("index none.html $arg_i index.html; location /list/ { index a b; }")
        self.assertEqual(site.ask("/dir/?i=b.txt").body, b"content of dir/b.txt")
        self.assertEqual(site.ask("/list/").status, 403)
        self.assertEqual(self.site().ask("/dir/").body, b"content of dir/index.html")

    def test_it_goes_through_the_tree(self) -> None:
        site = self.site("location = /dir/index.html { return 200 $uri|$args; }")
        self.assertEqual(site.ask("/dir/?q").body, b"/dir/index.html|q")

    def test_absolute(self) -> None:
        site = self.site("index none.html /a.txt;")
        self.assertEqual(site.ask("/other/").body, b"content of a.txt")

    def test_absolute_ones_should_be_last(self) -> None:
        site = self.site("index /a.txt b;")
        self.assertEqual(
            [problem.message for problem in site.warnings],
            ['only the last index in "index" directive should be absolute'],
        )


class AliasTests(StaticCase):
    def test_forms(self) -> None:
        site = self.site(
            "location /p/ { alias PREFIX/www/dir/; } location = /e { alias PREFIX/www/a.txt; }"
            "location ~ ^/r/(.*)$ { alias PREFIX/www/$1; }"
            "location /i/ { alias PREFIX/www/dir/; if ($arg_x) { add_header X x; } }"
        )
        for target, expected in {
            "/p/b.txt": b"content of dir/b.txt", "/p/": b"content of dir/index.html",
            "/e": b"content of a.txt", "/r/dir/b.txt": b"content of dir/b.txt",
            "/r/dir/": b"content of dir/index.html", "/i/b.txt?x=1": b"content of dir/b.txt",
        }.items():  # fmt: skip
            self.assertEqual(site.ask(target).body, expected, target)

    def test_nothing_outside_is_reached(self) -> None:
        site = self.site("location /p { alias PREFIX/www/dir; }")
        (site.directory / "secret").write_text("secret")
        for target in ("/p../../secret", "/p/../../secret", "/p/%2e%2e/%2e%2e/secret"):
            self.assertIn(site.ask(target).status, (400, 404), target)


class GzipStaticTests(StaticCase):
    GZIP = (b"Accept-Encoding", b"gzip")

    def ask(self, target: str, *fields: tuple[bytes, bytes], text: str = "on") -> Any:
        shown = self.site(f"gzip_static {text}; gzip_vary on;").ask(target, *fields)
        return shown.status, shown.header("content-encoding"), shown.header("vary"), shown.body

    def test_on(self) -> None:
        vary = "Accept-Encoding"
        self.assertEqual(
            self.ask("/zipped.txt", self.GZIP), (200, "gzip", vary, b"content of zipped.txt.gz")
        )
        self.assertEqual(self.ask("/zipped.txt"), (200, None, vary, b"content of zipped.txt"))
        self.assertEqual(self.ask("/a.txt", self.GZIP), (200, None, None, b"content of a.txt"))
        self.assertEqual(self.ask("/only.txt", self.GZIP)[0], 200)
        self.assertEqual(self.ask("/only.txt")[:3], (404, None, vary))

    def test_always(self) -> None:
        self.assertEqual(
            self.ask("/only.txt", text="always"), (200, "gzip", None, b"content of only.txt.gz")
        )

    def test_no_ranges(self) -> None:
        self.assertEqual(self.ask("/zipped.txt", self.GZIP, (b"Range", b"bytes=0-1"))[0], 200)


class TryFilesTests(StaticCase):
    def body(self, words: str, target: str = "/x", more: str = "") -> bytes | int:
        shown = self.site(f"location / {{ {more} try_files {words}; }}"
                          'location /to { return 200 "$uri|$args"; }'
                          'location @n { return 200 "@$uri|$args"; }').ask(target)  # fmt: skip
        return shown.body if shown.status == 200 else shown.status

    def test_forms(self) -> None:
        for words, expected in {
            "/none /a.txt =404": b"content of a.txt", "/none =410": 410, "/none /to": b"/to|",
            "/none /to?b=$arg_q": b"/to|b=1", "/none @n": b"@/x|q=1", "/dir =404": 404,
            "/a.txt/ =404": 404, "/dir/ =404": 301, "/none @missing": 500,
            "/none $arg_none@n": b"@/x|q=1", '"/sp ace/index.html" =404':
            b"content of sp ace/index.html",
        }.items():  # fmt: skip
            self.assertEqual(self.body(words, "/x?q=1"), expected, words)

    def test_uri(self) -> None:
        self.assertEqual(self.body("$uri $uri/ /a.txt", "/dir/b.txt"), b"content of dir/b.txt")
        self.assertEqual(self.body("$uri $uri/ /a.txt", "/dir"), 301)
        self.assertEqual(self.body("$uri $uri/ /a.txt", "/dir/"), b"content of dir/index.html")

    def test_alias(self) -> None:
        site = self.site(
            "location /p/ { alias PREFIX/www/dir/; try_files $uri b.txt =404; }"
            "location ~ ^/r/(.*)$ { alias PREFIX/www/; try_files dir/$1 =404; }"
            "location /d/ { alias PREFIX/www/; try_files dir/ =404; }"
        )
        self.assertEqual(site.ask("/p/index.html").body, b"content of dir/index.html")
        self.assertEqual(site.ask("/p/none").body, b"content of dir/b.txt")
        self.assertEqual(site.ask("/r/b.txt").body, b"content of dir/b.txt")
        self.assertEqual(site.ask("/r/none").status, 404)
        self.assertEqual(site.ask("/d/x").header("location"), "http://site:8080/d/dir/")

    def test_a_nul_is_no_file(self) -> None:
        self.assertEqual(self.body("$arg_f =404", "/x?f=/a.txt\0"), 404)

    def test_errors(self) -> None:
        error = self.assertRaises(ConfigurationError, self.site, "try_files a =1000;")
        self.assertEqual(error.problems[0].message, 'invalid code "1000"')
