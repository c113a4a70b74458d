"""The ketama ring of ``hash KEY consistent``.

Each unit of a server's weight is 160 points on a ring of 32-bit hashes; a key belongs to the
first point at or after its own hash. When a server comes or goes only the keys next to its
points move. The points are those of ngx_http_upstream_hash_module and Cache::Memcached::Fast.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Final
from zlib import crc32

POINTS_A_WEIGHT: Final = 160
_NUMBER: Final = 0xFFFFFFFF


class Ring:
    """Servers by the points of their names. Changing it costs a merge of all points."""

    __slots__ = ("_names", "_numbers", "_points", "_weights")

    def __init__(self) -> None:
        #: Sorted; each is a hash in the upper 32 bits and a server's number in the lower.
        self._points = array("Q")
        self._numbers: dict[bytes, int] = {}
        self._names: dict[int, bytes] = {}
        self._weights: dict[bytes, int] = {}

    def update(self, weights: Mapping[bytes, int]) -> None:
        """These are the servers now, with their weights."""
        changed = {n for n, weight in self._weights.items() if weights.get(n) != weight}
        new = [n for n, weight in weights.items() if self._weights.get(n) != weight]
        kept = list(self._points)
        if changed:
            gone = {self._numbers.pop(name) for name in changed}
            kept = [point for point in kept if point & _NUMBER not in gone]
            for number in gone:
                del self._names[number]
        number = max(self._names, default=-1)
        for name in new:
            number += 1
            self._numbers[name], self._names[number] = number, name
            kept += [point << 32 | number for point in points(name, weights[name])]
        # What was there is in order: sorting merges the rest into it.
        kept.sort()
        self._points = array("Q", kept)
        self._weights = dict(weights)

    def servers(self, key: bytes) -> Iterator[bytes]:
        """The server that ``key`` belongs to, then those of the points that follow, for ever.

        Where points of two servers coincide only the one that was there first has it.
        """
        ring, names = self._points, self._names
        size = len(ring)
        index = bisect_left(ring, crc32(key) << 32)
        last = -1
        while size:
            point = ring[index % size]
            if point >> 32 != last or size == 1:
                last = point >> 32
                yield names[point & _NUMBER]
            index += 1

    def __len__(self) -> int:
        return len(self._points)

    def __repr__(self) -> str:
        return f"<Ring {len(self._weights)} servers, {len(self._points)} points>"


def points(server: bytes, weight: int) -> Iterator[int]:
    """The points of a server: a chain of CRC32 over host, NUL, port and the point before."""
    host, port = _split(server)
    base = crc32(host + b"\0" + port)
    point = 0
    for _ in range(weight * POINTS_A_WEIGHT):
        point = crc32(point.to_bytes(4, "little"), base)
        yield point


def _split(server: bytes) -> tuple[bytes, bytes]:
    if server[:5].lower() == b"unix:":
        return server[5:], b""
    host, colon, port = server.rpartition(b":")
    return (host, port) if colon and (port.isdigit() or not port) else (server, b"")
