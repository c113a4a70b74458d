"""nginx's variables over a `Request`.

A getter here is a `Variable`: called, it gives bytes as `config.variables.Getter` wants (unset
is empty); its ``lookup`` gives None for what nginx calls "not found", which only the access log
tells from empty (it writes "-").
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
import re
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol

from imagefarm import __version__
from imagefarm.config.errors import Invalid
from imagefarm.config.variables import Getter, Template, VariableTable, encode

from .dates import cached, format_iso8601, format_log, format_ssi_gmt, format_ssi_local
from .filters.slice import VARIABLE, slice_range
from .lookup import Lookup, Stability, Variable, field
from .message import ForwardedPeer, Peer, Request
from .outcome_variables import OUTCOME, OUTCOME_PREFIXES, seconds
from .proxy_protocol import BadProxyHeader, ProxyHeader, split_tlvs
from .requestid import REQUEST_ID, request_id
from .spool import REQUEST_BODY, REQUEST_BODY_FILE
from .tls_variables import LOOKUPS as TLS
from .uri import BadTarget, split_absolute


class LocationLike(Protocol):
    """What variables read of ``request.location``."""

    @property
    def root(self) -> Template | None:
        """``root``."""

    @property
    def alias(self) -> Template | None:
        """``alias``; goes before ``root``."""

    @property
    def prefix(self) -> bytes:
        """The location's prefix; empty for a regular expression."""


# The request line and what was made of it.


def _request_line(request: Request) -> bytes | None:
    head = request.received or request.head
    if not head.method:
        return head.target or None
    if head.version < (1, 0):
        return b"%b %b" % (head.method, head.target)
    return b"%b %b HTTP/%d.%d" % (head.method, head.target, *head.version)


def _request_uri(request: Request) -> bytes | None:
    """The target as received, without the scheme and host of an absolute one."""
    target = request.head.target
    if not request.head.method:
        return None  # it could not be read
    try:
        return split_absolute(target)[1]
    except BadTarget:
        return target or None


def _protocol(request: Request) -> bytes | None:
    if not request.head.method:
        return None  # it could not be read
    return b"HTTP/%d.%d" % request.head.version


def _args(request: Request) -> bytes | None:
    return request.args or None


def _host(request: Request) -> bytes | None:
    return request.host or _server_name(request)


def _server_name(request: Request) -> bytes | None:
    name: bytes | None = getattr(request.server, "name", None)
    return name


# Fields of the request.


def _http(name: str) -> Variable:
    wanted = encode(name.lower())
    return Variable(lambda request: field(request.head.headers, wanted), Stability.BLOCK)


def _arg(name: str) -> Variable:
    wanted = encode(name.lower()) + b"="

    def lookup(request: Request) -> bytes | None:
        for pair in request.args.split(b"&"):
            if pair[: len(wanted)].lower() == wanted:
                return pair[len(wanted) :]
        return None

    return Variable(lookup, Stability.ARGUMENT)


def _cookie(name: str) -> Variable:
    wanted = encode(name.lower())

    def lookup(request: Request) -> bytes | None:
        for pair in (request.head.headers.get(b"cookie") or b"").split(b";"):
            key, equals, value = pair.partition(b"=")
            if equals and key.strip(b" ").lower() == wanted:
                return value.lstrip(b" ")
        return None

    return Variable(lookup, Stability.BLOCK)


def _remote_user(request: Request) -> bytes | None:
    value = request.head.headers.first(b"authorization") or b""
    scheme, _, credentials = value.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        decoded = base64.b64decode(credentials.strip(b" "), validate=True)
    except binascii.Error:
        return None
    user, colon, _ = decoded.partition(b":")
    return user if colon else None


def _forwarded_for(request: Request) -> bytes:
    before = request.head.headers.get(b"x-forwarded-for")
    address = encode(request.peer.address)
    return address if before is None else before + b", " + address


# The connection.


def _binary_address(request: Request) -> bytes:
    try:
        return ipaddress.ip_address(request.peer.address).packed
    except ValueError:
        return encode(request.peer.address)


def _port(number: int) -> bytes:
    """A port; a unix-domain socket has none."""
    return b"%d" % number if number else b""


def _original(request: Request) -> Peer:
    """The peer before ``real_ip_header`` has changed its address."""
    peer = request.peer
    return peer.original or peer if isinstance(peer, ForwardedPeer) else peer


def _proxy(show: Callable[[ProxyHeader], str | int]) -> Lookup:
    """Of the PROXY header, if there was one; addresses that it did not name are unset."""

    def lookup(request: Request) -> bytes | None:
        header = getattr(request.peer, "proxy", None)
        if header is None or not header.source:
            return None
        return encode(str(show(header)))

    return lookup


def _server_addr(request: Request) -> bytes:
    own = request.peer.socket
    return encode(request.peer.server[0] if own is None else own.address)


_HEXADECIMAL: Final = re.compile(r"0x[0-9a-fA-F]{1,2}")
#: The client's flags and the result of verification, before the TLVs inside.
_SSL_HEAD: Final = 5
#: Where in ``struct tcp_info`` what nginx has a variable for stands.
_TCP_INFO: Final[Mapping[str, int]] = {
    "tcpinfo_rtt": 15, "tcpinfo_rttvar": 16, "tcpinfo_snd_cwnd": 18, "tcpinfo_rcv_space": 22,
}  # fmt: skip


def _tcp_info(word: int) -> Lookup:
    def lookup(request: Request) -> bytes | None:
        own = request.peer.socket
        info = None if own is None else own.tcp_info()
        return None if info is None else b"%d" % info[word]

    return lookup


def needs_socket(names: Collection[str], *, wildcard: bool) -> bool:
    """Whether variables of these ``names`` need `Peer.socket`; ``wildcard``: of an address that
    is all addresses.
    """
    return (wildcard and "server_addr" in names) or not _TCP_INFO.keys().isdisjoint(names)


#: nginx's names of TLVs, and of those inside of PP2_TYPE_SSL (proxy-protocol.txt section 2.2).
_TLVS: Final[Mapping[str, int]] = {
    "alpn": 0x01, "authority": 0x02, "unique_id": 0x05, "ssl": 0x20, "netns": 0x30,
}  # fmt: skip
_SSL_TLVS: Final[Mapping[str, int]] = {
    "version": 0x21, "cn": 0x22, "cipher": 0x23, "sig_alg": 0x24, "key_alg": 0x25,
}  # fmt: skip


def _tlv(name: str) -> Variable:
    """``$proxy_protocol_tlv_alpn``, ``_0x01``, ``_ssl_cn``: of the PROXY header, version 2."""
    inner = _SSL_TLVS.get(name.removeprefix("ssl_")) if name.startswith("ssl_") else None
    wanted = _TLVS.get(name, int(name, 16) if _HEXADECIMAL.fullmatch(name) else None)
    if inner is None and wanted is None and name != "ssl_verify":
        raise Invalid(f'unknown PROXY protocol TLV "{name}"')

    def lookup(request: Request) -> bytes | None:
        header = getattr(request.peer, "proxy", None)
        tlvs = () if header is None else header.tlvs
        if inner is None and name != "ssl_verify":
            return next((tlv.value for tlv in tlvs if tlv.type == wanted), None)
        block = next((tlv.value for tlv in tlvs if tlv.type == _TLVS["ssl"]), b"")
        if len(block) < _SSL_HEAD:
            return None
        if name == "ssl_verify":
            return b"%d" % int.from_bytes(block[1:_SSL_HEAD], "big")
        try:
            return next((tlv.value for tlv in split_tlvs(block[5:]) if tlv.type == inner), None)
        except BadProxyHeader:
            return None

    return Variable(lookup)


# Files.


def _root(request: Request) -> bytes | None:
    location: LocationLike | None = request.location
    template = location and (getattr(location, "alias", None) or getattr(location, "root", None))
    return template(request) if template else None


def _filename(request: Request) -> bytes | None:
    base = _root(request)
    if base is None:
        return None
    location: LocationLike = request.location
    if getattr(location, "alias", None) is None:
        return base + request.uri
    # In a location by regular expression the alias is the whole path.
    return base + request.uri[len(location.prefix) :] if location.prefix else base


def _realpath(request: Request) -> bytes | None:
    base = _root(request)
    return None if base is None else os.path.realpath(base)


# Captures and variables of the configuration's own.


def _capture(number: int) -> Variable:
    def lookup(request: Request) -> bytes | None:
        match = request.captures
        if match is None or number > (match.re.groups or 0):
            return None
        return match[number]

    return Variable(lookup)


def _defined(name: str) -> Variable:
    def lookup(request: Request) -> bytes | None:
        value = request.variables.get(name)
        if value is not None:
            return value
        match: re.Match[bytes] | None = request.captures
        if match is not None and name in match.re.groupindex:
            return match[name]
        return None

    return Variable(lookup)


def _assigned(name: str) -> Variable:
    return Variable(lambda request: request.variables.get(name, b""))


def _connections(*states: int) -> Lookup:
    """The process's own connections in some of the states: reading, writing, waiting."""

    def lookup(request: Request) -> bytes | None:
        counts = getattr(request.location, "connections", None)
        return None if counts is None else b"%d" % sum(counts()[state] for state in states)

    return lookup


_FIXED: Final[Mapping[str, Lookup]] = {
    "args": _args,
    "binary_remote_addr": _binary_address,
    "connection": lambda request: b"%d" % request.peer.serial,
    "connections_active": _connections(0, 1, 2),
    "connections_reading": _connections(0),
    "connections_waiting": _connections(2),
    "connections_writing": _connections(1),
    "connection_requests": lambda request: b"%d" % request.number,
    "content_length": lambda request: request.head.headers.first(b"content-length"),
    "content_type": lambda request: request.head.headers.first(b"content-type"),
    "document_root": _root,
    "document_uri": lambda request: request.uri or None,
    "fastcgi_path_info": lambda request: b"",
    "fastcgi_script_name": lambda request: request.uri,
    "host": _host,
    "hostname": lambda request: encode(os.uname().nodename.lower()),
    "https": lambda request: b"on" if request.peer.tls else b"",
    "is_args": lambda request: b"?" if request.args else b"",
    "nginx_version": lambda request: __version__.encode(),
    "pid": lambda request: b"%d" % os.getpid(),
    "pipe": lambda request: b"p" if request.pipelined else b".",
    "proxy_add_x_forwarded_for": _forwarded_for,
    "proxy_protocol_addr": _proxy(lambda header: header.source),
    "proxy_protocol_port": _proxy(lambda header: header.source_port),
    "proxy_protocol_server_addr": _proxy(lambda header: header.destination),
    "proxy_protocol_server_port": _proxy(lambda header: header.destination_port),
    "query_string": _args,
    "realip_remote_addr": lambda request: encode(_original(request).address),
    "realip_remote_port": lambda request: _port(_original(request).port),
    "realpath_root": _realpath,
    "remote_addr": lambda request: encode(request.peer.address),
    "remote_port": lambda request: _port(request.peer.port),
    "remote_user": _remote_user,
    "request": _request_line,
    "request_filename": _filename,
    "request_body": lambda request: request.variables.get(REQUEST_BODY) or None,
    "request_body_file": lambda request: request.variables.get(REQUEST_BODY_FILE) or None,
    "request_length": lambda request: b"%d" % request.length,
    "request_method": lambda request: request.head.method or None,
    "request_uri": _request_uri,
    "scheme": lambda request: b"https" if request.peer.tls else b"http",
    "server_addr": _server_addr,
    "server_name": _server_name,
    "server_port": lambda request: _port(request.peer.server[1]),
    "server_protocol": _protocol,
    **{name: _tcp_info(word) for name, word in _TCP_INFO.items()},
    **OUTCOME,
    **TLS,
    VARIABLE: slice_range,
    "uri": lambda request: request.uri or None,
}

_PREFIXES: Final[Mapping[str, Callable[[str], Getter]]] = {
    "arg_": _arg,
    "cookie_": _cookie,
    "http_": _http,
    "proxy_protocol_tlv_": _tlv,
    **OUTCOME_PREFIXES,
}


#: Variables whose value is the same for each repetition of an answer to the same client.
_OF_ANSWER: Final = frozenset({
    "binary_remote_addr", "gzip_ratio", "proxy_add_x_forwarded_for", "realip_remote_addr",
    "remote_addr", "request_body", "request_body_file", "request_completion", "status",
})  # fmt: skip
_OF_BLOCK: Final = frozenset({"content_length", "content_type", "remote_user"})
_OF_HOST: Final = frozenset({
    "host", "hostname", "https", "is_args", "nginx_version", "request_method", "scheme",
    "server_name", "server_port", "server_protocol",
})  # fmt: skip
_OF_UPSTREAM: Final = frozenset({
    "upstream_addr", "upstream_bytes_received", "upstream_bytes_sent", "upstream_connect_time",
    "upstream_header_time", "upstream_response_length",
    "upstream_response_time", "upstream_status",
})  # fmt: skip
_STABILITIES: Final[Mapping[str, Stability]] = MappingProxyType(
    dict.fromkeys(_OF_ANSWER, Stability.ANSWER)
    | dict.fromkeys(_OF_BLOCK, Stability.BLOCK)
    | dict.fromkeys(_OF_HOST, Stability.HOST)
    | dict.fromkeys(_OF_UPSTREAM, Stability.UPSTREAM)
    | {
        "args": Stability.QUERY,
        "body_bytes_sent": Stability.BODY,
        "connection": Stability.CONNECTION,
        "bytes_sent": Stability.SENT,
        "date_gmt": Stability.CLOCK,
        "date_local": Stability.CLOCK,
        "document_uri": Stability.PATH,
        "msec": Stability.CLOCK,
        "query_string": Stability.QUERY,
        "request": Stability.LINE,
        "request_length": Stability.SIZE,
        "request_time": Stability.DURATION,
        "request_uri": Stability.TARGET,
        "time_iso8601": Stability.CLOCK,
        "time_local": Stability.CLOCK,
        "upstream_cache_status": Stability.CACHE,
        "uri": Stability.PATH,
    }
)


def _timed(clock: Callable[[], float]) -> dict[str, Lookup]:
    local, iso8601 = cached(format_log), cached(format_iso8601)
    ssi_gmt, ssi_local = cached(format_ssi_gmt), cached(format_ssi_local)
    return {
        "connection_time": lambda request: seconds(clock() - _original(request).opened),
        "date_gmt": lambda request: ssi_gmt(clock()),
        "date_local": lambda request: ssi_local(clock()),
        "msec": lambda request: seconds(clock()),
        "request_time": lambda request: seconds(clock() - request.started),
        "time_iso8601": lambda request: iso8601(clock()),
        "time_local": lambda request: local(clock()),
    }


def variable_table(
    extra: Mapping[str, Getter] | None = None,
    *,
    clock: Callable[[], float],
    random: Callable[[int], bytes] = os.urandom,
) -> VariableTable:
    """All variables of this package and the ``extra`` ones, which go before ours.

    ``clock`` gives seconds since the epoch, ``random`` that many random bytes. An extra name
    that ends in "_" would be a prefix in nginx; here all of them are exact.
    """
    known = {**_FIXED, **_timed(clock)}
    other = Stability.REQUEST
    exact: dict[str, Any] = {
        name: Variable(lookup, _STABILITIES.get(name, other)) for name, lookup in known.items()
    }
    exact[REQUEST_ID] = Variable(lambda request: request_id(request, random), Stability.NAME)
    exact.update(extra or {})
    return VariableTable(
        exact=exact, prefixes=_PREFIXES, defined=_defined, capture=_capture, assigned=_assigned
    )
