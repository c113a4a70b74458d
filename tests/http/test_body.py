from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.body import (
    CLIENT_BODY_BUFFER_SIZE,
    EMPTY,
    BodyTooLarge,
    ClientGone,
    MalformedBody,
    RequestBody,
)
from imagefarm.http.chunked import LAST_CHUNK, encode_chunk

from .fakes import Collector


class Pausing(Collector):
    """Pauses after each chunk."""

    def __init__(self, body: RequestBody) -> None:
        super().__init__()
        self._body = body

    def data(self, chunk: bytes) -> None:
        super().data(chunk)
        self._body.pause()


class RequestBodyTests(SynchronousTestCase):
    def make(self, length: int | None, limit: int = 0) -> RequestBody:
        self.demands = 0

        def demand() -> None:
            self.demands += 1

        return RequestBody(length, lambda: limit, demand)

    def test_straight_through(self) -> None:
        body, sink = self.make(5), Collector()
        body.start(sink)
        self.assertEqual(self.demands, 1)
        self.assertTrue(body.wanted)
        self.assertEqual(body.receive(b"hel"), b"")
        self.assertEqual(sink.chunks, [b"hel"])
        self.assertEqual(body.remaining, 2)
        self.assertEqual(body.receive(b"loGET"), b"GET")
        self.assertEqual((sink.body, sink.ended), (b"hello", True))
        self.assertFalse(body.wanted)

    def test_waits_for_the_handler(self) -> None:
        body, sink = self.make(None), Collector()
        self.assertEqual(body.receive(encode_chunk(b"hello") + LAST_CHUNK + b"x"), b"x")
        self.assertTrue(body.complete)
        body.start(sink)
        self.assertEqual((sink.body, sink.ended), (b"hello", True))
        self.assertEqual(self.demands, 0)

    def test_the_queue_is_bounded(self) -> None:
        body = self.make(1 << 20)
        body.receive(bytes(CLIENT_BODY_BUFFER_SIZE - 1))
        self.assertTrue(body.hungry)
        body.receive(b"x")
        self.assertFalse(body.hungry)
        body.start(Collector())
        self.assertTrue(body.hungry)
        body.pause()
        self.assertTrue(body.hungry)
        body.receive(bytes(CLIENT_BODY_BUFFER_SIZE))
        self.assertFalse(body.hungry)
        body.cancel()
        self.assertTrue(body.hungry)

    def test_pause_in_the_middle(self) -> None:
        body = self.make(None)
        sink = Pausing(body)
        body.start(sink)
        body.receive(encode_chunk(b"a") + encode_chunk(b"b") + LAST_CHUNK)
        self.assertEqual((sink.chunks, sink.ended), ([b"a"], False))
        body.resume()
        self.assertEqual((sink.chunks, sink.ended), ([b"a", b"b"], False))
        body.resume()
        self.assertTrue(sink.ended)

    def test_cancel_drops_the_rest(self) -> None:
        body, sink = self.make(10), Collector()
        body.start(sink)
        body.receive(b"12")
        body.cancel()
        body.cancel()
        self.assertEqual(body.receive(b"34567890x"), b"x")
        self.assertEqual((sink.body, sink.ended, sink.error), (b"12", False, None))
        self.assertTrue(body.complete)

    def test_too_large(self) -> None:
        body, sink = self.make(None, 5), Collector()
        body.start(sink)
        body.receive(encode_chunk(b"12345"))
        self.assertIsNone(sink.error)
        body.receive(encode_chunk(b"6"))
        self.assertIsInstance(sink.error, BodyTooLarge)
        self.assertTrue(body.failed)
        self.assertFalse(body.complete)
        self.assertEqual(body.receive(LAST_CHUNK), b"")

    def test_too_large_at_its_end(self) -> None:
        body = self.make(None, 5)
        body.receive(encode_chunk(b"123456") + LAST_CHUNK)
        self.assertFalse(body.complete)
        sink = Collector()
        body.start(sink)
        self.assertIsInstance(sink.error, BodyTooLarge)
        self.assertEqual(sink.error.status, 413)

    def test_content_length_is_the_application_s_to_judge(self) -> None:
        body, sink = self.make(6, 5), Collector()
        body.start(sink)
        body.receive(b"123456")
        self.assertTrue(sink.ended)

    def test_malformed(self) -> None:
        body, sink = self.make(None), Collector()
        body.start(sink)
        body.receive(b"xyz\r\n")
        self.assertIsInstance(sink.error, MalformedBody)

    def test_failure_before_start(self) -> None:
        body, sink = self.make(9), Collector()
        body.receive(b"1")
        body.fail(ClientGone("gone"))
        body.fail(ClientGone("again"))
        body.start(sink)
        self.assertEqual((sink.body, str(sink.error)), (b"", "gone"))
        self.assertEqual(self.demands, 0)

    def test_failure_after_the_end_is_none(self) -> None:
        body, sink = self.make(1), Collector()
        body.start(sink)
        body.receive(b"1")
        body.fail(ClientGone("gone"))
        self.assertFalse(body.failed)

    def test_empty(self) -> None:
        sink = Collector()
        EMPTY.pause()
        EMPTY.resume()
        EMPTY.start(sink)
        EMPTY.cancel()
        self.assertEqual((sink.body, sink.ended, EMPTY.length), (b"", True, 0))

    @given(
        st.lists(st.binary(min_size=1, max_size=30), min_size=1),
        st.booleans(),
        st.lists(st.sampled_from(["pause", "resume", "start"])),
    )
    def test_all_that_goes_in_comes_out(
        self, pieces: list[bytes], chunked: bool, actions: list[str]
    ) -> None:
        data = b"".join(pieces)
        body, sink = self.make(None if chunked else len(data)), Collector()
        wire = [*map(encode_chunk, pieces), LAST_CHUNK] if chunked else pieces
        started = False
        for number, piece in enumerate(wire):
            action = actions[number] if number < len(actions) else ""
            if action == "start" and not started:
                started = True
                body.start(sink)
            elif action == "pause":
                body.pause()
            elif action == "resume":
                body.resume()
            self.assertEqual(body.receive(piece), b"")
        if not started:
            body.start(sink)
        body.resume()
        self.assertEqual((sink.body, sink.ended), (data, True))
