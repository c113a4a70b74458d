"""Answers put together from ranges of fixed size (nginx's ngx_http_slice_module): the pieces.

Each piece is asked for with ``$slice_range`` as its Range and checked against the first one; what
the client gets is the whole, or the range that it has asked for. `http.slicing` is the handler.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from imagefarm.config.table import HSL, AnyRow, Row
from imagefarm.config.values import size
from imagefarm.http.keeping import Stored
from imagefarm.http.message import (
    Body,
    BodySink,
    BodyStream,
    FileBody,
    PartsBody,
    Request,
    Response,
    discard,
)

from .streams import BlockStream

SLICE: Final = Row(
    name="slice", contexts=HSL, convert=size, default=0, syntax="size",
    doc="The size of the ranges ($slice_range) in which large responses are asked for, each with "
    "a request of its own, and cached. 0 asks for the whole.",
)  # fmt: skip
DIRECTIVES: Final[tuple[AnyRow, ...]] = (SLICE,)

#: The variable, without "$"; it is kept among the request's.
VARIABLE: Final = "slice_range"
#: How much of a piece at rest is read at once.
_BLOCK: Final = 65536
_LARGEST: Final = (1 << 63) - 1
_DIGITS: Final = len(str(_LARGEST))
_FIRST: Final = re.compile(rb" *(\d+)")
#: The statuses of a piece that say that there is no such piece any more.
_GONE: Final = frozenset({404, 410, 416})
_CONTENT_RANGE: Final = re.compile(rb"bytes  *(\d+) *- *(\d+) */ *(\d+|\*) *")


class BadSlice(Exception):
    """A piece does not fit: nginx's words for the log."""


class Changed(BadSlice):
    """A piece is of another version than those before it."""


class Incomplete(Exception):
    """A piece ended before the length that it had promised."""


@frozen
class Piece:
    """Bytes ``start`` to ``end``, the end excluded, of ``total``.

    ``etag`` and ``modified`` (Last-Modified) are empty where there is none; ``stored`` is what a
    cache has of it.
    """

    start: int
    end: int
    total: int
    etag: bytes = b""
    modified: bytes = b""
    stored: Stored | None = None


def first_byte(request: Request) -> int:
    """Where what ``request`` asks for begins, as far as one range says so (nginx)."""
    headers = request.head.headers
    value = headers.first(b"range") or b""
    if b"if-range" in headers or value[:6].lower() != b"bytes=" or b"," in value:
        return 0
    digits = _FIRST.match(value, 6)
    if digits is None or len(digits[1]) > _DIGITS or int(digits[1]) > _LARGEST:
        return 0
    return int(digits[1])


def range_of(start: int, length: int) -> bytes:
    """The Range of a piece."""
    return b"bytes=%d-%d" % (start, start + length - 1)


def slice_range(request: Request) -> bytes | None:
    """``$slice_range``: of the piece that is asked for; None where there is no ``slice``.

    Whether it was asked for before there was an answer is what makes a request a sliced one.
    """
    found = request.variables.get(VARIABLE)
    if found is None:
        length = getattr(getattr(request.location, "filters", None), "slice", 0)
        if not length:
            return None
        start = first_byte(request) // length * length
        found = request.variables[VARIABLE] = range_of(start, length)
    return found or None


def piece(response: Response, start: int, length: int, like: Piece | None = None) -> Piece:
    """What ``response`` holds, who was asked for ``length`` bytes from ``start``.

    ``like`` is the piece before it. Raises `BadSlice`, and `Changed` where that is of another
    version: nginx compares the ETag alone.
    """
    etag = response.headers.first(b"etag") or b""
    modified = response.headers.first(b"last-modified") or b""
    other = _other(etag, modified, like)
    if response.status != 206 or response.redirect is not None:
        gone = response.status in _GONE or (response.status == 200 and other)
        kind = Changed if like is not None and gone else BadSlice
        raise kind(f"unexpected status code {response.status} in slice response")
    if other:
        raise Changed(f"{other} mismatch in slice response")
    match = _CONTENT_RANGE.fullmatch(response.headers.first(b"content-range") or b"")
    if match is None or any(len(number) > _DIGITS for number in match.groups()):
        raise BadSlice("invalid range in slice response")
    if match[3] == b"*":
        raise BadSlice("no complete length in slice response")
    found = Piece(
        int(match[1]), int(match[2]) + 1, int(match[3]), etag, modified, response.stored
    )  # fmt: skip
    if like is not None and found.total != like.total:
        raise Changed("complete length mismatch in slice response")
    end = min(start + length, found.total)
    if (found.start, found.end) != (start, end) or start >= end:
        raise BadSlice(f"unexpected range in slice response: {found.start}-{found.end}")
    return found


def _other(etag: bytes, modified: bytes, like: Piece | None) -> str:
    """What says that a piece is of another version than ``like``; empty: nothing does."""
    if like is None:
        return ""
    if like.etag:
        return "etag" if etag != like.etag else ""
    return "date" if modified and like.modified and modified != like.modified else ""


def outdated(found: Stored | None, before: Stored | None) -> bool:
    """Whether of two pieces that disagree ``found`` is the old one, in a cache.

    What the upstream says now is newer than all that was there, whatever the clock was then.
    """
    if found is None or not found.hit:
        return False
    return before is None or not before.hit or found.asked < before.asked


#: A piece and its body.
Had = tuple[Piece, Body]
#: Asks for the piece that begins at a byte, with the one before it. May be cancelled.
Next = Callable[[int, Piece], "Deferred[Had]"]


class Sliced:
    """A `BodyStream` of pieces, asked for one after another; the first is there already.

    `part` makes it one of less than the whole; pieces before that are not asked for.
    """

    def __init__(self, first: Piece, body: Body, size: int, ask: Next) -> None:
        self._piece = first
        self._body: Body | None = body
        self._size = size
        self._ask = ask
        self._at, self._end = 0, first.total
        #: What of the piece under way is still to come, and to be dropped.
        self._left = self._skip = 0
        self._sink: BodySink | None = None
        self._source: BodyStream | None = None
        self._asking: Deferred[Any] | None = None
        self._paused = self._running = False

    @property
    def length(self) -> int | None:
        """The number of bytes."""
        return self._end - self._at

    def part(self, start: int, length: int) -> Sliced:
        """The same, for ``length`` bytes from ``start``. Not after `start`."""
        self._at, self._end = start, start + length
        return self

    # The client's side

    def start(self, sink: BodySink) -> None:
        """Begin delivery."""
        self._sink = sink
        body, self._body = self._body, None
        assert body is not None
        if self._piece.start <= self._at < self._piece.end:
            self._begin(self._piece, body)
        else:
            discard(body)
        self._run()

    def pause(self) -> None:
        """Stop delivering."""
        self._paused = True
        if self._source is not None:
            self._source.pause()

    def resume(self) -> None:
        """Go on delivering."""
        self._paused = False
        if self._source is not None:
            self._source.resume()
        self._run()

    def cancel(self) -> None:
        """The client has gone."""
        self._sink = None
        body, self._body = self._body, None
        if body is not None:
            discard(body)
        source, self._source = self._source, None
        if source is not None:
            source.cancel()
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()

    # The pieces' side

    def data(self, chunk: bytes) -> None:
        """Some bytes of the piece."""
        sink = self._sink
        if sink is None:
            return
        chunk = chunk[: self._left]
        self._left -= len(chunk)
        dropped = min(self._skip, len(chunk))
        self._skip -= dropped
        chunk = chunk[dropped : dropped + self._end - self._at]
        if not chunk:
            return
        self._at += len(chunk)
        sink.data(chunk)
        if self._at == self._end and self._left and self._source is not None:
            self._source.cancel()  # there is more of it than is wanted
            self._source = None
            self._run()

    def end(self) -> None:
        """The piece is complete."""
        self._source = None
        if self._left:
            self._break(Incomplete(f"{self._left} bytes of a slice are missing"))
        else:
            self._run()

    def fail(self, error: Exception) -> None:
        """The piece broke off."""
        self._source = None
        self._break(error)

    def _break(self, error: Exception) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.fail(error)

    def _run(self) -> None:
        """Go on with the next piece, and the next, as long as they are there at once."""
        if self._running:
            return
        self._running = True
        try:
            while self._sink is not None and self._source is None and self._asking is None:
                if self._at == self._end:
                    sink, self._sink = self._sink, None
                    sink.end()
                elif self._paused:
                    return
                else:
                    self._next()
        finally:
            self._running = False

    def _next(self) -> None:
        asking = self._asking = self._ask(self._at // self._size * self._size, self._piece)
        asking.addCallbacks(self._had, self._failed)

    def _had(self, found: Had) -> None:
        self._asking = None
        if self._sink is None:
            discard(found[1])
            return
        self._begin(*found)
        self._run()

    def _failed(self, failure: Failure) -> None:
        self._asking = None
        error = failure.value
        self._break(error if isinstance(error, Exception) else Incomplete(str(error)))

    def _begin(self, found: Piece, body: Body) -> None:
        self._piece = found
        self._left, self._skip = found.end - found.start, self._at - found.start
        if isinstance(body, bytes | FileBody | PartsBody):
            body = BlockStream(body, _BLOCK)
        self._source = source = body
        if self._paused:
            source.pause()
        source.start(self)

    def __repr__(self) -> str:
        return f"<Sliced at={self._at} end={self._end} paused={self._paused}>"
