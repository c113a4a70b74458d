from __future__ import annotations

from pathlib import Path

from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.app.slowlog import MAX_REQUEST, SlowLog
from imagefarm.http.headers import Headers
from imagefarm.http.message import Response
from imagefarm.http.requestlog import Context

ASKED = Context(request="GET /resize?src=/a.jpg&w=3", request_id="f00")
IMAGE = Response(
    200,
    Headers([(b"X-Imagefarm-Recipe", b"w=320"), (b"Server-Timing", b"queue;dur=0.1")]),
    b"",
)


class SlowLogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.log = SlowLog(str(self.path), 0.5, lambda: 0.0)
        self.log.open()
        self.addCleanup(self.log.close)

    def lines(self) -> list[str]:
        return [line[25:] for line in self.path.read_text().splitlines()]

    def test_only_what_is_slow(self) -> None:
        self.log.answered(ASKED, IMAGE, 0.499)
        self.log.answered(ASKED, IMAGE, 0.5)
        self.assertEqual(
            self.lines(),
            [' 200 0.500 "f00" "GET /resize?src=/a.jpg&w=3" "w=320" "queue;dur=0.1"'],
        )

    def test_what_is_not_known(self) -> None:
        self.log.answered(Context(), Response(504), 10.2)
        self.log.answered(Context(request="/" * 5000, request_id="x"), IMAGE, 1)
        first, second = self.lines()
        self.assertEqual(first, ' 504 10.200 "-" "-" "-" "-"')
        self.assertIn(f' "x" "{"/" * MAX_REQUEST}" ', second)

    def test_moved_away(self) -> None:
        moved = self.path.with_suffix(".1")
        self.log.answered(ASKED, IMAGE, 1.0)
        self.path.rename(moved)
        self.log.open()
        self.log.answered(ASKED, IMAGE, 2.0)
        self.assertEqual(len(moved.read_text().splitlines()), 1)
        self.assertEqual([line[:10] for line in self.lines()], [" 200 2.000"])

    def test_no_place(self) -> None:
        told: list[LogEvent] = []
        globalLogPublisher.addObserver(told.append)
        self.addCleanup(globalLogPublisher.removeObserver, told.append)
        log = SlowLog("/nowhere/slow.log", 0.0)
        log.open()
        log.answered(ASKED, IMAGE, 1.0)
        self.assertEqual(
            [formatEvent(event) for event in told],
            ['open() "/nowhere/slow.log" failed (2: No such file or directory)'],
        )
