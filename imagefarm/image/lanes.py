"""The order in which waiting jobs get their turn: what is cheap never waits behind what is not."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

#: So many cheap jobs go before an expensive one that waits, so that it gets its turn too.
FAIR = 8


class Lanes(Generic[T]):
    """Two queues: of jobs that are cheap or not measured yet, and of expensive ones."""

    def __init__(self) -> None:
        self._cheap: deque[T] = deque()
        self._expensive: deque[T] = deque()
        self._passed = 0

    def add(self, job: T, *, expensive: bool) -> None:
        """To the end of its lane."""
        (self._expensive if expensive else self._cheap).append(job)

    def put_back(self, job: T) -> None:
        """A cheap one that was taken before: it is the next one again."""
        self._cheap.appendleft(job)

    def take(self, *, expensive: bool, cheap_only: bool = False) -> T | None:
        """The next one, from the expensive lane only if that is allowed.

        With ``cheap_only`` there is none where it is the turn of an expensive one that is allowed.
        """
        waits = expensive and bool(self._expensive)
        if self._cheap and not (waits and self._passed >= FAIR):
            self._passed = self._passed + 1 if waits else 0
            return self._cheap.popleft()
        if cheap_only:
            return None
        self._passed = 0
        return self._expensive.popleft() if waits else None

    def lengths(self) -> tuple[int, int]:
        """How many wait in each: cheap, expensive."""
        return len(self._cheap), len(self._expensive)

    def remove(self, job: T) -> None:
        """Take it out. Raises ValueError where it does not wait."""
        (self._cheap if job in self._cheap else self._expensive).remove(job)

    def __contains__(self, job: object) -> bool:
        return job in self._cheap or job in self._expensive

    def __iter__(self) -> Iterator[T]:
        return iter([*self._cheap, *self._expensive])

    def __len__(self) -> int:
        return len(self._cheap) + len(self._expensive)

    def __repr__(self) -> str:
        return f"<Lanes cheap={len(self._cheap)} expensive={len(self._expensive)}>"
