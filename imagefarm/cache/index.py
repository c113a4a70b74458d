"""What a process remembers of the files of a zone: sizes, and when each was last used.

Without I/O; time is an argument. It is a memory, not the truth: the directory is. A file that
is not here may still be a hit, one that is here may have been removed by another process.

A record is 28 bytes in one of many small byte arrays, found by a search for its digest: a
million of them take 34 megabytes, a quarter of what `keys_zone` grants. There is no list in the
order of use: a pass over all records, in slices, picks the oldest 64th of them, and they go in
order unless they were used since.
"""

from __future__ import annotations

import heapq
import struct
from typing import Final

from attrs import frozen

#: Files take whole blocks of the disk; sizes are counted in those.
BLOCK: Final = 4096
#: The most buckets that one `Index.sweep` looks at, of `FILL` records or so.
SWEEP: Final = 32
FILL: Final = 64
#: A pass keeps one of so many records, but at least `CANDIDATES`, as candidates.
SHARE: Final = 64
CANDIDATES: Final = 64
#: How far in the future a use may lie before we stop believing the clock, in seconds.
SKEW: Final = 60.0

#: Digest, time of last use, blocks.
_RECORD: Final = struct.Struct("=16sdI")
_VALUES: Final = struct.Struct("=dI")
_LENGTH: Final = _RECORD.size


def on_disk(size: int) -> int:
    """The bytes that a file of ``size`` takes on the disk."""
    return -(-size // BLOCK) * BLOCK


@frozen
class Node:
    """One file: when it was last used, and what it takes on the disk."""

    accessed: float
    size: int


class Index:
    """Nodes by file digest (16 bytes); made for ``limit`` of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        #: The number of known files, and their bytes on the disk.
        self.files = 0
        self.size = 0
        self._mask = (1 << max(limit // FILL, 1).bit_length()) - 1
        self._buckets: list[bytearray | None] = [None] * (self._mask + 1)
        self._restart()

    def _restart(self) -> None:
        #: Of the pass: the next bucket, and what it has chosen (a heap, the youngest on top).
        self._next: int | None = None
        self._chosen: list[tuple[float, bytes]] = []
        #: The result of the last pass, the oldest at the end.
        self._candidates: list[tuple[float, bytes]] = []

    def __len__(self) -> int:
        return self.files

    def __contains__(self, digest: bytes) -> bool:
        return self._find(digest)[1] >= 0

    def __repr__(self) -> str:
        return f"<Index {self.files} files {self.size} bytes {len(self)}/{self.limit} keys>"

    def _find(self, digest: bytes) -> tuple[bytearray, int]:
        """The bucket of ``digest`` and its place there, -1 if it has none."""
        number = int.from_bytes(digest[:4], "big") & self._mask
        bucket = self._buckets[number]
        if bucket is None:
            bucket = self._buckets[number] = bytearray()
        place = bucket.find(digest)
        while place % _LENGTH and place >= 0:
            place = bucket.find(digest, place + 1)  # across two fields: no digest
        return bucket, place

    def get(self, digest: bytes) -> Node | None:
        """What is known of ``digest``; does not count as a use."""
        bucket, place = self._find(digest)
        if place < 0:
            return None
        _, accessed, blocks = _RECORD.unpack_from(bucket, place)
        return Node(accessed, blocks * BLOCK)

    def put(self, digest: bytes, size: int, accessed: float) -> None:
        """There is a file that takes ``size`` bytes (whole blocks), last used at ``accessed``."""
        bucket, place = self._find(digest)
        blocks = size // BLOCK
        if place < 0:
            bucket += _RECORD.pack(digest, accessed, blocks)
            self.files += 1
        else:
            self.size -= _RECORD.unpack_from(bucket, place)[2] * BLOCK
            _VALUES.pack_into(bucket, place + 16, accessed, blocks)
        self.size += blocks * BLOCK

    def forget(self, digest: bytes) -> None:
        """The file is gone."""
        bucket, place = self._find(digest)
        if place >= 0:
            self.files -= 1
            self.size -= _RECORD.unpack_from(bucket, place)[2] * BLOCK
            bucket[place : place + _LENGTH] = bucket[-_LENGTH:]
            del bucket[-_LENGTH:]

    def clear(self) -> None:
        """Forget everything."""
        self._buckets = [None] * (self._mask + 1)
        self.files = self.size = 0
        self._restart()

    # The order of use

    def sweep(self, now: float) -> bool:
        """A slice of the pass for the least recently used; True when it is complete.

        A use that lies in the future counts as the oldest: the clock was wrong then.
        """
        if self._next is None:
            self._next, self._chosen = 0, []
        most = max(self.files // SHARE, CANDIDATES)
        first, self._next = self._next, self._next + SWEEP
        chosen, future = self._chosen, now + SKEW
        worst = -chosen[0][0] if len(chosen) >= most else float("inf")
        for bucket in self._buckets[first : self._next]:
            for digest, used, _ in _RECORD.iter_unpack(bucket or b""):
                accessed = 0.0 if used > future else used
                if accessed >= worst:
                    continue
                if len(chosen) < most:
                    heapq.heappush(chosen, (-accessed, digest))
                else:
                    heapq.heapreplace(chosen, (-accessed, digest))
                if len(chosen) >= most:
                    worst = -chosen[0][0]
        if self._next <= self._mask:
            return False
        self._candidates = [(-accessed, digest) for accessed, digest in sorted(chosen)]
        self._next, self._chosen = None, []
        return True

    def resort(self) -> None:
        """Older files than those known before have been put in: look again."""
        self._restart()

    def oldest(self, now: float) -> tuple[bytes, Node] | None:
        """The least recently used as far as is known; None if it takes a `sweep` to know."""
        while self._candidates:
            accessed, digest = self._candidates[-1]
            node = self.get(digest)
            if node is not None and (node.accessed == accessed or node.accessed > now + SKEW):
                return digest, node
            self._candidates.pop()  # gone, or used since
        return None

    @property
    def full(self) -> bool:
        """There are more nodes than ``keys_zone`` allows."""
        return self.files > self.limit
