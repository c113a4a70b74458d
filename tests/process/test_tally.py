"""Numbers that several processes add up."""

from __future__ import annotations

import signal
import subprocess

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.process.board import Board
from imagefarm.process.tally import MAX_COLUMNS, MAX_ROWS, Tally

from . import others

#: Another worker: counts 5 and 7, and waits for its end.
_OTHER = """
import os, sys
from imagefarm.process.board import Board
tally = Board.inherit(os.environ).tally()
assert tally.claim()
tally.write(0, 5)
tally.write(3, 7)
print(tally, flush=True)
sys.stdin.read()
"""


class TallyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.board = Board.make()
        self.addCleanup(self.board.close)
        self.tally = self.board.tally()
        self.assertTrue(self.tally.claim())

    def other(self) -> subprocess.Popen[str]:
        process, self.said = others.start(self, self.board, _OTHER)
        return process

    def test_sums(self) -> None:
        self.tally.write(0, 2)
        self.assertEqual((self.tally.sum(0), self.tally.sum(3)), (2, 0))
        self.other()
        self.assertEqual(self.said, "<Tally row=1>")
        self.tally.write(3, 1)
        self.tally.sweep()
        self.assertEqual([self.tally.sum(column) for column in range(4)], [7, 0, 0, 8])
        self.tally.leave()
        self.tally.write(0, 9)
        self.assertEqual([self.tally.sum(column) for column in range(4)], [5, 0, 0, 7])

    def test_the_dead_count_no_more(self) -> None:
        process = self.other()
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.assertEqual(self.tally.sum(3), 7)
        self.tally.sweep()
        self.assertEqual(self.tally.sum(3), 0)
        self.other()
        self.assertEqual(self.said, "<Tally row=1>")

    def test_the_board_keeps_its_own(self) -> None:
        """The first and the last cell are nobody else's."""
        with self.board.edit() as document:
            document["a"] = 1
        self.tally.write(0, 1)
        self.tally.write(MAX_COLUMNS - 1, 2)
        self.assertEqual(self.board.read()[1], {"a": 1})
        self.assertEqual((self.tally.sum(0), self.tally.sum(MAX_COLUMNS - 1)), (1, 2))

    def test_no_row_left(self) -> None:
        class Taken(Tally):
            def _lock(self, row: int) -> bool:
                assert row < MAX_ROWS
                return False

        tally = Taken(self.board.fileno(), 1 << 26, 1 << 20)
        self.assertFalse(tally.claim())
        tally.write(0, 1)
        self.assertEqual(tally.sum(0), 0)
