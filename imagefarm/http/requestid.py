"""``$request_id``: one name for a request in all processes that it goes through.

It is made by the first of them and passed on in a field (``proxy_set_header``, ``fastcgi_param``).
Who is behind a trusted one takes what that says: ``request_id_from``.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from typing import Final

from attrs import frozen

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import HTTP, SERVER, Environment, Row

from .headers import Headers
from .message import ForwardedPeer, Peer, Request

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Clients of whom it is remembered whether they are believed.
MAX_CLIENTS: Final = 1024
#: The name of the variable that keeps it.
REQUEST_ID: Final = "request_id"

_FIELD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: What is taken from others: nothing that could break a line of a log, or a field.
_TRUSTED: Final = re.compile(rb"[0-9A-Za-z._=+/-]{8,128}")


@frozen
class TrustedId:
    """The field that is believed, and from whom; ``sources`` None: from everybody."""

    field: bytes
    sources: tuple[Network | str, ...] | None = None
    #: The field as the configuration spells it.
    spelling: bytes = b""

    def of(self, request: Request) -> bytes | None:
        """What ``request`` says it is called, if that is to be believed."""
        found = request.head.headers.first(self.field)
        if found is None or not _TRUSTED.fullmatch(found) or not self.trusts(request.peer):
            return None
        return found

    def trusts(self, peer: Peer) -> bool:
        """Whether a client, or who speaks for it, is believed."""
        if self.sources is None:
            return True
        if isinstance(peer, ForwardedPeer):
            peer = peer.original or peer
        if peer.address == "unix:":
            return "unix:" in self.sources
        try:
            address = ipaddress.ip_address(peer.address)
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in source for source in self.sources if not isinstance(source, str))


def _request_id_from(directive: Directive, env: Environment) -> TrustedId | None:
    name, *words = directive.args
    if name == "off":
        if words:
            raise Invalid(f'invalid parameter "{words[0]}"')
        return None
    if not _FIELD.fullmatch(name):
        raise Invalid(f'invalid field name "{name}"')
    sources: list[Network | str] = []
    for word in words:
        try:
            sources.append(word if word == "unix:" else ipaddress.ip_network(word, strict=False))
        except ValueError:
            raise Invalid(f'invalid address "{word}"') from None
    return TrustedId(name.lower().encode(), tuple(sources) or None, name.encode())


REQUEST_ID_FROM: Final[Row[TrustedId | None]] = Row(
    name="request_id_from", contexts=frozenset({HTTP, SERVER}), arity=(1, None),
    convert=_request_id_from, default=None, default_text="off",
    syntax="off | field [address | CIDR | unix:] ...",
    doc="The field of the request that `$request_id` is taken from, where the connection comes "
    "from one of these addresses (from any, if none is named). A value of other characters than "
    "letters, digits and ._=+/-, or not of 8 to 128 of them, is not taken. nginx lacks this.",
)  # fmt: skip


class Naming:
    """Finds a believed request id in the bytes of a request.

    Requests that are the same but for it can be recognised then (`http.plans`).
    """

    def __init__(self, trusted: TrustedId) -> None:
        self._trusted = trusted
        self._before = b"\r\n" + trusted.spelling + b": "
        self._known: dict[str, bool] = {}

    def cut(self, data: bytes, end: int, peer: Peer) -> tuple[bytes, bytes]:
        """``data`` without it, and the id; empty where there is none. The line ends at ``end``."""
        at = data.find(self._before, end)
        if at < 0:
            return data, b""
        start = at + len(self._before)
        stop = data.find(b"\r", start)
        name = data[start:stop]
        if not _TRUSTED.fullmatch(name) or not self._believes(peer):
            return data, b""
        # No request that is read has a NUL: it is told from one that has no id.
        return b"%b\0%b" % (data[:start], data[stop:]), name

    def _believes(self, peer: Peer) -> bool:
        known = self._known.get(peer.address)
        if known is None:
            if len(self._known) >= MAX_CLIENTS:
                self._known.clear()
            known = self._known[peer.address] = self._trusted.trusts(peer)
        return known

    def clear(self, headers: Headers) -> bool:
        """Whether there is no more than one such field, however it is spelled."""
        return len(list(headers.getall(self._trusted.field))) <= 1


def fresh_id(random: Callable[[int], bytes] = os.urandom) -> bytes:
    """A new one: 16 random bytes in hexadecimal, as nginx makes them."""
    return random(16).hex().encode()


def request_id(request: Request, random: Callable[[int], bytes] = os.urandom) -> bytes:
    """The request's, one and the same wherever it is asked for."""
    found = request.variables.get(REQUEST_ID)
    if found is None:
        trusted: TrustedId | None = getattr(request.location, "trusted_id", None)
        if trusted is not None:
            found = trusted.of(request)
        found = request.variables[REQUEST_ID] = found or fresh_id(random)
    return found
