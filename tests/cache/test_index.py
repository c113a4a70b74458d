from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.cache.index import BLOCK, Index, Node
from imagefarm.cache.store import digest_of

STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "forget"]), st.integers(0, 4), st.integers(0, 100)),
    max_size=40,
)
#: What a key may cost the manager's memory, in bytes.
BUDGET = 120


def name(number: int) -> bytes:
    return digest_of(b"%d" % number)


def oldest(index: Index, now: float = 1e9) -> tuple[bytes, Node] | None:
    """The oldest, after as many sweeps as it takes."""
    found = index.oldest(now)
    if found is None and len(index):
        while not index.sweep(now):
            pass
        found = index.oldest(now)
    return found


class IndexTests(SynchronousTestCase):
    @given(STEPS)
    def test_totals_agree_with_a_plain_dict(self, steps: list[tuple[str, int, int]]) -> None:
        index, sizes = Index(3), {}
        for now, (step, number, blocks) in enumerate(steps):
            digest = name(number)
            if step == "put":
                index.put(digest, blocks * BLOCK, now)
                sizes[digest] = blocks * BLOCK
            else:
                index.forget(digest)
                sizes.pop(digest, None)
            self.assertEqual(index.size, sum(sizes.values()))
            self.assertEqual(index.files, len(sizes))
            self.assertEqual(len(index), len(sizes))
            self.assertEqual(index.full, len(sizes) > 3)
            for key in map(name, range(5)):
                self.assertEqual(key in index, key in sizes)

    @given(st.lists(st.integers(0, 9), min_size=1))
    def test_oldest_is_the_least_recently_used(self, uses: list[int]) -> None:
        index, last = Index(100), {}
        for now, which in enumerate(uses):
            index.put(name(which), BLOCK, now)
            last[name(which)] = now
        found = oldest(index)
        assert found is not None
        self.assertEqual(found[0], min(last, key=last.__getitem__))

    @given(st.lists(st.integers(0, 1000), min_size=200, max_size=400, unique=True))
    def test_all_go_in_the_order_of_their_use(self, moments: list[int]) -> None:
        index = Index(64)
        for moment in moments:
            index.put(name(moment), BLOCK, moment)
        gone = []
        while (found := oldest(index)) is not None:
            gone.append(found[1].accessed)
            index.forget(found[0])
        self.assertEqual(gone, sorted(moments))
        self.assertEqual((len(index), index.size, index.files), (0, 0, 0))

    def test_a_use_saves_a_candidate(self) -> None:
        index = Index(100)
        for number in range(10):
            index.put(name(number), BLOCK, number)
        self.assertEqual(oldest(index), (name(0), Node(0, BLOCK)))
        index.put(name(0), BLOCK, 20)
        index.forget(name(1))
        self.assertEqual(oldest(index), (name(2), Node(2, BLOCK)))

    def test_what_was_loaded_late_may_be_the_oldest(self) -> None:
        index = Index(100)
        for accessed in (50, 20, 70):
            index.put(name(accessed), BLOCK, accessed)
        self.assertEqual(oldest(index), (name(20), Node(20, BLOCK)))
        index.put(name(10), BLOCK, 10)
        index.resort()
        self.assertEqual(oldest(index), (name(10), Node(10, BLOCK)))
        index.clear()
        self.assertIsNone(oldest(index))

    def test_a_use_in_the_future_is_the_oldest(self) -> None:
        index = Index(100)
        for accessed in (500, 5000, 700):
            index.put(name(accessed), BLOCK, accessed)
        self.assertEqual(oldest(index, 1000.0), (name(5000), Node(5000, BLOCK)))

    def test_a_digest_across_two_fields_is_none(self) -> None:
        index = Index(1)
        first, second = bytes(range(16)), bytes(range(100, 116))
        index.put(first, BLOCK, 1.0)
        index.put(second, BLOCK, 2.0)
        bucket = index._buckets[int.from_bytes(first[:4], "big") & index._mask]
        assert bucket is not None
        between = bytes(bucket[3:19])
        self.assertIsNone(index.get(first[:0] + between))

    def test_memory(self) -> None:
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before = tracemalloc.get_traced_memory()[0]
        index = Index(30_000)
        for number in range(30_000):
            index.put(name(number), BLOCK, number)
        oldest(index)
        peak = tracemalloc.get_traced_memory()[1] - before
        self.assertLess(peak / len(index), BUDGET)
