"""What the dialects have in common: octets, words and numbers."""

from __future__ import annotations

import re
from fractions import Fraction

from imagefarm.image.errors import BadRecipe

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
_DIGITS = re.compile(rb"[0-9]{1,9}")
_DECIMAL = re.compile(rb"([0-9]{1,9})?(?:\.([0-9]{1,9}))?")


def unescape(name: str, raw: bytes) -> bytes:
    """``%41`` is A, as in a path: a plus is a plus. Raises `BadRecipe`, which names ``name``."""

    def octet(match: re.Match[bytes]) -> bytes:
        if match[1] is None:
            raise BadRecipe(name, "is badly encoded: % must be followed by two hex digits")
        return bytes.fromhex(match[1].decode("ascii"))

    return _ESCAPE.sub(octet, raw)


def whole(name: str, text: bytes, most: int, least: int = 0) -> int:
    """A whole number from ``least`` to ``most``. Raises `BadRecipe`."""
    if not _DIGITS.fullmatch(text) or not least <= int(text) <= most:
        raise BadRecipe(name, f"must be a whole number from {least} to {most}")
    return int(text)


def decimal(name: str, text: bytes, most: int, least: int = 0) -> Fraction:
    """A number such as ``12`` or ``0.5``, exactly. Raises `BadRecipe`."""
    match = _DECIMAL.fullmatch(text)
    if match is None or text in (b"", b"."):
        raise BadRecipe(name, f"must be a number from {least} to {most}")
    value = Fraction(int(match[1] or 0))
    if match[2]:
        value += Fraction(int(match[2]), 10 ** len(match[2]))
    if not least <= value <= most:
        raise BadRecipe(name, f"must be a number from {least} to {most}")
    return value


def spell(value: Fraction) -> str:
    """The number with at most nine decimals and no more digits than it needs."""
    return f"{float(value):.9f}".rstrip("0").rstrip(".")
