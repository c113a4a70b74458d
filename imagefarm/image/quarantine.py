"""What took longer than the deadline is not tried again until its source changes.

Where a job looked cheap, the source is to blame, and no recipe is tried on it. Where it was known
to be expensive, only that recipe is not: else anybody could lock up any source.
"""

from __future__ import annotations

from collections import OrderedDict

from .recipe import Recipe
from .source import Identity

#: Most sources that are remembered; the oldest are forgotten first.
MOST = 1000


class Quarantine:
    """Remembers in which state a source was not to be worked on."""

    def __init__(self) -> None:
        self._states: OrderedDict[tuple[bytes, bytes, str], Identity] = OrderedDict()

    def add(self, root: bytes, recipe: Recipe, state: Identity, *, expected: bool) -> None:
        """Put in the source of ``recipe``, or where that was ``expected`` the recipe alone."""
        key = root, recipe.src, recipe.canonical() if expected else ""
        self._states[key] = state
        self._states.move_to_end(key)
        if len(self._states) > MOST:
            self._states.popitem(last=False)

    def holds(self, root: bytes, recipe: Recipe, state: Identity) -> bool:
        """Whether it is in; one that has changed comes out."""
        if not self._states:
            return False
        held = False
        for key in ((root, recipe.src, ""), (root, recipe.src, recipe.canonical())):
            found = self._states.get(key)
            if found is not None and found != state:
                del self._states[key]
            held = held or found == state
        return held

    def __len__(self) -> int:
        return len(self._states)
