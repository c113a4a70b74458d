"""What a process uses of the machine, as proc(5) tells: memory, processor time, descriptors."""

from __future__ import annotations

import os
from typing import Final

from attrs import frozen

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@frozen
class Vitals:
    """Of one process: resident bytes, seconds of processor time and of life, threads.

    ``descriptors`` is None where the process is another user's.
    """

    pid: int
    parent: int
    resident: int
    cpu: float
    uptime: float
    threads: int
    descriptors: int | None


def vitals(pid: int, root: str = "/proc") -> Vitals | None:
    """Those of ``pid``; None if there is no such process."""
    try:
        with open(f"{root}/{pid}/stat", "rb") as file:
            # The name may hold spaces and parentheses.
            words = file.read().rpartition(b")")[2].split()
        with open(f"{root}/uptime", "rb") as file:
            now = float(file.read().split()[0])
    except (OSError, IndexError, ValueError):
        return None
    if len(words) < 22 or words[0] in b"ZX":
        return None
    try:
        descriptors = len(os.listdir(f"{root}/{pid}/fd"))
    except OSError:
        descriptors = None
    return Vitals(
        pid=pid,
        parent=int(words[1]),
        resident=int(words[21]) * _PAGE,
        cpu=(int(words[11]) + int(words[12])) / _TICKS,
        uptime=round(max(0.0, now - int(words[19]) / _TICKS), 1),
        threads=int(words[17]),
        descriptors=descriptors,
    )
