"""``listen``: an address and how to listen there."""

from __future__ import annotations

import ipaddress
import re

from attrs import frozen

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import Environment
from imagefarm.config.values import parse_size

_PORT = re.compile(r"\d+", re.ASCII)


@frozen
class Listen:
    """One ``listen``. ``address`` is ``(host, port)``, or ``("unix:/path", 0)``.

    ``host`` is a literal address; "" is all of IPv4 and "::" all of IPv6. ``backlog`` and the
    buffer sizes (bytes) are None where the system decides.
    """

    address: tuple[str, int]
    default: bool = False
    ssl: bool = False
    backlog: int | None = None
    rcvbuf: int | None = None
    sndbuf: int | None = None
    reuseport: bool = False

    @property
    def text(self) -> str:
        """As nginx prints it: ``0.0.0.0:80``, ``[::]:80``, ``unix:/path``."""
        host, port = self.address
        if host.startswith("unix:"):
            return host
        return f"[{host}]:{port}" if ":" in host else f"{host or '0.0.0.0'}:{port}"


def parse_address(text: str) -> tuple[str, int]:
    """``8080``, ``127.0.0.1:80``, ``*:80``, ``[::]:80``, ``localhost``, ``unix:/path``.

    Raises `Invalid` in nginx's words.
    """
    if text.startswith("unix:"):
        if not text[5:].startswith("/"):
            raise Invalid(f'the "{text}" socket path must be absolute in "listen" directive')
        return text, 0
    if _PORT.fullmatch(text):
        return "", _port(text, text)
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise Invalid(f'invalid host in "{text}" of the "listen" directive')
        port = _port(rest[1:], text) if rest else 80
        return _literal(host, text), port
    host, colon, rest = text.partition(":")
    port = _port(rest, text) if colon else 80
    return ("" if host == "*" else _literal(host, text)), port


def _port(word: str, text: str) -> int:
    if not _PORT.fullmatch(word) or not 1 <= int(word) <= 65535:
        raise Invalid(f'invalid port in "{text}" of the "listen" directive')
    return int(word)


def _literal(host: str, text: str) -> str:
    if host == "localhost":
        return "127.0.0.1"
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        raise Invalid(f'host not found in "{text}" of the "listen" directive') from None
    return "" if str(parsed) == "0.0.0.0" else str(parsed)


#: Parameters that change nothing that a client can see; accepted as nginx does.
_HARMLESS = ("deferred", "bind", "so_keepalive", "ipv6only", "fastopen", "setfib", "accept_filter")


def convert_listen(directive: Directive, env: Environment) -> Listen:
    """The converter of ``listen``."""
    values: dict[str, int | bool] = {}
    for word in directive.args[1:]:
        name, equals, value = word.partition("=")
        if name in ("default_server", "default"):
            values["default"] = True
        elif name in ("ssl", "reuseport") and not equals:
            values[name] = True
        elif name == "backlog" and re.fullmatch(r"-?\d+", value):
            values["backlog"] = int(value)
        elif name in ("rcvbuf", "sndbuf") and equals:
            values[name] = parse_size(value)
        elif name in _HARMLESS:
            env.warn(f'the parameter "{word}" of "listen" has no effect here')
        else:
            raise Invalid(f'invalid parameter "{word}"')
    return Listen(parse_address(directive.args[0]), **values)  # type: ignore[arg-type]
