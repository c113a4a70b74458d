"""Signed URLs: HMAC-SHA256 (RFC 2104) over the canonical form of a recipe, with an expiry.

What is signed is what is made, not how it was written: `message` is `Recipe.canonical`, then
``&expires=`` and the seconds since the epoch if there is an end. The signature is that, in
base64url without padding (RFC 4648 section 5), 43 characters. Any of several keys will do, so
one can be replaced while URLs signed with the other are about.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable

from .errors import Expired, Forbidden
from .recipe import Recipe

#: Shortest secret that is taken, in bytes.
MIN_SECRET = 16


def message(recipe: Recipe, expires: int | None = None) -> bytes:
    """What is signed."""
    text = recipe.canonical()
    return (text if expires is None else f"{text}&expires={expires}").encode("ascii")


def sign(secret: bytes, recipe: Recipe, expires: int | None = None) -> str:
    """The signature, for ``sig``. ``expires`` is in seconds since the epoch."""
    return encode(hmac.digest(secret, message(recipe, expires), "sha256"))


def signed_query(secret: bytes, query: str, recipe: Recipe, expires: int | None = None) -> str:
    """``query``, which means ``recipe``, with its expiry and signature."""
    end = "" if expires is None else f"&expires={expires}"
    return f"{query}{end}&sig={sign(secret, recipe, expires)}"


def verify(
    secrets: Iterable[bytes], recipe: Recipe, expires: int | None, signature: bytes, now: float
) -> None:
    """Raise `Forbidden` for a signature of none of ``secrets``, `Expired` for a good old one."""
    good = [hmac.compare_digest(sign(key, recipe, expires).encode(), signature) for key in secrets]
    if not any(good):
        raise Forbidden("sig is wrong: it does not match the recipe and expires")
    if expires is not None and now >= expires:
        raise Expired("the URL has expired")


def encode(digest: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
