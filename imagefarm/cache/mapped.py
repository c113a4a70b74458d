"""Numbers in small files that processes share by mapping them into their memory.

All numbers are 8 bytes in the machine's own order. One that a single process writes is never
read half.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import Final

MAGIC: Final = b"imfS\0\0\0\1"
#: What is cleared when a file is new.
HEADER: Final = 64
_NUMBER: Final = struct.Struct("=Q")


class Mapped:
    """A mapped file: its numbers by their places. Owns the descriptor."""

    def __init__(self, fd: int, length: int) -> None:
        self.fd = fd
        if os.fstat(fd).st_size < length:
            # Not a sparse file: a page that the disk has no room for would be a SIGBUS.
            os.posix_fallocate(fd, 0, length)
        self.map = mmap.mmap(fd, length)
        if self.map[:8] != MAGIC:
            self.map[8:HEADER] = bytes(HEADER - 8)
            self.map[:8] = MAGIC

    def __getitem__(self, place: int) -> int:
        number: int = _NUMBER.unpack_from(self.map, place)[0]
        return number

    def __setitem__(self, place: int, value: int) -> None:
        _NUMBER.pack_into(self.map, place, value)

    def close(self) -> None:
        """Unmap, and let the lock go."""
        self.map.close()
        os.close(self.fd)

    def stands_at(self, path: bytes) -> bool:
        """Whether the file is still the one at ``path``."""
        try:
            return os.path.samestat(os.fstat(self.fd), os.stat(path))
        except OSError:
            return False


def opened(path: bytes, length: int, *, create: bool) -> Mapped:
    """The file at ``path``, of ``length`` bytes at least. Raises OSError."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    fd = os.open(path, flags, 0o600)
    try:
        return Mapped(fd, length)
    except BaseException:
        os.close(fd)
        raise
