"""Everything that bounds one image job, in one frozen value."""

from __future__ import annotations

import json
from typing import Self

from attrs import asdict, frozen


@frozen
class Limits:
    """The limits of the resizer; the names are the directives inside ``resizer { }``.

    Bytes, pixels, frames and times are checked before the work that they bound: sizes on the
    header, before any pixel is decoded. ``memory`` is the data segment (RLIMIT_DATA) of one
    worker process in bytes; the decoded source and its reduced copy have to fit in it, at 4
    bytes a pixel. ``deadline`` is in seconds.
    """

    #: Largest source file, in bytes.
    max_source_bytes: int = 64 << 20
    #: Most pixels in one frame of the source (width times height).
    max_pixels: int = 100_000_000
    #: Most frames of an animation, and most pixels in all its frames together.
    max_frames: int = 500
    max_total_pixels: int = 100_000_000
    #: Largest picture that may be asked for or made, in pixels.
    max_width: int = 8192
    max_height: int = 8192
    #: Largest encoded result, in bytes.
    max_output_bytes: int = 64 << 20
    deadline: float = 10.0
    memory: int = 1 << 30
    #: Seconds above which a job, as estimated by its header and recipe, counts as expensive.
    expensive: float = 0.5
    #: Bytes of decoded pictures that each worker keeps for further sizes; part of ``memory``.
    intermediates: int = 32 << 20
    #: A directory for more of them, shared by all workers, and its bytes; empty is none.
    intermediates_path: str = ""
    intermediates_disk: int = 256 << 20

    def to_argument(self) -> str:
        """For the command line of a worker process."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_argument(cls, argument: str) -> Self:
        """What `to_argument` has written."""
        return cls(**json.loads(argument))
