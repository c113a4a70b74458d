"""The time stamps that files get: coarse, so two changes in a row may have the same."""

from __future__ import annotations

import time
from typing import Final

#: CLOCK_REALTIME_COARSE of linux/time.h, which Python has no name for.
_COARSE: Final = 5


def next_stamp() -> None:
    """Wait until what is changed gets another stamp than it does now: a few milliseconds."""
    now = time.clock_gettime_ns(_COARSE)
    while time.clock_gettime_ns(_COARSE) == now:
        time.sleep(0.0005)
