"""A job for a worker, what comes of it, and how both travel over pipes.

A message is two big-endian 32-bit lengths, a head in JSON, and a body of bytes. JSON, because
a worker that a hostile image has taken over must not be able to make its parent do anything
(as unpickling would); what it says is checked.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

from attrs import define, field, frozen

from .errors import Failed, ImageError, from_kind
from .formats import Format, Offer
from .limits import Limits
from .places import Unsigned
from .query import parse_canonical
from .recipe import Recipe
from .source import Identity

_LENGTHS = struct.Struct("!II")
#: Longest head, in bytes: a recipe with the longest path, percent-encoded, fits well.
MAX_HEAD = 1 << 16


class WireError(Exception):
    """The other side does not keep to the protocol."""


@frozen
class Message:
    """One message: ``head`` is a JSON object."""

    head: dict[str, Any]
    body: bytes = b""

    def encode(self) -> bytes:
        """The bytes on the pipe."""
        head = json.dumps(self.head, separators=(",", ":")).encode("ascii")
        return _LENGTHS.pack(len(head), len(self.body)) + head + self.body


@define(eq=False)
class Decoder:
    """Cuts a stream of bytes into messages; ``max_body`` bounds what it collects."""

    max_body: int
    _buffer: bytearray = field(factory=bytearray, init=False)

    def feed(self, data: bytes | memoryview) -> list[Message]:
        """The messages that ``data`` completes. Raises `WireError`."""
        self._buffer += data
        messages = []
        while len(self._buffer) >= _LENGTHS.size:
            head, body = _LENGTHS.unpack_from(self._buffer)
            self.check(head, body)
            end = _LENGTHS.size + head + body
            if len(self._buffer) < end:
                break
            text = bytes(self._buffer[_LENGTHS.size : _LENGTHS.size + head])
            content = bytes(self._buffer[_LENGTHS.size + head : end])
            del self._buffer[:end]
            messages.append(Message(parse_head(text), content))
        return messages

    def check(self, head: int, body: int) -> None:
        """Raise `WireError` for lengths that are not agreed upon."""
        if head > MAX_HEAD or body > self.max_body:
            raise WireError(f"a message of {head} + {body} bytes")


def parse_head(text: bytes) -> dict[str, Any]:
    """The head of a message. Raises `WireError`."""
    try:
        head = json.loads(text)
    except (ValueError, RecursionError):
        raise WireError("a head that is not JSON") from None
    if not isinstance(head, dict):
        raise WireError("a head that is not an object")
    return head


@frozen
class Job:
    """Make ``recipe`` from a file under ``root``; ``offer`` decides for ``fmt=auto``.

    With ``measure`` nothing is made, and the answer has the size of the source.
    """

    root: bytes
    recipe: Recipe
    offer: Offer
    #: Whether it may be; else a worker that finds it so sends it back (`errors.Expensive`).
    expensive: bool = False
    measure: bool = False
    #: Whether it may be made from decoded pixels that were kept for a larger picture.
    derive: bool = False
    #: How large the result may be. What may be asked for has been looked at already.
    unsigned: Unsigned = field(factory=Unsigned)

    def message(self) -> Message:
        """The job on its way to a worker."""
        return Message(
            {
                "root": self.root.decode("latin-1"),
                "recipe": self.recipe.canonical(),
                "avif": self.offer.avif,
                "webp": self.offer.webp,
                "expensive": self.expensive,
                "measure": self.measure,
                "derive": self.derive,
                "most": [self.unsigned.max_width, self.unsigned.max_height],
            }
        )


#: Takes back the last job that was sent, if it is not begun yet; it is answered either way.
WITHDRAWAL = Message({"withdraw": True})


def read_job(message: Message, limits: Limits) -> Job:
    """The job in a message from the pool."""
    head = message.head
    return Job(
        head["root"].encode("latin-1"),
        parse_canonical(head["recipe"].encode("ascii"), limits),
        Offer(avif=head["avif"], webp=head["webp"]),
        head["expensive"],
        head["measure"],
        head["derive"],
        Unsigned(*head["most"]),
    )


@frozen
class Rendered:
    """A result: its bytes, what they are, and where the time went (name, seconds)."""

    data: bytes = field(repr=False)
    format: Format
    width: int
    height: int
    frames: int
    #: The state of the source that it was made from.
    source: Identity
    timings: tuple[tuple[str, float], ...] = ()
    #: The state of its watermark, if it has one.
    mark: Identity | None = None
    #: The decoder's factor of the pixels that it was derived from (`Job.derive`), else 0.
    derived: int = 0

    def message(self) -> Message:
        """The result on its way to the pool."""
        head = {
            "format": self.format.value,
            "size": [self.width, self.height, self.frames],
            "source": [self.source.size, self.source.mtime],
            "mark": None if self.mark is None else [self.mark.size, self.mark.mtime],
            "timings": [list(lap) for lap in self.timings],
            "derived": self.derived,
        }
        return Message(head, self.data)


def error_message(error: ImageError) -> Message:
    """A failure on its way to the pool."""
    return Message({"error": type(error).__name__, "reason": error.reason})


#: More timings than this, or longer names, are not taken from a worker.
_MAX_TIMINGS = 16


def _identity(numbers: Sequence[Any]) -> Identity:
    size, mtime = (int(number) for number in numbers)
    return Identity(size, mtime)


def read_answer(message: Message) -> Rendered | ImageError:
    """What a worker answered; `Failed` where it makes no sense."""
    head = message.head
    if "error" in head:
        return from_kind(head["error"], head.get("reason"))
    try:
        width, height, frames = (int(number) for number in head["size"])
        source = _identity(head["source"])
        mark = None if head.get("mark") is None else _identity(head["mark"])
        timings = tuple(
            (name, float(seconds))
            for name, seconds in head["timings"][:_MAX_TIMINGS]
            if isinstance(name, str) and name.isascii() and name.isalpha()
        )
        return Rendered(
            message.body, Format(head["format"]), width, height, frames,
            source, timings, mark, int(head.get("derived", 0)),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, OverflowError):
        return Failed("the image could not be made")
