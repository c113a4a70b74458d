"""Queries and replies as bytes: the DNS message format (RFC 1035) by twisted.names."""

from __future__ import annotations

import socket
import struct
from typing import Any, Final

from twisted.names import dns

from .reply import CNAME, Item, Kind, Question, Record, Reply, Service, canonical

_HEADER: Final = struct.Struct("!6H")


def encode(question: Question, ident: int) -> bytes:
    """The query for ``question``; ``ident`` is its 16 bits of identification."""
    message = dns.Message(id=ident, recDes=1)
    message.addQuery(question.name.encode("ascii"), question.kind.value, dns.IN)
    return message.toStr()


def decode(packet: bytes, question: Question, ident: int) -> Reply | None:
    """The reply in ``packet``; None if it answers anything but ``question`` with ``ident``.

    That covers what is malformed, cut off without saying so, or made up by others.
    """
    message = dns.Message()
    try:
        message.fromStr(packet)
    except Exception:  # the decoders of twisted.names raise whatever garbage leads them to
        return None
    if not message.answer or message.id != ident or message.opCode != dns.OP_QUERY:
        return None
    if len(message.queries) != 1 or not _asks(message.queries[0], question):
        return None
    if message.trunc:
        return Reply(message.rCode, truncated=True)
    lengths = len(message.answers), len(message.authority), len(message.additional)
    if _HEADER.unpack_from(packet)[3:] != lengths:
        return None
    records = [_record(header) for header in message.answers if header.cls == dns.IN]
    return Reply(
        message.rCode,
        tuple(record for record in records if record is not None),
        negative_ttl=_negative_ttl(message.authority),
    )


def _asks(query: Any, question: Question) -> bool:
    return (
        _name(query.name) == question.name
        and query.type == question.kind.value
        and query.cls == dns.IN
    )


def _name(name: Any) -> str | None:
    text: str = name.name.decode("latin-1")
    return canonical(text)


def _record(header: Any) -> Record | None:
    """None for a type that nobody asked for, or a name that cannot be one."""
    name = _name(header.name)
    value = _value(header.type, header.payload)
    if name is None or value is None:
        return None
    return Record(name, header.type, header.ttl, value)


def _value(kind: int, payload: Any) -> Item | None:
    if kind == Kind.A.value:
        return str(payload.dottedQuad())
    if kind == Kind.AAAA.value:
        return socket.inet_ntop(socket.AF_INET6, payload.address)
    if kind == CNAME:
        return _name(payload.name)
    if kind == Kind.SRV.value:
        target = _name(payload.target)
        # RFC 2782: the target "." says that there is no such service.
        if target is not None:
            return Service(payload.priority, payload.weight, payload.port, target)
    return None


def _negative_ttl(authority: list[Any]) -> int | None:
    for header in authority:
        if header.type == dns.SOA:
            return int(min(header.ttl, header.payload.minimum))
    return None
