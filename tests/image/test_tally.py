"""What the pool remembers of its jobs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image.tally import HALF_LIFE, MAX_ORIGINALS, MAX_STEPS, Originals, Tally


class OriginalsTests(SynchronousTestCase):
    def test_by_cost(self) -> None:
        originals = Originals()
        for name, seconds in ((b"a", 0.1), (b"b", 2.0), (b"a", 0.2), (b"c", 0.05)):
            originals.add(name, seconds, 5.0)
        self.assertEqual(list(originals.most(2)), [b"b", b"a"])
        self.assertEqual(originals.most(2)[b"a"][0], 2)

    def test_what_is_expected(self) -> None:
        originals = Originals()
        self.assertIsNone(originals.expected(b"a"))
        for name, seconds in ((b"a", 0.1), (b"a", 0.3), (b"b", 9.0)):
            originals.add(name, seconds, 5.0)
        self.assertAlmostEqual(originals.expected(b"a") or 0, 0.2)
        self.assertTrue(0.1 < (originals.expected(b"new") or 0) < 9.0)
        for _ in range(99):
            originals.add(b"a", 0.5, 5.0)
        self.assertAlmostEqual(originals.expected(b"new") or 0, 0.5, 3)

    def test_the_past_fades(self) -> None:
        originals = Originals()
        originals.add(b"old", 8.0, 0.0)
        originals.add(b"new", 3.0, 2 * HALF_LIFE)
        self.assertEqual(originals.most(9), {b"new": [1, 3.0], b"old": [0.25, 2.0]})
        originals.add(b"new", 1.0, 1e9)
        self.assertEqual(originals.most(9), {b"new": [1, 1.0]})

    @given(st.lists(st.tuples(st.integers(0, 2000), st.floats(0, 9), st.floats(0, 5000))))
    def test_bounded(self, jobs: list[tuple[int, float, float]]) -> None:
        originals = Originals()
        for number, seconds, now in jobs:
            originals.add(b"%d" % number, seconds, now)
        self.assertLessEqual(len(originals), MAX_ORIGINALS)

    def test_the_cheapest_goes(self) -> None:
        originals = Originals()
        for number in range(MAX_ORIGINALS):
            originals.add(b"%d" % number, 1.0 + number, 0.0)
        originals.add(b"one more", 0.5, 0.0)
        self.assertEqual(len(originals), MAX_ORIGINALS)
        self.assertNotIn(b"0", originals.most(MAX_ORIGINALS))
        self.assertIn(b"one more", originals.most(MAX_ORIGINALS))


class TallyTests(SynchronousTestCase):
    def test_report(self) -> None:
        tally = Tally()
        tally.done(0.004, [("queue", 0.001), ("decode", 0.002)], expensive=False)
        tally.done(0.004, [("decode", 0.004)], expensive=False)
        tally.done(20.0, [], expensive=True)
        found = tally.report()
        self.assertEqual(found["steps"], {"queue": [0.001, 1], "decode": [0.006, 2]})
        self.assertEqual(found["lanes"]["cheap"], [0, 2, *[0] * 11, 0.008])
        self.assertEqual(found["lanes"]["expensive"], [*[0] * 12, 1, 20.0])

    def test_names_are_bounded(self) -> None:
        tally = Tally()
        tally.done(1.0, [(f"step{number}", 0.1) for number in range(500)], expensive=False)
        self.assertEqual(len(tally.report()["steps"]), MAX_STEPS)
