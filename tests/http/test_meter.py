"""Counts of requests."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.http.meter import BOUNDS, BUCKETS, CLASSES, Meter, bucket, describe

REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 700), st.floats(-1, 20), st.integers(0, 1 << 40), st.integers(0, 1 << 40)
    )
)


class MeterTests(SynchronousTestCase):
    def test_buckets(self) -> None:
        """A bound is the last of its own bucket, as in Prometheus."""
        for place, bound in enumerate(BOUNDS):
            self.assertEqual((bucket(bound), bucket(bound + 1e-9)), (place, place + 1))
        self.assertEqual((bucket(-1), bucket(1e9)), (0, BUCKETS - 1))

    def test_classes(self) -> None:
        meter = Meter()
        for status in (101, 200, 206, 304, 404, 444, 499, 500, 599, 0, 600):
            meter.count(status, 0.002, 10, 100)
        found = describe(meter.report())
        self.assertEqual(found["responses"], {"1xx": 1, "2xx": 2, "3xx": 1, "4xx": 3, "5xx": 4})
        self.assertEqual((found["requests"], found["received"], found["sent"]), (11, 110, 1100))
        self.assertEqual(found["buckets"]["2xx"][:3], [0, 2, 0])

    @given(REQUESTS)
    def test_nothing_is_lost(self, requests: list[tuple[int, float, int, int]]) -> None:
        meter = Meter()
        for request in requests:
            meter.count(*request)
        found = describe(meter.report())
        self.assertEqual(found["requests"], len(requests))
        self.assertEqual(sum(found["responses"].values()), len(requests))
        self.assertEqual(sum(sum(found["buckets"][name]) for name in CLASSES), len(requests))
        self.assertEqual(found["sent"], sum(request[3] for request in requests))
        self.assertTrue(all(seconds >= 0 for seconds in found["seconds"].values()))
