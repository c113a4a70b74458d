"""What a process remembers of the files of a zone: sizes, uses, and who was used last.

Without I/O; time is an argument. It is a memory, not the truth: the directory is. A file that
is not here may still be a hit, one that is here may have been removed by another process.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import Final

from attrs import define

#: How many nodes compete to be evicted.
SAMPLE: Final = 16


@define(eq=False)
class Node:
    """One key. ``size`` None: no file is known, only that it was asked for ``uses`` times."""

    accessed: float
    size: int | None = None
    uses: int = 0


def _accessed(item: tuple[bytes, Node]) -> float:
    return item[1].accessed


class Index:
    """Nodes by file digest, least recently used first; at most ``limit`` of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        #: The bytes of all known files, and their number.
        self.size = 0
        self.files = 0
        self._nodes: OrderedDict[bytes, Node] = OrderedDict()

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, digest: bytes) -> bool:
        node = self._nodes.get(digest)
        return node is not None and node.size is not None

    def get(self, digest: bytes) -> Node | None:
        """What is known of ``digest``; does not count as a use."""
        return self._nodes.get(digest)

    def use(self, digest: bytes, now: float) -> Node:
        """Count a request for ``digest``, which becomes the most recently used."""
        node = self._nodes.get(digest)
        if node is None:
            node = self._nodes[digest] = Node(now)
        else:
            self._nodes.move_to_end(digest)
            node.accessed = now
        node.uses += 1
        return node

    def put(self, digest: bytes, size: int, accessed: float) -> None:
        """There is a file of ``size`` bytes, last used at ``accessed``."""
        node = self._nodes.get(digest)
        if node is None:
            node = self._nodes[digest] = Node(accessed)
        else:
            self._nodes.move_to_end(digest)
            node.accessed = accessed
        self._resize(node, size)

    def lost(self, digest: bytes) -> None:
        """The file is gone; that it was asked for is remembered."""
        node = self._nodes.get(digest)
        if node is not None:
            self._resize(node, None)

    def forget(self, digest: bytes) -> None:
        """The file is gone; its uses are forgotten too."""
        node = self._nodes.pop(digest, None)
        if node is not None:
            self._resize(node, None)

    def clear(self) -> None:
        """Forget everything."""
        self._nodes.clear()
        self.size = self.files = 0

    def _resize(self, node: Node, size: int | None) -> None:
        self.files += (size is not None) - (node.size is not None)
        self.size += (size or 0) - (node.size or 0)
        node.size = size

    def oldest(self) -> tuple[bytes, Node] | None:
        """The least recently used.

        Exact for what was used since the process started. What the loader found comes in the
        directory's order: there it is the oldest of `SAMPLE`.
        """
        if not self._nodes:
            return None
        return min(islice(self._nodes.items(), SAMPLE), key=_accessed)

    @property
    def full(self) -> bool:
        """There are more nodes than ``keys_zone`` allows."""
        return len(self._nodes) > self.limit

    def __repr__(self) -> str:
        return f"<Index {self.files} files {self.size} bytes {len(self)}/{self.limit} keys>"
