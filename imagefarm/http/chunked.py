"""The chunked transfer coding, both ways, sans-IO (RFC 9112 section 7.1).

The decoder is a small state machine that walks over each piece of input once; only an unfinished
line (bounded) is kept between pieces. It is as strict as the head parser: a size is hexadecimal
digits alone, extensions must be well-formed and are ignored, lines end in CRLF.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from typing import Final

from .parser import BadRequest, parse_field

#: The most bytes in a size line, with extensions and CRLF.
MAX_SIZE_LINE: Final = 1024
#: The most bytes of extensions in a body (they cost us work and carry nothing).
MAX_EXTENSIONS: Final = 16384
#: The most bytes in the trailer section.
MAX_TRAILERS: Final = 8192

LAST_CHUNK: Final = b"0\r\n\r\n"

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_SIZE_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,15})((?:[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?)*)"
    % (_TOKEN, _TOKEN, _QUOTED)
)
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def encode_chunk(data: bytes) -> bytes:
    """One chunk. ``data`` must not be empty: an empty chunk ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The end of a body with ``trailers``, fields that a decoder has accepted."""
    fields = [b"%b: %b\r\n" % field for field in trailers]
    return b"".join([b"0\r\n", *fields, b"\r\n"])


class _State(Enum):
    """What comes next."""

    SIZE = "a size line"
    DATA = "chunk data"
    DATA_END = "the CRLF after chunk data"
    TRAILER = "a trailer line or the empty line"
    DONE = "nothing"


class ChunkedDecoder:
    """Takes a chunked body apart.

    ``trailers`` has the trailer fields once ``done`` is true. They are kept apart from the
    header fields: merging them could override framing (RFC 9110 section 6.5.1).
    """

    __slots__ = ("_extensions", "_left", "_pending", "_state", "_trailer_bytes", "trailers")

    def __init__(self) -> None:
        self._state = _State.SIZE
        self._pending = b""
        self._left = 0
        self._extensions = 0
        self._trailer_bytes = 0
        self.trailers: list[tuple[bytes, bytes]] = []

    @property
    def done(self) -> bool:
        """Whether the whole body has been read."""
        return self._state is _State.DONE

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Decode some bytes: the payload in pieces, and what follows the body's end.

        Raises `BadRequest` with 400; the decoder is of no use after that.
        """
        if self._pending:
            data = self._pending + data
            self._pending = b""
        out: list[bytes] = []
        at = 0
        while self._state is not _State.DONE:
            if self._state is _State.DATA:
                piece = data[at : at + self._left]
                if not piece:
                    return out, b""
                out.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = _State.DATA_END
                continue
            line, at = self._line(data, at)
            if line is None:
                return out, b""
            if self._state is _State.SIZE:
                self._size(line)
            elif self._state is _State.DATA_END:
                self._state = _State.SIZE
            else:
                self._trailer(line)
        return out, data[at:]

    def _line(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        """The line at ``at`` without its CRLF, and where the next one begins.

        None keeps an unfinished line for the next time.
        """
        limit = 2 if self._state is _State.DATA_END else self._limit()
        newline = data.find(b"\n", at, at + limit)
        if newline < 0:
            rest = data[at : at + limit]
            if len(rest) >= limit or _CONTROL.search(rest.removesuffix(b"\r")):
                raise BadRequest(400, "malformed chunked body")
            if self._state is _State.DATA_END and rest not in (b"", b"\r"):
                raise BadRequest(400, "malformed chunked body")
            self._pending = rest
            return None, len(data)
        line = data[at : newline + 1]
        if not line.endswith(b"\r\n") or _CONTROL.search(line, 0, len(line) - 2):
            raise BadRequest(400, "control character in a chunked body's framing")
        return line[:-2], newline + 1

    def _limit(self) -> int:
        if self._state is _State.SIZE:
            return MAX_SIZE_LINE
        return MAX_TRAILERS - self._trailer_bytes + 2

    def _size(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise BadRequest(400, "malformed chunk size")
        self._extensions += len(match[2])
        if self._extensions > MAX_EXTENSIONS:
            raise BadRequest(400, "too many chunk extensions")
        self._left = int(match[1], 16)
        self._state = _State.DATA if self._left else _State.TRAILER

    def _trailer(self, line: bytes) -> None:
        if not line:
            self._state = _State.DONE
            return
        field = parse_field(line)
        self._trailer_bytes += len(line) + 2
        if field is None or self._trailer_bytes > MAX_TRAILERS:
            raise BadRequest(400, "malformed trailer")
        self.trailers.append(field)
