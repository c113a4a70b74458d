"""Compression for PNG: ISA-L's deflate, and zlib's on machines that it is not made for.

At about the same size ISA-L takes a tenth of the time: a 400 x 300 picture with transparency
0.6 ms instead of 5.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Protocol, cast


class Compressor(Protocol):
    """As of `zlib.compressobj`."""

    def compress(self, data: bytes, /) -> bytes:
        """What there is of the stream by now."""

    def flush(self) -> bytes:
        """The rest."""


try:
    _module, _level, NAME = import_module("isal.isal_zlib"), 2, f"isal {version('isal')}"
except ImportError:
    _module, _level, NAME = import_module("zlib"), 2, "zlib"


def compressor() -> Compressor:
    """A new zlib stream (RFC 1950)."""
    return cast(Compressor, _module.compressobj(_level))
