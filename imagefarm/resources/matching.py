"""Which server and which location: nginx's matching rules, without I/O.

Servers (https://nginx.org/en/docs/http/server_names.html): exact name, longest wildcard starting
with an asterisk, longest wildcard ending with one, first regular expression, default server.

Locations (the ``location`` directive): exact; longest prefix, which ends the search if it has
``^~``; first regular expression in the order written, inner locations first; longest prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Generic, TypeVar

from attrs import field, frozen

T = TypeVar("T")


class Modifier(Enum):
    """The word before a location's name."""

    PREFIX = ""
    EXACT = "="
    PREFERRED = "^~"
    REGEX = "~"
    REGEX_NO_CASE = "~*"
    NAMED = "@"


@frozen
class ServerName:
    """One word of ``server_name``; ``pattern`` is compiled for words that start with ``~``."""

    text: bytes
    pattern: re.Pattern[bytes] | None = None


@frozen
class Found(Generic[T]):
    """What a name led to, and the captures of the regular expression if it was one."""

    item: T
    captures: re.Match[bytes] | None = None


class ServerNames(Generic[T]):
    """The servers of one listening address, by name.

    A name that another server has already is ignored, as by nginx; ``conflicts`` has those, with
    the servers that they were meant for.
    """

    def __init__(self, servers: Iterable[tuple[Sequence[ServerName], T]], default: T) -> None:
        self._default: Found[T] = Found(default)
        self._exact: dict[bytes, Found[T]] = {}
        self._leading: dict[bytes, Found[T]] = {}  # b".example.com"
        self._trailing: dict[bytes, Found[T]] = {}  # b"mail."
        self._patterns: list[tuple[re.Pattern[bytes], T]] = []
        self.conflicts = [
            (name.text, item)
            for names, item in servers
            for name in names
            if self._taken(name, item)
        ]

    def _taken(self, name: ServerName, item: T) -> bool:
        """Add a name, if it is still free."""
        text, found = name.text, Found(item)
        if name.pattern is not None:
            self._patterns.append((name.pattern, item))
            return False
        if text.startswith(b"*."):
            places = [(self._leading, text[1:])]
        elif text.startswith(b"."):
            places = [(self._exact, text[1:]), (self._leading, text)]
        elif text.endswith(b".*"):
            places = [(self._trailing, text[:-1])]
        else:
            places = [(self._exact, text)]
        if any(key in known for known, key in places):
            return True
        for known, key in places:
            known[key] = found
        return False

    def find(self, host: bytes) -> Found[T]:
        """The server for ``host`` (lower case, no port)."""
        found = self._exact.get(host)
        if found is not None or not host:
            return found or self._default
        if self._leading:
            at = host.find(b".")
            while at >= 0:  # from the longest suffix to the shortest
                if (found := self._leading.get(host[at:])) is not None:
                    return found
                at = host.find(b".", at + 1)
        if self._trailing:
            at = host.rfind(b".")
            while at >= 0:
                if (found := self._trailing.get(host[: at + 1])) is not None:
                    return found
                at = host.rfind(b".", 0, at)
        for pattern, item in self._patterns:
            if (match := pattern.search(host)) is not None:
                return Found(item, match)
        return self._default


@frozen(eq=False)
class Entry(Generic[T]):
    """One location as the matcher sees it: its modifier, its name, and those nested in it."""

    modifier: Modifier
    name: bytes
    item: T
    pattern: re.Pattern[bytes] | None = None
    inner: Locations[T] | None = field(default=None)


class Locations(Generic[T]):
    """The locations of one server, or of one location."""

    def __init__(self, entries: Iterable[Entry[T]]) -> None:
        self._exact: dict[bytes, Entry[T]] = {}
        self._prefixes: dict[bytes, Entry[T]] = {}
        self._patterns: list[Entry[T]] = []
        self.named: dict[bytes, T] = {}
        for entry in entries:
            if entry.modifier is Modifier.NAMED:
                self.named[entry.name] = entry.item
            elif entry.modifier is Modifier.EXACT:
                self._exact[entry.name] = entry
            elif entry.pattern is not None:
                self._patterns.append(entry)
            else:
                self._prefixes[entry.name] = entry
        self._lengths = sorted({len(name) for name in self._prefixes}, reverse=True)

    def _longest(self, uri: bytes) -> Entry[T] | None:
        size = len(uri)
        for length in self._lengths:
            if length <= size and (entry := self._prefixes.get(uri[:length])) is not None:
                return entry
        return None

    def find(self, uri: bytes) -> Found[T] | None:
        """The location for the normalised ``uri``, or None."""
        return self._find(uri)[0]

    def _find(self, uri: bytes) -> tuple[Found[T] | None, bool]:
        """The location, and whether it settles the search (exact or regex)."""
        if (entry := self._exact.get(uri)) is not None:
            return Found(entry.item), True
        prefix = self._longest(uri)
        best: Found[T] | None = None
        if prefix is not None:
            best = Found(prefix.item)
            if prefix.inner is not None:
                found, settled = prefix.inner._find(uri)
                if found is not None:
                    best = found
                if settled:
                    return best, True
            if prefix.modifier is Modifier.PREFERRED:
                return best, False  # ends the search on its own level only
        for entry in self._patterns:
            match = entry.pattern.search(uri) if entry.pattern is not None else None
            if match is not None:
                return self._descend(entry, Found(entry.item, match), uri), True
        return best, False

    @staticmethod
    def _descend(entry: Entry[T], found: Found[T], uri: bytes) -> Found[T]:
        if entry.inner is None:
            return found
        inner, _ = entry.inner._find(uri)
        return inner or found
