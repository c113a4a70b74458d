"""``listen``: an address and how to listen there."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import evolve, frozen

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import Environment
from imagefarm.config.values import parse_size, parse_time

_PORTS: Final = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)
_HTTP: Final = range(80, 81)


#: so_keepalive's times: idle, interval (seconds) and count; 0 is the system's own.
KeepAlive = tuple[int, int, int]


@frozen
class Listen:
    """One ``listen``. ``address`` is ``(host, port)``, or ``("unix:/path", 0)``. ``ports`` is how
    many there are in a range that begins with it; `each` makes them single.

    ``host`` is a literal address; "" is all of IPv4 and "::" all of IPv6. ``explicit`` says that
    an option of the socket was given: the address is bound by itself, and no other ``listen``
    may give options for it. Sizes are in bytes; None is the default.
    """

    address: tuple[str, int]
    ports: int = 1
    default: bool = False
    ssl: bool = False
    proxy_protocol: bool = False
    explicit: bool = False
    backlog: int | None = None
    rcvbuf: int | None = None
    sndbuf: int | None = None
    fastopen: int | None = None
    reuseport: bool = False
    deferred: bool = False
    ipv6only: bool = True
    so_keepalive: bool | KeepAlive | None = None

    def each(self) -> Iterator[Listen]:
        """One for each port."""
        host, first = self.address
        for port in range(first, first + self.ports):
            yield evolve(self, address=(host, port), ports=1)

    @property
    def text(self) -> str:
        """As nginx prints it: ``0.0.0.0:80``, ``[::]:80``, ``unix:/path``."""
        host, port = self.address
        if host.startswith("unix:"):
            return host
        return f"[{host}]:{port}" if ":" in host else f"{host or '0.0.0.0'}:{port}"

    @property
    def port(self) -> tuple[bool, int] | None:
        """What nginx calls a port: whether of IPv6, and the number. None for Unix sockets."""
        host, number = self.address
        return None if host.startswith("unix:") else (":" in host, number)

    @property
    def unix(self) -> bool:
        """Whether it is a Unix socket."""
        return self.address[0].startswith("unix:")

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        host = self.address[0]
        return self.unix or (host != "" and ipaddress.ip_address(host).is_loopback)

    @property
    def wildcard(self) -> bool:
        """Whether it is all addresses of its port."""
        return self.address[0] in ("", "::")


def parse_address(text: str) -> tuple[str, int]:
    """``8080``, ``127.0.0.1:80``, ``*:80``, ``[::]:80``, ``localhost``, ``unix:/path``.

    Raises `Invalid` in nginx's words.
    """
    host, ports = _parse(text)
    if len(ports) > 1:
        raise _invalid("port", text)
    return host, ports[0]


def _parse(text: str) -> tuple[str, range]:
    """As `parse_address`, with the ports of a range (``8080-8089``)."""
    if text.startswith("unix:"):
        if text == "unix:":
            raise Invalid(
                f'no path in the unix domain socket in "{text}" of the "listen" directive'
            )
        if not text[5:].startswith("/"):
            raise Invalid(f'the "{text}" socket path must be absolute in "listen" directive')
        return text, range(1)
    if _PORTS.fullmatch(text):
        return "", _ports(text, text)
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise Invalid(f'invalid host in "{text}" of the "listen" directive')
        ports = _ports(rest[1:], text) if rest else _HTTP
        return _literal(host, text), ports
    host, colon, rest = text.partition(":")
    ports = _ports(rest, text) if colon else _HTTP
    return ("" if host == "*" else _literal(host, text)), ports


def _ports(word: str, text: str) -> range:
    found = _PORTS.fullmatch(word)
    if found is None:
        raise _invalid("port", text)
    first = int(found[1])
    last = first if found[2] is None else int(found[2])
    if not 1 <= first <= 65535 or not 1 <= last <= 65535:
        raise _invalid("port", text)
    if last < first:
        raise _invalid("port range", text)
    return range(first, last + 1)


def _invalid(what: str, text: str) -> Invalid:
    return Invalid(f'invalid {what} in "{text}" of the "listen" directive')


def _literal(host: str, text: str) -> str:
    if host == "localhost":
        return "127.0.0.1"
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        raise Invalid(f'host not found in "{text}" of the "listen" directive') from None
    return "" if str(parsed) == "0.0.0.0" else str(parsed)


def _count(name: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value) or (name == "backlog" and not int(value)):
        raise Invalid(f'invalid {name} "{name}={value}"')
    return int(value)


def _buffer(name: str, value: str) -> int:
    try:
        return parse_size(value)
    except Invalid:
        raise Invalid(f'invalid {name} "{name}={value}"') from None


def _ipv6only(name: str, value: str) -> bool:
    if value not in ("on", "off"):
        raise Invalid(f'invalid parameter "ipv6only={value}"')
    return value == "on"


def _keepalive(name: str, value: str) -> bool | KeepAlive:
    if value in ("on", "off"):
        return value == "on"
    idle, interval, count, *more = [*value.split(":"), "", ""]
    try:
        if any(more) or len(more) > 2 or not (idle or interval or count):
            raise Invalid("nothing, or too much")
        times = [int(parse_time(word)) if word else 0 for word in (idle, interval)]
        return times[0], times[1], _count(name, count) if count else 0
    except Invalid:
        raise Invalid(f'invalid so_keepalive value: "{value}"') from None


#: Options of the socket: with a value, and without.
_VALUES: Final[Mapping[str, Callable[[str, str], Any]]] = {
    "backlog": _count,
    "fastopen": _count,
    "rcvbuf": _buffer,
    "sndbuf": _buffer,
    "ipv6only": _ipv6only,
    "so_keepalive": _keepalive,
}
_WORDS: Final = ("bind", "deferred", "reuseport")


def convert_listen(directive: Directive, env: Environment) -> Listen:
    """The converter of ``listen``."""
    values: dict[str, Any] = {}
    for word in directive.args[1:]:
        name, equals, value = word.partition("=")
        if word in ("default_server", "default"):
            values["default"] = True
        elif word in ("ssl", "proxy_protocol"):
            values[word] = True
        elif word in _WORDS:
            values["explicit"] = True
            if word != "bind":
                values[word] = True
        elif equals and name in _VALUES:
            values["explicit"] = True
            values[name] = _VALUES[name](name, value)
        elif word in ("http2", "spdy"):
            env.warn(f'the parameter "{word}" of "listen" has no effect: it is HTTP/1.1 here')
        elif name == "accept_filter" and equals:
            env.warn(f'accept filters "{word}" are not supported on this platform, ignored')
        else:
            raise Invalid(f'invalid parameter "{word}"')
    host, ports = _parse(directive.args[0])
    return Listen((host, ports[0]), len(ports), **values)


def merged(listens: Sequence[Listen]) -> Listen:
    """One socket for one address: the options of the one that gives any, TLS and PROXY protocol
    if any server says so.
    """
    first = next((listen for listen in listens if listen.explicit), listens[0])
    return evolve(
        first,
        ssl=any(listen.ssl for listen in listens),
        proxy_protocol=any(listen.proxy_protocol for listen in listens),
    )


def shared(listens: Sequence[Listen]) -> dict[Listen, list[Listen]]:
    """Which addresses are bound, each with those that share its socket.

    As in nginx, where all addresses of a port are listened on, single ones of that port are not
    bound by themselves, unless they have options of their own.
    """
    wildcards = {listen.port: listen for listen in listens if listen.wildcard}
    found: dict[Listen, list[Listen]] = {}
    for listen in listens:
        owner = wildcards.get(listen.port)
        if owner is None or listen.wildcard or listen.explicit:
            found.setdefault(listen, [])
        else:
            found.setdefault(owner, []).append(listen)
    return found
