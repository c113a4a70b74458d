"""Counting open descriptors, so that none is left."""

from __future__ import annotations

import contextlib
import gc
import os

from twisted.trial.unittest import SynchronousTestCase


def descriptors() -> int:
    """How many files this process has open.

    Not sockets and their kin: servers that other tests have started in threads take connections
    whenever they like.
    """
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that the list was read from
            count += os.readlink(f"/proc/self/fd/{name}").startswith("/")
    return count


def keep_garbage(case: SynchronousTestCase) -> None:
    """Let no garbage of other tests, which may hold descriptors, be collected in this one."""
    gc.collect()
    gc.disable()
    case.addCleanup(gc.enable)
