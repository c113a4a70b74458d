"""What of an upstream's answer goes on: its fields without those of the connection."""

from __future__ import annotations

from typing import Final

from imagefarm.http.headers import Headers
from imagefarm.http.message import Body, Response

from .response_parser import ResponseHead, ResponseParser

#: Fields that speak of the connection, not of the message (RFC 9110 section 7.6.1).
HOP_BY_HOP: Final = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-connection", b"te", b"trailer",
    b"transfer-encoding", b"upgrade",
})  # fmt: skip
#: Fields that frame, route, authenticate or describe a message: too late in a trailer.
_NO_TRAILERS: Final = HOP_BY_HOP | {
    b"authorization", b"cache-control", b"content-encoding", b"content-length", b"content-range",
    b"content-type", b"date", b"expires", b"host", b"location", b"proxy-authorization",
    b"retry-after", b"server", b"set-cookie", b"vary", b"www-authenticate",
}  # fmt: skip


def response_of(head: ResponseHead, body: Body) -> Response:
    """The message for those who do not know of the connection."""
    return Response(head.status, passable(head.headers), body, length=head.length)


def passable(headers: Headers) -> Headers:
    """The fields that are the message's, without those that frame it."""
    dropped = HOP_BY_HOP
    connection = headers.get(b"connection")
    if connection is not None:
        # RFC 9110 section 7.6.1: what Connection names goes no further either.
        dropped |= {option.strip(b" \t") for option in connection.lower().split(b",")}
    return Headers(
        [
            (name, value)
            for name, value in headers
            if (lower := name.lower()) != b"content-length" and lower not in dropped
        ]
    )


def passable_trailers(parser: ResponseParser) -> list[tuple[bytes, bytes]]:
    """The trailer fields that may go on: not those that belong in a head (RFC 9110 6.5.1)."""
    return [field for field in parser.trailers if field[0].lower() not in _NO_TRAILERS]
