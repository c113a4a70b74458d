"""Why a role can't start."""

from __future__ import annotations

from collections.abc import Iterable


class CannotStart(Exception):
    """Something is in the way; ``lines`` say what, a line each, in nginx's words."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(self.lines))
