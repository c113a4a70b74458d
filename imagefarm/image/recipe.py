"""The recipe: what to make of which source. Every way to ask for an image parses into one."""

from __future__ import annotations

import re
from enum import Enum
from urllib.parse import quote_from_bytes

from attrs import evolve, frozen

from .errors import BadRecipe, one_line
from .formats import Format, Wanted
from .limits import Limits

#: Longest query string that is read, and longest path in it, in bytes.
MAX_QUERY = 8192
MAX_PATH = 4096


class Fit(Enum):
    """How the picture meets the box of ``w`` times ``h`` (CSS object-fit's and sharp's words).

    Nothing is ever enlarged: where the box is larger than the picture, ``cover`` and ``fill``
    shrink the box, keeping its shape, until neither direction is enlarged.
    """

    #: The whole picture, its shape kept, as large as fits within the box; the result may be
    #: smaller than the box in one direction: no bars are added.
    CONTAIN = "contain"
    #: The box filled, the picture's shape kept, what sticks out cut off equally at both ends.
    COVER = "cover"
    #: The whole picture stretched to the shape of the box.
    FILL = "fill"
    #: sharp's word for what `CONTAIN` does here; folded into it.
    INSIDE = "inside"


@frozen
class Recipe:
    """What to make. Equal recipes give equal pictures; `parse_query` folds equivalent ones.

    ``src`` is the source's path from the root: decoded, normalised, with a leading slash.
    ``w`` and ``h`` are pixels; without both the picture keeps its size and is encoded anew,
    without metadata. ``q`` None is the format's own default.
    """

    src: bytes
    w: int | None = None
    h: int | None = None
    fit: Fit = Fit.CONTAIN
    q: int | None = None
    fmt: Format | Wanted = Wanted.SAME

    def canonical(self) -> str:
        """The one text of this recipe: a query string that parses back into it."""
        parts = ["src=" + quote_from_bytes(self.src, safe="/")]
        if self.w is not None:
            parts.append(f"w={self.w}")
        if self.h is not None:
            parts.append(f"h={self.h}")
        if self.fit is not Fit.CONTAIN:
            parts.append(f"fit={self.fit.value}")
        if self.q is not None:
            parts.append(f"q={self.q}")
        if self.fmt is not Wanted.SAME:
            parts.append(f"fmt={self.fmt.value}")
        return "&".join(parts)


def fold(recipe: Recipe) -> Recipe:
    """The simplest recipe that makes the same picture.

    With one side or none all fits are alike; a quality that is the format's default, or that
    the format does not know, says nothing.
    """
    if recipe.fit is Fit.INSIDE or recipe.w is None or recipe.h is None:
        recipe = evolve(recipe, fit=Fit.CONTAIN)
    if isinstance(recipe.fmt, Format) and (
        recipe.fmt.default_quality is None or recipe.q == recipe.fmt.default_quality
    ):
        recipe = evolve(recipe, q=None)
    return recipe


_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
_DIGITS = re.compile(rb"[0-9]{1,9}")
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://")
_FORMATS: dict[bytes, Format | Wanted] = {
    **{fmt.value.encode("ascii"): fmt for fmt in Format},
    b"jpg": Format.JPEG,
    b"auto": Wanted.AUTO,
}
_NAMES = ("src", "w", "h", "fit", "q", "fmt")


def parse_query(query: bytes, limits: Limits | None = None) -> Recipe:
    """Read ``src=/a.jpg&w=320&h=240&fit=cover&q=80&fmt=auto``.

    The form is that of HTML forms and of PHP's ``$_GET``: ``+`` is a space, ``%`` needs two hex
    digits. ``w`` and ``h`` go up to ``limits``. Raises `BadRecipe`, which names the parameter
    and says what it may be.
    """
    limits = limits or Limits()
    values = _pairs(query)
    if "src" not in values:
        raise BadRecipe("src", "is missing: it must be a path under the image root")
    fit = values.get("fit", b"contain")
    if fit not in _FITS:
        raise BadRecipe("fit", "must be one of: " + ", ".join(f.value for f in Fit))
    fmt: Format | Wanted = Wanted.SAME
    if "fmt" in values:
        if values["fmt"] not in _FORMATS:
            names = ", ".join(f.value for f in Format)
            raise BadRecipe("fmt", f"must be one of: {names}, auto")
        fmt = _FORMATS[values["fmt"]]
    return fold(
        Recipe(
            src=source_path(values["src"]),
            w=_whole("w", values, limits.max_width),
            h=_whole("h", values, limits.max_height),
            fit=_FITS[fit],
            q=_whole("q", values, 100),
            fmt=fmt,
        )
    )


_FITS = {fit.value.encode("ascii"): fit for fit in Fit}


def source_path(path: bytes) -> bytes:
    """A decoded path, normalised: one slash in front, no empty, ``.`` or ``..`` segments.

    Raises `BadRecipe` for what cannot be a path under a root. Whether links lead out of it is
    for the file system to say (``source.py``).
    """
    if not path:
        raise BadRecipe("src", "must not be empty")
    if len(path) > MAX_PATH:
        raise BadRecipe("src", f"must be at most {MAX_PATH} bytes long")
    if b"\0" in path:
        raise BadRecipe("src", "must not contain a zero byte")
    if _SCHEME.match(path):
        raise BadRecipe("src", "must be a path under the image root, not a URL")
    kept: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            if not kept:
                raise BadRecipe("src", "must not climb out of the image root")
            kept.pop()
        elif segment not in (b"", b"."):
            kept.append(segment)
    # A trailing slash says "directory" and must not become the name of a file.
    tail = b"/" if kept and path.endswith((b"/", b"/.", b"/..")) else b""
    return b"/" + b"/".join(kept) + tail


def _pairs(query: bytes) -> dict[str, bytes]:
    if len(query) > MAX_QUERY:
        raise BadRecipe("query string", f"must be at most {MAX_QUERY} bytes long")
    values: dict[str, bytes] = {}
    for pair in query.split(b"&"):
        if not pair:
            continue
        raw, _, value = pair.partition(b"=")
        name = _decode("parameter name", raw).decode("latin-1")
        if name not in _NAMES:
            shown = one_line(name[:40])
            raise BadRecipe(f'"{shown}"', "is not a parameter; known: " + ", ".join(_NAMES))
        if name in values:
            raise BadRecipe(name, "must be given only once")
        values[name] = _decode(name, value)
    return values


def _decode(name: str, raw: bytes) -> bytes:
    def octet(match: re.Match[bytes]) -> bytes:
        if match[1] is None:
            raise BadRecipe(name, "is badly encoded: % must be followed by two hex digits")
        return bytes.fromhex(match[1].decode("ascii"))

    return _ESCAPE.sub(octet, raw.replace(b"+", b" "))


def _whole(name: str, values: dict[str, bytes], most: int) -> int | None:
    if name not in values:
        return None
    text = values[name]
    if not _DIGITS.fullmatch(text) or not 1 <= int(text) <= most:
        raise BadRecipe(name, f"must be a whole number from 1 to {most}")
    return int(text)
