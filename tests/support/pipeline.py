"""Reads a connection's bytes as the server does, without a server: heads, bodies, the end.

And judges what was read by rules of its own: `judge` knows the grammar of RFC 9112 as regular
expressions over a whole message, and nothing of the parser.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

from attrs import frozen

from imagefarm.http.chunked import ChunkedDecoder, encode_chunk
from imagefarm.http.parser import BadRequest, Limits, ParsedHead, RequestParser

Fields = tuple[tuple[bytes, bytes], ...]

#: Small ones, so that short inputs reach them.
TIGHT = Limits(client_header_buffer_size=64, large_client_header_buffers=(2, 64), max_headers=5)


@frozen
class Message:
    """A request that was accepted, whole or (``complete`` false) with half of its body."""

    method: bytes
    target: bytes
    version: tuple[int, int]
    fields: Fields
    host: bytes
    length: int | None
    keep_alive: bool
    expects_continue: bool
    body: bytes = b""
    trailers: Fields = ()
    complete: bool = True

    @property
    def encoded(self) -> bytes:
        """The message as we would write it."""
        lines = [b"%b %b HTTP/%d.%d" % (self.method, self.target, *self.version)]
        lines += [b"%b: %b" % field for field in self.fields]
        head = b"\r\n".join(lines) + b"\r\n\r\n"
        if self.length is not None:
            return head + self.body
        chunk = encode_chunk(self.body) if self.body else b""
        trailers = b"".join(b"%b: %b\r\n" % field for field in self.trailers)
        return head + chunk + b"0\r\n" + trailers + b"\r\n"


@frozen
class Reading:
    """What came of some bytes. ``status`` is the refusal's, 0 if there was none.

    ``rest`` is what was not read: an unfinished head, or what follows the last request.
    """

    messages: tuple[Message, ...]
    status: int
    rest: bytes

    @property
    def outcome(self) -> str:
        """In the words of the vectors, for a server that reads bodies and answers 200."""
        statuses = ["200" for message in self.messages if message.complete]
        if self.status:
            return " ".join([*statuses, str(self.status), "closed"])
        if self.messages and self.messages[-1].complete and not self.messages[-1].keep_alive:
            return " ".join([*statuses, "closed"])
        waits = self.rest or (self.messages and not self.messages[-1].complete)
        return " ".join([*statuses, "waits" if waits else "open"])


class Pipeline:
    """Feeds a parser and decoders; keeps what comes out."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._parser = RequestParser(limits)
        self._decoder: ChunkedDecoder | None = None
        self._parsed: ParsedHead | None = None
        self._left = 0
        self._body = b""
        self._done: list[Message] = []
        self._closed = False

    def feed(self, data: bytes) -> None:
        """Take some bytes. Raises `BadRequest`."""
        if self._parsed is not None:
            data = self._read_body(data)
        if self._parsed is not None:
            return
        self._parser.feed(data)
        while not self._closed and (parsed := self._parser.next_head()) is not None:
            self._parsed, self._body, self._left = parsed, b"", parsed.length or 0
            self._decoder = ChunkedDecoder() if parsed.length is None else None
            self._parser.feed(self._read_body(self._parser.take()))
            if self._parsed is not None:
                return

    def _read_body(self, data: bytes) -> bytes:
        if self._decoder is None:
            self._body += data[: self._left]
            data, self._left = data[self._left :], max(0, self._left - len(data))
            complete = not self._left
        else:
            pieces, data = self._decoder.feed(data)
            self._body += b"".join(pieces)
            complete = self._decoder.done
        if complete:
            self._done.append(self._message(True))
            self._closed = not self._done[-1].keep_alive
            self._parsed = None
        return data

    def _message(self, complete: bool) -> Message:
        parsed = self._parsed
        assert parsed is not None
        head = parsed.head
        return Message(
            head.method,
            head.target,
            head.version,
            tuple(head.headers),
            parsed.host,
            parsed.length,
            parsed.keep_alive,
            parsed.expects_continue,
            self._body,
            tuple(self._decoder.trailers) if self._decoder is not None and complete else (),
            complete,
        )

    def reading(self, status: int = 0) -> Reading:
        """What came of it."""
        if status:
            self._body = b""  # how much of it was delivered before depends on the pieces
        unfinished = [self._message(False)] if self._parsed is not None else []
        rest = b"" if status else self._parser.take()
        return Reading((*self._done, *unfinished), status, rest)


def read(pieces: Iterable[bytes], limits: Limits | None = None) -> Reading:
    """Read the pieces one after another, as they come from a socket."""
    pipeline = Pipeline(limits or Limits())
    try:
        for piece in pieces:
            pipeline.feed(piece)
    except BadRequest as error:
        return pipeline.reading(error.status)
    return pipeline.reading()


def single(data: bytes) -> list[bytes]:
    """Byte by byte."""
    return [data[i : i + 1] for i in range(len(data))]


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """In pieces; every place is taken modulo the length."""
    at = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(at)]


_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_HEAD = re.compile(
    rb"(?:\r\n)*(?P<method>%b) (?P<target>[\x21-\x7e\x80-\xff]+) HTTP/1\.(?P<minor>[0-9])\r\n"
    rb"(?P<fields>(?:%b:[\t\x20-\x7e\x80-\xff]*\r\n)*)\r\n" % (_TOKEN, _TOKEN)
)
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_CHUNK_HEAD = re.compile(
    rb"([0-9A-Fa-f]+)(?:[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?)*\r\n"
    % (_TOKEN, _TOKEN, _QUOTED)
)
_TRAILERS = re.compile(rb"(?:%b:[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n" % _TOKEN)
_TARGET = re.compile(rb"/.*|\*|https?://[^/?#@,\\]+(?:[/?#].*)?", re.IGNORECASE | re.DOTALL)


class Ambiguous(AssertionError):
    """An accepted message that somebody else may read otherwise."""


def judge(data: bytes, messages: Sequence[Message], *, names: bool = True) -> int:
    """Read the accepted messages again in the bytes that they came from; returns their end.

    The rules: the head is of the grammar to the last byte; at most one Content-Length, of digits
    alone; or else one Transfer-Encoding that is "chunked" and no Content-Length; one Host in
    HTTP/1.1; and (``names``) none among the fields that a CGI would take for one of these.
    Raises `Ambiguous`.
    """
    at = 0
    for message in messages:
        head = _HEAD.match(data, at)
        if head is None:
            raise Ambiguous(f"no head at {at}")
        lines = [line.partition(b":")[::2] for line in head["fields"].split(b"\r\n")[:-1]]
        named: dict[bytes, list[bytes]] = {}
        for name, value in lines:
            named.setdefault(name.lower(), []).append(value.strip(b" \t"))
        _check_head(message, head, named)
        _check_framing(message, named)
        if names:
            _check_names(message)
        at = _body_end(data, head.end(), message, named)
    return at


def _check_head(message: Message, head: re.Match[bytes], named: dict[bytes, list[bytes]]) -> None:
    # RFC 9110 section 2.5: HTTP/1.2 is read as HTTP/1.1.
    got = (head["method"], head["target"], (1, min(1, int(head["minor"]))))
    if got != (message.method, message.target, message.version):
        raise Ambiguous(f"request line {got}")
    if _TARGET.fullmatch(message.target) is None:
        raise Ambiguous(f"target {message.target!r}")
    hosts = named.get(b"host", [])
    if len(hosts) > 1 or (message.version == (1, 1) and not hosts):
        raise Ambiguous(f"Host {hosts}")
    if any(re.search(rb"[\s,@/\\?#\x80-\xff]|^:|^$", host) for host in hosts):
        raise Ambiguous(f"Host {hosts}")


def _check_names(message: Message) -> None:
    for name, _ in message.fields:
        plain = re.sub(rb"[^a-z0-9]", b"-", name.lower())
        if plain != name.lower() and plain in (b"content-length", b"transfer-encoding", b"host"):
            raise Ambiguous(f"field {name!r}")


def _check_framing(message: Message, named: dict[bytes, list[bytes]]) -> None:
    lengths, codings = named.get(b"content-length", []), named.get(b"transfer-encoding", [])
    if len(lengths) + len(codings) > 1:
        raise Ambiguous("two framings")
    if codings and (codings[0].lower() != b"chunked" or message.version != (1, 1)):
        raise Ambiguous(f"Transfer-Encoding {codings}")
    if lengths and re.fullmatch(rb"[0-9]{1,18}", lengths[0]) is None:
        raise Ambiguous(f"Content-Length {lengths}")
    if (message.length is None) != bool(codings):
        raise Ambiguous("chunked or not")
    if message.length is not None and message.length != int(lengths[0] if lengths else b"0"):
        raise Ambiguous("another length")


def _body_end(data: bytes, at: int, message: Message, named: dict[bytes, list[bytes]]) -> int:
    if message.length is not None:
        end = at + len(message.body)
        if data[at:end] != message.body or (message.complete and end - at != message.length):
            raise Ambiguous("another body")
        return end
    if not message.complete:
        return len(data)
    body = b""
    while True:
        size = _CHUNK_HEAD.match(data, at)
        if size is None:
            raise Ambiguous(f"no chunk at {at}")
        count = int(size[1], 16)
        if not count:
            break
        body += data[size.end() : size.end() + count]
        at = size.end() + count + 2
        if data[at - 2 : at] != b"\r\n":
            raise Ambiguous(f"no end of a chunk at {at}")
    end = _TRAILERS.match(data, size.end())
    if end is None or body != message.body:
        raise Ambiguous("another body")
    return end.end()
