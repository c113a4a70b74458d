"""Commands that nginx lacks: ``imagefarm sign``, ``status``, ``warm``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from . import sign, status, warm

#: Each takes the words after its name and returns the exit status.
COMMANDS: Final[Mapping[str, Callable[[Sequence[str]], int]]] = {
    "sign": sign.main,
    "status": status.main,
    "warm": warm.main,
}
