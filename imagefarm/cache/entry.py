"""The header of a cache file: a binary codec, without I/O.

A file is the header block and then the body. All numbers are big-endian::

    magic "imfC" | crc32 of all that follows in the block | version | flags | status |
    block length | body length | stored | expires | date | Last-Modified | stale-while-revalidate |
    stale-if-error | requested |
    lengths of: key, variant, vary, ETag, source, identity, fields
    key | variant | vary names, comma-separated | ETag | source | identity |
    fields: name LF value LF name LF ...

Dates are seconds since the epoch as doubles, NaN for "none". The block's length does not
depend on the body's, so that the block can be written last.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import Final

from attrs import define

MAGIC: Final = b"imfC"
VERSION: Final = 4
#: The longest header block we write or believe.
MAX_BLOCK: Final = 64 * 1024
#: The longest cache key.
MAX_KEY: Final = 32 * 1024
#: The longest name of an original.
MAX_SOURCE: Final = 8 * 1024

_FINAL: Final = 1
_MUST_REVALIDATE: Final = 2
_PREFIX = struct.Struct(">4sI")
_FIXED = struct.Struct(">HHHIQdddddddIHHHHHI")
_START = struct.Struct(">4sIHHHIQ")
_CHECKED: Final = _PREFIX.size
_WHOLE = struct.Struct(">4sIHHHIQdddddddIHHHHHI")
#: The number of bytes from which `block_length` can tell the rest.
PREFIX_LENGTH: Final = _PREFIX.size + _FIXED.size


class EntryError(Exception):
    """An entry that can't be encoded: too long, or a line feed in a field."""


class CorruptEntry(Exception):
    """These bytes are not a whole header block of ours."""


class TruncatedEntry(CorruptEntry):
    """The header block goes on: ``needed`` bytes in all."""

    def __init__(self, needed: int) -> None:
        super().__init__(f"the header block needs {needed} bytes")
        self.needed = needed


@define
class Entry:
    """A stored answer without its body. Never changed, but not frozen: that would make the making
    of one, for each hit, six times as dear.

    Times are seconds since the epoch: ``stored`` when we stored it, ``expires`` until when it
    is fresh, ``date`` and ``last_modified`` what the upstream said. ``variant`` is the
    secondary key that ``vary`` (lower-case names) gave for the request. ``final`` is
    `Response.final`. ``must_revalidate``: never to be served stale. ``requested`` is when the
    upstream was asked (0: unknown), ``source`` the original that the answer was made from and
    ``identity`` that file's (`follow`). ``headers`` are as they came: what is hidden, rewritten
    or obeyed of them is for whoever serves them.
    """

    key: bytes
    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    stored: float
    expires: float
    body_length: int = 0
    date: float | None = None
    last_modified: float | None = None
    etag: bytes = b""
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    vary: tuple[bytes, ...] = ()
    variant: bytes = b""
    final: bool = False
    must_revalidate: bool = False
    requested: float = 0.0
    source: bytes = b""
    identity: bytes = b""

    @property
    def asked(self) -> float:
        """When the upstream was asked for it, as far as that is known."""
        return self.requested or self.stored


def _wire(moment: float | None) -> float:
    return math.nan if moment is None else moment


def _value(moment: float) -> float | None:
    return None if math.isnan(moment) else moment


def encode(entry: Entry) -> bytes:
    """The header block. Raises `EntryError`."""
    fields = b"\n".join([part for pair in entry.headers for part in pair])
    if fields.count(b"\n") != max(2 * len(entry.headers) - 1, 0):
        raise EntryError("a header field contains a line feed")
    vary = b",".join(entry.vary)
    parts = entry.key, entry.variant, vary, entry.etag, entry.source, entry.identity, fields
    length = PREFIX_LENGTH + sum(map(len, parts))
    if len(entry.key) > MAX_KEY or length > MAX_BLOCK or len(entry.source) > MAX_SOURCE:
        raise EntryError(f"the header block of {length} bytes is too long")
    flags = _FINAL * entry.final | _MUST_REVALIDATE * entry.must_revalidate
    block = _FIXED.pack(
        VERSION, flags, entry.status, length, entry.body_length, entry.stored, entry.expires,
         _wire(entry.date), _wire(entry.last_modified),
        entry.stale_while_revalidate, entry.stale_if_error, entry.requested,
        *map(len, parts),
    ) + b"".join(parts)  # fmt: skip
    return _PREFIX.pack(MAGIC, zlib.crc32(block)) + block


def lengths(data: bytes) -> tuple[int, int]:
    """The lengths of block and body, from the block's first `PREFIX_LENGTH` bytes.

    Cheap and unchecked but for plausibility. Raises `CorruptEntry`.
    """
    if len(data) < PREFIX_LENGTH:
        raise TruncatedEntry(PREFIX_LENGTH)
    magic, _, version, _, _, block, body = _START.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise CorruptEntry("not a cache file of this version")
    if not PREFIX_LENGTH <= block <= MAX_BLOCK:
        raise CorruptEntry("an impossible header length")
    return block, body


def decode(data: bytes) -> tuple[Entry, int]:
    """The entry whose block ``data`` begins with, and the block's length.

    Raises `TruncatedEntry` if the block is not all there, else `CorruptEntry`.
    """
    length, body_length = lengths(data)
    if len(data) < length:
        raise TruncatedEntry(length)
    (
        _, crc, _, flags, status, _, _, stored, expires, date, last_modified, revalidate, on_error,
        requested, key, variant, vary, etag, source, identity, fields,
    ) = _WHOLE.unpack_from(data)  # fmt: skip
    if zlib.crc32(data[_CHECKED:length]) != crc:
        raise CorruptEntry("the header block's checksum does not match")
    # Where each part ends: this is done for each hit, and a loop takes twice the time.
    key += PREFIX_LENGTH
    variant += key
    vary += variant
    etag += vary
    source += etag
    identity += source
    if identity + fields != length:
        raise CorruptEntry("the parts do not add up")
    lines = data[identity:length].split(b"\n") if fields else []
    if len(lines) % 2:
        raise CorruptEntry("a field without a value")
    each = iter(lines)
    entry = Entry(
        data[PREFIX_LENGTH:key], status, tuple(zip(each, each, strict=True)), stored, expires,
        body_length, _value(date), _value(last_modified), data[vary:etag], revalidate, on_error,
        tuple(data[variant:vary].split(b",")) if vary > variant else (), data[key:variant],
        flags & _FINAL != 0, flags & _MUST_REVALIDATE != 0, requested, data[etag:source],
        data[source:identity],
    )  # fmt: skip
    return entry, length
