"""The dashboard's figures: who is asked, how often, and what becomes of those who don't answer."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.app import fetch
from imagefarm.app.fetch import FetchError
from imagefarm.app.watch import KEPT, MAX_PAGES, PERIOD, Watch
from imagefarm.process.board import Board
from imagefarm.resources.dashboard import Dashboard, Source

STATUS: dict[str, Any] = {"servers": {}, "requests": 3}


class WatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.reports = 0
        self.answers: list[Deferred[Any]] = []
        settings = Dashboard("master", (Source("slave", "http://127.0.0.1:1/"),))
        self.board = Board.make()
        self.addCleanup(self.board.close)
        self.settings = settings
        self.watch = self.another()

    def another(self) -> Watch:
        """A worker's."""
        return Watch(
            self.clock, self.settings, self.report, "", self.clock.seconds,
            lambda *_: self.fetch(), self.board,
        )  # fmt: skip

    def report(self) -> Deferred[Any]:
        self.reports += 1
        return succeed(STATUS)

    def fetch(self) -> Deferred[Any]:
        self.answers.append(Deferred())
        return self.answers[-1]

    def test_all_are_asked_once_for_all_who_wait(self) -> None:
        first, second = self.watch.figures(False), self.watch.figures(True)
        self.assertEqual((self.reports, len(self.answers)), (1, 1))
        self.assertNoResult(first)
        self.answers[0].callback(STATUS)
        found = self.successResultOf(first)
        self.assertEqual([(i["name"], i["up"]) for i in found["instances"]],
                         [("master", True), ("slave", True)])  # fmt: skip
        self.assertNotIn("history", found)
        self.assertEqual(len(self.successResultOf(second)["history"]), 1)
        self.successResultOf(self.watch.figures(False))
        self.assertEqual(self.reports, 1, "what is half a second old is good enough")
        self.clock.advance(0.5)
        self.watch.figures(False)
        self.assertEqual(self.reports, 2)

    def test_one_that_is_down(self) -> None:
        asked = self.watch.figures(False)
        self.answers[0].errback(FetchError("Connection refused"))
        found = self.successResultOf(asked)
        self.assertEqual(
            found["instances"][1],
            {"name": "slave", "url": "http://127.0.0.1:1/", "up": False,
             "error": "Connection refused"},
        )  # fmt: skip
        self.assertEqual([p["text"] for p in found["problems"]],
                         ["slave does not answer: Connection refused"])  # fmt: skip
        self.assertEqual(list(found["sample"]["of"]), ["master"])

    def test_one_that_answers_something_else(self) -> None:
        for nonsense in ({}, {"servers": 5}, {"servers": {}, "upstreams": {"a": {}}},
                         {"resizer": []}):  # fmt: skip
            self.clock.advance(1.0)
            asked = self.watch.figures(False)
            self.answers[-1].callback(nonsense)
            instance = self.successResultOf(asked)["instances"][1]
            self.assertEqual((instance["up"], instance["error"]),
                             (False, "its answer is not a status"), nonsense)  # fmt: skip

    def test_workers_keep_samples_together(self) -> None:
        """Those of before a reload, too; and no more than one in ten seconds."""
        for number in range(6):
            asked = self.another().figures(True)
            self.answers[-1].callback(STATUS)
            history = self.successResultOf(asked)["history"]
            self.assertEqual([each["time"] for each in history],
                             [1000.0, 1010.0, 1020.0][: number // 2 + 1])  # fmt: skip
            self.clock.advance(5.0)
        self.clock.advance(-100.0)
        asked = self.another().figures(True)
        self.answers[-1].callback(STATUS)
        self.assertEqual(self.successResultOf(asked)["history"][-1]["time"], 930.0)

    def test_other_pages_are_forgotten(self) -> None:
        for number in range(MAX_PAGES + 2):
            watch = Watch(self.clock, Dashboard(f"m{number}"), self.report, "",
                          self.clock.seconds, past=self.board)  # fmt: skip
            self.successResultOf(watch.figures(True))
        self.assertEqual(len(self.board.read()[1]), MAX_PAGES)

    def test_looks_of_its_own(self) -> None:
        self.watch = Watch(
            self.clock, Dashboard("m"), self.report, "", self.clock.seconds,
            lambda *_: fail(ValueError()),
        )  # fmt: skip
        self.watch.start()
        self.clock.pump([PERIOD / 2] * 6)
        self.assertEqual(self.reports, 4)
        history = self.successResultOf(self.watch.figures(True))["history"]
        self.assertEqual([each["time"] for each in history], [1000, 1010, 1020, 1030])
        self.clock.pump([PERIOD] * (KEPT + 5))
        self.assertEqual(len(self.successResultOf(self.watch.figures(True))["history"]), KEPT)
        self.watch.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class FetchTests(SynchronousTestCase):
    ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"a": 1}'

    def ask(self, source: Source, *pieces: bytes, close: bool = False) -> Any:
        getting = fetch._Getting(source)
        transport = StringTransport()
        transport.abortConnection = lambda: None  # type: ignore[method-assign]
        done = getting.done
        getting.makeConnection(transport)
        self.sent = transport.value()
        for piece in pieces:
            getting.dataReceived(piece)
        if close:
            getting.connectionLost()
        return done

    def test_request(self) -> None:
        self.ask(Source("a", "", "::1", 81, target="/s?x"))
        self.assertTrue(self.sent.startswith(b"GET /s?x HTTP/1.1\r\nHost: [::1]\r\n"))

    def test_byte_by_byte(self) -> None:
        done = self.ask(
            Source("a", ""), *(self.ANSWER[i : i + 1] for i in range(len(self.ANSWER)))
        )
        self.assertEqual(self.successResultOf(done), b'{"a": 1}')

    def test_failures(self) -> None:
        for pieces, why in {
            (b"nonsense",): "it sent no valid HTTP/1.0 header",
            (b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n",): "it answered with status 404",
            (self.ANSWER[:-1],): "it closed the connection without an answer",
            (): "it closed the connection without an answer",
        }.items():
            error = self.failureResultOf(
                self.ask(Source("a", ""), *pieces, close=True), FetchError
            )
            self.assertEqual(error.getErrorMessage(), why)

    def test_too_large(self) -> None:
        self.patch(fetch, "MAX_ANSWER", 10)
        head = b"HTTP/1.1 200 OK\r\n\r\n"
        error = self.failureResultOf(self.ask(Source("a", ""), head, b"x" * 11), FetchError)
        self.assertEqual(error.getErrorMessage(), "its answer is too large")

    def test_not_a_status(self) -> None:
        for text in (b"<html>", b"[1]", b"\xff"):
            self.assertRaises(FetchError, fetch._read, text)
