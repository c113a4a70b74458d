from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.body import BodyTimeout
from imagefarm.http.spool import OnceBody, SpooledBody, SpoolFailed, Spooling, spool
from imagefarm.http.tempfiles import TempFile, TempPath
from tests.proxy.support import Sink, Source, make_request


class SpoolCase(SynchronousTestCase):
    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.directory = Path(holder.name)
        self.request = make_request()

    def settings(self, memory: int = 4, in_file_only: str = "off") -> Spooling:
        temp = TempPath(os.fsencode(self.directory))
        return Spooling(memory=memory, temp=temp, in_file_only=in_file_only)

    def spool(
        self, body: Source, memory: int = 4, in_file_only: str = "off"
    ) -> Deferred[SpooledBody]:
        return spool(body, self.request, self.settings(memory, in_file_only))

    def files(self) -> list[Path]:
        return list(self.directory.iterdir())


class SpoolTests(SpoolCase):
    @given(st.lists(st.binary(min_size=1, max_size=9), max_size=8), st.integers(0, 30))
    def test_it_can_be_read_again_and_again(self, chunks: list[bytes], memory: int) -> None:
        whole = b"".join(chunks)
        body = self.successResultOf(self.spool(Source(list(chunks)), memory))
        self.addCleanup(body.close)
        self.assertEqual((body.length, body.replayable), (len(whole), True))
        for _ in range(2):
            sink = Sink()
            body.start(sink)
            self.assertEqual((sink.received, sink.ended), (whole, 1))
        in_memory = self.request.variables["request_body"]
        self.assertEqual(in_memory, whole if len(whole) <= memory else b"")

    def test_a_second_start_takes_the_place_of_the_first(self) -> None:
        body = SpooledBody(b"abc")
        first, second = Sink(), Sink()
        first.on_data = body.pause
        body.start(first)
        body.start(second)
        self.assertEqual((first.ended, second.received, second.ended), (False, b"abc", True))

    def test_pausing(self) -> None:
        source = Source([b"x" * 70_000, b"y" * 70_000])
        body = self.successResultOf(self.spool(source))
        sink = Sink()
        sink.on_data = body.pause
        body.start(sink)
        self.assertEqual(len(sink.received), 65536)
        body.resume()
        self.assertEqual(len(sink.received), 131072)
        body.cancel()
        body.resume()
        self.assertEqual((len(sink.received), sink.ended), (131072, False))
        body.close()

    def test_files(self) -> None:
        for kind, named, left in (("off", 0, 0), ("clean", 1, 0), ("on", 1, 1)):
            body = self.successResultOf(self.spool(Source([b"ab"]), 1, kind))
            self.assertEqual(len(self.files()), named)
            if named:
                path = self.request.variables["request_body_file"]
                self.assertEqual(Path(os.fsdecode(path)).read_bytes(), b"ab")
            body.close()
            self.assertEqual(len(self.files()), left)

    def test_a_small_body_in_a_file_only(self) -> None:
        body = self.successResultOf(self.spool(Source([]), 100, "clean"))
        self.assertEqual((len(self.files()), body.length), (1, 0))
        body.close()

    def test_a_body_that_breaks_off(self) -> None:
        source = Source([b"abcdef"], held=True)
        spooling = self.spool(source, in_file_only="clean")
        self.assertEqual(len(self.files()), 1)
        assert source.sink is not None
        source.sink.fail(BodyTimeout("slow"))
        self.failureResultOf(spooling, BodyTimeout)
        self.assertEqual(self.files(), [])

    def test_cancelled(self) -> None:
        source = Source([b"abcdef"], held=True)
        spooling = self.spool(source, in_file_only="clean")
        spooling.cancel()
        self.failureResultOf(spooling, CancelledError)
        self.assertTrue(source.cancelled)
        self.assertEqual(self.files(), [])

    def test_no_place_for_it(self) -> None:
        settings = Spooling(memory=4, temp=TempPath(b"/dev/null/x"))
        source = Source([b"abcdef", b"gh"])
        error = self.failureResultOf(spool(source, self.request, settings), SpoolFailed).value
        self.assertEqual(error.status, 500)
        self.assertTrue(source.cancelled)

    def test_a_full_disk(self) -> None:
        """/dev/full takes nothing: what is left is one line and a 500."""
        place = self.directory / "full"
        place.mkdir()
        settings = Spooling(memory=0, temp=_Full(os.fsencode(place)))
        self.failureResultOf(spool(Source([b"x"]), self.request, settings), SpoolFailed)
        ((level, line),) = self.request.notes
        self.assertEqual(level, "crit")
        self.assertIn("failed (28: No space left on device) while reading client", line)


class _Full(TempPath):
    """Every file is on a full disk."""

    def open(self, *, named: bool = False, keep: bool = False) -> TempFile:
        return TempFile(os.open("/dev/full", os.O_RDWR), b"")


class OnceTests(SynchronousTestCase):
    def test_an_attempt_that_has_not_begun_leaves_it_to_the_next(self) -> None:
        source = Source([b"abc"])
        body = OnceBody(source)
        body.cancel()
        self.assertEqual((body.replayable, source.cancelled), (True, False))
        sink = Sink()
        body.start(sink)
        self.assertEqual((sink.received, sink.ended), (b"abc", True))
        self.assertFalse(body.replayable)
        body.close()
        self.assertTrue(source.cancelled)

    def test_the_clients_failure_is_remembered(self) -> None:
        error = BodyTimeout("slow")
        source, sink = Source([b"abc"], held=True), Sink()
        body = OnceBody(source)
        body.start(sink)
        assert source.sink is not None
        source.sink.fail(error)
        self.assertIs(body.error, error)
        self.assertIs(sink.error, error)
