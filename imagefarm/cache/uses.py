"""How often keys were asked for that are not stored, counted by all processes of a zone together.

A mapped file, ``PATH/uses``, made when the first location with ``*_cache_min_uses`` asks. It is a
table of 65,536 keys; where its bucket is full, a new key takes the place of the one that was
asked for longest ago. Two processes that count the same key at the very same time may count one
request: it then takes one more.
"""

from __future__ import annotations

import os
import struct
from typing import Final

from .mapped import HEADER, Mapped, opened
from .store import make_directory

#: Half of a digest, when it was asked for last (whole seconds), how often.
_RECORD: Final = struct.Struct("=8sII")
#: The keys of a bucket, and the number of buckets: a power of two.
BUCKET: Final = 8
BUCKETS: Final = 8192
_WIDTH: Final = BUCKET * _RECORD.size
_LENGTH: Final = HEADER + BUCKETS * _WIDTH
_MOST: Final = 0xFFFFFFFF


class Uses:
    """The counts of the zone in the directory ``path``."""

    def __init__(self, path: bytes) -> None:
        self._path = os.path.join(path, b"uses")
        self._file: Mapped | None = None

    def count(self, digest: bytes, now: float, inactive: float) -> int:
        """One more request for ``digest``: how many, with less than ``inactive`` between any two.

        Raises OSError.
        """
        table, moment = self._table(), int(now)
        name = digest[8:]
        start = HEADER + int.from_bytes(digest[:4], "big") % BUCKETS * _WIDTH
        oldest, place = _MOST, start
        for at in range(start, start + _WIDTH, _RECORD.size):
            known, last, uses = _RECORD.unpack_from(table.map, at)
            if known == name and uses and abs(moment - last) < inactive:
                count = min(int(uses) + 1, _MOST)
                _RECORD.pack_into(table.map, at, name, moment, count)
                return count
            if known == name:
                last = 0
            if last < oldest:
                oldest, place = last, at
        _RECORD.pack_into(table.map, place, name, moment, 1)
        return 1

    def _table(self) -> Mapped:
        if self._file is not None and not self._file.stands_at(self._path):
            self.close()
        if self._file is None:
            make_directory(os.path.dirname(self._path))
            self._file = opened(self._path, _LENGTH, create=True)
        return self._file

    def close(self) -> None:
        """Unmap the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()
