"""``$image_formats``: what Accept says about images, in the few words that matter to a cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from imagefarm.config.variables import Getter
from imagefarm.http.lookup import Stability, Variable
from imagefarm.http.message import Request

from .formats import parse_accept


def image_formats(request: Request) -> bytes:
    """``avif+webp``, ``avif``, ``webp`` or ``plain``: all that ``fmt=auto`` looks at."""
    accept = b",".join(request.head.headers.getall(b"accept"))
    return parse_accept(accept).text().encode("ascii")


VARIABLES: Final[Mapping[str, Getter]] = {
    "image_formats": Variable(image_formats, Stability.BLOCK)
}
