"""The client's address where trusted proxies stand in front: nginx's realip module.

What a proxy says in a field of the request, or in a PROXY header, takes the place of the address
that the connection comes from, for everything that follows: access rules, logs, variables,
balancing.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from typing import Final

from attrs import frozen

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import HSL, AnyRow, Environment, ListRow, Row, Scope
from imagefarm.config.values import flag

from .message import ForwardedPeer, Peer, Request
from .proxy_protocol import format_ipv6

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: The values of ``real_ip_header`` that are more than the name of a field.
PROXY_PROTOCOL: Final = "proxy_protocol"
X_FORWARDED_FOR: Final = "X-Forwarded-For"

_UNIX: Final = "unix:"
_PORT: Final = re.compile(r"[0-9]{1,5}")


def _trusted(directive: Directive, env: Environment) -> tuple[Network | str, ...]:
    text = directive.args[0]
    if text == _UNIX:
        return (_UNIX,)
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return tuple(map(ipaddress.ip_network, _resolved(text)))
    if ipaddress.ip_interface(text).ip != network.network_address:
        env.warn(f"low address bits of {text} are meaningless")
    return (network,)


def _resolved(name: str) -> list[str]:
    """The addresses of a host, asked once, at start."""
    try:
        if not name or "/" in name:
            raise OSError
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Invalid(f'host not found in set_real_ip_from "{name}"') from None
    return list(dict.fromkeys(str(info[4][0]).partition("%")[0] for info in found))


SET_REAL_IP_FROM: Final[ListRow[tuple[Network | str, ...]]] = ListRow(
    name="set_real_ip_from", contexts=HSL, convert=_trusted, syntax="address | CIDR | unix:",
    doc="Clients whose word on the real client's address is taken: an address, a network, a "
    "host name (resolved at start), or all that come by Unix sockets.",
)  # fmt: skip
REAL_IP_HEADER: Final = Row(
    name="real_ip_header", contexts=HSL, convert=lambda directive, env: directive.args[0],
    default="X-Real-IP", syntax="field | X-Real-IP | X-Forwarded-For | proxy_protocol",
    doc="Where the real address is said: a field of the request, or the PROXY header of "
    "`listen ... proxy_protocol`. It may have a port.",
)  # fmt: skip
REAL_IP_RECURSIVE: Final = Row(
    name="real_ip_recursive", contexts=HSL, convert=flag, default=False, syntax="on | off",
    doc="Whether the address taken is the last one that is not trusted itself, instead of the "
    "last one.",
)  # fmt: skip

DIRECTIVES: Final[tuple[AnyRow, ...]] = (SET_REAL_IP_FROM, REAL_IP_HEADER, REAL_IP_RECURSIVE)


@frozen
class RealIp:
    """The three directives, where ``set_real_ip_from`` is given."""

    trusted: tuple[Network | str, ...]
    header: str = "X-Real-IP"
    recursive: bool = False

    @classmethod
    def from_scope(cls, scope: Scope) -> RealIp | None:
        """What is in force in a block."""
        lines = scope.all(SET_REAL_IP_FROM)
        if not lines:
            return None
        trusted = tuple(network for line in lines for network in line)
        return cls(trusted, scope[REAL_IP_HEADER], scope[REAL_IP_RECURSIVE])

    def trusts(self, address: Address | str) -> bool:
        """Whether a client of this address is believed; mapped IPv4 addresses count as IPv4."""
        if isinstance(address, str):
            return address in self.trusted
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped in n for n in self.trusted if not isinstance(n, str))

    def apply(self, request: Request) -> None:
        """Change ``request.peer``, once, if the client is trusted and says an address."""
        peer = request.peer
        if isinstance(peer, ForwardedPeer) and peer.original is not None:
            return
        proxy = peer.proxy if isinstance(peer, ForwardedPeer) else None
        if self.header == PROXY_PROTOCOL:
            said = [proxy.source] if proxy is not None and proxy.source else []
        else:
            fields = request.head.headers.getall(self.header.lower().encode())
            said = [value.decode("latin-1") for value in fields]
        if self.header != X_FORWARDED_FOR:
            said = said[:1]  # as nginx: the first line of any other field
        found = self._find(_client(peer), said)
        if found is None:
            return
        address, port = found
        if self.header == PROXY_PROTOCOL and proxy is not None:
            port = proxy.source_port
        text = format_ipv6(address) if address.version == 6 else str(address)
        request.peer = ForwardedPeer(
            text,
            port,
            peer.server,
            peer.serial,
            peer.tls,
            peer.sni,
            peer.socket,
            peer.uid,
            peer.handle,
            peer.opened,
            proxy,
            peer,
        )

    def _find(self, client: Address | str, said: Sequence[str]) -> tuple[Address, int] | None:
        """The address that the lines lead to, from the last word of the last line backwards."""
        found: tuple[Address, int] | None = None
        for line in reversed(said):
            rest = line
            while True:
                if not self.trusts(client if found is None else found[0]):
                    return found
                word, rest = _last_word(rest)
                parsed = parse_address(word)
                if parsed is None:
                    return found
                found = parsed
                if not self.recursive:
                    return found
                if not rest:
                    break
        return found


def _client(peer: Peer) -> Address | str:
    if peer.address.startswith(_UNIX):
        return _UNIX
    try:
        return ipaddress.ip_address(peer.address.partition("%")[0])
    except ValueError:
        return peer.address


def _last_word(text: str) -> tuple[str, str]:
    """The last of the words between spaces and commas, and what is before it."""
    text = text.rstrip(" ,")
    cut = max(text.rfind(" "), text.rfind(","))
    return text[cut + 1 :], text[: max(cut, 0)]


def parse_address(text: str) -> tuple[Address, int] | None:
    """``192.0.2.1``, ``192.0.2.1:80``, ``2001:db8::1``, ``[2001:db8::1]:80``; port 0 if none."""
    host, port = text, ""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]:")
        if not bracket or ":" not in host:
            return None
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if "%" in host or (host != text and not _PORT.fullmatch(port)):
        return None
    number = int(port or 0)
    if number > 65535 or (host != text and not number):
        return None
    try:
        return ipaddress.ip_address(host), number
    except ValueError:
        return None
