"""Bodies read into memory, up to a limit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.message import FileBody, OpenFile
from imagefarm.http.reading import read_up_to
from tests.proxy.support import Source


class ReadingTests(SynchronousTestCase):
    @given(st.lists(st.binary(min_size=1, max_size=9)), st.integers(0, 40))
    def test_property(self, chunks: list[bytes], limit: int) -> None:
        whole = b"".join(chunks)
        source = Source(list(chunks))
        wanted = (whole[:limit], len(whole) <= limit)
        self.assertEqual(self.successResultOf(read_up_to(source, limit)), wanted)
        self.assertEqual(source.cancelled, not wanted[1])
        self.assertEqual(self.successResultOf(read_up_to(whole, limit)), wanted)

    def test_one_that_breaks_off(self) -> None:
        source = Source([b"abc"], held=True)
        reading = read_up_to(source, 99)
        assert source.sink is not None
        source.sink.fail(ValueError("gone"))
        self.failureResultOf(reading, ValueError)

    def test_cancelled(self) -> None:
        source = Source([b"abc"], held=True)
        reading = read_up_to(source, 99)
        reading.cancel()
        self.assertTrue(source.cancelled)
        self.failureResultOf(reading, CancelledError)

    def test_files_are_refused(self) -> None:
        body = FileBody(OpenFile(-1, 5, 0.0), 0, 5)
        self.assertRaises(TypeError, read_up_to, body, 9)
