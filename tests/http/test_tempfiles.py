from __future__ import annotations

import os
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.tempfiles import TempPath


class TempPathTests(SynchronousTestCase):
    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.directory = Path(holder.name) / "made" / "when needed"

    def files(self) -> list[Path]:
        return [path for path in self.directory.rglob("*") if path.is_file()]

    def test_a_file_has_no_name(self) -> None:
        file = TempPath(os.fsencode(self.directory)).open()
        self.assertEqual((file.write(b"hello", 0), file.write(b"!", 5)), (5, 1))
        self.assertEqual(file.read(3, 3), b"lo!")
        self.assertEqual((self.files(), file.path), ([], b""))
        file.empty()
        self.assertEqual(file.read(9, 0), b"")
        file.close()
        file.close()
        with self.assertRaises(OSError):
            file.read(1, 0)

    def test_levels_are_nginxs(self) -> None:
        path = TempPath(b"/spool", (1, 2)).path_of(123457)
        self.assertEqual(path, b"/spool/7/45/0000123457")
        self.assertEqual(TempPath(b"/spool").path_of(7), b"/spool/0000000007")

    def test_names_last_until_the_end_or_longer(self) -> None:
        for keep in (False, True):
            file = TempPath(os.fsencode(self.directory), (2,)).open(named=True, keep=keep)
            self.assertEqual(self.files(), [Path(os.fsdecode(file.path))])
            self.assertEqual(Path(os.fsdecode(file.path)).stat().st_mode & 0o777, 0o600)
            file.close()
            self.assertEqual(len(self.files()), keep)

    def test_no_directory(self) -> None:
        with self.assertRaises(OSError):
            TempPath(b"/dev/null/x").open()
