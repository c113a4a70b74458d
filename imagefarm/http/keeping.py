"""What the fast path has to know of a cache (`http.hits`); `cache.kept` is the one there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .message import Identity, Request


class Kept(Protocol):
    """A hit: a cache's word for an answer, which stands for as long as `holds`."""

    @property
    def by_block(self) -> bool:
        """Whether more of the header block than Host has led to it, and to those beside it."""

    @property
    def chosen(self) -> bool:
        """Whether the header block has chosen it among others (``Vary``)."""

    @property
    def stamps(self) -> Mapping[bytes, bytes]:
        """The fields that tell its age: by name in lower case the value, a format of a number."""

    @property
    def names(self) -> tuple[bytes, ...]:
        """The names of the fields as they are kept."""

    @property
    def shown(self) -> frozenset[bytes]:
        """In lower case those of them that clients get, if it was found in the ordinary way."""

    @property
    def values(self) -> tuple[bytes, ...]:
        """Their values."""

    @property
    def length(self) -> int:
        """The bytes of the body that is kept."""

    @property
    def status(self) -> bytes:
        """For ``$upstream_cache_status``."""

    @property
    def identity(self) -> Identity:
        """What its file was."""

    @property
    def shelf(self) -> Shelf:
        """Where others are that are kept for the same location."""

    def numbers(self, now: float) -> tuple[int, ...]:
        """What goes into ``stamps`` now."""

    def holds(self, now: float) -> bool:
        """Whether the cache would give it now, by one look at its file.

        Not where there is more to do than to answer. ``now`` is the time of day.
        """

    def use(self, now: float) -> None:
        """It has been given; to be called each time."""

    def record(self) -> bytes | None:
        """All that is known of it but the fields' names, for `Shelf.recall`.

        None where the request's line and Host alone don't lead to it.
        """


class Stored(Protocol):
    """What a cache has stored of an answer, which others may be found to disagree with."""

    @property
    def hit(self) -> bool:
        """Whether it was there already: the upstream has not said it just now."""

    @property
    def asked(self) -> float:
        """When the upstream was asked for it, in seconds since the epoch."""

    def drop(self) -> None:
        """Remove it, unless a later one has its place."""


class Shelf(Protocol):
    """What a cache keeps for one location."""

    def take(self, request: Request, now: float) -> tuple[Kept, bytes] | None:
        """The hit for ``request``, which is like one before, and its body, if it is small.

        None where there is none, or more to do than to answer.
        """

    def recall(
        self, record: bytes, start: int, names: tuple[bytes, ...], now: float
    ) -> tuple[Kept, bytes] | None:
        """The same for a request that has led to a hit already.

        ``record`` has from ``start`` what `Kept.record` said of that, ``names`` are its fields'.
        """
