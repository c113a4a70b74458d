"""Streams made of other bodies keep the promises of `BodyStream`."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.filters.gzip import compressor
from imagefarm.http.filters.streams import BlockStream, GzipStream, SliceStream, TruncatedFile
from imagefarm.http.message import FileBody, OpenFile, PartsBody
from tests.http.samples import Sink, Source, file_body, open_file

CHUNKS = st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=9)


class BlockStreamTests(SynchronousTestCase):
    def test_bytes_files_and_parts(self) -> None:
        file = open_file(b"0123456789")
        parts = PartsBody((b"<", FileBody(file, 2, 3), b"", b"-", FileBody(file, 8, 2), b">"), 8)
        for body, expected in (
            (b"hello", b"hello"),
            (b"", b""),
            (FileBody(open_file(b"0123456789"), 1, 7), b"1234567"),
            (FileBody(open_file(b""), 0, 0), b""),
            (parts, b"<234-89>"),
        ):
            stream, sink = BlockStream(body, 3), Sink()
            self.assertEqual(stream.length, len(expected))
            stream.start(sink)
            self.assertEqual((sink.body, sink.ends), (expected, 1))
            self.assertLessEqual(max(map(len, sink.chunks), default=0), 3)
        self.assertEqual(file.fd, -1)

    def test_backpressure(self) -> None:
        body = file_body(b"abcdef")
        stream = BlockStream(body, 2)
        sink = Sink(pausing=stream)
        stream.start(sink)
        self.assertEqual(sink.body, b"ab")
        stream.resume()
        self.assertEqual(sink.body, b"abcd")
        stream.resume()
        self.assertEqual((sink.body, sink.ends), (b"abcdef", 0))
        stream.resume()
        self.assertEqual((sink.ends, body.file.fd), (1, -1))
        stream.resume()
        self.assertEqual(sink.ends, 1)

    def test_takes_turns(self) -> None:
        turns: list[Callable[[], None]] = []
        stream, sink = BlockStream(b"abcd", 2, turns.append), Sink()
        stream.start(sink)
        self.assertEqual((sink.body, len(turns)), (b"ab", 1))
        stream.pause()
        turns.pop()()
        self.assertEqual(sink.body, b"ab")
        stream.resume()
        self.assertEqual(sink.body, b"abcd")
        stream.resume()  # its turn is due already
        self.assertEqual((len(turns), sink.ends), (1, 0))
        turns.pop()()
        self.assertEqual((len(turns), sink.ends), (0, 1))

    def test_cancel(self) -> None:
        turns: list[Callable[[], None]] = []
        body = file_body(b"abcd")
        stream, sink = BlockStream(body, 2, turns.append), Sink()
        stream.start(sink)
        stream.cancel()
        stream.cancel()
        turns.pop()()
        self.assertEqual((sink.body, sink.ends, sink.error, body.file.fd), (b"ab", 0, None, -1))

    def test_cancel_before_the_start(self) -> None:
        body = file_body(b"abcd")
        BlockStream(body, 2).cancel()
        self.assertEqual(body.file.fd, -1)

    def test_cancel_from_within(self) -> None:
        stream = BlockStream(file_body(b"abcd"), 2)

        class Leaving(Sink):
            def data(self, chunk: bytes) -> None:
                super().data(chunk)
                stream.cancel()

        sink = Leaving()
        stream.start(sink)
        self.assertEqual((sink.body, sink.ends, sink.error), (b"ab", 0, None))

    def test_a_file_that_shrinks_fails(self) -> None:
        file = open_file(b"abcd")
        stream, sink = BlockStream(FileBody(file, 0, 6), 4), Sink()
        stream.start(sink)
        self.assertEqual((sink.body, sink.ends, file.fd), (b"abcd", 0, -1))
        self.assertIsInstance(sink.error, TruncatedFile)

    def test_a_file_that_cannot_be_read_fails(self) -> None:
        fd = os.open("/", os.O_RDONLY)
        stream, sink = BlockStream(FileBody(OpenFile(fd, 4, 0.0), 0, 4), 4), Sink()
        stream.start(sink)
        self.assertIsInstance(sink.error, IsADirectoryError)


class SliceStreamTests(SynchronousTestCase):
    @settings(deadline=None)
    @given(CHUNKS, st.data())
    def test_any_slice_of_any_chunks(self, chunks: list[bytes], data: st.DataObject) -> None:
        whole = b"".join(chunks)
        start = data.draw(st.integers(0, len(whole) - 1))
        length = data.draw(st.integers(1, len(whole) - start))
        source, sink = Source(*chunks, length=len(whole)), Sink()
        stream = SliceStream(source, start, length)
        self.assertEqual(stream.length, length)
        stream.start(sink)
        self.assertEqual((sink.body, sink.ends), (whole[start : start + length], 1))
        self.assertEqual(source.log, ["start", "cancel"])

    def test_controls_are_passed_on(self) -> None:
        source = Source()
        stream = SliceStream(source, 1, 2)
        stream.start(Sink())
        stream.pause()
        stream.resume()
        stream.cancel()
        self.assertEqual(source.log, ["start", "pause", "resume", "cancel"])

    def test_failure(self) -> None:
        source, sink, error = Source(), Sink(), ValueError()
        stream = SliceStream(source, 1, 9)
        stream.start(sink)
        stream.data(b"ab")
        stream.fail(error)
        self.assertEqual((sink.body, sink.error), (b"b", error))

    def test_a_source_that_ends_early_is_passed_on(self) -> None:
        sink = Sink()
        SliceStream(Source(b"abc"), 1, 9).start(sink)
        self.assertEqual((sink.body, sink.ends), (b"bc", 1))


class GzipStreamTests(SynchronousTestCase):
    @settings(deadline=None)
    @given(CHUNKS)
    def test_round_trip(self, chunks: list[bytes]) -> None:
        sink = Sink()
        stream = GzipStream(Source(*chunks), compressor(1, None))
        self.assertIsNone(stream.length)
        stream.start(sink)
        self.assertEqual(gzip.decompress(sink.body), b"".join(chunks))
        self.assertEqual(sink.ends, 1)

    def test_the_tail_waits_while_paused(self) -> None:
        source, sink = Source(), Sink()
        stream = GzipStream(source, compressor(1, None))
        stream.start(sink)
        stream.pause()
        stream.data(b"abc")
        stream.end()
        self.assertEqual(sink.ends, 0)
        stream.resume()
        self.assertEqual((gzip.decompress(sink.body), sink.ends), (b"abc", 1))
        self.assertEqual(source.log, ["start", "pause"])

    def test_nothing_after_cancel(self) -> None:
        source, sink = Source(), Sink()
        stream = GzipStream(source, compressor(1, None))
        stream.start(sink)
        stream.cancel()
        stream.data(os.urandom(100000))
        stream.end()
        self.assertEqual((sink.chunks, sink.ends), ([], 0))

    def test_failure_is_not_an_end(self) -> None:
        source, sink, error = Source(), Sink(), ValueError()
        stream = GzipStream(source, compressor(1, None))
        stream.start(sink)
        stream.data(b"abc")
        stream.fail(error)
        self.assertEqual((sink.ends, sink.error), (0, error))
