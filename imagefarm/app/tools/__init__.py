"""The commands of ``imagefarm`` besides nginx's options: each has a name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from . import explain, purge, sign, status, warm

#: Each takes the words after its name and returns the exit status.
COMMANDS: Final[Mapping[str, Callable[[Sequence[str]], int]]] = {
    "explain": explain.main,
    "purge": purge.main,
    "sign": sign.main,
    "status": status.main,
    "warm": warm.main,
}
