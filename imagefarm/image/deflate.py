"""Compression for PNG: ISA-L's deflate, and zlib's on machines that it is not made for.

At about the same size ISA-L takes a tenth of the time to compress, a 400 x 300 picture with
transparency 0.6 ms instead of 5, and a third of it to decompress.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import Protocol, cast


class Compressor(Protocol):
    """As of `zlib.compressobj`."""

    def compress(self, data: bytes, /) -> bytes:
        """What there is of the stream by now."""

    def flush(self) -> bytes:
        """The rest."""


class Decompressor(Protocol):
    """As of `zlib.decompressobj`."""

    #: What of the data was not looked at, because it would have made too many bytes.
    unconsumed_tail: bytes
    #: Whether the stream is at its end, and its checksum is right.
    eof: bool

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """At most ``max_length`` more bytes. Raises `InflateError`."""


#: What decompression raises.
InflateError: type[Exception]
#: Makes a decompressor of a zlib stream; None where there is no ISA-L.
decompressor: Callable[[], Decompressor] | None
try:
    _module, _level, NAME = import_module("isal.isal_zlib"), 2, f"isal {version('isal')}"
    decompressor, InflateError = _module.decompressobj, _module.error
except ImportError:
    _module, _level, NAME = import_module("zlib"), 2, "zlib"
    decompressor, InflateError = None, _module.error


def compressor() -> Compressor:
    """A new zlib stream (RFC 1950)."""
    return cast(Compressor, _module.compressobj(_level))
