"""The head of a CGI response (RFC 3875 section 6), as nginx reads it. No I/O.

Field lines that end with LF or CRLF, then an empty line. ``Status`` gives the status; without it
a ``Location`` makes 302 and everything else is 200.
"""

from __future__ import annotations

import re
from typing import Final

from attrs import frozen

from imagefarm.http.headers import MAX_HEAD, Headers

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: RFC 9110 section 5.5: no NUL, CR, LF; the other control characters are no better.
_FORBIDDEN: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_STATUS: Final = re.compile(rb"([1-9][0-9]{2})(?:[ \t].*)?", re.DOTALL)
_END: Final = re.compile(rb"\n\r?\n")


class InvalidHead(Exception):
    """The head can't be understood; the message is in nginx's words."""


class HeadTooLarge(InvalidHead):
    """The head is longer than the limit."""


@frozen(eq=False)
class CGIHead:
    """What the application said of its answer.

    ``headers`` are all field lines but ``Status``; ``content_length`` is Content-Length's value.
    """

    status: int
    headers: Headers
    content_length: int | None


class HeadParser:
    """Collects the head from the start of the application's standard output.

    ``limit`` is the size in bytes up to and with the empty line.
    """

    def __init__(self, limit: int = MAX_HEAD) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> tuple[CGIHead, bytes] | None:
        """The head and what followed it once it is complete, else None.

        Raises `InvalidHead`; `HeadTooLarge` as soon as the limit is passed.
        """
        buffer = self._buffer
        seen = max(0, len(buffer) - 2)
        buffer += data
        end = _find_end(buffer, seen)
        if end < 0:
            if len(buffer) > self._limit:
                raise HeadTooLarge("upstream sent too big header")
            return None
        if end > self._limit:
            raise HeadTooLarge("upstream sent too big header")
        rest = bytes(buffer[end:])
        head = parse_head(bytes(buffer[:end]))
        buffer.clear()
        return head, rest

    def __repr__(self) -> str:
        return f"<HeadParser {len(self._buffer)} of {self._limit} bytes>"


def _find_end(buffer: bytearray, start: int) -> int:
    """The offset behind the empty line, or -1."""
    if buffer.startswith((b"\n", b"\r\n")):
        return buffer.index(b"\n") + 1
    match = _END.search(buffer, start)
    return -1 if match is None else match.end()


def parse_head(head: bytes) -> CGIHead:
    """Parse a whole head with its empty line. Raises `InvalidHead`."""
    fields: list[tuple[bytes, bytes]] = []
    status: bytes | None = None
    length: bytes | None = None
    redirect = False
    for line in head.split(b"\n"):
        line = line.removesuffix(b"\r")
        if not line:
            continue
        name, colon, value = line.partition(b":")
        value = value.strip(b" \t")
        if not colon or _TOKEN.fullmatch(name) is None or _FORBIDDEN.search(value) is not None:
            raise InvalidHead(f'upstream sent invalid header: "{_printable(line)}"')
        lower = name.lower()
        if lower == b"status":
            if status is not None:
                raise InvalidHead(_duplicate(name, value, status))
            status = value
            continue
        if lower == b"content-length":
            if length is not None:
                raise InvalidHead(_duplicate(name, value, length))
            length = value
        elif lower == b"location":
            redirect = True
        fields.append((name, value))
    return CGIHead(_status(status, redirect), Headers(fields), _content_length(length))


def _duplicate(name: bytes, value: bytes, previous: bytes) -> str:
    return (
        f'upstream sent duplicate header line: "{_printable(name)}: {_printable(value)}", '
        f'previous value: "{_printable(previous)}"'
    )


def _status(value: bytes | None, redirect: bool) -> int:
    if value is None:
        return 302 if redirect else 200
    match = _STATUS.fullmatch(value)
    # 1xx has no place here: it would announce an answer that never comes.
    if match is None or value.startswith(b"1"):
        raise InvalidHead(f'upstream sent invalid status "{_printable(value)}"')
    return int(match[1])


def _content_length(value: bytes | None) -> int | None:
    if value is None:
        return None
    # RFC 9112 section 6.3; 18 digits are more than any file and fit in 64 bits.
    if not value.isdigit() or len(value) > 18:
        raise InvalidHead(f'upstream sent invalid "Content-Length" header: "{_printable(value)}"')
    return int(value)


def _printable(data: bytes) -> str:
    """``data`` for a log line: short, and without control characters."""
    return repr(data[:200])[2:-1]
