from __future__ import annotations

import os
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.message import FileBody, OpenFile, PartsBody, Response, TransferSettings
from imagefarm.http.pacing import STEP, Pace, PacedStream

from .fakes import Client, Collector, ScriptedStream, text

RATE = 1000


class PaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def taken(self, pace: Pace, seconds: float) -> int:
        """What a greedy sender sends in so many seconds."""
        end = self.clock.seconds() + seconds
        total = 0
        while self.clock.seconds() < end:
            while count := pace.take(1 << 20):
                total += count
            self.clock.advance(min(pace.delay, end - self.clock.seconds()) or 1e-6)
        return total

    def test_it_is_the_rate(self) -> None:
        for rate in (1, 3, 10, 1000, 12345, 10**9):
            seconds = max(10, 20 / rate)
            total = self.taken(Pace(rate, 0, self.clock), seconds)
            self.assertApproximates(total / seconds / rate, 1, 0.1, str(rate))

    def test_at_once(self) -> None:
        pace = Pace(RATE, 0, self.clock)
        self.assertEqual(pace.take(5000), RATE * STEP)
        self.assertEqual(pace.take(5000), 0)
        self.assertAlmostEqual(pace.delay, STEP)

    def test_less_than_a_step_goes_alone(self) -> None:
        pace = Pace(RATE, 0, self.clock)
        self.assertEqual([pace.take(100), pace.take(100)], [100, 0])
        self.clock.advance(0.08)
        self.assertEqual(pace.take(100), 100)

    def test_after(self) -> None:
        pace = Pace(RATE, 5000, self.clock)
        self.assertEqual([pace.take(4000), pace.take(4000)], [4000, 1000])
        self.assertEqual([pace.take(4000), pace.take(4000)], [125, 0])

    def test_what_did_not_go(self) -> None:
        pace = Pace(RATE, 5000, self.clock)
        pace.take(5000)
        pace.give_back(3000)
        self.clock.advance(100)
        self.assertEqual(pace.take(5000), 3000)
        self.assertEqual(pace.take(5000), 1000)
        pace.give_back(400)
        self.assertEqual(pace.take(5000), 400)

    def test_a_pause_is_not_saved_up(self) -> None:
        pace = Pace(RATE, 0, self.clock)
        self.clock.advance(100)
        self.assertEqual(pace.take(1 << 20), RATE)

    @settings(max_examples=50, deadline=None)
    @given(
        st.integers(1, 10**7),
        st.integers(0, 10**6),
        st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 3)), max_size=50),
    )
    def test_never_faster(self, rate: int, after: int, steps: list[tuple[int, float]]) -> None:
        clock = Clock()
        pace = Pace(rate, after, clock)
        total = 0
        for wanted, wait in steps:
            count = pace.take(wanted)
            self.assertTrue(0 <= count <= wanted)
            total += count
            self.assertLessEqual(
                total, after + max(1, rate * STEP) + rate * clock.seconds() + len(steps)
            )
            clock.advance(wait)


class PacedStreamTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.source = ScriptedStream(length=500)
        self.sink = Collector()
        self.stream = PacedStream(self.source, Pace(RATE, 0, self.clock), self.clock)
        self.assertEqual(self.stream.length, 500)
        self.stream.start(self.sink)

    def test_slices(self) -> None:
        self.stream.data(bytes(range(250)) * 2)
        self.assertEqual(len(self.sink.body), 125)
        self.assertTrue(self.source.paused and self.stream.waiting)
        self.stream.end()
        self.clock.pump([STEP] * 2)
        self.assertEqual(len(self.sink.body), 375)
        self.assertFalse(self.sink.ended)
        self.clock.pump([STEP] * 2)
        self.assertTrue(self.sink.ended)
        self.assertEqual(self.sink.body, bytes(range(250)) * 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_source_runs_again(self) -> None:
        self.stream.data(bytes(200))
        self.assertTrue(self.source.paused)
        self.clock.advance(STEP)
        self.assertEqual(len(self.sink.body), 200)
        self.assertFalse(self.source.paused)

    def test_pause(self) -> None:
        self.stream.data(bytes(500))
        self.stream.pause()
        self.clock.advance(10)
        self.assertEqual(len(self.sink.body), 125)
        self.stream.resume()
        self.assertEqual(len(self.sink.body), 500)
        self.assertFalse(self.source.paused)

    def test_pause_without_a_queue(self) -> None:
        self.stream.pause()
        self.assertTrue(self.source.paused)
        self.stream.resume()
        self.assertFalse(self.source.paused)

    def test_failure(self) -> None:
        self.stream.data(bytes(500))
        self.stream.fail(ValueError())
        self.assertIsInstance(self.sink.error, ValueError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancel(self) -> None:
        self.stream.data(bytes(500))
        self.stream.cancel()
        self.assertTrue(self.source.cancelled)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.stream.data(b"more")
        self.stream.end()
        self.assertEqual((len(self.sink.body), self.sink.ended), (125, False))


class PacedAnswerTests(SynchronousTestCase):
    """Whole answers: each takes 4 seconds but for the step that goes at once."""

    def setUp(self) -> None:
        self.client = Client(transfer=TransferSettings(limit_rate=RATE, send_timeout=30))
        self.body = bytes(range(256)) * 16
        self.body = self.body[:4000]

    def file(self) -> OpenFile:
        with tempfile.TemporaryFile() as file:
            file.write(self.body)
            file.flush()
            return OpenFile(os.dup(file.fileno()), len(self.body), 0.0)

    def assertPaced(self, response: Response) -> None:
        self.client.app.answers[b"/"] = response
        received = self.client.get().partition(b"\r\n\r\n")[2]
        for number in range(1, 31):
            self.assertLess(len(received), RATE * STEP * number + 400)
            self.assertFalse(self.client.app.done)
            self.client.clock.advance(STEP)
            received += self.client.read()
        self.client.clock.advance(STEP)
        received += self.client.read()
        self.assertTrue(self.client.app.done)
        self.assertIn(self.body, received.replace(b"\r\n7d\r\n", b""))
        self.assertEqual(self.client.app.done[0].outcome.body_bytes_sent, 4000)
        self.assertFalse(self.client.closing)

    def test_file(self) -> None:
        opened = self.file()
        self.assertPaced(Response(200, body=FileBody(opened, 0, 4000)))
        self.assertEqual(opened.fd, -1)

    def test_parts(self) -> None:
        body = PartsBody((self.body[:1500], FileBody(self.file(), 1500, 2500)), 4000)
        self.assertPaced(Response(200, body=body))

    def test_bytes(self) -> None:
        self.assertPaced(text(self.body))

    def test_stream_of_known_length(self) -> None:
        stream = ScriptedStream(4000, (self.body,))
        self.client.app.answers[b"/"] = Response(200, body=stream)
        self.client.get()
        assert stream.sink is not None
        stream.sink.end()
        self.client.clock.pump([STEP] * 30)
        self.assertFalse(self.client.app.done)
        self.client.clock.advance(STEP)
        self.assertTrue(self.client.read().endswith(self.body[-4000 + 125 :]))
        self.assertEqual(self.client.app.outcomes, [(b"/", 200, 4000)])

    def test_a_client_that_leaves(self) -> None:
        opened = self.file()
        self.client.app.answers[b"/"] = Response(200, body=FileBody(opened, 0, 4000))
        self.client.get()
        self.client.leave()
        self.assertEqual(opened.fd, -1)
        self.assertEqual(self.client.clock.getDelayedCalls(), [])

    def test_its_own_pace_is_no_timeout(self) -> None:
        self.client = Client(transfer=TransferSettings(limit_rate=1, send_timeout=0.5))
        self.client.app.answers[b"/"] = text(b"12345")
        self.client.get()
        self.client.clock.pump([0.25] * 15)
        self.assertFalse(self.client.app.done)
        self.client.clock.pump([0.25] * 5)
        self.assertEqual(self.client.app.outcomes, [(b"/", 200, 5)])

    def test_the_requests_own_rate(self) -> None:
        def answer(request: object) -> Response:
            request.variables["limit_rate"] = rate  # type: ignore[attr-defined]
            return text(self.body)

        self.client.app.answers[b"/"] = answer
        for rate in (b"0", b"1m"):
            self.assertTrue(self.client.get().endswith(self.body), rate)
        rate = b"2k"
        self.assertTrue(self.client.get().endswith(self.body[:256]))

    def test_head_is_not_paced(self) -> None:
        self.client.app.answers[b"/"] = text(self.body)
        answer = self.client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertIn(b"Content-Length: 4000\r\n", answer)
        self.assertEqual(len(self.client.app.done), 1)
