"""The record layer of FastCGI 1.0: bytes to records and back. No I/O.

The specification cuts everything (requests, their bodies, answers) into records of at most
65,535 bytes, each with an eight-byte header. `RecordReader` takes any split of the byte stream
and returns whole records; it copies the content once and never scans a byte twice. The encoding
functions pad to eight bytes, as the specification recommends (section 3.3).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

from attrs import frozen

VERSION: Final = 1
#: Section 3.3: a content length has 16 bits.
MAX_CONTENT: Final = 0xFFFF
#: The most that we put in one record: the largest multiple of eight, so that it needs no padding.
CHUNK: Final = 0xFFF8
#: The request id of management records (section 3.3).
NULL_REQUEST_ID: Final = 0
#: The flag in FCGI_BEGIN_REQUEST that leaves the connection to the web server (section 5.1).
KEEP_CONN: Final = 1
#: FCGI_GET_VALUES has three names; what asks for more than this is not a web server.
MAX_MANAGEMENT: Final = 4096

_HEADER: Final = struct.Struct(">BBHHBx")
_HEADER_LENGTH: Final = 8
_BEGIN: Final = struct.Struct(">HB5x")
_END: Final = struct.Struct(">IB3x")
_UNKNOWN: Final = struct.Struct(">B7x")
_PADDING: Final = tuple(bytes(count) for count in range(8))
_LONG: Final = 0x80000000


class RecordType(IntEnum):
    """Section 8, FCGI_BEGIN_REQUEST and so on."""

    BEGIN_REQUEST = 1
    ABORT_REQUEST = 2
    END_REQUEST = 3
    PARAMS = 4
    STDIN = 5
    STDOUT = 6
    STDERR = 7
    DATA = 8
    GET_VALUES = 9
    GET_VALUES_RESULT = 10
    UNKNOWN_TYPE = 11


class Role(IntEnum):
    """What the web server wants of the application (section 6)."""

    RESPONDER = 1
    AUTHORIZER = 2
    FILTER = 3


class ProtocolStatus(IntEnum):
    """How a request ended for the protocol (section 5.5)."""

    REQUEST_COMPLETE = 0
    CANT_MPX_CONN = 1
    OVERLOADED = 2
    UNKNOWN_ROLE = 3


class FastCGIError(Exception):
    """The peer does not speak FastCGI 1.0 as it must: the connection can't be used further."""


class VersionError(FastCGIError):
    """A record whose version is not 1."""


class RecordTooLarge(FastCGIError):
    """A record, or a block of name-value pairs, above the limit."""


class Truncated(FastCGIError):
    """The bytes ended inside a record or a name-value pair."""


class MalformedRecord(FastCGIError):
    """A record whose content does not have the form of its type."""


@frozen
class Record:
    """One record. ``type`` is a plain number, because peers may send types we don't know."""

    type: int
    request_id: int
    content: bytes = b""


@frozen
class BeginRequest:
    """The body of FCGI_BEGIN_REQUEST; ``role`` is a number for the same reason."""

    role: int
    keep: bool


@frozen
class EndRequest:
    """The body of FCGI_END_REQUEST."""

    app_status: int
    protocol_status: int


class RecordReader:
    """Cuts a byte stream into records.

    ``max_content`` limits a record's content: at most 65,535 bytes. After an error the reader
    is of no further use.
    """

    def __init__(self, max_content: int = MAX_CONTENT) -> None:
        self._max_content = max_content
        self._rest = bytearray()
        self._needed = _HEADER_LENGTH

    def feed(self, data: bytes) -> list[Record]:
        """The records that ``data`` completes.

        Raises `VersionError` or `RecordTooLarge` as soon as a header shows it.
        """
        rest = self._rest
        if not rest:
            records, used, self._needed = self._cut(data)
            if used < len(data):
                rest += data[used:]
            return records
        rest += data
        if len(rest) < self._needed:
            return []
        records, used, self._needed = self._cut(rest)
        del rest[:used]
        return records

    def _cut(self, data: bytes | bytearray) -> tuple[list[Record], int, int]:
        """The whole records in ``data``, the bytes they took, the bytes the next one needs."""
        records: list[Record] = []
        start, size = 0, len(data)
        with memoryview(data) as view:
            while size - start >= _HEADER_LENGTH:
                version, kind, request_id, length, padding = _HEADER.unpack_from(view, start)
                if version != VERSION:
                    raise VersionError(f"unsupported FastCGI protocol version: {version}")
                if length > self._max_content:
                    raise RecordTooLarge(f"too large FastCGI record: {length}")
                content = start + _HEADER_LENGTH
                end = content + length + padding
                if end > size:
                    return records, start, end - start
                records.append(Record(kind, request_id, bytes(view[content : content + length])))
                start = end
        return records, start, _HEADER_LENGTH

    @property
    def pending(self) -> int:
        """How many bytes of an unfinished record are held."""
        return len(self._rest)

    def eof(self) -> None:
        """The stream ended. Raises `Truncated` if that was inside a record."""
        if self._rest:
            raise Truncated(f"the connection ended {len(self._rest)} bytes into a record")

    def __repr__(self) -> str:
        return f"<RecordReader {len(self._rest)} of {self._needed} bytes>"


def encode_record(kind: int, request_id: int, content: bytes = b"") -> bytes:
    """One record, padded to a multiple of eight. Raises `RecordTooLarge`."""
    length = len(content)
    if length > MAX_CONTENT:
        raise RecordTooLarge(f"too large FastCGI record: {length}")
    padding = -length & 7
    header = _HEADER.pack(VERSION, kind, request_id, length, padding)
    return b"".join((header, content, _PADDING[padding]))


def encode_stream(kind: int, request_id: int, data: bytes, chunk: int = CHUNK) -> bytes:
    """``data`` as stream records of at most ``chunk`` bytes; none for no data.

    The empty record that ends a stream (section 3.3) is `encode_record` without content.
    """
    if len(data) <= chunk:
        return encode_record(kind, request_id, data) if data else b""
    pieces: list[bytes | memoryview] = []
    view = memoryview(data)
    for start in range(0, len(data), chunk):
        piece = view[start : start + chunk]
        padding = -len(piece) & 7
        pieces.append(_HEADER.pack(VERSION, kind, request_id, len(piece), padding))
        pieces.append(piece)
        pieces.append(_PADDING[padding])
    return b"".join(pieces)


def encode_begin(request_id: int, role: int, *, keep: bool) -> bytes:
    """FCGI_BEGIN_REQUEST."""
    body = _BEGIN.pack(role, KEEP_CONN if keep else 0)
    return encode_record(RecordType.BEGIN_REQUEST, request_id, body)


def decode_begin(content: bytes) -> BeginRequest:
    """The body of FCGI_BEGIN_REQUEST. Raises `MalformedRecord`."""
    if len(content) != _BEGIN.size:
        raise MalformedRecord(f"FCGI_BEGIN_REQUEST of {len(content)} bytes")
    role, flags = _BEGIN.unpack(content)
    return BeginRequest(role, bool(flags & KEEP_CONN))


def encode_end(
    request_id: int,
    app_status: int = 0,
    protocol_status: ProtocolStatus = ProtocolStatus.REQUEST_COMPLETE,
) -> bytes:
    """FCGI_END_REQUEST."""
    return encode_record(
        RecordType.END_REQUEST, request_id, _END.pack(app_status, protocol_status)
    )


def decode_end(content: bytes) -> EndRequest:
    """The body of FCGI_END_REQUEST. Raises `MalformedRecord`."""
    if len(content) != _END.size:
        raise MalformedRecord(f"FCGI_END_REQUEST of {len(content)} bytes")
    return EndRequest(*_END.unpack(content))


def encode_unknown(kind: int) -> bytes:
    """FCGI_UNKNOWN_TYPE, the answer to a management record of an unknown type (section 4.2)."""
    return encode_record(RecordType.UNKNOWN_TYPE, NULL_REQUEST_ID, _UNKNOWN.pack(kind))


def decode_unknown(content: bytes) -> int:
    """The type that the peer did not know. Raises `MalformedRecord`."""
    if len(content) != _UNKNOWN.size:
        raise MalformedRecord(f"FCGI_UNKNOWN_TYPE of {len(content)} bytes")
    kind: int = _UNKNOWN.unpack(content)[0]
    return kind


def encode_pairs(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Name-value pairs (section 3.4)."""
    pieces: list[bytes] = []
    for name, value in pairs:
        first, second = len(name), len(value)
        pieces += (
            _SHORT[first] if first < 0x80 else _length(first),
            _SHORT[second] if second < 0x80 else _length(second),
            name,
            value,
        )
    return b"".join(pieces)


#: Lengths that take one byte.
_SHORT: Final = tuple(bytes((length,)) for length in range(0x80))


def _length(length: int) -> bytes:
    if length >= _LONG:
        raise RecordTooLarge(f"too large FastCGI name or value: {length}")
    return (length | _LONG).to_bytes(4, "big")


def decode_pairs(data: bytes) -> list[tuple[bytes, bytes]]:
    """The name-value pairs of a whole stream, in order, duplicates included.

    The caller limits ``data``. Raises `Truncated`.
    """
    pairs: list[tuple[bytes, bytes]] = []
    offset, size = 0, len(data)
    while offset < size:
        # Lengths below 128 are those bytes themselves: nearly all are.
        name_length = data[offset]
        offset += 1
        if name_length >= 0x80:
            name_length, offset = _long_length(data, offset - 1)
        if offset >= size:
            raise Truncated("a FastCGI name-value pair without its length")
        value_length = data[offset]
        offset += 1
        if value_length >= 0x80:
            value_length, offset = _long_length(data, offset - 1)
        middle = offset + name_length
        end = middle + value_length
        if end > size:
            raise Truncated(f"a FastCGI name-value pair lacks {end - size} bytes")
        pairs.append((data[offset:middle], data[middle:end]))
        offset = end
    return pairs


def _long_length(data: bytes, offset: int) -> tuple[int, int]:
    """A length in four bytes, of which the first one's high bit is set; the new offset."""
    if offset + 4 > len(data):
        raise Truncated("a FastCGI name-value pair without its length")
    return int.from_bytes(data[offset : offset + 4], "big") & ~_LONG, offset + 4
