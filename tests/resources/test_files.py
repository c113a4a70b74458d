"""Opening files: what is served, and what never is."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from imagefarm.resources.files import Directory, Forbidden, NotFound, Symlinks, open_file
from tests.support.descriptors import descriptors, keep_garbage

POLICIES = tuple(Symlinks)


class OpenCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="files-"))
        self.addCleanup(shutil.rmtree, self.root, True)
        (self.root / "dir").mkdir()
        (self.root / "a.txt").write_bytes(b"hello")
        (self.root / "dir" / "b.txt").write_bytes(b"inner")
        (self.root / "link.txt").symlink_to("a.txt")
        (self.root / "linkdir").symlink_to("dir")
        (self.root / "broken").symlink_to("nowhere")
        (self.root / "loop").symlink_to("loop")
        (self.root / "foreign").symlink_to("/etc/passwd")
        os.mkfifo(self.root / "fifo")
        keep_garbage(self)

    def open(self, name: str, policy: Symlinks = Symlinks.ALLOWED, trusted: bytes = b"") -> str:
        """The file's content, or the name of the exception."""
        before = descriptors()
        try:
            file = open_file(os.fsencode(self.root) + b"/" + name.encode(), policy, trusted)
        except (Directory, NotFound, Forbidden) as error:
            found = type(error).__name__
        else:
            self.assertEqual((file.size, file.path[-len(name) :]), (5, name.encode()))
            found = os.read(file.fd, 100).decode()
            file.close()
        self.assertEqual(descriptors(), before, "a descriptor is left")
        return found


class PlainTests(OpenCase):
    def test_everywhere(self) -> None:
        for policy in POLICIES:
            for name, expected in {
                "a.txt": "hello", "dir/b.txt": "inner", "dir": "Directory", "dir/": "Directory",
                ".": "Directory", "none": "NotFound", "none/x": "NotFound", "a.txt/": "NotFound",
                "a.txt/x": "NotFound", "fifo": "NotFound", "a\0.txt": "NotFound",
                "n" * 300: "NotFound", "broken/x": "NotFound", "./a.txt": "hello",
                "dir//b.txt": "inner",
            }.items():  # fmt: skip
                self.assertEqual(self.open(name, policy), expected, (policy, name))

    def test_a_socket(self) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(self.root / "socket"))
            for policy in POLICIES:
                self.assertEqual(self.open("socket", policy), "NotFound")

    def test_unreadable(self) -> None:
        if os.geteuid() == 0:
            raise SkipTest("root may read everything")
        (self.root / "a.txt").chmod(0)
        for policy in POLICIES:
            self.assertEqual(self.open("a.txt", policy), "Forbidden")

    def test_closing_twice(self) -> None:
        file = open_file(os.fsencode(self.root / "a.txt"))
        file.close()
        file.close()
        self.assertEqual(file.fd, -1)

    @given(st.text("./abl\0", max_size=8))
    def test_any_name_is_a_file_or_an_error(self, name: str) -> None:
        for policy in POLICIES:
            self.assertIn(
                self.open("dir/" + name, policy) if ".." not in name else "NotFound",
                ("Directory", "NotFound", "Forbidden"),
            )


class SymlinkTests(OpenCase):
    def expect(self, policy: Symlinks, **expected: str) -> None:
        names = {"link": "link.txt", "linkdir": "linkdir", "below": "linkdir/b.txt",
                 "slash": "linkdir/", "broken": "broken", "loop": "loop"}  # fmt: skip
        found = {key: self.open(names[key], policy) for key in expected}
        self.assertEqual(found, expected)

    def test_allowed(self) -> None:
        self.expect(
            Symlinks.ALLOWED, link="hello", linkdir="Directory", below="inner", slash="Directory",
            broken="NotFound", loop="Forbidden",
        )  # fmt: skip

    def test_forbidden(self) -> None:
        self.expect(
            Symlinks.FORBIDDEN, link="Forbidden", linkdir="Forbidden", below="NotFound",
            slash="NotFound", broken="Forbidden", loop="Forbidden",
        )  # fmt: skip

    def test_same_owner(self) -> None:
        self.expect(
            Symlinks.SAME_OWNER, link="hello", linkdir="Directory", below="inner",
            slash="Directory", broken="NotFound", loop="Forbidden",
        )  # fmt: skip

    def test_another_owner(self) -> None:
        if os.geteuid() != 0:
            self.assertEqual(self.open("foreign", Symlinks.SAME_OWNER), "Forbidden")
            raise SkipTest("only root can make files of another owner")
        os.chown(self.root / "link.txt", 65534, 65534, follow_symlinks=False)
        os.chown(self.root / "linkdir", 65534, 65534, follow_symlinks=False)
        self.assertEqual(self.open("link.txt", Symlinks.SAME_OWNER), "Forbidden")
        self.assertEqual(self.open("linkdir/b.txt", Symlinks.SAME_OWNER), "Forbidden")
        self.assertEqual(self.open("link.txt"), "hello")

    def test_trusted_part(self) -> None:
        trusted = os.fsencode(self.root) + b"/linkdir"
        self.assertEqual(self.open("linkdir/b.txt", Symlinks.FORBIDDEN, trusted), "inner")
        self.assertEqual(self.open("linkdir", Symlinks.FORBIDDEN, trusted), "Directory")
        self.assertEqual(self.open("link.txt", Symlinks.FORBIDDEN, trusted), "Forbidden")
        missing = os.fsencode(self.root) + b"/none"
        self.assertEqual(self.open("none/x", Symlinks.FORBIDDEN, missing), "NotFound")

    def test_a_trusted_part_ends_at_a_name(self) -> None:
        """from=/www does not trust /www-private, nor half of a link's name."""
        (self.root / "dir2").mkdir()
        (self.root / "dir2" / "c.txt").write_bytes(b"third")
        trusted = os.fsencode(self.root) + b"/dir"
        self.assertEqual(self.open("dir2/c.txt", Symlinks.FORBIDDEN, trusted), "third")
        trusted = os.fsencode(self.root) + b"/link"
        self.assertEqual(self.open("linkdir/b.txt", Symlinks.FORBIDDEN, trusted), "NotFound")
