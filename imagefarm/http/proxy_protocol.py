"""The PROXY protocol's header, versions 1 and 2, without I/O.

A proxy that passes bytes on says first whose connection it is. Source:
https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt (sections in brackets below), and the
``proxy_protocol`` parameter of nginx's ``listen``.

The header is the first thing on the connection, so nothing in front of it is skipped and nothing
about it is guessed: what the specification does not allow is refused.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from typing import Final

from attrs import field, frozen

#: [2.1] The longest line of version 1, its CRLF included.
MAX_V1: Final = 107
#: The longest header of version 2 that we take, as nginx since 1.25.1; the format allows 65551.
MAX_V2: Final = 4096

_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V1: Final = b"PROXY "
_FIXED: Final = 16
_LOCAL, _PROXY = 0, 1
#: [2.2] The bytes of the address block, by family: unspecified, IPv4, IPv6, Unix.
_ADDRESS_SIZES: Final = (0, 12, 36, 216)
_INET, _INET6 = 1, 2
_STREAM: Final = 1
#: Transports: unspecified, stream, datagram.
_TRANSPORTS: Final = 3
_LINE: Final = re.compile(
    rb"(TCP[46]) ([0-9A-Fa-f.:]{2,45}) ([0-9A-Fa-f.:]{2,45}) (0|[1-9][0-9]{0,4}) "
    rb"(0|[1-9][0-9]{0,4})"
)


class BadProxyHeader(ValueError):
    """No PROXY header, or a broken one; the text is for the error log, in nginx's words."""


@frozen
class Tlv:
    """[2.2] One of the additions to a header of version 2."""

    type: int
    value: bytes


@frozen
class ProxyHeader:
    """What the proxy says of the connection.

    The addresses are as text, "" where the proxy names none that we can use: LOCAL (its own
    connection), UNKNOWN, datagrams, Unix sockets.
    """

    source: str = ""
    source_port: int = 0
    destination: str = ""
    destination_port: int = 0
    version: int = 1
    tlvs: tuple[Tlv, ...] = field(default=(), repr=False)


class ProxyHeaderParser:
    """Takes bytes until the header is whole."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = b""

    def __repr__(self) -> str:
        return f"<ProxyHeaderParser {len(self._data)} bytes>"

    def feed(self, data: bytes) -> tuple[ProxyHeader, bytes] | None:
        """The header and the bytes that follow it, or None if more are needed.

        Raises `BadProxyHeader` as soon as no more bytes could make it right.
        """
        data = self._data = self._data + data
        if data.startswith(_SIGNATURE[: len(data)]):
            return _binary(data)
        if data.startswith(_V1[: len(data)]):
            return _text(data)
        raise _broken(data)


def _broken(data: bytes) -> BadProxyHeader:
    line = data[:MAX_V1].split(b"\r\n", 1)[0]
    shown = line.decode("latin-1").encode("unicode_escape").decode("ascii")
    return BadProxyHeader(f'broken header: "{shown}"')


# Version 1: a line of text [2.1].


def _text(data: bytes) -> tuple[ProxyHeader, bytes] | None:
    end = data.find(b"\r\n", 0, MAX_V1)
    if end < 0:
        # A lone CR or LF can't become right, and a line that is too long neither.
        stray = data.find(b"\n") >= 0 or 0 <= data.find(b"\r") < len(data) - 1
        if stray or len(data) >= MAX_V1:
            raise _broken(data)
        return None
    words, rest = data[len(_V1) : end], data[end + 2 :]
    if words == b"UNKNOWN" or words.startswith(b"UNKNOWN "):
        return ProxyHeader(), rest  # "the receiver must ignore anything presented" after it
    match = _LINE.fullmatch(words)
    if match is None:
        raise _broken(data)
    address = _ipv4 if match[1] == b"TCP4" else _ipv6
    try:
        source, destination = address(match[2]), address(match[3])
    except ValueError:
        raise _broken(data) from None
    ports = int(match[4]), int(match[5])
    if max(ports) > 65535:
        raise _broken(data)
    return ProxyHeader(source, ports[0], destination, ports[1]), rest


def _ipv4(text: bytes) -> str:
    return str(ipaddress.IPv4Address(text.decode("ascii")))


def _ipv6(text: bytes) -> str:
    return format_ipv6(ipaddress.IPv6Address(text.decode("ascii")))


def format_ipv6(address: ipaddress.IPv6Address) -> str:
    """As inet_ntop and nginx print it: mapped IPv4 addresses keep their dots."""
    mapped = address.ipv4_mapped
    return str(address) if mapped is None else f"::ffff:{mapped}"


# Version 2: binary [2.2].


def _binary(data: bytes) -> tuple[ProxyHeader, bytes] | None:
    if len(data) > 12 and data[12] >> 4 != 2:
        raise BadProxyHeader(f"unknown PROXY protocol version: {data[12] >> 4}")
    if len(data) < _FIXED:
        return None
    command, length = data[12] & 0x0F, int.from_bytes(data[14:16], "big")
    # "Receivers must drop connections presenting unexpected values here."
    if command not in (_LOCAL, _PROXY):
        raise BadProxyHeader(f"unknown PROXY protocol command: {command}")
    family, transport = data[13] >> 4, data[13] & 0x0F
    if command == _PROXY and (family >= len(_ADDRESS_SIZES) or transport >= _TRANSPORTS):
        raise BadProxyHeader(f"unknown PROXY protocol family: {data[13]:#04x}")
    if _FIXED + length > MAX_V2:
        raise BadProxyHeader("header is too large")
    end = _FIXED + length
    if len(data) < end:
        return None
    if command == _LOCAL:
        return ProxyHeader(version=2), data[end:]  # "must discard the protocol block"
    return _addresses(family, transport, data[_FIXED:end]), data[end:]


def _addresses(family: int, transport: int, block: bytes) -> ProxyHeader:
    size = _ADDRESS_SIZES[family]
    if len(block) < size:
        raise BadProxyHeader(f"PROXY protocol header is too short: {len(block)}")
    if not family:
        return ProxyHeader(version=2)  # whatever follows can't be told apart
    tlvs = split_tlvs(block[size:])
    if transport != _STREAM or family not in (_INET, _INET6):
        return ProxyHeader(version=2, tlvs=tlvs)
    half = (size - 4) // 2
    source, destination = (
        str(ipaddress.IPv4Address(part)) if family == _INET
        else format_ipv6(ipaddress.IPv6Address(part))
        for part in (block[:half], block[half : 2 * half])
    )  # fmt: skip
    source_port, destination_port = struct.unpack("!HH", block[2 * half : size])
    return ProxyHeader(source, source_port, destination, destination_port, 2, tlvs)


def split_tlvs(block: bytes) -> tuple[Tlv, ...]:
    """The TLVs of a header, or inside of one. Raises `BadProxyHeader`."""
    found, at = [], 0
    while at < len(block):
        start = at + 3
        length = int.from_bytes(block[at + 1 : start], "big")
        if start > len(block) or start + length > len(block):
            raise BadProxyHeader("broken PROXY protocol TLV")
        found.append(Tlv(block[at], block[start : start + length]))
        at = start + length
    return tuple(found)
