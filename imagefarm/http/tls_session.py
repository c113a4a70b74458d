"""What OpenSSL's sessions and a ClientHello say, read from their bytes. Sans IO."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

#: Elements of OpenSSL's SSLSession (ssl/ssl_asn1.c), which are DER.
_OCTETS: Final = 0x04
_SEQUENCE: Final = 0x30
_HOST_NAME: Final = 0xA6

#: RFC 8446 section 4.2
_SUPPORTED_GROUPS: Final = 10


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tags and contents of DER, up to where it is none any more."""
    at = 0
    while at + 2 <= len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        if at + length > len(data):
            return
        yield tag, data[at : at + length]
        at += length


def _fields(session: bytes) -> list[tuple[int, bytes]]:
    for tag, content in _elements(session):
        if tag == _SEQUENCE:
            return list(_elements(content))
    return []


def session_id(session: bytes) -> bytes:
    """The session's id: the second string of octets, after the cipher."""
    octets = [content for tag, content in _fields(session) if tag == _OCTETS]
    return octets[1] if len(octets) > 1 else b""


def server_name_of(session: bytes) -> bytes:
    """The server name that the session was made for; empty for none."""
    for tag, content in _fields(session):
        if tag == _HOST_NAME:
            return next((inner for kind, inner in _elements(content) if kind == _OCTETS), b"")
    return b""


def ciphers_of(hello: bytes) -> list[bytes]:
    """The cipher suites that a ClientHello offers, two bytes each."""
    suites = _parts(hello)[0]
    return [suites[at : at + 2] for at in range(0, len(suites) - 1, 2)]


def groups_of(hello: bytes) -> list[int]:
    """The groups that a ClientHello offers, by number."""
    extensions = _parts(hello)[1]
    at = 0
    while at + 4 <= len(extensions):
        kind = int.from_bytes(extensions[at : at + 2], "big")
        size = int.from_bytes(extensions[at + 2 : at + 4], "big")
        content = extensions[at + 4 : at + 4 + size]
        if kind == _SUPPORTED_GROUPS:
            listed = content[2:]
            pairs = range(0, len(listed) - 1, 2)
            return [int.from_bytes(listed[each : each + 2], "big") for each in pairs]
        at += 4 + size
    return []


def _parts(hello: bytes) -> tuple[bytes, bytes]:
    """Cipher suites and extensions of a ClientHello with its header (RFC 8446 section 4.1.2)."""
    at = 4 + 2 + 32
    at += 1 + _number(hello, at, 1)
    size = _number(hello, at, 2)
    suites = hello[at + 2 : at + 2 + size]
    at += 2 + size
    at += 1 + _number(hello, at, 1)
    size = _number(hello, at, 2)
    return suites, hello[at + 2 : at + 2 + size]


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")
