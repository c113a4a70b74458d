"""What the configuration says of a zone."""

from __future__ import annotations

from typing import Final

from attrs import frozen

#: The bytes of ``keys_zone`` that one key takes: "one megabyte can store about 8 thousand".
KEY_SIZE: Final = 128


@frozen(kw_only=True)
class ZoneSettings:
    """One ``*_cache_path``: sizes in bytes, times in seconds.

    ``keys`` is the most keys that a process remembers, ``max_size`` None is no limit.
    """

    name: str
    path: str
    keys: int
    levels: tuple[int, ...] = ()
    inactive: float = 600.0
    max_size: int | None = None
