"""Byte ranges (RFC 9110 section 14) as nginx reads them and writes their parts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from attrs import frozen

from .dates import parse_http

#: Positions are read as nginx reads them: what does not fit its signed 64 bits is no position.
_LARGEST: Final = (1 << 63) - 1
_DIGITS: Final = len(str(_LARGEST))
_SPEC: Final = re.compile(rb" *(?:(?P<first>\d+) *- *(?P<last>\d*)|-(?P<suffix>\d+)) *(?:,|\Z)")


@frozen
class ByteRange:
    """Bytes ``start`` to ``end``, the end excluded."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.end - self.start


class NotSatisfiable(Exception):
    """416: the field is malformed or none of the ranges overlaps the representation."""


def parse(value: bytes, length: int, limit: int | None = None) -> tuple[ByteRange, ...]:
    """The ranges that a ``Range`` field asks of a representation of ``length`` bytes.

    ``limit`` is ``max_ranges`` (None: no limit). An empty result means that the field is to be
    ignored, as nginx does with other units, with more ranges than allowed, and with ranges that
    together ask for more than the whole. Raises `NotSatisfiable`.
    """
    if len(value) < 7 or value[:6].lower() != b"bytes=":
        return ()
    ranges: list[ByteRange] = []
    size, at = 0, 6
    while True:
        match = _SPEC.match(value, at)
        if match is None:
            raise NotSatisfiable
        start, end = _resolve(match, length)
        if start < end:
            ranges.append(ByteRange(start, end))
            size += end - start
            if limit is not None and len(ranges) > limit:
                return ()
        elif start == 0:  # nothing can be cut from an empty representation
            return ()
        at = match.end()
        if value[at - 1 : at] != b",":
            break
    if not ranges:
        raise NotSatisfiable
    return () if size > length else tuple(ranges)


def _resolve(match: re.Match[bytes], length: int) -> tuple[int, int]:
    numbers = {name: _number(text) for name, text in match.groupdict().items() if text}
    if "suffix" in numbers:
        return max(length - numbers["suffix"], 0), length
    last = numbers.get("last", length)
    return numbers["first"], min(last + 1, length)


def _number(text: bytes) -> int:
    digits = text.lstrip(b"0")
    if len(digits) > _DIGITS or int(digits or b"0") > _LARGEST:
        raise NotSatisfiable
    return int(digits or b"0")


def if_range_holds(value: bytes, *, etag: bytes | None, mtime: float | None) -> bool:
    """Whether ``If-Range`` matches: an entity tag byte by byte, a date exactly."""
    if len(value) >= 2 and value.endswith(b'"'):
        return etag is not None and value == etag
    return mtime is not None and parse_http(value) == int(mtime)


def content_range(part: ByteRange, length: int) -> bytes:
    """The value of ``Content-Range`` for one part."""
    return b"bytes %d-%d/%d" % (part.start, part.end - 1, length)


def unsatisfied_range(length: int) -> bytes:
    """The value of ``Content-Range`` for a 416."""
    return b"bytes */%d" % length


def part_heads(
    ranges: Sequence[ByteRange], length: int, content_type: bytes | None, boundary: bytes
) -> list[bytes]:
    """What stands before each part of a ``multipart/byteranges`` body."""
    kind = b"" if not content_type else b"Content-Type: " + content_type + b"\r\n"
    return [
        b"\r\n--%b\r\n%bContent-Range: %b\r\n\r\n" % (boundary, kind, content_range(part, length))
        for part in ranges
    ]


def part_tail(boundary: bytes) -> bytes:
    """What closes a ``multipart/byteranges`` body."""
    return b"\r\n--%b--\r\n" % boundary
