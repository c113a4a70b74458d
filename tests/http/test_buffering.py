from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.config.variables import Template
from imagefarm.http.buffering import GRACE, TURN, BufferedStream, Buffering, SpoolError, buffer
from imagefarm.http.message import Response
from imagefarm.http.tempfiles import TempFile, TempPath
from tests.proxy.support import Sink, Source, make_request


class Disk:
    """Where temporary files go: remembers them, and breaks. ``left`` is its room."""

    def __init__(self, directory: str, left: int) -> None:
        self.directory = os.fsencode(directory)
        self.left = left
        self.broken = False
        self.files: list[File] = []

    def open(self) -> File:
        self.files.append(File(TempPath(self.directory).open(), self))
        return self.files[-1]


class File:
    def __init__(self, file: TempFile, disk: Disk) -> None:
        self._file = file
        self._disk = disk
        self.largest = 0
        self.writes: list[int] = []
        self.closed = False

    def write(self, data: memoryview, offset: int) -> int:
        if offset >= self._disk.left:
            raise OSError(28, "No space left on device")
        data = data[: self._disk.left - offset]
        self.writes.append(len(data))
        self.largest = max(self.largest, offset + len(data))
        return self._file.write(data, offset)

    def read(self, count: int, offset: int) -> bytes:
        if self._disk.broken:
            raise OSError(5, "Input/output error")
        return self._file.read(count, offset)

    def empty(self) -> None:
        self._file.empty()

    def close(self) -> None:
        self.closed = True
        self._file.close()


class BufferedTests(SynchronousTestCase):
    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.directory = holder.name
        self.lines: list[tuple[str, str]] = []
        self.clock = Clock()

    def stream(
        self, memory: int = 4, max_file: int = 100, write_size: int = 3, left: int = 1 << 40
    ) -> BufferedStream:
        self.disk: Any = Disk(self.directory, left)
        self.source = Source(held=True, known=False)
        self.sink = Sink()
        stream = BufferedStream(
            self.source,
            Buffering(memory=memory, max_file=max_file, write_size=write_size, temp=self.disk),
            self.clock,
            lambda level, line: self.lines.append((level, line)),
        )
        stream.start(self.sink)
        return stream

    def wait(self) -> None:
        """Until the sink's time is over."""
        self.clock.advance(GRACE * 1.01)

    def test_what_can_go_goes_at_once(self) -> None:
        self.stream()
        self.source.more(b"x" * 1000)
        self.assertEqual(len(self.sink.received), 1000)
        self.source.finish()
        self.assertEqual((self.sink.ended, self.disk.files), (1, []))

    def test_memory_then_the_file_then_the_source_waits(self) -> None:
        stream = self.stream(memory=4, max_file=10)
        stream.pause()
        for chunk in (b"ab", b"cd", b"efghi"):
            self.source.more(chunk)
        self.assertTrue(self.source.paused)
        self.wait()
        self.assertEqual(repr(stream), "<BufferedStream memory=4 file=5>")
        (file,) = self.disk.files
        self.assertEqual(file.writes, [3, 2])
        self.assertFalse(self.source.paused)
        self.source.more(b"jklmnopq")
        self.assertEqual((file.largest, self.source.paused), (10, True))
        stream.resume()
        self.assertEqual(self.sink.received, b"abcdefghijklmnopq")
        self.assertFalse(self.source.paused)
        self.assertEqual([level for level, _ in self.lines], ["warn"])
        self.source.finish()
        self.assertEqual((self.sink.ended, file.closed), (1, True))

    def test_a_file_that_was_read_is_used_again(self) -> None:
        stream = self.stream(memory=0, max_file=4)
        for chunk in (b"abcd", b"efgh"):
            stream.pause()
            self.source.more(chunk)
            self.wait()
            self.assertFalse(self.source.paused)
            stream.resume()
        self.assertEqual(self.sink.received, b"abcdefgh")
        self.assertEqual([file.largest for file in self.disk.files], [4])

    def test_a_moment_behind_is_no_reason_for_a_file(self) -> None:
        stream = self.stream(memory=2)
        for _ in range(5):
            stream.pause()
            self.source.more(b"abc")
            self.source.more(b"d")
            self.clock.advance(GRACE / 2)
            self.assertTrue(self.source.paused)
            stream.resume()
            self.assertFalse(self.source.paused)
        self.assertEqual((self.sink.received, self.disk.files), (b"abcd" * 5, []))
        stream.pause()
        self.source.more(b"abc")
        self.source.more(b"d")
        self.clock.advance(GRACE * 0.9)
        self.assertEqual(self.disk.files, [], "each stall has its own time")
        self.clock.advance(GRACE * 0.2)
        self.assertEqual(len(self.disk.files), 1)

    def test_no_file(self) -> None:
        stream = self.stream(max_file=0)
        stream.pause()
        self.source.more(b"abcdef")
        self.assertFalse(self.source.paused)
        self.source.more(b"g")
        self.wait()
        self.assertTrue(self.source.paused)
        stream.resume()
        self.assertEqual(self.sink.received, b"abcdefg")
        self.assertEqual((self.disk.files, self.lines, self.source.paused), ([], [], False))

    def test_a_source_that_ends_before_its_sink_has_all(self) -> None:
        stream = self.stream()
        stream.pause()
        self.source.more(b"abcdefgh")
        self.source.more(b"ij")
        self.source.finish()
        self.assertEqual(self.sink.ended, 0)
        stream.resume()
        self.assertEqual((self.sink.received, self.sink.ended), (b"abcdefghij", 1))

    def test_a_source_that_breaks_off(self) -> None:
        """The sink gets what came before, and never an end."""
        stream = self.stream()
        stream.pause()
        self.source.more(b"abcdefgh")
        assert self.source.sink is not None
        error = RuntimeError("gone")
        self.source.sink.fail(error)
        self.assertIsNone(self.sink.error)
        stream.resume()
        self.assertEqual((self.sink.received, self.sink.error), (b"abcdefgh", error))
        self.assertEqual(self.sink.ended, 0)

    def test_cancel_lets_go_of_everything(self) -> None:
        stream = self.stream(memory=0)
        stream.pause()
        self.source.more(b"abc")
        self.wait()
        stream.cancel()
        self.assertTrue(self.source.cancelled)
        self.assertTrue(self.disk.files[0].closed)
        stream.resume()
        self.assertEqual(self.sink.received, b"")

    def test_a_full_disk_slows_the_source_down(self) -> None:
        stream = self.stream(memory=2, left=5)
        stream.pause()
        for chunk in (b"ab", b"cdefghij"):
            self.source.more(chunk)
        self.wait()
        self.assertTrue(self.source.paused)
        self.assertEqual([level for level, _ in self.lines], ["warn", "crit"])
        self.assertIn("failed (28: No space left on device)", self.lines[1][1])
        stream.resume()
        self.assertEqual(self.sink.received, b"abcdefghij")
        stream.pause()
        for chunk in (b"k", b"lm", b"n"):
            self.source.more(chunk)
        self.assertTrue(self.source.paused)
        stream.resume()
        self.source.finish()
        self.assertEqual((self.sink.received, self.sink.ended), (b"abcdefghijklmn", 1))
        self.assertEqual(len(self.disk.files), 1)

    def test_no_place_for_a_file(self) -> None:
        stream = self.stream(memory=0)
        self.disk.directory = b"/dev/null/x"
        stream.pause()
        self.source.more(b"abc")
        self.wait()
        self.assertTrue(self.source.paused)
        stream.resume()
        self.assertEqual(self.sink.received, b"abc")
        self.assertEqual([level for level, _ in self.lines], ["crit"])

    def test_a_file_that_cannot_be_read_back(self) -> None:
        stream = self.stream(memory=0)
        stream.pause()
        self.source.more(b"abc")
        self.wait()
        self.disk.broken = True
        stream.resume()
        self.assertIsInstance(self.sink.error, SpoolError)
        self.assertTrue(self.source.cancelled)
        self.assertTrue(self.disk.files[0].closed)

    def test_others_have_their_turn(self) -> None:
        """A client on the same machine may be as fast as the disk."""
        stream = self.stream(max_file=4 * TURN, write_size=TURN)
        stream.pause()
        for _ in range(3):
            self.source.more(bytes(TURN))
            self.wait()
        self.source.finish()
        stream.resume()
        self.assertLess(len(self.sink.received), 2 * TURN + 100)
        while self.clock.getDelayedCalls():
            self.clock.advance(0)
        self.assertEqual((len(self.sink.received), self.sink.ended), (3 * TURN, 1))

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.one_of(st.binary(min_size=1, max_size=20), st.booleans(), st.none()), max_size=40
        ),
        st.integers(0, 30),
        st.sampled_from([0, 7, 40, 1000]),
        st.sampled_from([0, 10, 1000]),
        st.integers(0, 3),
    )
    def test_nothing_is_lost_or_moved(
        self, steps: list[bytes | bool | None], memory: int, max_file: int, left: int, eager: int
    ) -> None:
        stream = self.stream(memory, max_file, 6, left)
        turns = 0

        def on_data() -> None:
            nonlocal turns
            turns += 1
            if eager and turns % eager == 0:
                stream.pause()

        self.sink.on_data = on_data
        sent = b""
        for step in steps:
            if isinstance(step, bytes):
                sent += step
                self.source.more(step)
            elif step is None:
                self.wait()
            elif step:
                stream.resume()
            else:
                stream.pause()
            self.assertTrue(sent.startswith(self.sink.received))
            self.assertTrue(all(file.largest <= max_file for file in self.disk.files))
        self.source.finish()
        while not self.sink.ended:
            stream.resume()
        self.assertEqual((self.sink.received, self.sink.ended), (sent, 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertTrue(all(file.closed for file in self.disk.files))
        self.assertEqual(list(Path(self.directory).iterdir()), [])


class BufferTests(SynchronousTestCase):
    def test_who_decides(self) -> None:
        for enabled, said, buffered in (
            (True, None, True),
            (False, None, False),
            (True, False, False),
            (False, True, True),
        ):
            response = Response(200, body=Source([b"x"]), buffering=said)
            buffer(response, make_request(), Buffering(enabled=enabled), Clock())
            self.assertEqual(isinstance(response.body, BufferedStream), buffered)

    def test_a_whole_answer_is_left_alone(self) -> None:
        response = Response(200, body=b"whole")
        buffer(response, make_request(), Buffering(), Clock())
        self.assertEqual(response.body, b"whole")

    def test_the_rate_of_a_whole_answer(self) -> None:
        clock = Clock()
        response = Response(200, body=b"x" * 1000)
        buffer(response, make_request(), Buffering(rate=100), clock)
        sink, body = Sink(), response.body
        assert isinstance(body, BufferedStream)
        self.assertEqual(body.length, 1000)
        body.start(sink)
        clock.pump([0.1] * 50)
        self.assertTrue(400 <= len(sink.received) <= 600, len(sink.received))
        clock.pump([0.1] * 60)
        self.assertEqual((sink.received, sink.ended), (b"x" * 1000, 1))

    def test_the_rate_is_of_reading(self) -> None:
        clock = Clock()
        for rate in (800, Template("$r", (lambda request: b"800",), None)):
            response = Response(200, body=Source([b"x" * 1000]))
            buffer(response, make_request(), Buffering(rate=rate), clock)
            sink, body = Sink(), response.body
            assert isinstance(body, BufferedStream)
            body.start(sink)
            self.assertEqual(len(sink.received), 100)
            for _ in range(20):
                clock.advance(0.125)
            self.assertEqual((len(sink.received), sink.ended), (1000, 1))
