"""What a process remembers of the files of a zone: sizes, uses, and when each was last used.

Without I/O; time is an argument. It is a memory, not the truth: the directory is. A file that
is not here may still be a hit, one that is here may have been removed by another process.

A record is 30 bytes in one of many small byte arrays, found by a search for its digest: a
million of them take 40 megabytes, a third of what `keys_zone` grants. There is no list in the
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

#: Digest, time of last use, blocks, uses.
_RECORD: Final = struct.Struct("=16sdIH")
_VALUES: Final = struct.Struct("=dIH")
_LENGTH: Final = _RECORD.size
_NO_FILE: Final = 0xFFFFFFFF
_MOST_USES: Final = 0xFFFF


def on_disk(size: int) -> int:
    """The bytes that a file of ``size`` takes on the disk."""
    return -(-size // BLOCK) * BLOCK


@frozen
class Node:
    """One key. ``size`` None: no file is known, only that it was asked for ``uses`` times."""

    accessed: float
    size: int | None = None
    uses: int = 0


class Index:
    """Nodes by file digest (16 bytes); made for ``limit`` of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        #: The number of known files, and their bytes on the disk.
        self.files = 0
        self.size = 0
        self._count = 0
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
        return self._count

    def __contains__(self, digest: bytes) -> bool:
        node = self.get(digest)
        return node is not None and node.size is not None

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
        _, accessed, blocks, uses = _RECORD.unpack_from(bucket, place)
        return Node(accessed, None if blocks == _NO_FILE else blocks * BLOCK, uses)

    def use(self, digest: bytes, now: float) -> int:
        """Count a request for ``digest``, which becomes the most recently used: the count."""
        bucket, place = self._find(digest)
        if place < 0:
            self._add(bucket, digest, now, _NO_FILE, 1)
            return 1
        _, _, blocks, before = _RECORD.unpack_from(bucket, place)
        uses: int = min(before + 1, _MOST_USES)
        _VALUES.pack_into(bucket, place + 16, now, blocks, uses)
        return uses

    def put(self, digest: bytes, size: int, accessed: float) -> None:
        """There is a file that takes ``size`` bytes (whole blocks), last used at ``accessed``."""
        bucket, place = self._find(digest)
        blocks = size // BLOCK
        if place < 0:
            self._add(bucket, digest, accessed, blocks, 0)
        else:
            _, _, before, uses = _RECORD.unpack_from(bucket, place)
            self._account(before, blocks)
            _VALUES.pack_into(bucket, place + 16, accessed, blocks, uses)

    def _add(
        self, bucket: bytearray, digest: bytes, accessed: float, blocks: int, uses: int
    ) -> None:
        bucket += _RECORD.pack(digest, accessed, blocks, uses)
        self._count += 1
        self._account(_NO_FILE, blocks)

    def _account(self, before: int, after: int) -> None:
        if before != _NO_FILE:
            self.files -= 1
            self.size -= before * BLOCK
        if after != _NO_FILE:
            self.files += 1
            self.size += after * BLOCK

    def lost(self, digest: bytes) -> None:
        """The file is gone; that it was asked for is remembered."""
        bucket, place = self._find(digest)
        if place >= 0:
            _, accessed, before, uses = _RECORD.unpack_from(bucket, place)
            self._account(before, _NO_FILE)
            _VALUES.pack_into(bucket, place + 16, accessed, _NO_FILE, uses)

    def forget(self, digest: bytes) -> None:
        """The file is gone; its uses are forgotten too."""
        bucket, place = self._find(digest)
        if place >= 0:
            _, _, before, _ = _RECORD.unpack_from(bucket, place)
            self._account(before, _NO_FILE)
            self._count -= 1
            bucket[place : place + _LENGTH] = bucket[-_LENGTH:]
            del bucket[-_LENGTH:]

    def clear(self) -> None:
        """Forget everything."""
        self._buckets = [None] * (self._mask + 1)
        self.files = self.size = self._count = 0
        self._restart()

    # The order of use

    def sweep(self, now: float) -> bool:
        """A slice of the pass for the least recently used; True when it is complete.

        A use that lies in the future counts as the oldest: the clock was wrong then.
        """
        if self._next is None:
            self._next, self._chosen = 0, []
        most = max(self._count // SHARE, CANDIDATES)
        first, self._next = self._next, self._next + SWEEP
        chosen, future = self._chosen, now + SKEW
        worst = -chosen[0][0] if len(chosen) >= most else float("inf")
        for bucket in self._buckets[first : self._next]:
            for digest, used, _, _ in _RECORD.iter_unpack(bucket or b""):
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
        return self._count > self.limit
