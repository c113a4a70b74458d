"""Counting open descriptors, so that none is left."""

from __future__ import annotations

import contextlib
import gc
import os

from twisted.trial.unittest import SynchronousTestCase


def descriptors() -> dict[int, str]:
    """What this process has open, by number."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that the list was read from
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def keep_garbage(case: SynchronousTestCase) -> None:
    """Let no garbage of other tests, which may hold descriptors, be collected in this one."""
    gc.collect()
    gc.disable()
    case.addCleanup(gc.enable)
