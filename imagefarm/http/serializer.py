"""Response heads as bytes, in nginx's order and words; sans-IO.

The head's start (``Server`` and ``Date``) is made once a second. Line breaks are counted at the
end instead of looking at each value: a head with one more than we wrote is refused, whatever
handler or variable it came from (response splitting).
"""

from __future__ import annotations

from typing import Final

from .dates import format_http
from .headers import Headers

#: nginx's reason phrases; RFC 9110's where nginx has none.
REASONS: Final[dict[int, bytes]] = {
    101: b"Switching Protocols",
    200: b"OK", 201: b"Created", 202: b"Accepted", 203: b"Non-Authoritative Information",
    204: b"No Content", 205: b"Reset Content", 206: b"Partial Content",
    300: b"Multiple Choices", 301: b"Moved Permanently", 302: b"Moved Temporarily",
    303: b"See Other", 304: b"Not Modified", 307: b"Temporary Redirect",
    308: b"Permanent Redirect", 400: b"Bad Request", 401: b"Unauthorized",
    402: b"Payment Required", 403: b"Forbidden", 404: b"Not Found", 405: b"Not Allowed",
    406: b"Not Acceptable", 408: b"Request Time-out", 409: b"Conflict", 410: b"Gone",
    411: b"Length Required", 412: b"Precondition Failed", 413: b"Request Entity Too Large",
    414: b"Request-URI Too Large", 415: b"Unsupported Media Type",
    416: b"Requested Range Not Satisfiable", 417: b"Expectation Failed",
    421: b"Misdirected Request", 422: b"Unprocessable Content", 429: b"Too Many Requests",
    431: b"Request Header Fields Too Large", 500: b"Internal Server Error",
    501: b"Not Implemented", 502: b"Bad Gateway", 503: b"Service Temporarily Unavailable",
    504: b"Gateway Time-out", 505: b"HTTP Version Not Supported", 507: b"Insufficient Storage",
}  # fmt: skip

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_STATUS_LINES: Final = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, reason) for status, reason in REASONS.items()
}

#: Fields whose place nginx fixes, and those that only the connection may write (None).
_PLACES: Final[dict[bytes, int | None]] = {
    b"server": 0, b"date": 1, b"content-type": 2, b"last-modified": 4, b"location": 5,
    b"content-length": None, b"transfer-encoding": None, b"connection": None,
    b"keep-alive": None,
}  # fmt: skip
_LENGTH: Final = 3
_CONNECTION: Final = 6


class BadResponse(Exception):
    """A response that can't be written: an impossible status, or CR, LF or NUL in a field."""


class Serializer:
    """Writes heads. ``product`` is the Server field's name, ``version`` what follows the slash."""

    __slots__ = ("_date", "_full", "_second", "_short")

    def __init__(self, product: bytes, version: bytes) -> None:
        self._full = b"Server: %b/%b\r\n" % (product, version)
        self._short = b"Server: %b\r\n" % product
        self._second = -1
        self._date = b""

    def _server(self, tokens: bool | bytes) -> bytes:
        if isinstance(tokens, bytes):
            return b"Server: %b\r\n" % tokens if tokens else b""
        return self._full if tokens else self._short

    def head(
        self,
        status: int,
        headers: Headers,
        framing: bytes,
        connection: bytes,
        now: float,
        *,
        tokens: bool | bytes = True,
    ) -> bytes:
        """A response head with its final empty line.

        ``framing`` is from `content_length`, or `CHUNKED`, or empty; ``connection`` from
        `connection_field`. ``now`` is the time in seconds; ``tokens`` is ``server_tokens``,
        bytes being the whole Server field's value, empty for none. Raises `BadResponse`.
        """
        if not 200 <= status <= 999 and status != 101:
            raise BadResponse(f"status {status}")
        if int(now) != self._second:
            self._second = int(now)
            self._date = b"Date: " + format_http(now) + b"\r\n"
        server = self._server(tokens)
        places = [
            server,
            self._date,
            b"",
            b"",
            b"",
            b"",
            connection,
        ]
        # nginx has Transfer-Encoding after Location, Content-Length after Content-Type.
        if framing is CHUNKED:
            places[_CONNECTION] = framing + connection
        else:
            places[_LENGTH] = framing
        lines = 2 + (server != b"") + (framing != b"") + connection.count(b"\n")
        others: list[bytes] = []
        for name, value in headers:
            line = b"%b: %b\r\n" % (name, value)
            place = _PLACES.get(name.lower(), -1)
            if place is None:
                continue
            if place < 0:
                others.append(line)
                lines += 1
                continue
            if place > 1 or not places[place]:
                lines += 1
            if place > 1:
                line = places[place] + line
            places[place] = line
        start = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        head = b"".join((start, *places, *others, b"\r\n"))
        if head.count(b"\n") != lines + 1 or head.count(b"\r") != lines + 1 or b"\0" in head:
            raise BadResponse("CR, LF or NUL in a field")
        return head


def early_hints(fields: Headers) -> bytes:
    """A 103 with ``fields`` (RFC 8297), which hold no CR, LF or NUL."""
    lines = [b"%b: %b\r\n" % field for field in fields]
    return b"".join((b"HTTP/1.1 103 Early Hints\r\n", *lines, b"\r\n"))


CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
CLOSE: Final = b"Connection: close\r\n"
KEEP_ALIVE: Final = b"Connection: keep-alive\r\n"
UPGRADE: Final = b"Connection: upgrade\r\n"


def content_length(length: int) -> bytes:
    """The Content-Length line."""
    return b"Content-Length: %d\r\n" % length


def connection_field(keep: bool, timeout: int | None) -> bytes:
    """Connection, and Keep-Alive where ``keepalive_timeout`` has a second argument."""
    if not keep:
        return CLOSE
    if timeout is None:
        return KEEP_ALIVE
    return b"Connection: keep-alive\r\nKeep-Alive: timeout=%d\r\n" % timeout
