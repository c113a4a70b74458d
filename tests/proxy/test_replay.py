"""A request body that goes to more than one peer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.proxy.replay import ReplayBody

from .support import Sink, Source


class ReplayTests(SynchronousTestCase):
    def test_nothing_flows_before_a_view_starts(self) -> None:
        source = Source([b"a"])
        body = ReplayBody(source)
        self.assertEqual(body.view().length, 1)
        self.assertEqual(source.starts, 0)

    @given(
        st.lists(st.binary(min_size=1, max_size=9), max_size=8),
        st.integers(0, 8),
        st.lists(st.booleans(), max_size=20),
    )
    def test_a_second_view_sees_all_of_it(
        self, chunks: list[bytes], seen: int, pauses: list[bool]
    ) -> None:
        source = Source(list(chunks[:seen]), length=sum(map(len, chunks)), held=True)
        body = ReplayBody(source)
        first, second = Sink(), Sink()
        body.view().start(first)
        self.assertEqual(first.received, b"".join(chunks[:seen]))
        view = body.view()
        plan = iter(pauses)

        def maybe_pause() -> None:
            if next(plan, False):
                view.pause()

        second.on_data = maybe_pause
        view.start(second)
        for chunk in chunks[seen:]:
            source.more(chunk)
        source.finish()
        for _ in range(30):
            view.resume()
        self.assertEqual((second.received, second.ended), (b"".join(chunks), 1))
        self.assertEqual((first.ended, source.starts), (0, 1))

    def test_beyond_the_limit_it_is_not_kept(self) -> None:
        source = Source([b"abc", b"d"], held=True, length=9)
        body = ReplayBody(source, limit=3)
        sink = Sink()
        view = body.view()
        sink.on_data = view.pause
        view.start(sink)
        self.assertTrue(body.replayable)
        view.resume()
        self.assertEqual(sink.received, b"abcd")
        self.assertFalse(body.replayable)

    def test_between_views_the_source_stands_still(self) -> None:
        source = Source([b"a"], held=True, length=2)
        body = ReplayBody(source)
        view = body.view()
        view.start(Sink())
        view.cancel()
        self.assertTrue(source.paused)
        self.assertFalse(source.cancelled)
        source.more(b"b")
        sink = Sink()
        body.view().start(sink)
        source.finish()
        self.assertEqual((sink.received, sink.ended), (b"ab", 1))

    def test_failure_of_the_source(self) -> None:
        source = Source([b"a"], held=True, length=2)
        body = ReplayBody(source)
        sink = Sink()
        body.view().start(sink)
        assert source.sink is not None
        error = RuntimeError("gone")
        source.sink.fail(error)
        self.assertIs(sink.error, error)
        self.assertIs(body.error, error)
        self.assertFalse(body.replayable)

    def test_cancel(self) -> None:
        source = Source([b"a"], held=True, length=2)
        body = ReplayBody(source)
        body.view().start(Sink())
        body.cancel()
        body.cancel()
        self.assertTrue(source.cancelled)
