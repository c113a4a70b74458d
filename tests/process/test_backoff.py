from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.process.backoff import Backoff


class BackoffTests(SynchronousTestCase):
    def test_doubles_up_to_the_limit(self) -> None:
        backoff = Backoff(first=0.5, factor=2, limit=3)
        self.assertEqual([backoff.delay(n) for n in (1, 2, 3, 4, 5)], [0.5, 1, 2, 3, 3])

    def test_a_long_life_begins_a_new_row(self) -> None:
        backoff = Backoff(stable=10)
        self.assertEqual(backoff.deaths(5, ran_for=9.9), 6)
        self.assertEqual(backoff.deaths(5, ran_for=10), 1)

    @given(st.integers(1, 10**9))
    def test_never_beyond_the_limit(self, deaths: int) -> None:
        self.assertLessEqual(Backoff().delay(deaths), Backoff().limit)
        self.assertGreaterEqual(Backoff().delay(deaths), Backoff().first)
