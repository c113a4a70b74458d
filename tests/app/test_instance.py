"""One worker's part in the status of a daemon: when it writes, and whom it waits for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.app.instance import HANGS, LOOK, PATIENCE, UNASKED, Instance, Place
from imagefarm.app.totals import Figures
from imagefarm.process.ledger import Ledger, Page, Snapshot


class FakeLedger:
    """One in which others write what the test says."""

    def __init__(self) -> None:
        self.asked = 0
        self.written: list[tuple[Mapping[str, Any], int]] = []
        self.others: list[tuple[dict[str, Any], int]] = []
        self.gone: dict[str, Any] = {}
        self.parent: dict[str, Any] = {}
        self.closed = False

    def claim(self) -> bool:
        return True

    def ask(self) -> int:
        self.asked += 1
        return self.asked

    def publish(self, document: Mapping[str, Any], answers: int) -> None:
        self.written.append((document, answers))

    def read(self) -> Snapshot:
        own = [Page(*self.written[-1], own=True)] if self.written else []
        return Snapshot(
            self.gone, self.parent, (*own, *(Page(*page, own=False) for page in self.others))
        )

    def close(self) -> None:
        self.closed = True


class FakeWork:
    def __init__(self) -> None:
        self.count = 0

    def figures(self) -> Figures:
        return Figures({"n": self.count}, {"g": 1})

    def processes(self) -> list[dict[str, Any]]:
        return [{"role": "image", "pid": 0}]

    def status(self, sums: Figures) -> Mapping[str, Any]:
        return {"n": sums.counters["n"], "g": sums.gauges["g"]}


def other(n: int, written: float, **more: Any) -> dict[str, Any]:
    return {
        "pid": 0, "number": 2, "since": 0.0, "written": written, "draining": False,
        "descriptors": None, "counters": {"n": n}, "gauges": {"g": 1}, "processes": [],
        "errors": [], **more,
    }  # fmt: skip


class InstanceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.work, self.ledger = Clock(), FakeWork(), FakeLedger()
        self.clock.advance(1000.0)
        self.instance = Instance(
            self.clock, self.work, Place(cast(Ledger, self.ledger)), self.clock.seconds
        )
        self.instance.start()
        self.addCleanup(self.instance.stop)

    def test_it_writes_now_and_then(self) -> None:
        self.clock.pump([LOOK] * 100)
        self.assertLessEqual(len(self.ledger.written), 1 + round(100 * LOOK / UNASKED))
        self.assertGreater(len(self.ledger.written), 1)

    def test_it_answers_who_asks(self) -> None:
        self.work.count = 7
        self.ledger.ask()
        self.clock.advance(LOOK)
        document, answers = self.ledger.written[-1]
        self.assertEqual((document["counters"], answers), ({"n": 7}, 1))

    def test_it_waits_for_the_others(self) -> None:
        self.work.count = 7
        self.ledger.others = [(other(1, 1000.0), 0)]
        self.ledger.gone = {"counters": {"n": 100}}
        told = self.instance.report()
        self.clock.advance(LOOK)
        self.assertNoResult(told)
        self.ledger.others = [(other(2, 1000.0), 1)]
        self.clock.advance(LOOK)
        found = self.successResultOf(told)
        self.assertEqual((found["n"], found["g"]), (109, 2))

    def test_what_is_told_was_written(self) -> None:
        """So that nothing that was told is lost with us."""
        self.work.count = 8
        found = self.successResultOf(self.instance.report())
        self.assertEqual((found["n"], self.ledger.written[-1][0]["counters"]), (8, {"n": 8}))

    def test_but_not_for_ever(self) -> None:
        self.ledger.others = [(other(5, 1000.0), 0)]
        told = self.instance.report()
        self.clock.pump([LOOK] * (round(PATIENCE / LOOK) + 1))
        self.assertEqual(self.successResultOf(told)["n"], 5)

    def test_nor_for_one_that_hangs(self) -> None:
        self.ledger.others = [(other(5, 1000.0 - HANGS), 0)]
        self.assertEqual(self.successResultOf(self.instance.report())["n"], 5)

    def test_processes(self) -> None:
        late = 1000.0 - HANGS - 1
        self.ledger.parent = {"pid": 0, "supervisor": 0, "since": 400.0, "errors": []}
        self.ledger.others = [
            (other(0, late, number=3), 9), (other(0, 1000.0, number=4, draining=True), 9),
        ]  # fmt: skip
        found = self.successResultOf(self.instance.report())
        self.assertEqual(found["uptime"], 600.0)
        states = [(p["role"], p.get("number"), p.get("state")) for p in found["processes"]]
        self.assertEqual(
            states,
            [("master", None, None), ("worker", 3, "hangs"), ("worker", 4, "finishing"),
             ("worker", 1, "serves"), ("image", None, None)],
        )  # fmt: skip

    def test_errors_of_all(self) -> None:
        Logger().error("ours")
        Logger().warn("no error")
        self.ledger.others = [(other(0, 1000.0, errors=[[2.0, "crit", 8, "theirs"]]), 9)]
        self.ledger.gone = {"counters": {}, "errors": [[1.0, "error", 7, "of a dead one"]]}
        self.ledger.parent = {"pid": 0, "errors": [[3.0, "emerg", 6, "the master's"]]}
        found = self.successResultOf(self.instance.report())
        texts = [error["text"] for error in found["errors"]]
        self.assertEqual(texts, ["of a dead one", "theirs", "the master's", "ours"])
        self.assertEqual(found["errors"][1]["time"], "1970-01-01T00:00:02.000Z")

    def test_the_end(self) -> None:
        """What it has counted is written for those who stay; a late question is answered."""
        self.ledger.others = [(other(5, 1000.0), 0)]
        told = self.instance.report()
        self.work.count = 9
        self.instance.stop()
        self.assertEqual(self.ledger.written[-1][0]["counters"], {"n": 9})
        self.assertTrue(self.ledger.closed)
        self.clock.advance(LOOK)
        self.assertEqual(self.successResultOf(told)["n"], 9)
        self.assertEqual(self.successResultOf(self.instance.report())["n"], 9)
        self.assertEqual(self.clock.getDelayedCalls(), [])
