"""``slice`` before a cache in which pieces of several versions are: what heals, and what ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.logger import capturedLogs, formatEvent

from imagefarm.cache.policy import CLOCK_SKEW, ValidTime
from imagefarm.http.filters.slice import BadSlice, Changed, slice_range
from imagefarm.http.headers import Headers
from imagefarm.http.message import Request, Response, discard
from imagefarm.http.slicing import Slicing
from tests.http.samples import Sink

from .support import ZoneCase, request

SIZE = 10


class Origin:
    """Ranges of ``whole``, with the fields of its version, or a status instead of any."""

    def __init__(self) -> None:
        self.whole = bytes(35)
        self.fields: tuple[tuple[bytes, bytes], ...] = ()
        self.status = 206
        self.shift = 0
        self.asked: list[int] = []

    def become(self, mark: int, *fields: tuple[bytes, bytes], length: int = 35) -> None:
        self.whole, self.fields = bytes([mark]) * length, fields

    def __call__(self, asking: Request) -> Response:
        value = slice_range(asking)
        assert value is not None
        start = int(value[6:].split(b"-")[0])
        self.asked.append(start // SIZE)
        part = self.whole[start : start + SIZE]
        if self.status != 206 or not part:
            status = self.status if self.status != 206 else 416
            return Response(status, Headers(self.fields), b"no part")
        said = b"bytes %d-%d/%d" % (start + self.shift, start + len(part) - 1, len(self.whole))
        return Response(206, Headers(((b"Content-Range", said), *self.fields)), part)


def tag(value: bytes) -> tuple[bytes, bytes]:
    return b"ETag", b'"%b"' % value


def dated(day: int) -> tuple[bytes, bytes]:
    return b"Last-Modified", b"Sun, %02d Nov 1994 08:49:37 GMT" % day


class HealingTests(ZoneCase):
    """The origin's first version is 1; pieces of it are in the cache when it changes."""

    def setUp(self) -> None:
        super().setUp()
        self.origin = Origin()
        self.origin.become(1, tag(b"1"))
        caching = self.make_handler(
            self.origin,
            key=lambda asking: b"/film " + (slice_range(asking) or b""),
            valid=(ValidTime(frozenset({206, 404}), 3600.0),),
        )
        self.slicing = Slicing(caching, SIZE)

    def first(self, start: int) -> Response:
        """The answer to who asks from the piece ``start`` on, its body not begun."""
        self.origin.asked.clear()
        self.clock.advance(1)
        return self.now(self.slicing(self.asking(start)))

    def asking(self, start: int = 0) -> Request:
        asking = request(b"/film", (b"Range", b"bytes=%d-" % (start * SIZE)))
        asking.location = SimpleNamespace(filters=SimpleNamespace(slice=SIZE))
        return asking

    def ask(self, start: int) -> Sink:
        """What comes of the body from the piece ``start`` on."""
        answer, sink = self.first(start), Sink()
        self.assertEqual(answer.status, 200)
        body: Any = answer.body
        body.part(start * SIZE, body.length - start * SIZE).start(sink)
        return sink

    def have(self, *pieces: int) -> None:
        """Have these in the cache."""
        for number in pieces:
            discard(self.first(number).body)

    def whole(self, *asked: int, start: int = 0) -> None:
        """The answer is whole, nothing is said, and the origin was asked for these pieces."""
        with capturedLogs() as logs:
            sink = self.ask(start)
        self.assertEqual((sink.error, sink.ends), (None, 1))
        self.assertEqual(sink.body, self.origin.whole[start * SIZE :])
        self.assertEqual((self.origin.asked, logs), (list(asked), []))

    def broken(self, *asked: int, start: int = 0, said: str = "etag mismatch") -> None:
        """The answer ends in the middle, of one version, which is said once."""
        with capturedLogs() as logs:
            sink = self.ask(start)
        self.assertIsInstance(sink.error, Changed)
        self.assertIn(said, str(sink.error))
        self.assertEqual(len(set(sink.body)), 1)
        self.assertEqual(self.origin.asked, list(asked))
        self.assertEqual([said in str(formatEvent(event)) for event in logs], [True])

    def test_the_first_piece_is_old(self) -> None:
        self.have(0)
        self.origin.become(2, tag(b"2"))
        self.broken(1)
        self.whole(0, 2, 3)
        self.whole()

    def test_a_later_piece_is_old(self) -> None:
        """It is asked for again at once: what was sent is of the new version."""
        self.have(1, 3)
        self.origin.become(2, tag(b"2"))
        self.whole(0, 1, 2, 3)
        self.whole()
        self.assertEqual(self.zone.counters.changed, 2)

    def test_old_and_new_are_both_cached(self) -> None:
        self.have(0, 2)
        self.origin.become(2, tag(b"2"))
        self.have(1)
        self.broken()
        self.whole(0, 2, 3)

    def test_both_that_are_cached_are_old(self) -> None:
        self.have(0)
        self.origin.become(2, tag(b"2"))
        self.have(1)
        self.origin.become(3, tag(b"3"))
        self.broken()
        self.whole(0, 1, 2, 3)

    def test_a_range(self) -> None:
        """The pieces on both sides of the break go; who asks there again has it all."""
        self.have(1, 2)
        self.origin.become(2, tag(b"2"))
        self.broken(3, start=1)
        self.whole(2, start=2)
        self.whole(1, start=1)

    def test_dates_where_there_is_no_tag(self) -> None:
        self.origin.become(1, dated(6))
        self.have(0)
        self.origin.become(2, dated(7))
        self.broken(1, said="date mismatch")
        self.whole(0, 2, 3)

    def test_lengths(self) -> None:
        self.origin.become(1)
        self.have(0)
        self.origin.become(2, length=36)
        self.broken(1, said="complete length mismatch")
        self.whole(0, 2, 3)

    def test_shorter(self) -> None:
        self.have(0, 1, 2)
        self.origin.become(2, tag(b"2"), length=30)
        self.broken(3, said="status code 416")
        self.whole(0, 1, 2)

    def test_a_whole_new_one_instead_of_a_part(self) -> None:
        self.have(0)
        self.origin.become(2, tag(b"2"))
        self.origin.status = 200
        self.broken(1, said="status code 200")
        self.assertEqual(self.first(0).body, b"no part")

    def test_gone(self) -> None:
        self.have(0)
        self.origin.status = 404
        self.broken(1, said="status code 404")
        self.assertEqual(self.first(0).status, 404)

    def test_gone_for_a_while(self) -> None:
        """A cached 404 is old, too."""
        self.origin.status = 404
        self.have(1)
        self.origin.status = 206
        self.whole(0, 1, 2, 3)

    def test_trouble_drops_nothing(self) -> None:
        self.have(0, 2)
        for status in (200, 429, 502):
            self.origin.status = status
            with capturedLogs():
                self.assertIsInstance(self.ask(0).error, BadSlice)
        self.origin.status = 206
        self.whole(1, 3)

    def test_another_version_each_time(self) -> None:
        """Two requests at the most, one line: it does not go round."""
        versions = iter(range(1, 100))
        inner = self.slicing.inner

        def changing(asking: Request) -> Any:
            self.origin.become(1, tag(b"%d" % next(versions)))
            return inner(asking)

        self.slicing.inner = changing
        self.broken(0, 1)
        self.broken(0, 1)
        self.broken(0, 1)

    def test_the_clock_was_set_back(self) -> None:
        """What the origin says now is newer than what was cached in what is now the future."""
        self.have(1)
        self.clock.rightNow -= CLOCK_SKEW / 2
        self.origin.become(2, tag(b"2"))
        self.whole(0, 1, 2, 3)

    def test_a_piece_stored_meanwhile_stays(self) -> None:
        self.have(0)
        asking = self.asking()
        slice_range(asking)
        hit = self.slicing.inner(asking)
        assert isinstance(hit, Response) and hit.stored is not None
        stored = hit.stored
        discard(hit.body)
        self.clock.advance(3600)
        self.origin.become(2, tag(b"2"))
        self.have(0)
        stored.drop()
        self.whole(1, 2, 3)

    def test_a_first_piece_that_does_not_fit(self) -> None:
        """Nothing was sent: it starts over, once."""
        self.origin.shift = 1
        for _ in range(2):
            with capturedLogs() as logs:
                self.assertEqual(self.first(0).status, 444)
            self.assertEqual((self.origin.asked, len(logs)), ([0], 1))
        self.origin.shift = 0
        self.whole(0, 1, 2, 3)
