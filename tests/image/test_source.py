"""Opening sources: regular files below the root, whatever the name and the links say."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image.errors import Forbidden, ImageError, NotFound, Unsupported
from imagefarm.image.source import Identity, open_source, stat_source
from tests.support.descriptors import descriptors, keep_garbage


class Sources(SynchronousTestCase):
    def setUp(self) -> None:
        keep_garbage(self)
        base = Path(self.mktemp())
        self.root = base / "root"
        (self.root / "dir").mkdir(parents=True)
        (self.root / "a.jpg").write_bytes(b"inside")
        (self.root / "dir" / b"b \xff.jpg".decode("utf-8", "surrogateescape")).write_bytes(b"b")
        self.outside = base / "secret.jpg"
        self.outside.write_bytes(b"outside")
        (base / "root-not").mkdir()
        (base / "root-not" / "c.jpg").write_bytes(b"sibling")

    def read(self, src: bytes, root: Path | None = None) -> bytes:
        descriptor = open_source(os.fsencode(root or self.root), src)
        with os.fdopen(descriptor, "rb") as file:
            return file.read()

    def refused(self, src: bytes, kind: type[ImageError]) -> None:
        before = descriptors()
        for function in (open_source, stat_source):
            error = self.assertRaises(kind, function, os.fsencode(self.root), src)
            self.assertNotIn("/", error.reason)
        self.assertEqual(descriptors(), before, "no descriptor is left open")

    def test_files(self) -> None:
        self.assertEqual(self.read(b"/a.jpg"), b"inside")
        self.assertEqual(self.read(b"/dir/b \xff.jpg"), b"b")
        self.assertEqual(self.read(b"/a.jpg", Path(str(self.root) + "/")), b"inside")

    def test_identity(self) -> None:
        os.utime(self.root / "a.jpg", ns=(0, 1_700_000_000_123_456_789))
        identity = stat_source(os.fsencode(self.root), b"/a.jpg")
        self.assertEqual(identity, Identity(6, 1_700_000_000_123_456_789))
        self.assertEqual(identity.seconds, 1_700_000_000)

    def test_links_inside_are_followed(self) -> None:
        (self.root / "link.jpg").symlink_to("dir/../a.jpg")
        (self.root / "dir" / "absolute.jpg").symlink_to((self.root / "a.jpg").resolve())
        self.assertEqual(self.read(b"/link.jpg"), b"inside")
        self.assertEqual(self.read(b"/dir/absolute.jpg"), b"inside")

    def test_a_root_that_is_a_link(self) -> None:
        linked = self.root.parent / "linked"
        linked.symlink_to(self.root.resolve())
        self.assertEqual(self.read(b"/a.jpg", linked), b"inside")

    def test_links_that_lead_out(self) -> None:
        (self.root / "out.jpg").symlink_to(self.outside.resolve())
        (self.root / "up.jpg").symlink_to("../secret.jpg")
        (self.root / "away").symlink_to(self.root.parent.resolve())
        (self.root / "near").symlink_to((self.root.parent / "root-not").resolve())
        for src in (b"/out.jpg", b"/up.jpg", b"/away/secret.jpg", b"/near/c.jpg"):
            self.refused(src, Forbidden)

    def test_climbing(self) -> None:
        self.refused(b"/../secret.jpg", Forbidden)
        self.refused(b"/dir/../../root-not/c.jpg", Forbidden)

    def test_what_is_not_there(self) -> None:
        (self.root / "loop").symlink_to("loop")
        (self.root / "dangling").symlink_to("nowhere")
        for src in (
            b"/none.jpg",
            b"/a.jpg/",
            b"/a.jpg/b",
            b"/loop",
            b"/dangling",
            b"/" + b"n" * 999,
        ):
            self.refused(src, NotFound)

    def test_what_is_not_a_file(self) -> None:
        os.mkfifo(self.root / "fifo")
        for src in (b"/", b"/dir", b"/dir/", b"/fifo"):
            self.refused(src, NotFound)
        (self.root / "zero").symlink_to("/dev/zero")
        self.refused(b"/zero", Forbidden)

    def test_an_empty_file(self) -> None:
        (self.root / "empty").touch()
        self.refused(b"/empty", Unsupported)

    def test_an_unreadable_file(self) -> None:
        (self.root / "a.jpg").chmod(0)
        if os.geteuid() != 0:
            self.refused(b"/a.jpg", Forbidden)
        else:  # root reads everything, and the check must not be stricter than the kernel
            self.assertEqual(self.read(b"/a.jpg"), b"inside")
            self.assertEqual(stat_source(os.fsencode(self.root), b"/a.jpg").size, 6)
