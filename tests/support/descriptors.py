"""Counting open descriptors, so that none is left."""

from __future__ import annotations

import gc
import os

from twisted.trial.unittest import SynchronousTestCase


def descriptors() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def keep_garbage(case: SynchronousTestCase) -> None:
    """Let no garbage of other tests, which may hold descriptors, be collected in this one."""
    gc.collect()
    gc.disable()
    case.addCleanup(gc.enable)
