from __future__ import annotations

import os
import shutil
import tempfile

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imagefarm.cache.store import digest_of
from imagefarm.cache.uses import BUCKET, BUCKETS, Uses


class UsesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = tempfile.mkdtemp(prefix="imagefarm-cache-").encode()
        self.addCleanup(shutil.rmtree, self.path, True)

    def uses(self) -> Uses:
        uses = Uses(os.path.join(self.path, b"zone"))
        self.addCleanup(uses.close)
        return uses

    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=60))
    def test_as_a_plain_dict_counts(self, steps: list[tuple[int, int]]) -> None:
        shutil.rmtree(self.path, True)
        both, now = (self.uses(), self.uses()), 1e9
        counts: dict[int, tuple[float, int]] = {}
        for turn, (key, pause) in enumerate(steps):
            now += pause
            last, before = counts.get(key, (0.0, 0))
            counts[key] = now, before + 1 if now - last < 7 else 1
            self.assertEqual(both[turn % 2].count(digest_of(b"%d" % key), now, 7), counts[key][1])

    def test_a_full_bucket_forgets_what_was_asked_for_longest_ago(self) -> None:
        uses = self.uses()
        digests = [bytes(8) + bytes([number]) * 8 for number in range(1, BUCKET + 2)]
        for moment, digest in enumerate(digests):
            self.assertEqual(uses.count(digest, 1e9 + moment, 100), 1)
        for digest in reversed(digests[1:]):
            self.assertEqual(uses.count(digest, 1e9 + 20, 100), 2)
        self.assertEqual(uses.count(digests[0], 1e9 + 21, 100), 1)

    def test_the_directory_is_removed(self) -> None:
        uses = self.uses()
        self.assertEqual(uses.count(bytes(16), 1e9, 100), 1)
        shutil.rmtree(self.path)
        self.assertEqual([uses.count(bytes(16), 1e9, 100) for _ in range(2)], [1, 2])

    def test_all_keys_have_room(self) -> None:
        uses, many = self.uses(), BUCKET * BUCKETS // 8
        for turn in (1, 2):
            counted = [uses.count(digest_of(b"%d" % n), 1e9, 100) for n in range(many)]
            self.assertLess(sum(count != turn for count in counted), many // 1000)
