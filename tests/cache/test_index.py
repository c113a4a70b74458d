from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.cache.flights import MAX_WAITERS, Flights, Landing
from imagefarm.cache.index import Index

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["use", "put", "lost", "forget"]),
        st.binary(min_size=1, max_size=1).map(lambda byte: bytes([byte[0] % 5])),
        st.integers(0, 100),
    ),
    max_size=40,
)


class IndexTests(SynchronousTestCase):
    @given(STEPS)
    def test_totals_agree_with_a_plain_dict(self, steps: list[tuple[str, bytes, int]]) -> None:
        index, sizes, keys = Index(3), {}, set()
        for now, (step, digest, size) in enumerate(steps):
            if step == "use":
                index.use(digest, now)
                keys.add(digest)
            elif step == "put":
                index.put(digest, size, now)
                sizes[digest] = size
                keys.add(digest)
            else:
                getattr(index, step)(digest)
                sizes.pop(digest, None)
                if step == "forget":
                    keys.discard(digest)
            self.assertEqual(index.size, sum(sizes.values()))
            self.assertEqual(index.files, len(sizes))
            self.assertEqual(len(index), len(keys))
            self.assertEqual(index.full, len(keys) > 3)
            for key in keys:
                self.assertEqual(key in index, key in sizes)

    @given(st.lists(st.integers(0, 9), min_size=1))
    def test_oldest_is_the_least_recently_used(self, uses: list[int]) -> None:
        index, last = Index(100), {}
        for now, which in enumerate(uses):
            digest = bytes([which])
            index.use(digest, now)
            last[digest] = now
        found = index.oldest()
        assert found is not None
        self.assertEqual(found[0], min(last, key=last.__getitem__))

    def test_oldest_among_the_loaded(self) -> None:
        index = Index(100)
        for accessed in (50, 20, 70):
            index.put(bytes([accessed]), 1, accessed)
        found = index.oldest()
        assert found is not None
        self.assertEqual(found[0], bytes([20]))
        index.clear()
        self.assertIsNone(index.oldest())
        self.assertEqual((len(index), index.size, index.files), (0, 0, 0))

    def test_uses_survive_the_loss_of_the_file(self) -> None:
        index = Index(9)
        index.use(b"k", 1.0)
        index.put(b"k", 10, 1.0)
        index.lost(b"k")
        self.assertEqual(index.use(b"k", 2.0).uses, 2)


class FlightsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.flights = Flights()
        self.assertIs(self.flights.join(b"k"), Landing.LEAD)

    def wait(self) -> Deferred[Landing]:
        waiter = self.flights.join(b"k")
        assert isinstance(waiter, Deferred)
        return waiter

    def test_all_are_told(self) -> None:
        waiters = [self.wait() for _ in range(3)]
        self.assertIn(b"k", self.flights)
        self.flights.land(b"k", Landing.STORED)
        self.assertEqual([self.successResultOf(w) for w in waiters], [Landing.STORED] * 3)
        self.assertNotIn(b"k", self.flights)

    def test_the_lead_passes_on_in_order(self) -> None:
        one, two = self.wait(), self.wait()
        self.flights.land(b"k", Landing.LEAD)
        self.assertIs(self.successResultOf(one), Landing.LEAD)
        self.assertNoResult(two)
        self.flights.land(b"k", Landing.LEAD)
        self.assertIs(self.successResultOf(two), Landing.LEAD)
        self.flights.land(b"k", Landing.LEAD)
        self.assertEqual(len(self.flights), 0)

    def test_who_has_left_is_not_told(self) -> None:
        one, two = self.wait(), self.wait()
        one.addErrback(lambda _: None)
        one.cancel()
        self.flights.land(b"k", Landing.LEAD)
        self.assertIs(self.successResultOf(two), Landing.LEAD)

    def test_the_queue_is_bounded(self) -> None:
        waiters = [self.wait() for _ in range(MAX_WAITERS)]
        self.assertIs(self.flights.join(b"k"), Landing.PASS)
        self.flights.land(b"k", Landing.PASS)
        self.assertIs(self.successResultOf(waiters[-1]), Landing.PASS)

    def test_keys_do_not_meet(self) -> None:
        self.assertIs(self.flights.join(b"other"), Landing.LEAD)
        waiter = self.wait()
        self.flights.land(b"other", Landing.STORED)
        self.assertNoResult(waiter)
        self.flights.land(b"k", Landing.STORED)
        self.assertIs(self.successResultOf(waiter), Landing.STORED)
