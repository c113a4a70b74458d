"""What is not tried again, and until when."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imagefarm.image.quarantine import MOST, Quarantine, State
from imagefarm.image.query import parse_query
from imagefarm.image.recipe import Recipe
from imagefarm.image.source import Identity

ROOT = b"/srv"
OLD, NEW = Identity(9, 1), Identity(9, 2)


def recipe(query: str) -> Recipe:
    return parse_query(query.encode())


class Held(SynchronousTestCase):
    def setUp(self) -> None:
        self.quarantine = Quarantine()

    def held(self, query: str, state: State) -> bool:
        return self.quarantine.holds(ROOT, recipe(query), state)

    def test_a_source_that_looked_cheap(self) -> None:
        self.quarantine.add(ROOT, recipe("src=a&w=9"), State(OLD), expected=False)
        self.assertTrue(self.held("src=a&w=9", State(OLD)))
        self.assertTrue(self.held("src=a&w=10", State(OLD)))
        self.assertTrue(self.held("src=a&wm=m", State(OLD, NEW)))
        self.assertFalse(self.held("src=b&w=9", State(OLD)))
        self.assertFalse(self.held("src=a&w=9", State(NEW)))
        self.assertEqual(len(self.quarantine), 0)

    def test_a_recipe_that_did_not(self) -> None:
        self.quarantine.add(ROOT, recipe("src=a&w=9"), State(OLD), expected=True)
        self.assertTrue(self.held("src=a&w=9", State(OLD)))
        self.assertFalse(self.held("src=a&w=10", State(OLD)))

    def test_a_watermark_does_not_lock_up_what_it_is_laid_on(self) -> None:
        self.quarantine.add(ROOT, recipe("src=a&wm=m"), State(OLD, OLD), expected=False)
        self.assertTrue(self.held("src=a&wm=m", State(OLD, OLD)))
        self.assertFalse(self.held("src=a", State(OLD)))
        self.assertFalse(self.held("src=a&wm=n", State(OLD, OLD)))
        self.assertFalse(self.held("src=a&wm=m", State(OLD, NEW)))
        self.assertEqual(len(self.quarantine), 0)

    def test_bounded(self) -> None:
        for number in range(MOST + 5):
            self.quarantine.add(ROOT, recipe(f"src={number}"), State(OLD), expected=False)
        self.assertEqual(len(self.quarantine), MOST)
        self.assertFalse(self.held("src=4", State(OLD)))
        self.assertTrue(self.held("src=5", State(OLD)))
