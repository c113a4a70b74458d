"""What a worker has of its own besides sockets: processors, environment, directory, priority."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Final

from attrs import frozen

#: Kept without being listed: Python needs them, besides nginx's TZ.
_KEPT: Final = ("TZ", "LANG", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
_KEPT_PREFIXES: Final = ("PYTHON", "LC_", "IMAGEFARM_")


@frozen
class Affinity:
    """``worker_cpu_affinity``: for each worker the processors, the last for those after it.

    ``auto`` gives each worker one of ``masks[0]`` (all that there are, if empty) in turn.
    """

    masks: tuple[frozenset[int], ...] = ()
    auto: bool = False

    def of_worker(self, number: int, available: frozenset[int]) -> frozenset[int]:
        """The processors of worker ``number`` (from 1)."""
        if self.auto:
            usable = sorted((self.masks[0] & available) if self.masks else available)
            return frozenset([usable[(number - 1) % len(usable)]]) if usable else frozenset()
        return self.masks[min(number, len(self.masks)) - 1] if self.masks else frozenset()


def pin(affinity: Affinity | None, number: int) -> list[str]:
    """Bind this process to its processors. Returns what went wrong, a line each."""
    if affinity is None:
        return []
    wanted = affinity.of_worker(number, frozenset(os.sched_getaffinity(0)))
    try:
        os.sched_setaffinity(0, wanted)
    except OSError as error:
        return [f"sched_setaffinity() failed ({error.errno}: {error.strerror})"]
    return []


def reduced(
    environment: Mapping[str, str], listed: Sequence[tuple[str, str | None]]
) -> dict[str, str]:
    """``env``: what a worker keeps of ``environment``; a listed name without a value is kept."""
    names = {name for name, value in listed if value is None}
    kept = {
        name: value
        for name, value in environment.items()
        if name in names or name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
    return kept | {name: value for name, value in listed if value is not None}


def furnish(
    environment: MutableMapping[str, str],
    listed: Sequence[tuple[str, str | None]],
    directory: str | None,
    priority: int | None,
) -> list[str]:
    """``env``, ``worker_priority`` and ``working_directory`` of this process.

    Returns what went wrong, a line each.
    """
    kept = reduced(environment, listed)
    for name in [name for name in environment if name not in kept]:
        del environment[name]
    environment.update(kept)
    failures = []
    if priority is not None:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, priority)
        except OSError as error:
            failures.append(f"setpriority({priority}) failed ({error.errno}: {error.strerror})")
    if directory is not None:
        try:
            os.chdir(directory)
        except OSError as error:
            failures.append(f'chdir("{directory}") failed ({error.errno}: {error.strerror})')
    return failures
