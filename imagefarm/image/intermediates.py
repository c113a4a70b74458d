"""Decoded pictures that are kept for the next size of the same original.

What is kept is exactly what decoding gave, at the decoder's own factor, so a picture made from
it has the same bytes as one made from the file: an ETag stays true. Memory is bounded, the one
that was used the longest time ago goes first; a source that has changed is another key.
"""

from __future__ import annotations

from collections import OrderedDict

import PIL
from attrs import evolve, frozen
from PIL import Image

from .disk import DiskStore
from .geometry import SHRINK_FACTORS
from .source import Identity


@frozen
class Key:
    """What was decoded: a file, its state, and the factor that its decoder shrank it by."""

    root: bytes
    src: bytes
    source: Identity
    factor: int

    @property
    def name(self) -> str:
        """The same as a text, in which libraries that decode differently differ."""
        return (
            f"{PIL.__version__} {self.factor} {self.source.size} {self.source.mtime} "
            f"{self.root.hex()} {self.src.hex()}"
        )


class Intermediates:
    """The store; ``limit`` is in bytes of memory, 0 keeps nothing there."""

    def __init__(self, limit: int, disk: DiskStore | None = None) -> None:
        self.limit = limit
        self._disk = disk
        self.bytes = 0
        self._pictures: OrderedDict[Key, Image.Image] = OrderedDict()

    def get(self, key: Key) -> Image.Image | None:
        """The picture, which must not be changed."""
        picture = self._pictures.get(key)
        if picture is not None:
            self._pictures.move_to_end(key)
        elif self._disk is not None:
            picture = self._disk.get(key.name)
            if picture is not None:
                self._remember(key, picture)
        return picture

    def larger(self, key: Key) -> int:
        """The factor of the smallest picture in memory that has all that ``key``'s would have.

        That of ``key`` itself where there is none, or its own.
        """
        for factor in (f for f in SHRINK_FACTORS if f <= key.factor):
            if evolve(key, factor=factor) in self._pictures:
                return factor
        return key.factor

    def put(self, key: Key, picture: Image.Image) -> None:
        """Keep a copy, unless it would take more than half of the store."""
        self._remember(key, picture)
        if self._disk is not None:
            self._disk.put(key.name, picture)

    def _remember(self, key: Key, picture: Image.Image) -> None:
        size = memory_of(picture)
        if size > self.limit // 2 or key in self._pictures:
            return
        while self.bytes + size > self.limit:
            _, oldest = self._pictures.popitem(last=False)
            self.bytes -= memory_of(oldest)
        self._pictures[key] = picture.copy()
        self.bytes += size

    def clear(self) -> None:
        """Keep nothing any more: the memory is needed."""
        self._pictures.clear()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._pictures)

    def __repr__(self) -> str:
        return f"<Intermediates {len(self)} pictures, {self.bytes} of {self.limit} bytes>"


def memory_of(picture: Image.Image) -> int:
    """Bytes of its pixels in memory: Pillow takes 1 for a grey one and 4 for any other."""
    return picture.width * picture.height * (1 if len(picture.getbands()) == 1 else 4)
