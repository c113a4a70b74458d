"""Which formats are made, and which one a request gets."""

from __future__ import annotations

import re
from enum import Enum

from attrs import frozen


class Format(Enum):
    """A format that can be made; the value is its name in ``fmt``."""

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"
    AVIF = "avif"
    GIF = "gif"

    @property
    def content_type(self) -> bytes:
        """The media type."""
        return b"image/" + self.value.encode("ascii")

    @property
    def alpha(self) -> bool:
        """Whether pixels may be transparent."""
        return self is not Format.JPEG

    @property
    def animates(self) -> bool:
        """Whether animations are made in it."""
        return self in (Format.WEBP, Format.GIF)

    @property
    def default_quality(self) -> int | None:
        """``q`` where the request names none; None where the format knows no quality.

        The numbers give about equal looks: AVIF's scale is not JPEG's.
        """
        return _QUALITY.get(self)


_QUALITY = {Format.JPEG: 80, Format.WEBP: 80, Format.AVIF: 55}


class Wanted(Enum):
    """What ``fmt`` may ask for besides one `Format`."""

    #: The source's own, where it can be made.
    SAME = "same"
    #: The best one that the client's Accept header names.
    AUTO = "auto"


@frozen
class Offer:
    """What the client says in Accept about the formats that not everybody reads."""

    avif: bool = False
    webp: bool = False

    def text(self) -> str:
        """A short stable name, for validators and cache keys."""
        return "+".join(name for name in ("avif", "webp") if getattr(self, name)) or "plain"


_WEIGHT = re.compile(rb"q\s*=\s*0(?:\.0{0,3})?", re.IGNORECASE)


def parse_accept(accept: bytes) -> Offer:
    """Read an Accept header (RFC 9110 section 12.5.1).

    Only an explicit ``image/avif`` or ``image/webp`` counts: browsers that read neither send
    ``*/*``. A weight of zero means "not acceptable".
    """
    named = set()
    for item in accept.lower().split(b",")[:64]:
        media, *parameters = (part.strip() for part in item.split(b";"))
        if not any(_WEIGHT.fullmatch(parameter) for parameter in parameters):
            named.add(media)
    return Offer(avif=b"image/avif" in named, webp=b"image/webp" in named)


def choose(
    wanted: Format | Wanted,
    offer: Offer,
    source: str,
    *,
    alpha: bool,
    animated: bool,
    lossless: bool = False,
) -> Format:
    """The format to make from a source in Pillow's format ``source``.

    AVIF would lose an animation's frames (they are made as WebP or GIF), so ``auto`` passes it
    over for them. ``lossless`` leaves WebP, where it is the source's or understood, and PNG.
    """
    if isinstance(wanted, Format):
        return wanted
    if lossless:
        understood = offer.webp if wanted is Wanted.AUTO else animated or source == "WEBP"
        return Format.WEBP if understood else Format.PNG
    if wanted is Wanted.AUTO:
        if offer.avif and not animated:
            return Format.AVIF
        if offer.webp:
            return Format.WEBP
    same = {"JPEG": Format.JPEG, "PNG": Format.PNG, "GIF": Format.GIF}
    if wanted is Wanted.SAME:
        same |= {"WEBP": Format.WEBP, "AVIF": Format.AVIF}
    if source in same:
        return same[source]
    if animated:
        return Format.GIF
    return Format.PNG if alpha else Format.JPEG
