import os
import tempfile

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.process.logsinks import BURST, MAX_KEPT, MOMENT, FileSink


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.path = os.path.join(holder.name, "error.log")
        self.clock = Clock()
        self.sink = FileSink(self.path)
        self.addCleanup(self.sink.close)
        self.sink.use(self.clock)

    def lines(self, path: str = "") -> int:
        with open(path or self.path) as file:
            return file.read().count("\n")

    def write(self, count: int, now: float = 0.0) -> None:
        for _ in range(count):
            self.sink.write("error", b"x\n", now)

    def test_the_first_lines_go_out_at_once(self) -> None:
        self.write(BURST)
        self.assertEqual(self.lines(), BURST)

    def test_a_storm_is_gathered(self) -> None:
        self.write(BURST + 100)
        self.assertEqual(self.lines(), BURST)
        self.clock.advance(MOMENT)
        self.assertEqual(self.lines(), BURST + 100)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_order_is_kept_in_the_next_moment(self) -> None:
        self.write(BURST + 1)
        self.sink.write("error", b"last\n", 1.0)
        self.assertEqual(self.lines(), BURST)
        self.clock.advance(MOMENT)
        with open(self.path) as file:
            self.assertTrue(file.read().endswith("x\nlast\n"))

    def test_without_a_clock_nothing_waits(self) -> None:
        self.sink.use(None)
        self.write(BURST + 100)
        self.assertEqual(self.lines(), BURST + 100)

    def test_closing_loses_nothing(self) -> None:
        self.write(BURST + 100)
        self.sink.close()
        self.assertEqual(self.lines(), BURST + 100)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_rotation_loses_nothing(self) -> None:
        self.write(BURST + 100)
        os.rename(self.path, self.path + ".1")
        self.sink.reopen()
        self.assertEqual(self.lines(self.path + ".1"), BURST + 100)
        self.write(1, 1.0)
        self.assertEqual(self.lines(), 1)


class PipeTests(SynchronousTestCase):
    """stderr may be a pipe, and nobody may read it."""

    def setUp(self) -> None:
        self.reader, self.writer = os.pipe()
        self.addCleanup(os.close, self.reader)
        self.addCleanup(os.close, self.writer)
        self.clock = Clock()
        self.sink = FileSink(None, self.writer)
        self.sink.use(self.clock)

    def fill(self) -> None:
        for number in range(1000):
            self.sink.write("error", b"x" * 999 + b"\n", float(number))

    def test_it_does_not_block(self) -> None:
        self.fill()
        self.assertGreater(self.sink.lost, 0)
        kept = len(os.read(self.reader, 1 << 20))
        while self.clock.getDelayedCalls():
            self.clock.advance(MOMENT)
            if self.clock.getDelayedCalls():
                kept += len(os.read(self.reader, 1 << 20))
        os.set_blocking(self.reader, False)
        try:
            kept += len(os.read(self.reader, 1 << 20))
        except BlockingIOError:
            pass
        self.assertEqual(kept + self.sink.lost, 1000 * 1000)
        self.assertLessEqual(self.sink.lost, 1000 * 1000 - MAX_KEPT)

    def test_without_a_clock_it_goes_on_when_somebody_reads(self) -> None:
        self.sink.use(None)
        for number in range(100):
            self.sink.write("error", b"x" * 999 + b"\n", float(number))
        held = len(os.read(self.reader, 1 << 20))
        self.assertLess(held, 100_000)
        self.sink.write("error", b"last\n", 1000.0)
        held += len(os.read(self.reader, 1 << 20))
        self.assertEqual((held, self.sink.lost), (100_005, 0))

    def test_its_end_is_no_error(self) -> None:
        self.fill()
        self.sink.close()
