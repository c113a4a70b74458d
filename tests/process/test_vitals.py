"""What a process uses."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.process.vitals import vitals

STAT = (
    b"7 (a) b (c) S 3 7 7 0 -1 4194560 9 0 0 0 250 150 0 0 20 0 4 0 1000 9999 25 184467440"
    b"73709551615 0 0 0\n"
)


class VitalsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        (self.root / "7" / "fd").mkdir(parents=True)
        (self.root / "uptime").write_text("100.5 30.0\n")
        self.stat = self.root / "7" / "stat"
        self.stat.write_bytes(STAT)
        for fd in "012":
            (self.root / "7" / "fd" / fd).touch()

    def test_a_process(self) -> None:
        found = vitals(7, str(self.root))
        assert found is not None
        ticks = os.sysconf("SC_CLK_TCK")
        self.assertEqual((found.pid, found.parent, found.threads, found.descriptors), (7, 3, 4, 3))
        self.assertEqual(found.resident, 25 * os.sysconf("SC_PAGE_SIZE"))
        self.assertEqual((found.cpu, found.uptime), (400 / ticks, round(100.5 - 1000 / ticks, 1)))

    def test_none(self) -> None:
        self.assertIsNone(vitals(8, str(self.root)))
        for text in (STAT.replace(b" S ", b" Z "), b"", b"7 (a) S 3\n"):
            self.stat.write_bytes(text)
            self.assertIsNone(vitals(7, str(self.root)), text)

    def test_ourselves(self) -> None:
        found = vitals(os.getpid())
        assert found is not None
        self.assertEqual(found.parent, os.getppid())
        self.assertGreater(found.resident, 1 << 20)
