"""Idle connections of a group, kept for the next request (ngx_http_upstream_keepalive_module).

The pool decides, the caller acts: it opens and closes nothing, it is told what is idle and
answers what to use and what to close. Times are seconds of the caller's clock.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, Protocol, TypeVar

from attrs import frozen


@frozen
class KeepaliveSettings:
    """``keepalive`` and its relatives; ``connections`` 0 keeps none. Times in seconds.

    ``connections`` is nginx's current default of an ``upstream`` block.
    """

    connections: int = 32
    requests: int = 1000
    time: float = 3600.0
    timeout: float = 60.0
    #: Whether locations have connections of their own.
    local: bool = False


class Keepable(Protocol):
    """A connection as the pool sees it."""

    @property
    def key(self) -> Hashable:
        """What it may be reused for: the peer and the kind of connection."""

    @property
    def served(self) -> int:
        """The number of exchanges so far."""

    @property
    def created(self) -> float:
        """When it was opened."""


K = TypeVar("K", bound=Keepable)


class IdlePool(Generic[K]):
    """At most ``keepalive`` idle connections, but for a moment; then the oldest must go."""

    __slots__ = ("_by_key", "_since", "settings")

    def __init__(self, settings: KeepaliveSettings) -> None:
        self.settings = settings
        #: Idle since when; insertion order is from the least to the most recently used.
        self._since: dict[K, float] = {}
        #: A dict serves as a stack that can also lose an item from its middle.
        self._by_key: dict[Hashable, dict[K, None]] = {}

    def __len__(self) -> int:
        return len(self._since)

    def __iter__(self) -> Iterator[K]:
        """From the least to the most recently used."""
        return iter(self._since)

    def take(self, key: Hashable) -> K | None:
        """The most recently used connection for ``key``, which leaves the pool."""
        stack = self._by_key.get(key)
        if not stack:
            return None
        connection, _ = stack.popitem()
        if not stack:
            del self._by_key[key]
        del self._since[connection]
        return connection

    def put(self, connection: K, now: float) -> bool:
        """``connection`` became idle. Returns whether it is kept; else it is to be closed.

        There may be too many now: ask `surplus` a little later, when who is about to ask for
        one has done so.
        """
        settings = self.settings
        if (
            settings.connections == 0
            or connection.served >= settings.requests
            or now - connection.created > settings.time
        ):
            return False
        self._since[connection] = now
        self._by_key.setdefault(connection.key, {})[connection] = None
        return True

    @property
    def overfull(self) -> bool:
        """Whether there are more than ``keepalive`` says."""
        return len(self._since) > self.settings.connections

    def surplus(self) -> list[K]:
        """Remove and return what is too much: the least recently used."""
        extra = list(self._since)[: max(0, len(self._since) - self.settings.connections)]
        for connection in extra:
            self.remove(connection)
        return extra

    def remove(self, connection: K) -> bool:
        """``connection`` was closed; returns whether it was idle here."""
        if self._since.pop(connection, None) is None:
            return False
        stack = self._by_key[connection.key]
        del stack[connection]
        if not stack:
            del self._by_key[connection.key]
        return True

    def expire(self, now: float) -> list[K]:
        """Remove and return what has been idle for ``keepalive_timeout``."""
        expired = []
        for connection, since in self._since.items():
            if now - since < self.settings.timeout:
                break
            expired.append(connection)
        for connection in expired:
            self.remove(connection)
        return expired

    def next_expiry(self) -> float | None:
        """When `expire` next has something to do."""
        for since in self._since.values():
            return since + self.settings.timeout
        return None

    def drain(self) -> list[K]:
        """Remove and return everything."""
        every = list(self._since)
        self._since.clear()
        self._by_key.clear()
        return every

    def __repr__(self) -> str:
        return f"<IdlePool {len(self._since)} of {self.settings.connections}>"
