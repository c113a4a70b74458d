"""HTTP/1.x responses of an upstream: bytes in, head and body chunks out.

Strict (RFC 9112): whatever could be read in two ways is refused with `InvalidResponse`, since a
response that we and the peer frame differently would be taken for the answer to another client's
request. ``feed`` bytes, then look at ``head``, ``complete`` and ``excess``; the body chunks are
what ``feed`` returns.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from attrs import define, evolve

from imagefarm.http.chunked import ChunkedDecoder
from imagefarm.http.headers import MAX_HEAD, Headers
from imagefarm.http.parser import BadRequest

#: Interim (1xx) responses before the final one. Real servers send one or two.
MAX_INTERIM: Final = 16
_EARLY_HINTS: Final = 103
#: Enough for any size a 64 bit file system knows.
_MAX_LENGTH_DIGITS: Final = 18

# RFC 9112 section 4. nginx also takes a status line without the space before the reason.
_STATUS_LINE = re.compile(
    rb"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: ([^\x00-\x08\x0a-\x1f\x7f]*))?\r\n"
)
# RFC 9112 section 5: no space before the colon, no line folding, no control characters.
_FIELD = rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([^\x00-\x08\x0a-\x1f\x7f]*)\r\n"
_FIELDS = re.compile(rb"(?:" + _FIELD + rb")*")
_ONE_FIELD = re.compile(_FIELD)
_DIGITS = re.compile(rb"[0-9]+")


class InvalidResponse(ValueError):
    """The peer's bytes are not an HTTP/1.x response that we would pass on. Says why."""


class Framing(Enum):
    """How the end of a body is found (RFC 9112 section 6.3)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


@define(eq=False)
class ResponseHead:
    """A response head. ``length`` is what Content-Length says, also where no body follows.

    ``persistent``: the peer keeps the connection (RFC 9112 section 9.3).
    """

    status: int
    minor: int
    headers: Headers
    framing: Framing
    length: int | None
    persistent: bool


class ResponseParser:
    """Reads one response to a request of the given method, which may ask for an ``upgrade``.

    ``complete`` tells that the response has been read whole; ``excess`` is what came after it,
    and must never be taken for the next response.
    """

    __slots__ = (
        "_body", "_buffer", "_decoder", "_interim", "_left", "_max_head", "_searched",
        "_upgrade", "block", "complete", "excess", "head", "hints",
    )  # fmt: skip

    def __init__(self, method: bytes, max_head: int = MAX_HEAD, *, upgrade: bool = False) -> None:
        self._upgrade = upgrade
        self._body = method != b"HEAD"
        self._decoder: ChunkedDecoder | None = None
        self._max_head = max_head
        self._buffer = b""
        self._searched = 0
        self._interim = 0
        self._left = 0
        self.head: ResponseHead | None = None
        self.complete = False
        self.excess = b""
        #: The head as it came, with its last line's end but without the empty line.
        self.block = b""
        #: The early hints (103, RFC 8297) so far, each with its size; for the caller to take.
        self.hints: list[tuple[int, Headers]] = []

    def feed(self, data: bytes) -> list[bytes]:
        """The body's bytes in ``data``. Raises `InvalidResponse`; feed no more after that."""
        if self.head is None:
            rest = self._feed_head(data)
            if self.head is None:
                return []
            return self._feed_body(rest)
        return self._feed_body(data)

    def close(self) -> bool:
        """The peer closed. Returns whether the response is whole; it is complete then."""
        if self.head is not None and self.head.framing is Framing.CLOSE:
            self.complete = True
        return self.complete

    def _feed_head(self, data: bytes) -> bytes:
        buffer = self._buffer + data if self._buffer else data
        while True:
            end = buffer.find(b"\r\n\r\n", self._searched)
            if end < 0:
                break
            if end + 4 > self._max_head:
                raise InvalidResponse("upstream sent too big header")
            block, buffer = buffer[: end + 2], buffer[end + 4 :]
            self._searched = 0
            head = parse_head(block, self._body)
            if head.status == 101 and self._upgrade:
                # RFC 9110 section 15.2.2: what follows is in another protocol.
                head = evolve(head, framing=Framing.CLOSE, length=None, persistent=False)
            if head.status >= 200 or head.framing is Framing.CLOSE:
                self.block = block
                self._begin(head)
                self._buffer = b""
                return buffer
            self._skip_interim(head, len(block) + 2)
        if len(buffer) >= self._max_head:
            raise InvalidResponse("upstream sent too big header")
        _check_beginning(buffer)
        self._buffer = buffer
        self._searched = max(0, len(buffer) - 3)
        return b""

    def _skip_interim(self, head: ResponseHead, size: int) -> None:
        if head.status == 101:
            raise InvalidResponse("upstream switched protocols unasked")
        self._interim += 1
        if self._interim > MAX_INTERIM:
            raise InvalidResponse("upstream sent too many interim responses")
        if head.status == _EARLY_HINTS:
            self.hints.append((size, head.headers))

    def _begin(self, head: ResponseHead) -> None:
        self.head = head
        if head.framing is Framing.CHUNKED:
            self._decoder = ChunkedDecoder()
        elif head.framing is Framing.LENGTH:
            self._left = head.length or 0
            self.complete = not self._left
        elif head.framing is Framing.NONE:
            self.complete = True

    def _feed_body(self, data: bytes) -> list[bytes]:
        if not data:
            return []
        if self.complete:
            self.excess += data
            return []
        if self._decoder is not None:
            return self._feed_chunked(self._decoder, data)
        assert self.head is not None
        if self.head.framing is Framing.CLOSE:
            return [data]
        if len(data) > self._left:
            data, self.excess = data[: self._left], data[self._left :]
        self._left -= len(data)
        self.complete = not self._left
        return [data]

    @property
    def hides_length(self) -> bool:
        """Whether it is the answer to a HEAD, and the body's length would have shown later."""
        head = self.head
        return not self._body and head is not None and head.length is None

    @property
    def trailers(self) -> list[tuple[bytes, bytes]]:
        """The trailer fields, once it is complete."""
        return [] if self._decoder is None else self._decoder.trailers

    def _feed_chunked(self, decoder: ChunkedDecoder, data: bytes) -> list[bytes]:
        try:
            chunks, self.excess = decoder.feed(data)
        except BadRequest as error:
            raise InvalidResponse(f"upstream sent invalid chunked response: {error}") from error
        self.complete = decoder.done
        return chunks

    def __repr__(self) -> str:
        state = "complete" if self.complete else "body" if self.head else "head"
        return f"<ResponseParser {state}>"


def parse_head(block: bytes, body: bool = True) -> ResponseHead:
    """Read a head: status line and field lines, each with its CRLF, without the empty line.

    ``body`` is False for the answer to a HEAD request. Raises `InvalidResponse`.
    """
    match = _STATUS_LINE.match(block)
    if match is None:
        raise InvalidResponse("upstream sent no valid HTTP/1.0 header")
    start = match.end()
    fields = _FIELDS.match(block, start)
    if fields is None or fields.end() != len(block):
        raise InvalidResponse("upstream sent invalid header")
    headers = Headers(
        [(name, value.strip(b" \t")) for name, value in _ONE_FIELD.findall(block, start)]
    )
    status, minor = int(match[2]), int(match[1])
    length = _content_length(headers)
    framing = _framing(status, minor, headers, length, body)
    if status == 204:
        length = None  # RFC 9110 section 8.6: a 204 has none to speak of
    return ResponseHead(status, minor, headers, framing, length, _persistent(minor, headers))


def _content_length(headers: Headers) -> int | None:
    values = {
        member.strip(b" \t")
        for value in headers.getall(b"content-length")
        for member in value.split(b",")
    }
    if not values:
        return None
    # RFC 9112 section 6.3: one value, repeated or not, of digits only.
    (value, *others) = values
    if others or len(value) > _MAX_LENGTH_DIGITS or not _DIGITS.fullmatch(value):
        raise InvalidResponse('upstream sent invalid "Content-Length" header')
    return int(value)


def _framing(status: int, minor: int, headers: Headers, length: int | None, body: bool) -> Framing:
    codings = headers.getall(b"transfer-encoding")
    if codings:
        if length is not None:
            raise InvalidResponse(
                'upstream sent "Content-Length" and "Transfer-Encoding" headers at the same time'
            )
        # RFC 9112 section 6.1: unknown codings, and any in HTTP/1.0, make the framing faulty.
        if minor == 0 or len(codings) != 1 or codings[0].lower() != b"chunked":
            raise InvalidResponse('upstream sent unknown "Transfer-Encoding"')
    if not body or status < 200 or status in (204, 304):
        return Framing.NONE
    if codings:
        return Framing.CHUNKED
    return Framing.CLOSE if length is None else Framing.LENGTH


def _persistent(minor: int, headers: Headers) -> bool:
    connection = headers.get(b"connection")
    if connection is None:
        return minor > 0
    options = {option.strip(b" \t") for option in connection.lower().split(b",")}
    if b"close" in options:
        return False
    return minor > 0 or b"keep-alive" in options


def _check_beginning(buffer: bytes) -> None:
    """Refuse at once what cannot become a response, rather than wait for its end."""
    prefix = b"HTTP/1."
    if buffer[: len(prefix)] != prefix[: len(buffer)]:
        raise InvalidResponse("upstream sent no valid HTTP/1.0 header")
