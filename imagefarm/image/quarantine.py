"""What took longer than the deadline is not tried again until its source changes.

Where a job looked cheap, the source is to blame, and no recipe is tried on it. Where it was known
to be expensive, or has a watermark, which may be to blame as well, only that recipe is not: else
anybody could lock up any source.
"""

from __future__ import annotations

from collections import OrderedDict

from attrs import frozen

from .recipe import Recipe
from .source import Identity

#: Most sources that are remembered; the oldest are forgotten first.
MOST = 1000


@frozen
class State:
    """The states of what a job works on."""

    source: Identity
    mark: Identity | None = None


class Quarantine:
    """Remembers in which state a source was not to be worked on."""

    def __init__(self) -> None:
        self._states: OrderedDict[tuple[bytes, bytes, str], State] = OrderedDict()

    def add(self, root: bytes, recipe: Recipe, state: State, *, expected: bool) -> None:
        """Put in the source of ``recipe``, or where that was ``expected`` the recipe alone."""
        alone = expected or recipe.mark is not None
        key = root, recipe.src, recipe.canonical() if alone else ""
        self._states[key] = state
        self._states.move_to_end(key)
        if len(self._states) > MOST:
            self._states.popitem(last=False)

    def holds(self, root: bytes, recipe: Recipe, state: State) -> bool:
        """Whether it is in; one that has changed comes out."""
        if not self._states:
            return False
        held = False
        for text, now in (("", State(state.source)), (recipe.canonical(), state)):
            key = root, recipe.src, text
            found = self._states.get(key)
            if found is not None and found != now:
                del self._states[key]
            held = held or found == now
        return held

    def __len__(self) -> int:
        return len(self._states)
