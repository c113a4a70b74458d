from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from imagefarm.cache.entry import Entry
from imagefarm.cache.filling import Filling, Incomplete
from imagefarm.cache.flights import Landing
from imagefarm.cache.store import Found, digest_of

from .support import Sink, Stream, ZoneCase

ENTRY = Entry(b"k", 200, (), 0.0, 2.0**40)
DIGEST = digest_of(b"k")


class FillingTests(ZoneCase):
    def fill(self, length: int | None = None) -> Filling:
        self.source = Stream(length)
        self.landed: list[Landing] = []
        writer = self.zone.writer(ENTRY)
        assert writer is not None
        self.writer = writer
        return Filling(self.zone, self.source, writer, ENTRY, DIGEST, self.landed.append)

    def stored(self) -> bytes | None:
        found: Found | None = self.zone.directory.open(DIGEST)
        if found is None:
            return None
        with open(found.file.fd, "rb") as file:
            file.seek(found.body_offset)
            return file.read()

    def settled(self) -> None:
        """Nothing is left behind: no descriptor, no temporary file."""
        self.assertEqual(self.writer.fd, -1)
        self.assertFalse([name for name in self.files() if name.startswith("tmp")])
        self.assertEqual(len(self.landed), 1)

    def fail_writes(self) -> None:
        """The file can still be read, but takes no more."""
        fd = os.open(f"/proc/self/fd/{self.writer.fd}", os.O_RDONLY)
        os.dup2(fd, self.writer.fd, inheritable=False)
        os.close(fd)

    def test_through(self) -> None:
        filling, sink = self.fill(6), Sink()
        self.assertEqual(filling.length, 6)
        filling.start(sink)
        self.source.send(b"abc", b"def")
        self.assertEqual(sink.chunks, [b"abc", b"def"])
        self.assertIsNone(self.stored())
        self.source.finish()
        self.assertTrue(sink.ended)
        self.assertEqual((self.stored(), self.landed), (b"abcdef", [Landing.STORED]))
        filling.cancel()
        self.settled()

    @given(st.lists(st.tuples(st.binary(min_size=1, max_size=9), st.booleans()), max_size=12),
           st.booleans())  # fmt: skip
    def test_whatever_the_pace_both_get_the_same(
        self, script: list[tuple[bytes, bool]], slow: bool
    ) -> None:
        self.zone.directory.remove(DIGEST)
        filling = self.fill()
        sink = Sink(filling, slow)
        filling.start(sink)
        for chunk, pause in script:
            self.source.send(chunk)
            self.assertFalse(self.source.paused)
            (filling.pause if pause else filling.resume)()
        self.source.finish()
        body = b"".join(chunk for chunk, _ in script)
        self.assertEqual(self.stored(), body)
        while not sink.ended:
            filling.resume()
        self.assertEqual(sink.body, body)
        self.settled()

    @given(st.integers(0, 5), st.booleans())
    def test_a_client_that_leaves(self, after: int, slow: bool) -> None:
        self.zone.directory.remove(DIGEST)
        filling = self.fill()
        sink = Sink(filling, slow)
        if after:
            filling.start(sink)
        for number in range(5):
            if number == after:
                filling.cancel()
            self.source.send(b"%d" % number)
        if after == 5:
            filling.cancel()
        got = len(sink.chunks)
        self.source.finish()
        filling.cancel()
        self.assertEqual(self.stored(), b"01234")
        self.assertEqual(len(sink.chunks), got)
        self.assertFalse(sink.ended or self.source.cancelled)
        self.settled()

    def test_the_upstream_breaks_off(self) -> None:
        filling, sink = self.fill(), Sink()
        filling.start(sink)
        self.source.send(b"abc")
        error = RuntimeError("reset")
        self.source.breaks(error)
        self.assertIs(sink.error, error)
        self.assertEqual((self.stored(), self.landed), (None, [Landing.LEAD]))
        self.settled()

    def test_fewer_bytes_than_promised(self) -> None:
        filling, sink = self.fill(9), Sink()
        filling.start(sink)
        self.source.send(b"abc")
        self.source.finish()
        self.assertIsInstance(sink.error, Incomplete)
        self.assertEqual((self.stored(), self.landed), (None, [Landing.LEAD]))
        self.settled()

    def test_broken_off_without_a_client(self) -> None:
        filling = self.fill()
        filling.cancel()
        self.source.send(b"abc")
        self.source.breaks(RuntimeError("reset"))
        self.assertEqual((self.stored(), self.landed), (None, [Landing.LEAD]))
        self.settled()

    def test_full_disk_becomes_a_plain_stream(self) -> None:
        filling = self.fill()
        sink = Sink(filling)
        filling.start(sink)
        self.source.send(b"one ")
        self.fail_writes()
        self.source.send(b"two ")
        self.assertEqual(self.landed, [Landing.PASS])
        filling.pause()
        self.assertTrue(self.source.paused)
        filling.resume()
        self.source.send(b"three")
        self.source.finish()
        self.assertEqual((sink.body, sink.ended), (b"one two three", True))
        self.assertIsNone(self.stored())
        self.settled()

    def test_full_disk_while_the_client_lags(self) -> None:
        filling = self.fill()
        sink = Sink(filling, slow=True)
        filling.start(sink)
        self.source.send(b"1", b"2", b"3")
        self.fail_writes()
        self.source.send(b"4")
        self.assertTrue(self.source.paused)
        self.source.send(b"5")
        self.source.finish()
        for _ in range(9):
            filling.resume()
        self.assertEqual((sink.body, sink.ended), (b"12345", True))
        self.settled()

    def test_full_disk_without_a_client(self) -> None:
        filling = self.fill()
        filling.cancel()
        self.fail_writes()
        self.source.send(b"1")
        self.assertTrue(self.source.cancelled)
        self.settled()

    def test_leaving_when_nothing_is_stored_stops_the_upstream(self) -> None:
        filling, sink = self.fill(), Sink()
        filling.start(sink)
        self.fail_writes()
        self.source.send(b"1")
        filling.cancel()
        self.assertTrue(self.source.cancelled)
        self.settled()

    def test_more_than_the_zone_holds(self) -> None:
        self.zone = self.make_zone(max_size=10)
        filling, sink = self.fill(), Sink()
        filling.start(sink)
        self.source.send(b"x" * 8, b"y" * 8)
        self.source.finish()
        self.assertEqual((sink.body, sink.ended), (b"x" * 8 + b"y" * 8, True))
        self.assertEqual((self.stored(), self.landed), (None, [Landing.PASS]))
        self.settled()
