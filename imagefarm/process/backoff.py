"""How long to wait before a child that died is started again."""

from __future__ import annotations

from attrs import frozen


@frozen
class Backoff:
    """Exponential: ``first`` seconds, times ``factor`` for each death in a row, up to ``limit``.

    A child that ran for at least ``stable`` seconds begins a new row.
    """

    first: float = 0.25
    factor: float = 2.0
    limit: float = 30.0
    stable: float = 10.0

    def delay(self, deaths: int) -> float:
        """Seconds to wait after the ``deaths``-th death in a row (from 1)."""
        # The exponent is bounded so that a child that dies for years overflows no float.
        return min(self.limit, self.first * self.factor ** min(deaths - 1, 64))

    def deaths(self, before: int, ran_for: float) -> int:
        """Deaths in a row, this one included, for a child that lived ``ran_for`` seconds."""
        return 1 if ran_for >= self.stable else before + 1
