"""The ledger: what processes have counted outlives them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.process import ledger
from imagefarm.process.ledger import Ledger, LedgerFull


def add(left: Mapping[str, Any], gone: Mapping[str, Any]) -> dict[str, Any]:
    return {"n": left.get("n", 0) + gone["n"]}


class LedgerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ledger = Ledger.make(add)
        self.addCleanup(self.ledger.close)

    def in_a_worker(self, *documents: dict[str, Any], answers: int = 0) -> None:
        """A process that claims a slot, writes the documents one after another, and ends."""
        pid = os.fork()
        if not pid:
            try:
                worker = Ledger(os.dup(self.ledger.fileno()), add)
                worker.claim()
                for document in documents:
                    worker.publish(document, answers)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)

    def test_what_the_dead_leave_is_added_up_once(self) -> None:
        self.in_a_worker({"n": 1}, {"n": 3})
        self.in_a_worker({"n": 4})
        self.in_a_worker()
        for _ in range(2):
            found = self.ledger.read()
            self.assertEqual((found.gone, found.pages), ({"n": 7}, ()))

    def test_a_slot_is_taken_over(self) -> None:
        self.in_a_worker({"n": 1})
        self.assertTrue(self.ledger.claim())
        self.ledger.publish({"n": 5})
        found = self.ledger.read()
        self.assertEqual(found.gone, {"n": 1})
        (page,) = found.pages
        self.assertEqual((page.document, page.own), ({"n": 5}, True))

    def test_the_living(self) -> None:
        """Their documents are theirs, as long as they live; and the parent's stays."""
        self.ledger.claim()
        self.ledger.publish({"n": 5}, 1)
        self.ledger.publish_parent({"pid": 7})
        told, tell = os.pipe()
        pid = os.fork()
        if not pid:
            other = Ledger(os.dup(self.ledger.fileno()), add)
            other.claim()
            os.write(tell, str(other.read().pages[0].document["n"]).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        self.assertEqual(os.read(told, 9), b"5")
        os.close(told), os.close(tell)
        self.assertEqual(self.ledger.read().parent, {"pid": 7})

    def test_asking(self) -> None:
        self.ledger.claim()
        self.assertEqual((self.ledger.asked, self.ledger.ask(), self.ledger.ask()), (0, 1, 2))
        self.ledger.publish({"n": 0}, self.ledger.asked)
        self.assertEqual(self.ledger.read().pages[0].answers, 2)

    def test_killed_between_two_writes(self) -> None:
        """Whoever buries a slot and is killed before it is cleared has added it already."""
        self.in_a_worker({"n": 3})
        with mock.patch.object(ledger.os, "pwrite", self.failing(after=3)):
            self.assertRaises(ZeroDivisionError, self.ledger.read)
        self.assertEqual(self.ledger.read().gone, {"n": 3})

    @staticmethod
    def failing(after: int) -> Any:
        real, calls = os.pwrite, iter(range(1, 100))

        def pwrite(*arguments: Any) -> int:
            if next(calls) == after:
                raise ZeroDivisionError
            return real(*arguments)

        return pwrite

    def test_a_torn_text_is_not_believed(self) -> None:
        self.ledger.claim()
        self.ledger.publish({"n": 5})
        at = self.ledger._place(ledger._FIRST, 1)
        os.pwrite(self.ledger.fileno(), b"{", at + 1)
        self.assertEqual(self.ledger.read().pages, ())
        self.ledger.publish({"n": 6})
        self.assertEqual(self.ledger.read().pages[0].document, {"n": 6})

    def test_too_much(self) -> None:
        self.ledger.claim()
        self.ledger.publish({"n": 5})
        self.assertRaises(LedgerFull, self.ledger.publish, {"n": "x" * ledger.MAX_DOCUMENT})
        self.assertEqual(self.ledger.read().pages[0].document, {"n": 5})

    def test_what_is_left_becomes_too_much(self) -> None:
        """Then the latest is kept; without that nothing could be read any more."""
        self.ledger._fold = lambda left, gone: {"names": {**left.get("names", {}), **gone}}
        large = "x" * (ledger.MAX_DOCUMENT // 2)
        self.in_a_worker({"a": large})
        self.ledger.read()
        self.in_a_worker({"b": large})
        self.assertEqual(list(self.ledger.read().gone["names"]), ["b"])

    def test_no_slot(self) -> None:
        self.patch(ledger, "MAX_WORKERS", 0)
        self.assertFalse(self.ledger.claim())
        self.ledger.publish({"n": 1})
        self.assertEqual(self.ledger.read().pages, ())
