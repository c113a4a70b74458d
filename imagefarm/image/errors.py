"""What can go wrong with an image request: one class a status, one line a reason.

A reason is for the client: it names the parameter or the limit, never a path of the file
system and never a library's own message.
"""

from __future__ import annotations

from typing import ClassVar


class ImageError(Exception):
    """An image request that has no image for an answer. ``reason`` is one line of ASCII."""

    status: ClassVar[int] = 500
    #: What only the log is to know: which process, what became of it.
    detail: str = ""
    #: Where the time has gone, in seconds, where there was work to do.
    timings: tuple[tuple[str, float], ...] = ()

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BadRecipe(ImageError):
    """A parameter is unknown, repeated, or not what it may be: 400."""

    status = 400

    def __init__(self, parameter: str, reason: str) -> None:
        super().__init__(f"{parameter} {reason}")
        self.parameter = parameter


class OutsidePicture(ImageError):
    """A parameter asks for what this picture does not have: 400."""

    status = 400


class Forbidden(ImageError):
    """The source lies outside the root or must not be read, or a signature is missing: 403."""

    status = 403


class NotFound(ImageError):
    """There is no such regular file: 404."""

    status = 404


class Expired(ImageError):
    """The signature is good, but its time is over: 410."""

    status = 410


class TooLarge(ImageError):
    """The source, or what was asked of it, is above a limit: 413."""

    status = 413


class Unsupported(ImageError):
    """The source is not an image in a format that is read: 415."""

    status = 415


class Broken(ImageError):
    """The source begins as an image but cannot be decoded: 422."""

    status = 422


class Expensive(ImageError):
    """A worker's word to its pool, for no client: the job belongs in the expensive lane."""


class Withdrawn(ImageError):
    """A worker's word to its pool, for no client: the job was taken back before it was begun."""


class Failed(ImageError):
    """The fault is ours: an encoder failed, a worker died: 500."""

    status = 500


class Overloaded(ImageError):
    """The queue is full, or the pool is going away: 503."""

    status = 503


class DeadlineExceeded(ImageError):
    """The work took longer than a request may: 504."""

    status = 504
    #: Whether it was expected to take long, by the header of the source and the recipe.
    expected = False


_KINDS: dict[str, type[ImageError]] = {
    kind.__name__: kind
    for kind in (
        OutsidePicture, Forbidden, NotFound, TooLarge, Unsupported, Broken, Expensive, Withdrawn,
        Failed, Overloaded, DeadlineExceeded,
    )
}  # fmt: skip

#: Longest reason taken over from another process, in characters.
MAX_REASON = 200


def one_line(text: str) -> str:
    """``text`` as a client may see it: printable ASCII, one line, bounded."""
    clean = "".join(c if " " <= c <= "~" else "?" for c in text[: MAX_REASON + 1])
    return clean if len(clean) <= MAX_REASON else clean[: MAX_REASON - 3] + "..."


def from_kind(kind: object, reason: object) -> ImageError:
    """Rebuild an error that a worker reported. What is not understood is a `Failed`."""
    make = _KINDS.get(kind) if isinstance(kind, str) else None
    if make is None or not isinstance(reason, str):
        return Failed("the image could not be made")
    return make(one_line(reason))
