"""Following the original: is the file that an answer was made from still the same?

The resizer names it in ``X-Imagefarm-Source``, a path below one of its roots; an entry keeps
the name and the file's identity. All it takes on a hit is one stat.
"""

from __future__ import annotations

import os
import struct
from typing import Final
from urllib.parse import unquote_to_bytes

from attrs import frozen

from .entry import Entry

SOURCE: Final = b"x-imagefarm-source"
#: A file that changed within so many seconds before it was asked for may have changed after it
#: was read: the coarsest step of a file system's clock that we allow for, and a network's skew.
TICK: Final = 1.0
_IDENTITY: Final = struct.Struct(">QQQQ")
#: The identity of a file that is not there.
MISSING: Final = b"-"


def _places(roots: tuple[bytes, ...], source: bytes) -> tuple[bytes, ...]:
    """Where the original may be."""
    path = unquote_to_bytes(source)
    if b".." in path.split(b"/") or b"\0" in path:
        return ()
    return tuple([root + b"/" + path for root in roots])


def _stat(places: tuple[bytes, ...]) -> os.stat_result | None:
    for place in places:
        try:
            return os.stat(place)
        except OSError:
            continue
    return None


def _identity(found: os.stat_result | None) -> bytes:
    if found is None:
        return MISSING
    return _IDENTITY.pack(
        found.st_mtime_ns & (1 << 64) - 1, found.st_size, found.st_ino, found.st_dev
    )


def identity(roots: tuple[bytes, ...], source: bytes, requested: float) -> bytes:
    """The identity of an original that was read after ``requested`` (seconds since the epoch).

    Empty if it may have changed since then: an answer made from it is looked at again.
    """
    found = _stat(_places(roots, source))
    if found is not None and max(found.st_ctime, found.st_mtime) > requested - TICK:
        return b""
    return _identity(found)


def changed(roots: tuple[bytes, ...], entry: Entry) -> bool:
    """Whether the original of ``entry`` is not what it was made from."""
    original = Original.of(roots, entry.source, entry.identity)
    return original is not None and not original.same


@frozen(eq=False)
class Original:
    """An original that is followed: its name, what it was, and where it may be."""

    source: bytes
    identity: bytes
    places: tuple[bytes, ...]

    @classmethod
    def of(cls, roots: tuple[bytes, ...], source: bytes, identity: bytes) -> Original | None:
        """That of an entry (`Entry.source`, `Entry.identity`), if it has one that is followed."""
        if not roots or not source:
            return None
        return cls(source, identity, _places(roots, source))

    @property
    def same(self) -> bool:
        """Whether it is what it was."""
        return _identity(_stat(self.places)) == self.identity
