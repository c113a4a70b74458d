"""Lanes: cheap jobs first, expensive ones in their turn."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image.lanes import FAIR, Lanes


class Order(SynchronousTestCase):
    def test_cheap_ones_first(self) -> None:
        lanes: Lanes[str] = Lanes()
        for name, expensive in (("A", True), ("b", False), ("C", True), ("d", False)):
            lanes.add(name, expensive=expensive)
        self.assertEqual(repr(lanes), "<Lanes cheap=2 expensive=2>")
        self.assertEqual(
            [lanes.take(expensive=True) for _ in range(5)], ["b", "d", "A", "C", None]
        )

    def test_expensive_ones_only_if_allowed(self) -> None:
        lanes: Lanes[str] = Lanes()
        lanes.add("A", expensive=True)
        self.assertIsNone(lanes.take(expensive=False))
        self.assertEqual(lanes.take(expensive=True), "A")

    def test_expensive_ones_are_not_starved(self) -> None:
        lanes: Lanes[int] = Lanes()
        lanes.add(-1, expensive=True)
        for number in range(2 * FAIR):
            lanes.add(number, expensive=False)
        taken = [lanes.take(expensive=True) for _ in range(2 * FAIR + 1)]
        self.assertEqual(taken.index(-1), FAIR)

    def test_for_a_worker_that_is_still_busy(self) -> None:
        """It takes no expensive job, and no cheap one in the turn of that."""
        lanes: Lanes[int] = Lanes()
        for number in range(FAIR + 1):
            lanes.add(number, expensive=False)
        lanes.add(-1, expensive=True)
        taken = [lanes.take(expensive=True, cheap_only=True) for _ in range(FAIR + 1)]
        self.assertEqual(taken, [*range(FAIR), None])
        self.assertEqual(lanes.take(expensive=False, cheap_only=True), FAIR)
        self.assertEqual(lanes.take(expensive=True), -1)

    def test_put_back(self) -> None:
        lanes: Lanes[str] = Lanes()
        for name in "ab":
            lanes.add(name, expensive=False)
        lanes.put_back("c")
        self.assertEqual(list(lanes), ["c", "a", "b"])

    def test_taken_out(self) -> None:
        lanes: Lanes[str] = Lanes()
        lanes.add("A", expensive=True)
        lanes.add("b", expensive=False)
        self.assertEqual((list(lanes), len(lanes), "A" in lanes), (["b", "A"], 2, True))
        lanes.remove("A")
        self.assertRaises(ValueError, lanes.remove, "A")
        self.assertEqual(list(lanes), ["b"])
