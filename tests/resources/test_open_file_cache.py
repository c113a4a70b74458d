"""``open_file_cache``: what is kept, for how long, and when descriptors are closed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.errors import ConfigurationError
from imagefarm.http.message import Identity, OpenFile
from imagefarm.resources.files import Directory, Forbidden, NotFound, Symlinks, open_file
from imagefarm.resources.open_file_cache import OpenFileCache, Rules, Size
from tests.support.descriptors import descriptors, keep_garbage

from .site import Site

VALID = 10.0


class CacheCase(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.clock = Clock()
        self.clock.advance(1000)
        keep_garbage(self)
        self.before = descriptors()
        self.rules = Rules(valid=VALID)
        self.make_cache(4)
        self.write("a", "first")

    def make_cache(self, limit: int, inactive: float = 100.0) -> None:
        self.cache = OpenFileCache(Size(limit, inactive), self.clock.seconds)

    @property
    def kept(self) -> int:
        """Descriptors that are open now."""
        return len(descriptors()) - len(self.before)

    def path(self, name: str) -> bytes:
        return os.fsencode(self.root / name)

    def write(self, name: str, text: str) -> None:
        """As a new file in the place of the old one."""
        (self.root / "new").write_text(text)
        (self.root / "new").rename(self.root / name)

    def open(self, name: str = "a") -> OpenFile:
        return self.cache.open(self.path(name), self.rules)

    def read(self, name: str = "a") -> str:
        file = self.open(name)
        try:
            return os.pread(file.fd, file.size, 0).decode()
        finally:
            file.close()

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)


class ValidTests(CacheCase):
    def test_as_without_a_cache(self) -> None:
        file, plain = self.open(), open_file(self.path("a"))
        for name in ("size", "mtime", "path", "identity"):
            self.assertEqual(getattr(file, name), getattr(plain, name), name)
        file.close()
        file.close()
        plain.close()
        self.assertEqual((file.fd, self.kept), (-1, 1))

    def test_a_change_is_seen_when_it_is_due(self) -> None:
        self.assertEqual(self.read(), "first")
        self.write("a", "second one")
        self.wait(VALID - 0.1)
        self.assertEqual(self.read(), "first")
        self.wait(0.2)
        self.assertEqual(self.read(), "second one")
        self.assertEqual(self.kept, 1)

    def test_a_file_that_is_gone(self) -> None:
        self.read()
        os.unlink(self.path("a"))
        self.assertEqual(self.read(), "first")
        self.wait(VALID)
        self.assertRaises(NotFound, self.open)
        self.assertEqual((self.kept, len(self.cache)), (0, 0))

    def test_a_rewritten_file_keeps_its_descriptor(self) -> None:
        fd = self.open().fd
        with (self.root / "a").open("a") as file:
            file.write(" and more")
        self.wait(VALID)
        again = self.open()
        self.assertEqual((again.fd, again.size), (fd, 14))

    def test_the_same_file_is_looked_at_once(self) -> None:
        self.read()
        self.wait(VALID)
        self.read()
        self.write("a", "second")
        self.wait(VALID - 1)
        self.assertEqual(self.read(), "first")

    def test_a_file_becomes_a_directory_and_back(self) -> None:
        self.read()
        os.unlink(self.path("a"))
        os.mkdir(self.path("a"))
        self.wait(VALID)
        self.assertRaises(Directory, self.open)
        self.assertEqual((self.kept, len(self.cache)), (0, 1))
        os.rmdir(self.path("a"))
        self.write("a", "file")
        self.assertRaises(Directory, self.open)
        self.wait(VALID)
        self.assertEqual(self.read(), "file")

    def test_other_symlink_rules_look_again(self) -> None:
        os.symlink("a", self.path("link"))
        self.read("link")
        way = (Symlinks.FORBIDDEN, b"")
        with self.assertRaises(Forbidden):
            self.cache.open(self.path("link"), self.rules, way)
        self.cache.open(self.path("a"), self.rules, way).close()
        self.assertEqual(self.kept, 1)

    def test_a_clock_that_goes_back(self) -> None:
        self.read()
        self.write("a", "second")
        self.clock.rightNow = 0.0
        self.assertEqual(self.read(), "second")


class ErrorTests(CacheCase):
    def test_off(self) -> None:
        self.assertRaises(NotFound, self.open, "b")
        self.write("b", "there")
        self.assertEqual(self.read("b"), "there")

    def test_on(self) -> None:
        self.rules = Rules(valid=VALID, errors=True)
        self.assertRaises(NotFound, self.open, "b")
        self.write("b", "there")
        error = self.assertRaises(NotFound, self.open, "b")
        self.assertEqual(str(error), "(2: No such file or directory)")
        self.wait(VALID)
        self.assertEqual(self.read("b"), "there")

    def test_a_file_that_is_gone(self) -> None:
        self.rules = Rules(valid=VALID, errors=True)
        self.read()
        os.unlink(self.path("a"))
        self.wait(VALID)
        self.assertRaises(NotFound, self.open)
        self.assertEqual((self.kept, len(self.cache)), (0, 1))


class UseTests(CacheCase):
    def test_a_descriptor_outlives_its_entry(self) -> None:
        file = self.open()
        self.write("a", "second")
        self.wait(VALID)
        self.assertEqual(self.read(), "second")
        self.assertEqual(os.pread(file.fd, 10, 0), b"first")
        self.assertEqual(self.kept, 2)
        file.close()
        self.assertEqual(self.kept, 1)

    def test_two_users(self) -> None:
        files = [self.open(), self.open()]
        self.assertEqual(files[0].fd, files[1].fd)
        self.cache.close()
        files[0].close()
        self.assertEqual(os.pread(files[1].fd, 10, 0), b"first")
        files[1].close()
        self.assertEqual(self.kept, 0)

    def test_min_uses(self) -> None:
        self.rules = Rules(valid=VALID, min_uses=3)
        for number in range(1, 5):
            self.read()
            self.assertEqual(self.kept, number >= 3)

    def test_what_is_not_kept_open_is_always_new(self) -> None:
        self.rules = Rules(valid=VALID, min_uses=3)
        self.read()
        self.write("a", "second")
        self.assertEqual(self.read(), "second")

    def test_min_uses_waits_for_the_users(self) -> None:
        self.rules = Rules(valid=VALID, min_uses=9)
        files = [self.open(), self.open()]
        files[0].close()
        self.assertEqual(os.pread(files[1].fd, 10, 0), b"first")
        files[1].close()
        self.assertEqual(self.kept, 0)

    def test_inactive(self) -> None:
        self.make_cache(10, inactive=5)
        for name in "bcdefgh":
            self.write(name, name)
            self.read(name)
        self.wait(6)
        self.read()
        self.assertEqual(len(self.cache), 4, "two as it comes and two as it goes")
        self.read()
        self.assertEqual(len(self.cache), 2)
        self.read()
        self.assertEqual(len(self.cache), 1)
        self.assertEqual(self.kept, 1)

    def test_max(self) -> None:
        for name in "bcde":
            self.write(name, name)
            self.read(name)
        self.read("b")
        self.read()
        self.write("c", "new")
        self.assertEqual((len(self.cache), self.kept), (4, 4))
        self.assertEqual((self.read("b"), self.read("c")), ("b", "new"))

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["open", "close", "write", "unlink", "mkdir", "wait", "look"]),
                st.sampled_from("abc"),
                st.integers(0, 9),
            ),
            max_size=40,
        ),
        st.integers(1, 3),
        st.integers(1, 3),
        st.booleans(),
    )
    def test_any_order(
        self, steps: list[tuple[str, str, int]], limit: int, min_uses: int, errors: bool
    ) -> None:
        """Descriptors stay usable as long as somebody has them, and none is left at the end."""
        self.make_cache(limit, inactive=7)
        self.rules = Rules(valid=5, min_uses=min_uses, errors=errors)
        files: list[tuple[OpenFile, bytes]] = []
        for number, (what, name, wait) in enumerate(steps):
            if what == "close" and files:
                files.pop(wait % len(files))[0].close()
            elif what in ("open", "look"):
                self.ask(what, name, files)
            else:
                self.change(what, name, str(number))
            self.wait(wait)
            self.assertLessEqual(len(self.cache), limit)
            for file, content in files:
                self.assertEqual(os.pread(file.fd, 99, 0), content)
        for file, _ in files:
            file.close()
        self.cache.close()
        self.assertEqual(self.kept, 0)
        for name in "abc":
            if (self.root / name).is_dir():
                (self.root / name).rmdir()

    def ask(self, what: str, name: str, files: list[tuple[OpenFile, bytes]]) -> None:
        try:
            if what == "look":
                found = files[-1][0].identity if files else None
                seen = self.cache.look(self.path(name), found, self.rules)
                if seen is not None:
                    files.append((seen, os.pread(seen.fd, 99, 0)))
            else:
                file = self.open(name)
                files.append((file, os.pread(file.fd, 99, 0)))
        except (Directory, NotFound, OSError):
            pass

    def change(self, what: str, name: str, text: str) -> None:
        path = self.root / name
        if what == "write" and not path.is_dir():
            self.write(name, text)
        elif what == "unlink" and path.is_file():
            path.unlink()
        elif what == "mkdir" and not path.exists():
            path.mkdir()


class LookTests(CacheCase):
    """`look` finds what `open` would find at once, or leaves it to `open`."""

    def look(self, wanted: Identity | None, name: str = "a") -> OpenFile | None:
        return self.cache.look(self.path(name), wanted, self.rules)

    def identity(self, name: str = "a") -> Identity:
        file = self.open(name)
        file.close()
        return file.identity

    def test_a_file(self) -> None:
        wanted = self.identity()
        file, seen = self.open(), self.look(wanted)
        assert seen is not None
        self.assertEqual((seen.fd, seen.identity), (file.fd, wanted))
        seen.close()
        file.close()
        self.assertEqual(self.kept, 1)

    def test_another_file(self) -> None:
        before = self.identity()
        self.write("a", "second")
        self.wait(VALID)
        self.assertNotEqual(self.identity(), before)
        self.assertRaises(OSError, self.look, before)
        self.assertRaises(OSError, self.look, None)

    def test_the_disk_is_not_asked(self) -> None:
        wanted = self.identity()
        self.wait(VALID)
        self.assertRaises(OSError, self.look, wanted)
        self.cache.close()
        self.assertRaises(OSError, self.look, wanted)

    def test_missing(self) -> None:
        self.assertIsNone(self.look(None, "none"))
        self.write("none", "there")
        self.assertRaises(OSError, self.look, None, "none")

    def test_missing_and_kept(self) -> None:
        self.rules = Rules(valid=VALID, errors=True)
        self.assertRaises(OSError, self.look, None, "none")
        self.assertRaises(NotFound, self.open, "none")
        self.assertIsNone(self.look(None, "none"))
        self.write("none", "there")
        self.assertIsNone(self.look(None, "none"))
        self.wait(VALID)
        self.assertRaises(OSError, self.look, None, "none")

    def test_a_directory(self) -> None:
        os.mkdir(self.path("dir"))
        self.assertRaises(Directory, self.open, "dir")
        self.assertRaises(OSError, self.look, None, "dir")

    def test_only_success_is_a_use(self) -> None:
        self.rules = Rules(valid=VALID, min_uses=3)
        wanted = self.identity()
        for _ in range(5):
            self.assertRaises(OSError, self.look, wanted)
        self.identity()
        self.assertEqual(self.kept, 0)
        self.identity()
        self.assertEqual(self.kept, 1)


class TreeTests(SynchronousTestCase):
    def site(self, text: str) -> Site:
        return Site(self.addCleanup, text, files=("a.txt", "b.txt", "dir/index.html"))

    def test_one_cache_for_the_blocks_inside(self) -> None:
        site = self.site(
            "open_file_cache max=10; location /dir { open_file_cache max=5; }"
            "location /off { open_file_cache off; } location /b { open_file_cache_valid 1s; }"
        )
        self.assertEqual(len(site.tree.file_caches), 2)

    def test_answers_are_the_same(self) -> None:
        site = self.site(
            "open_file_cache max=10; open_file_cache_errors on;"
            "location /try { try_files /none $uri/ /a.txt =404; }"
        )
        for target, status, body in (
            ("/a.txt", 200, b"content of a.txt"),
            ("/try", 200, b"content of a.txt"),
            ("/dir/", 200, b"content of dir/index.html"),
            ("/dir", 301, None),
            ("/none", 404, None),
        ):
            for _ in range(2):
                shown = site.ask(target)
                self.assertEqual(shown.status, status, target)
                if body is not None:
                    self.assertEqual(shown.body, body, target)

    def test_what_is_kept_is_served(self) -> None:
        site = self.site("open_file_cache max=10; location /b { open_file_cache off; }")
        for name in ("a.txt", "b.txt"):
            site.ask("/" + name)
            (site.root / "new").write_text("new")
            (site.root / "new").rename(site.root / name)
        self.assertEqual(site.ask("/a.txt").body, b"content of a.txt")
        self.assertEqual(site.ask("/b.txt").body, b"new")

    def test_errors(self) -> None:
        for words in (
            "max=0", "max=x", "inactive=5s", "max=1 inactive=x", "max=1 off", "on", "max=1 min=2",
        ):  # fmt: skip
            with self.assertRaises(ConfigurationError, msg=words):
                self.site(f"open_file_cache {words};")
