"""The workers' notice board: what is written is read elsewhere, and one leads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.process import board as module
from imagefarm.process.board import INHERITED, Board, BoardFull

from . import others

#: Another worker: leads if it can, adds to what stands there, and waits for its end.
_OTHER = """
import json, os, sys
from imagefarm.process.board import Board
board = Board.inherit(os.environ)
with board.edit() as document:
    document["seen"] = dict(document)
    document["leads"] = board.lead()
print(board.version, flush=True)
sys.stdin.read()
"""


class BoardTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.board = Board.make()
        self.addCleanup(self.board.close)

    def other(self) -> subprocess.Popen[str]:
        process, _ = others.start(self, self.board, _OTHER)
        return process

    def test_empty(self) -> None:
        self.assertEqual(self.board.read(), (1, {}))

    def test_each_edit_is_a_version(self) -> None:
        for number in range(2, 6):
            with self.board.edit() as document:
                document["n"] = number
            self.assertEqual(self.board.version, number)
            self.assertEqual(self.board.read(), (number, {"n": number}))

    def test_an_edit_that_fails_leaves_no_trace(self) -> None:
        with self.board.edit() as document:
            document["a"] = 1
        for what in (KeyError(), BoardFull()):
            with self.assertRaises(type(what)), self.board.edit() as document:
                document["a"] = 2
                if isinstance(what, BoardFull):
                    self.patch(module, "MAX_DOCUMENT", 4)
                else:
                    raise what
        self.assertEqual(self.board.read(), (2, {"a": 1}))

    def test_a_writer_that_dies_half_way(self) -> None:
        """Killed after its text and before the head that points to it."""
        with self.board.edit() as document:
            document["a"] = 1
        real = os.pwrite
        calls: list[Any] = []

        def dying(fd: int, data: bytes, place: int) -> int:
            calls.append(place)
            if len(calls) == 2:
                raise OSError("dead")
            return real(fd, data, place)

        self.patch(os, "pwrite", dying)
        with self.assertRaises(OSError), self.board.edit() as document:
            document["a"] = {"long": "x" * 1000}
        self.assertEqual(self.board.read(), (2, {"a": 1}))

    def test_another_process(self) -> None:
        with self.board.edit() as document:
            document["a"] = "가"
        self.other()
        self.assertEqual(self.board.read(), (3, {"a": "가", "seen": {"a": "가"}, "leads": True}))

    def test_one_leads_and_another_after_its_death(self) -> None:
        other = self.other()
        self.assertFalse(self.board.lead())
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        self.assertTrue(self.board.lead())
        self.assertTrue(self.board.lead())
        self.other()
        self.assertIs(self.board.read()[1]["leads"], False)

    def test_only_what_was_handed_over_is_taken(self) -> None:
        for value in ("", "x", "-1"):
            environment = {INHERITED: value}
            self.assertIsNone(Board.inherit(environment))
            self.assertEqual(environment, {})
        self.assertIsNone(Board.inherit({}))

    def test_the_text_is_json(self) -> None:
        """What one version writes a later one may read."""
        with self.board.edit() as document:
            document.update({"a": [1, 2.5, None, True]})
        self.assertEqual(json.loads(json.dumps(self.board.read()[1])), {"a": [1, 2.5, None, True]})
