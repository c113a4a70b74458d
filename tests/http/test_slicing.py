"""Answers put together from pieces; tests/interop/test_slice_nginx.py has nginx as the judge."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.filters.slice import BadSlice, Incomplete, first_byte, slice_range
from imagefarm.http.headers import Headers
from imagefarm.http.message import Request, Response
from imagefarm.http.slicing import Slicing
from tests.http.samples import Fields, Sink, Source, file_body, read, request


class Chunked(Source):
    """A stream in small chunks that keeps the promise of `pause`."""

    def __init__(self, body: bytes, seed: int) -> None:
        super().__init__(length=len(body))
        self.rest, self.random = body, random.Random(seed)
        self.paused = self.running = False

    def start(self, sink: Any) -> None:
        self.sink = sink
        self.resume(first=True)

    def pause(self) -> None:
        self.paused = True

    def resume(self, first: bool = False) -> None:
        self.paused = self.paused and first
        if self.running or self.sink is None:
            return
        self.running = True
        while self.sink is not None and not self.paused:
            chunk, self.rest = self.rest[: (n := self.random.randrange(1, 9))], self.rest[n:]
            sink = self.sink
            if chunk:
                sink.data(chunk)
            else:
                self.sink = None
                sink.end()
        self.running = False

    def cancel(self) -> None:
        super().cancel()
        self.sink = None


class Origin:
    """An inner handler with ranges of ``whole``; asks for ``$slice_range`` as a header would."""

    def __init__(self, whole: bytes, make: Any = lambda part: part, **fields: bytes) -> None:
        self.whole, self.make, self.fields = whole, make, fields
        self.asked: list[bytes] = []
        self.requests: list[Request] = []

    def __call__(self, asking: Request) -> Response | Deferred[Response]:
        value = slice_range(asking)
        assert value is not None
        self.asked.append(value)
        self.requests.append(asking)
        start, end = map(int, value[6:].split(b"-"))
        part = self.whole[start : end + 1]
        said = b"bytes %d-%d/%d" % (start, start + len(part) - 1, len(self.whole))
        headers = Headers(((b"Content-Range", said), (b"ETag", b'"e"')))
        return Response(206, headers, self.make(part))


class SlicingTests(SynchronousTestCase):
    def ask(self, inner: Any, size: int, *fields: tuple[bytes, bytes]) -> Response:
        answer = Slicing(inner, size)(self.request(size, fields))
        assert isinstance(answer, Response)
        return answer

    def request(self, size: int, fields: Fields = ()) -> Request:
        asking = request(fields=fields)
        asking.location = SimpleNamespace(filters=SimpleNamespace(slice=size))
        return asking

    @settings(deadline=None)
    @given(st.integers(1, 60), st.integers(1, 25), st.integers(0, 9), st.data())
    def test_any_part_of_any_pieces(self, total: int, size: int, seed: int, data: Any) -> None:
        whole = bytes(range(total))
        start = data.draw(st.integers(0, total - 1))
        length = data.draw(st.integers(1, total - start))
        kinds = [lambda part: part, file_body, lambda part: Chunked(part, seed)]
        origin = Origin(whole, data.draw(st.sampled_from(kinds)))
        answer = self.ask(origin, size, (b"Range", b"bytes=%d-" % start))
        body: Any = answer.body
        self.assertEqual((answer.status, body.length), (200, total))
        stream = body.part(start, length)
        sink = Sink(pausing=stream if data.draw(st.booleans()) else None)
        stream.start(sink)
        while not sink.ends:
            stream.resume()
        self.assertEqual(sink.body, whole[start : start + length])
        first, last = start // size, (start + length - 1) // size
        starts = [int(asked[6:].split(b"-")[0]) // size for asked in origin.asked]
        self.assertEqual(starts, list(range(first, last + 1)))

    def test_thousands_of_pieces_at_hand_do_not_recurse(self) -> None:
        whole = bytes(5000)
        self.assertEqual(read(self.ask(Origin(whole), 1).body), whole)

    def test_a_piece_that_is_not_wanted_after_all(self) -> None:
        origin = Origin(bytes(range(50)))
        body: Any = self.ask(origin, 10).body
        self.assertEqual(read(body.part(45, 5)), bytes(range(45, 50)))
        self.assertEqual(origin.asked, [b"bytes=0-9", b"bytes=40-49"])

    def test_headers(self) -> None:
        answer = self.ask(Origin(bytes(5)), 10)
        self.assertEqual(list(answer.headers), [(b"ETag", b'"e"')])
        self.assertEqual((answer.ranges, answer.single_range), (True, True))

    def test_a_piece_that_ends_early(self) -> None:
        body: Any = self.ask(Origin(bytes(30), lambda part: part[:-1]), 10).body
        sink = Sink()
        body.start(sink)
        self.assertIsInstance(sink.error, Incomplete)

    def test_a_piece_that_fails(self) -> None:
        origin = Origin(bytes(30))

        def inner(asking: Request) -> Response | Deferred[Response]:
            return origin(asking) if not origin.asked else Response(502)

        sink = Sink()
        body: Any = self.ask(inner, 10).body
        body.start(sink)
        self.assertIsInstance(sink.error, BadSlice)
        self.assertEqual(len(sink.body), 10)

    def test_leaving_while_a_piece_is_waited_for(self) -> None:
        origin, late, gone = Origin(bytes(30)), Deferred[Response](), []

        def inner(asking: Request) -> Response | Deferred[Response]:
            if not origin.asked:
                return origin(asking)
            asking.on_gone.append(lambda: gone.append(True))
            return late

        sink, file = Sink(), file_body(bytes(10))
        body: Any = self.ask(inner, 10).body
        body.start(sink)
        body.cancel()
        body.cancel()
        self.assertEqual(gone, [True])
        headers = Headers(((b"Content-Range", b"bytes 10-19/30"), (b"ETag", b'"e"')))
        late.callback(Response(206, headers, file))
        self.assertEqual((len(sink.body), sink.ends, file.file.fd), (10, 0, -1))

    def test_leaving_before_the_start(self) -> None:
        file = file_body(bytes(10))
        body: Any = self.ask(Origin(bytes(30), lambda part: file), 10).body
        body.cancel()
        self.assertEqual(file.file.fd, -1)

    def test_pieces_have_outcomes_of_their_own(self) -> None:
        origin = Origin(bytes(30))
        fields = ((b"Content-Length", b"3"), (b"X-A", b"1"))
        read(self.ask(origin, 10, *fields).body)
        self.assertEqual(len({id(asking.outcome) for asking in origin.requests}), 3)
        self.assertEqual(list(origin.requests[2].head.headers), [(b"X-A", b"1")])
        self.assertEqual(slice_range(origin.requests[0]), b"bytes=0-9")

    def test_too_late(self) -> None:
        """After an answer that is no part ``$slice_range`` is nothing (nginx)."""
        asking = self.request(10)
        Slicing(lambda asking: Response(200), 10)(asking)
        self.assertIsNone(slice_range(asking))

    def test_without_slice(self) -> None:
        self.assertIsNone(slice_range(request()))

    def test_first_byte(self) -> None:
        for value, expected in (
            (b"bytes=5-", 5), (b"Bytes=  5-9", 5), (b"bytes=-5", 0), (b"bytes=5-6,7-8", 0),
            (b"lines=5-", 0), (b"bytes=", 0), (b"bytes=%d-" % (1 << 63), 0),
            (b"bytes=%d-" % ((1 << 63) - 1), (1 << 63) - 1),
        ):  # fmt: skip
            asking = self.request(1, [(b"Range", value)])
            self.assertEqual(first_byte(asking), expected, value)
        head = asking.head
        conditional = Headers(((b"Range", b"bytes=5-"), (b"If-Range", b'"e"')))
        self.assertEqual(first_byte(evolve(asking, head=evolve(head, headers=conditional))), 0)
