"""Ranges: a 200 becomes 206 or 416 (nginx's ``range`` filter, RFC 9110 section 14)."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Final, Protocol

import attrs

from imagefarm.config.table import HSL, AnyRow, Row
from imagefarm.config.values import number
from imagefarm.http.errorpages import error_response
from imagefarm.http.message import (
    Body,
    FileBody,
    PartsBody,
    Request,
    Response,
    body_length,
    discard,
)
from imagefarm.http.ranges import (
    ByteRange,
    NotSatisfiable,
    content_range,
    if_range_holds,
    parse,
    part_heads,
    part_tail,
    unsatisfied_range,
)

from . import charset
from .slice import Sliced
from .streams import SliceStream

MAX_RANGES: Final = Row[int | None](
    name="max_ranges",
    contexts=HSL,
    convert=number,
    default=None,
    syntax="number",
    doc="The most ranges in one request; more get the whole. 0 turns ranges off.",
)
DIRECTIVES: Final[tuple[AnyRow, ...]] = (MAX_RANGES,)

#: What describes the representation and not the page of a 416.
_DROPPED: Final = (
    b"content-type", b"content-encoding", b"last-modified", b"etag", b"accept-ranges",
)  # fmt: skip


class Needs(charset.Needs, Protocol):
    """The settings that this filter reads."""

    @property
    def max_ranges(self) -> int | None:
        """``max_ranges``; None is no limit."""

    @property
    def msie_padding(self) -> bool:
        """``msie_padding``."""


def apply(request: Request, response: Response, settings: Needs) -> Response:
    """Cut what ``Range`` asks for, or say that ranges can be had."""
    length = body_length(response.body) if response.length is None else response.length
    if (
        response.status != 200
        or not response.ranges
        or length is None
        or settings.max_ranges == 0
        or request.head.version < (1, 0)
    ):
        return response
    try:
        ranges = _asked(request, response, length, settings.max_ranges)
    except NotSatisfiable:
        return _unsatisfied(request, response, length, settings)
    if len(ranges) == 1:
        return _single(response, ranges[0], length)
    if ranges and not _flows(response.body):
        return _multiple(request, response, ranges, length)
    headers = response.headers.copy()
    headers.set(b"Accept-Ranges", b"bytes")
    return attrs.evolve(response, headers=headers)


def _asked(
    request: Request, response: Response, length: int, limit: int | None
) -> tuple[ByteRange, ...]:
    value = request.head.headers.first(b"range")
    if value is None:
        return ()
    condition = request.head.headers.first(b"if-range")
    if condition is not None and not if_range_holds(
        condition, etag=response.headers.first(b"etag"), mtime=response.mtime
    ):
        return ()
    return parse(value, length, 1 if response.single_range else limit)


def _flows(body: Body) -> bool:
    """Whether ``body`` comes but once and in order, so that no two parts can be cut from it."""
    return not isinstance(body, bytes | FileBody | PartsBody)


def _single(response: Response, part: ByteRange, length: int) -> Response:
    headers = response.headers.copy()
    headers.set(b"Content-Range", content_range(part, length))
    return attrs.evolve(
        response,
        status=206,
        headers=headers,
        body=cut(response.body, part.start, part.length),
        length=None if response.length is None else part.length,
        ranges=False,
    )


def _multiple(
    request: Request, response: Response, ranges: Sequence[ByteRange], length: int
) -> Response:
    boundary = _boundary(request, ranges)
    heads = part_heads(ranges, length, response.headers.first(b"content-type"), boundary)
    tail = part_tail(boundary)
    total = sum(map(len, heads)) + sum(part.length for part in ranges) + len(tail)
    headers = response.headers.copy()
    headers.set(b"Content-Type", b"multipart/byteranges; boundary=" + boundary)
    body: Body = b""
    if response.length is None:
        pieces: list[bytes | FileBody] = []
        for head, part in zip(heads, ranges, strict=True):
            pieces.append(head)
            pieces.extend(_pieces(cut(response.body, part.start, part.length)))
        body = PartsBody((*pieces, tail), total)
    return attrs.evolve(
        response,
        status=206,
        headers=headers,
        body=body,
        length=None if response.length is None else total,
        ranges=False,
    )


def _boundary(request: Request, ranges: Sequence[ByteRange]) -> bytes:
    """Twenty digits, as nginx's; not to be guessed by who wrote the content."""
    seed = struct.pack("!dQ", request.started, request.peer.serial) + repr(ranges).encode()
    return b"%020d" % int.from_bytes(hashlib.blake2b(seed, digest_size=8).digest(), "big")


def _pieces(body: Body) -> tuple[bytes | FileBody, ...]:
    if isinstance(body, PartsBody):
        return body.parts
    return (body,) if isinstance(body, bytes | FileBody) else ()


def cut(body: Body, start: int, length: int) -> Body:
    """``length`` bytes of ``body`` from ``start``. Takes the body over; slices share its file."""
    if isinstance(body, bytes):
        return body[start : start + length]
    if isinstance(body, FileBody):
        return FileBody(body.file, body.offset + start, length)
    if isinstance(body, Sliced):
        return body.part(start, length)
    if not isinstance(body, PartsBody):
        return SliceStream(body, start, length)
    pieces: list[bytes | FileBody] = []
    at = 0
    for part in body.parts:
        size = len(part) if isinstance(part, bytes) else part.length
        low, high = max(start - at, 0), min(start + length - at, size)
        if low < high:
            pieces.extend(_pieces(cut(part, low, high - low)))
        at += size
    return PartsBody(tuple(pieces), length)


def _unsatisfied(request: Request, response: Response, length: int, settings: Needs) -> Response:
    discard(response.body)
    error = error_response(request, 416, padding=settings.msie_padding)
    headers = response.headers.copy()
    for name in _DROPPED:
        headers.remove(name)
    for name, value in error.headers:
        headers.add(name, value)
    headers.set(b"Content-Range", unsatisfied_range(length))
    # nginx sends the page through the filters anew; this is the one that matters to it.
    # The time of the file stays: ``expires modified`` has counted from it.
    answer = attrs.evolve(error, headers=headers, close=response.close, mtime=response.mtime)
    return charset.apply(request, answer, settings)
