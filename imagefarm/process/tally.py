"""What each worker of a role is at, in numbers that all of them can add up at any time.

A table in shared memory, behind the descriptor of the workers' board: a row for each worker, a
column for each thing that is counted. A worker writes on its own row only, and asks nobody; the
sum of a column is what all are at. The row belongs to who holds its record lock, which the kernel
lets go of when the process ends, however it ends: `sweep` empties the rows of the dead.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from collections.abc import Iterable
from typing import Final

#: The most workers that count at a time, those included that finish after a reload.
MAX_ROWS: Final = 256
#: The most things that are counted.
MAX_COLUMNS: Final = 1024

_CELL: Final = 4
#: Before the rows: how many of them have ever been used.
_HEAD: Final = 1024


class Tally:
    """The table of ``size`` bytes at ``offset`` (whole pages) of a file, whose bytes from
    ``locks`` on are locked for the rows. The descriptor stays the caller's."""

    SIZE: Final = _CELL * (_HEAD + MAX_ROWS * MAX_COLUMNS)

    def __init__(self, fd: int, offset: int, locks: int) -> None:
        self._fd = fd
        self._locks = locks
        if os.fstat(fd).st_size < offset + self.SIZE:
            os.ftruncate(fd, offset + self.SIZE)
        self._map = mmap.mmap(fd, self.SIZE, offset=offset)
        self._cells = memoryview(self._map).cast("I")
        self._row = -1

    def claim(self) -> bool:
        """Take a row; False if there is none left, and nothing will be counted."""
        for row in range(MAX_ROWS):
            if self._lock(row):
                self._empty(row)
                self._row = row
                self._cells[0] = max(self._cells[0], row + 1)
                return True
        return False

    def write(self, column: int, count: int) -> None:
        """What we are at."""
        if self._row >= 0:
            self._cells[_HEAD + self._row * MAX_COLUMNS + column] = count

    def own(self, column: int) -> int:
        """What we have written last."""
        return self._cells[_HEAD + self._row * MAX_COLUMNS + column] if self._row >= 0 else 0

    def column(self, column: int) -> Iterable[int]:
        """What each of them is at."""
        return self._cells[_HEAD + column : _HEAD + self._cells[0] * MAX_COLUMNS : MAX_COLUMNS]

    def sum(self, column: int) -> int:
        """What all are at."""
        return sum(self.column(column))

    def sweep(self) -> None:
        """Empty the rows of processes that have gone."""
        for row in range(self._cells[0]):
            if row != self._row and self._lock(row):
                self._empty(row)
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, self._locks + row)

    def leave(self) -> None:
        """Count no more, but let others be counted. The row is free for the next one."""
        row, self._row = self._row, -1
        if row >= 0:
            self._empty(row)
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, self._locks + row)

    def _lock(self, row: int) -> bool:
        with contextlib.suppress(OSError):
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._locks + row)
            return True
        return False

    def _empty(self, row: int) -> None:
        start = _CELL * (_HEAD + row * MAX_COLUMNS)
        self._map[start : start + _CELL * MAX_COLUMNS] = bytes(_CELL * MAX_COLUMNS)

    def __repr__(self) -> str:
        return f"<Tally row={self._row}>"
