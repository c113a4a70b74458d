"""Addresses of servers as the configuration writes them, and their resolution.

Names are resolved here once, when the configuration is read; `names` resolves at run time.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Final

from attrs import frozen

from imagefarm.config.errors import Invalid

from .peer import Address

_HOST_PORT: Final = re.compile(r"(\[[^]/]*\]|[^:\[\]]*)(?::(.*))?", re.DOTALL)
# Whether there is such a host is for the resolver to say, but it may come to stand in a field.
_HOST: Final = re.compile(r"[!-~]+")


@frozen
class Authority:
    """``host[:port]`` or ``unix:/path``, not resolved. ``host`` is without brackets."""

    host: str = ""
    port: int | None = None
    path: str = ""


def parse_authority(text: str, whole: str | None = None, *, where: str = "upstream") -> Authority:
    """Read an address. ``whole`` and ``where`` are what an error message tells.

    Raises `Invalid` in nginx's words.
    """
    whole = text if whole is None else whole
    if text.startswith("unix:"):
        if len(text) == len("unix:"):
            raise Invalid(f'no path in the unix domain socket in {where} "{whole}"')
        return Authority(path=text.removeprefix("unix:"))
    match = _HOST_PORT.fullmatch(text)
    if match is None or "/" in text or "?" in text:
        raise Invalid(f'invalid host in {where} "{whole}"')
    host, port = match[1], match[2]
    if not host:
        raise Invalid(f'no host in {where} "{whole}"')
    number = None
    if port is not None:
        if not re.fullmatch(r"\d{1,5}", port, re.ASCII) or not 0 < int(port) < 65536:
            raise Invalid(f'invalid port in {where} "{whole}"')
        number = int(port)
    if host.startswith("["):
        host = host[1:-1]
        if literal(host) is None:
            raise Invalid(f'invalid IPv6 address in {where} "{whole}"')
    elif not _HOST.fullmatch(host):
        raise Invalid(f'invalid host in {where} "{whole}"')
    return Authority(host, number)


def literal(host: str) -> str | None:
    """``host`` in its canonical form if it is a numeric address."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def resolve(
    authority: Authority, default_port: int, whole: str, *, where: str = "upstream"
) -> tuple[Address, ...]:
    """All addresses of ``authority``, in the resolver's order. Raises `Invalid`."""
    if authority.path:
        return (Address(path=authority.path),)
    port = default_port if authority.port is None else authority.port
    numeric = literal(authority.host)
    if numeric is not None:
        return (Address(numeric, port),)
    try:
        # An asterisk is every address of the machine to getaddrinfo(3), and no name.
        host = "." if authority.host == "*" else authority.host
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Invalid(f'host not found in {where} "{whole}"') from None
    return tuple(dict.fromkeys(Address(str(info[4][0]), port) for info in found))
