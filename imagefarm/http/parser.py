"""Reading request heads, sans-IO and strict (RFC 9112 sections 2 to 6).

Our own rather than httptools: llhttp is made to be fed by callbacks and forgives a good deal
(bare LF after some lines, several Host lines, odd Host values, versions it does not know),
while splitting a whole block at CRLF is as fast and leaves nothing unseen.

The strategy: find the empty line, and prove with one ``bytes.translate`` over the block that
all its control characters are the CRLFs between the lines. What remains is a loop over short
lines. An incomplete head is only looked at to refuse it early: the request line as soon as it
is there, a stray control character or a limit at once.

Errors do not depend on how the bytes were cut: the request line is judged first and alone
(400, 414, 505), whatever is wrong with the lines after it is 400, and only a whole, well-formed
head is asked for its meaning (400, 405, 417, 501).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address
from typing import Final

from attrs import evolve, frozen

from .headers import Headers
from .message import RequestHead

#: What may stand in a line: HTAB, SP, VCHAR and obs-text (RFC 9110 section 5.5).
_TEXT: Final = bytes((0x09, *range(0x20, 0x7F), *range(0x80, 0x100)))
#: RFC 9110 section 5.6.2.
_TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#: What nginx calls a valid header name; ``underscores_in_headers`` adds "_".
_PLAIN: Final = b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CRLF: Final = b"\r\n"
_END: Final = b"\r\n\r\n"

_VERSION: Final = re.compile(rb"HTTP/[0-9]\.[0-9]")
#: uri-host [ ":" port ] (RFC 9110 section 7.2), with a host that is not empty. A comma, which
#: RFC 3986 allows in a name, is refused: it is two Host lines that something has joined.
_AUTHORITY: Final = re.compile(
    rb"(\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2})+)(?::([0-9]{0,5}))?"
)
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)

#: The fields that decide about framing and the connection.
_WATCHED: Final = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"connection", b"expect")
)
#: Digits of a Content-Length; more can't be meant.
_MAX_LENGTH_DIGITS: Final = 18
_MAX_PORT: Final = 65535
_EMPTY_HEAD: Final = RequestHead(b"", b"", (1, 1), Headers())


class BadRequest(Exception):
    """A request that can't be read; ``status`` answers it and the connection is closed.

    ``head`` holds what was understood of it, for the log and the error page.
    """

    def __init__(self, status: int, reason: str, head: RequestHead = _EMPTY_HEAD) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.head = head


@frozen
class Limits:
    """How much of a head we take; the names are nginx's directives, sizes in bytes.

    A line (with its CRLF) must fit into one of the large buffers (else 414 for the request line,
    400 for a field), the whole head into all of them and the first one. ``max_headers`` bounds
    the number of field lines (400).
    """

    client_header_buffer_size: int = 1024
    large_client_header_buffers: tuple[int, int] = (4, 8192)
    max_headers: int = 1000
    ignore_invalid_headers: bool = True
    underscores_in_headers: bool = False

    @property
    def line(self) -> int:
        """The most bytes in a line, with its CRLF."""
        return max(self.client_header_buffer_size, self.large_client_header_buffers[1])

    @property
    def total(self) -> int:
        """The most bytes in a head."""
        count, size = self.large_client_header_buffers
        return self.client_header_buffer_size + count * size


def widest(all_limits: Sequence[Limits]) -> Limits:
    """What some of them take."""
    buffers = [limits.large_client_header_buffers for limits in all_limits]
    return Limits(
        max(limits.client_header_buffer_size for limits in all_limits),
        (max(count for count, _ in buffers), max(size for _, size in buffers)),
    )


@frozen(eq=False)
class NamedLimits:
    """The limits of an address whose servers have different ones.

    As in nginx a server's are in force from where it is named: by SNI, in the target, or by the
    Host field, for the fields after it. ``find`` takes a name as `ParsedHead.host` is one;
    ``timeout`` gives its ``client_header_timeout`` in seconds. ``widest`` is what some server
    takes.
    """

    find: Callable[[bytes], Limits]
    timeout: Callable[[bytes], float]
    widest: Limits


@frozen(eq=False)
class ParsedHead:
    """A request head and what it says about the message and the connection.

    ``length`` is the body's (None: chunked); ``host`` is ``$host``: lower case, without port
    and final dot, empty if an HTTP/1.0 request has none. ``size`` counts the head's bytes.
    """

    head: RequestHead
    host: bytes
    length: int | None
    keep_alive: bool
    expects_continue: bool
    size: int
    #: It came together with the end of the one before.
    pipelined: bool = False


class RequestParser:
    """Collects bytes until they are a request head.

    ``feed`` and ``next_head`` find heads, ``take`` hands out what follows one: the body, and
    the next request.
    """

    __slots__ = ("_data", "_limits", "_line_seen", "_named", "_verified", "pipelined")

    def __init__(
        self,
        limits: Limits,
        data: bytes = b"",
        *,
        pipelined: bool = False,
        named: NamedLimits | None = None,
    ) -> None:
        self._limits = limits
        self._named = named
        self._data = data
        #: Whether the next head has come together with the end of the one before.
        self.pipelined = pipelined
        self._forget()

    def _forget(self) -> None:
        self._verified = 0  # nothing before it can hold the end, or a stray control character
        self._line_seen = False

    @property
    def pending(self) -> int:
        """The number of bytes that wait."""
        return len(self._data)

    def feed(self, data: bytes) -> None:
        """Take some bytes."""
        self._data = self._data + data if self._data else data

    def take(self) -> bytes:
        """Everything that waits; the parser is empty afterwards."""
        data, self._data = self._data, b""
        self._forget()
        return data

    def next_head(self) -> ParsedHead | None:
        """The next head if it is complete. Raises `BadRequest`."""
        try:
            return self._next_head()
        except BadRequest as error:
            if error.head is _EMPTY_HEAD:
                error.head = _unread(self._data[: self._limits.line])
            raise

    def _next_head(self) -> ParsedHead | None:
        data = self._data
        if not data:
            return None
        if data[0] in _CRLF and not self._skip_empty_lines():
            return None
        data = self._data
        end = data.find(_END, self._verified)
        if end < 0:
            self._check_incomplete(data)
            return None
        parsed = parse_head(data[:end], self._limits, self._named)
        if self.pipelined:
            parsed = evolve(parsed, pipelined=True)
        self._data = data[end + 4 :]
        self.pipelined = bool(self._data)
        self._forget()
        return parsed

    def _skip_empty_lines(self) -> bool:
        """RFC 9112 section 2.2: ignore empty lines before the request line."""
        data = self._data
        start = 0
        while data.startswith(_CRLF, start):
            start += 2
        self._data = data = data[start:]
        if data[:1] == b"\n" or (data[:1] == b"\r" and len(data) > 1):
            raise BadRequest(400, "bare CR or LF before the request line")
        return bool(data) and data != b"\r"

    def _check_incomplete(self, data: bytes) -> None:
        """Refuse what can't become a head, so that nobody has to wait for its end."""
        if not self._line_seen:
            limit = self._limits.line
            newline = data.find(b"\n", 0, limit)
            if newline >= 0:
                if data[newline - 1] != 0x0D:
                    raise BadRequest(400, "bare LF in the request line")
                _request_line(data[: newline - 1], limit)
                self._line_seen = True
                self._verified = newline - 1
            else:
                _check_start(data, limit)
                return
        rest = data[self._verified :]  # begins with the CRLF of the line before
        lines = rest.split(_CRLF)
        stray = rest.translate(None, _TEXT)
        whole = _CRLF * (len(lines) - 1)
        if stray != whole and stray != whole + b"\r":
            raise BadRequest(400, "control character in a field line")
        last = lines.pop()
        self._verified = len(data) - len(last) - 2
        longest = max(map(len, lines)) + 2
        limits = self._limits if self._named is None else self._named.widest
        if longest > limits.line or len(last) > limits.line or len(data) > limits.total:
            raise BadRequest(400, "request header too large")
        if stray.endswith(b"\r") and not data.endswith(b"\r"):
            raise BadRequest(400, "bare CR in a field line")


def _unread(data: bytes) -> RequestHead:
    """A head for the log: as ``target``, with no method, the line that couldn't be read."""
    line = data.replace(b"\n", b"\r").partition(b"\r")[0]
    return RequestHead(b"", line, (1, 1), Headers())


def _check_start(data: bytes, limit: int) -> None:
    """Judge a request line that has no end within ``limit`` yet. Raises `BadRequest`."""
    text = data[:limit]
    if text.endswith(b"\r") and data[limit : limit + 1] in (b"", b"\n"):
        text = text[:-1]  # half of the CRLF
    if text.translate(None, _TEXT):
        raise BadRequest(400, "control character in the request line")
    if len(data) > limit:
        raise BadRequest(414, "request line too long")


def _request_line(line: bytes, limit: int) -> RequestHead:
    """Parse a request line, given without its CRLF. Raises `BadRequest`."""
    if line[:limit].translate(None, _TEXT):
        raise BadRequest(400, "control character in the request line")
    if len(line) + 2 > limit:
        raise BadRequest(414, "request line too long")
    words = line.split(b" ")
    if len(words) != 3 or b"\t" in line:
        raise BadRequest(400, "malformed request line")  # HTTP/0.9 as well
    method, target, protocol = words
    if not method or method.translate(None, _TOKEN):
        raise BadRequest(400, "malformed method")
    if not target:
        raise BadRequest(400, "empty request target")
    if protocol == b"HTTP/1.1":
        return RequestHead(method, target, (1, 1), Headers())
    if protocol == b"HTTP/1.0":
        return RequestHead(method, target, (1, 0), Headers())
    head = RequestHead(method, target, (1, 1), Headers())
    if _VERSION.fullmatch(protocol):
        if protocol.startswith(b"HTTP/1."):
            return head  # RFC 9110 section 2.5: as the highest minor version that we know
        raise BadRequest(505, "HTTP version not supported", head)
    raise BadRequest(400, "malformed HTTP version", head)


def parse_field(line: bytes) -> tuple[bytes, bytes] | None:
    """Split a field line without its CRLF; None if it is malformed.

    No white space before the colon and no obs-fold (RFC 9112 sections 5.1 and 5.2): either is
    part of the name, and a name is a token. Control characters are the caller's to refuse.
    """
    name, colon, value = line.partition(b":")
    if not colon or not name or name.translate(None, _TOKEN):
        return None
    return name, value.strip(b" \t")


def parse_head(block: bytes, limits: Limits, named: NamedLimits | None = None) -> ParsedHead:
    """Parse a head, given without the empty line at its end. Raises `BadRequest`.

    ``limits`` are in force until the target or Host leads to others, where there are ``named``.
    """
    lines = block.split(_CRLF)
    first = _request_line(lines[0], limits.line)
    if block.translate(None, _TEXT) != _CRLF * (len(lines) - 1):
        raise BadRequest(400, "control character in a field line", first)
    if named is not None and (absolute := _ABSOLUTE.match(first.target)) is not None:
        limits, named = _limits_of(absolute[1], limits, named), None  # whatever Host says
    del lines[0]
    fields, watched = _fields(lines, limits, named, first)
    if named is not None and b"host" in watched:
        limits = _limits_of(watched[b"host"][0], limits, named)
    if len(block) + 4 > limits.total or len(lines) > limits.max_headers:
        raise BadRequest(400, "request header too large", first)
    head = RequestHead(first.method, first.target, first.version, Headers(fields))
    return _interpret(head, watched, len(block) + 4)


def _fields(
    lines: list[bytes], limits: Limits, named: NamedLimits | None, first: RequestHead
) -> tuple[list[tuple[bytes, bytes]], dict[bytes, list[bytes]]]:
    """The fields of ``lines``, and the values of those that decide about the message."""
    longest, plain = limits.line, _plain(limits)
    fields: list[tuple[bytes, bytes]] = []
    watched: dict[bytes, list[bytes]] = {}
    for line in lines:
        if len(line) + 2 > longest:
            raise BadRequest(400, "request header too large", first)
        name, colon, value = line.partition(b":")
        if not colon or not name or name.translate(None, plain):
            if parse_field(line) is None:
                raise BadRequest(400, "malformed field line", first)
            if _drops(name, limits):
                continue
        value = value.strip(b" \t")
        fields.append((name, value))
        lower = name.lower()
        if lower in _WATCHED:
            watched.setdefault(lower, []).append(value)
            if named is not None and lower == b"host":
                limits = _limits_of(value, limits, named)
                longest, plain = limits.line, _plain(limits)
    return fields, watched


def _plain(limits: Limits) -> bytes:
    return _PLAIN + b"_" if limits.underscores_in_headers else _PLAIN


def _limits_of(authority: bytes, limits: Limits, named: NamedLimits) -> Limits:
    """The limits that a Host or a target leads to; ``limits`` where it is malformed."""
    match = _AUTHORITY.fullmatch(authority)
    return limits if match is None else named.find(_host_name(match))


def _drops(name: bytes, limits: Limits) -> bool:
    """nginx's ``ignore_invalid_headers``: also keeps X_Y from passing for X-Y in HTTP_X_Y."""
    if limits.ignore_invalid_headers:
        return True
    return b"_" in name and not limits.underscores_in_headers


def _interpret(head: RequestHead, watched: dict[bytes, list[bytes]], size: int) -> ParsedHead:
    """What the head means for the message and the connection. Raises `BadRequest`."""
    host = _host(head, watched.get(b"host", []))
    length = _body_length(head, watched)
    if head.method in (b"CONNECT", b"TRACE"):
        raise BadRequest(405, "method not allowed", head)
    expect = watched.get(b"expect")
    expects = False
    if expect is not None and head.version == (1, 1):
        if len(expect) > 1 or expect[0].lower() != b"100-continue":
            raise BadRequest(417, "unknown expectation", head)  # RFC 9110 section 10.1.1
        expects = length != 0
    options = _members(watched.get(b"connection", []))
    keep = b"close" not in options and (head.version == (1, 1) or b"keep-alive" in options)
    return ParsedHead(head, host, length, keep, expects, size)


def _members(values: list[bytes]) -> list[bytes]:
    """The members of a comma-separated list, in lower case."""
    return [word.strip(b" \t") for value in values for word in value.lower().split(b",")]


def _body_length(head: RequestHead, watched: dict[bytes, list[bytes]]) -> int | None:
    """The body's length, None for chunked. Raises `BadRequest` (RFC 9112 section 6)."""
    lengths = watched.get(b"content-length")
    if b"transfer-encoding" in watched:
        if lengths is not None:
            raise BadRequest(400, "Transfer-Encoding with Content-Length", head)
        _check_codings(head, _members(watched[b"transfer-encoding"]))
        return None
    if lengths is None:
        return 0
    # Section 6.3: repeated equal values may be taken for one; we don't.
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > _MAX_LENGTH_DIGITS:
        raise BadRequest(400, "malformed Content-Length", head)
    return int(lengths[0])


def _check_codings(head: RequestHead, codings: list[bytes]) -> None:
    """RFC 9112 sections 6.1 and 6.3: exactly one chunked, last, and only in 1.1."""
    if head.version == (1, 0):
        raise BadRequest(400, "Transfer-Encoding in HTTP/1.0", head)
    if codings[-1] != b"chunked" or codings.count(b"chunked") != 1 or b"" in codings:
        raise BadRequest(400, "malformed Transfer-Encoding", head)
    if len(codings) > 1:
        raise BadRequest(501, "unknown transfer coding", head)


def _host(head: RequestHead, hosts: list[bytes]) -> bytes:
    """``$host``. Raises `BadRequest` where it is missing or malformed."""
    target = head.target
    if len(hosts) > 1 or (not hosts and head.version == (1, 1)):
        raise BadRequest(400, "no Host field, or several", head)
    name = _authority(head, hosts[0]) if hosts else b""
    if target.startswith(b"/") or head.method == b"CONNECT":
        return name
    if target == b"*" and head.method == b"OPTIONS":
        return name
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        raise BadRequest(400, "malformed request target", head)
    # RFC 9112 section 3.2.2: the target's authority replaces Host.
    return _authority(head, absolute[1])


def _authority(head: RequestHead, text: bytes) -> bytes:
    match = _AUTHORITY.fullmatch(text)
    if match is None or b".." in match[1] or (match[2] and int(match[2]) > _MAX_PORT):
        raise BadRequest(400, "malformed Host", head)
    name = _host_name(match)
    if not name or (name.startswith(b"[") and not _is_ipv6(name[1:-1])):
        raise BadRequest(400, "malformed Host", head)
    return name


def _host_name(match: re.Match[bytes]) -> bytes:
    name: bytes = match[1].lower().removesuffix(b".")
    return name


def _is_ipv6(text: bytes) -> bool:
    try:
        IPv6Address(text.decode("ascii"))
    except ValueError:
        return False
    return True
