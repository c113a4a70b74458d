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
from typing import Final, Generic, TypeVar

from attrs import field, frozen

from imagefarm.http.alike import Alike
from imagefarm.http.hostnames import HostNames

T = TypeVar("T")

#: Patterns that look at nothing but a URI's extension, and those that are one whole URI.
_BY_EXTENSION: Final = re.compile(rb"\^?(?:\.[*+])?\\\.\(?(?:\?:)?[\w|]+\)?\??\$")
_BY_NAME: Final = re.compile(rb"\^(/[\w/-]*)\$")


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
        servers = tuple(servers)
        self.default: Found[T] = Found(default)
        #: Whether there is nothing to choose from.
        self.alone = len(servers) == 1
        self._names = HostNames[Found[T]]()
        self._patterns: list[tuple[re.Pattern[bytes], T]] = []
        self.conflicts = [
            (name.text, item)
            for names, item in servers
            for name in names
            if self._taken(name, item)
        ]

    def _taken(self, name: ServerName, item: T) -> bool:
        """Add a name, if it is still free."""
        if name.pattern is not None:
            self._patterns.append((name.pattern, item))
            return False
        return not self._names.add(name.text, Found(item))

    def find(self, host: bytes) -> Found[T]:
        """The server for ``host`` (lower case, no port)."""
        found = self._names.find(host)
        if found is not None or not host:
            return found or self.default
        for pattern, item in self._patterns:
            if (match := pattern.search(host)) is not None:
                return Found(item, match)
        return self.default


@frozen(eq=False)
class Entry(Generic[T]):
    """One location as the matcher sees it: its modifier, its name, and those nested in it."""

    modifier: Modifier
    name: bytes
    item: T
    pattern: re.Pattern[bytes] | None = None
    inner: Locations[T] | None = field(default=None)


class _TooLong(Exception):
    """What else is found like a URI can't be told in a few words."""


def _find_alike(
    pattern: re.Pattern[bytes],
    uri: bytes,
    elsewhere: list[bytes],
    patterns: list[tuple[re.Pattern[bytes], bool]],
) -> bool:
    """Whether ``pattern`` finds ``uri``; adds what it has to do with the names beside it."""
    hit = pattern.search(uri) is not None
    whole = None if pattern.flags & re.IGNORECASE else _BY_NAME.fullmatch(pattern.pattern)
    if whole is not None:
        if hit:
            raise _TooLong
        elsewhere.extend(_beside(uri, whole[1]))
    elif _BY_EXTENSION.fullmatch(pattern.pattern) is None:
        patterns.append((pattern, hit))
    return hit


def _beside(uri: bytes, *names: bytes) -> list[bytes]:
    """What follows the directory of ``uri`` in those ``names`` that go on from there."""
    directory = uri[: uri.rfind(b"/") + 1]
    size = len(directory)
    return [name[size:] for name in names if len(name) > size and name.startswith(directory)]


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

    def alike(self, uri: bytes, directory: bytes) -> Alike | None:
        """For which URIs beside ``uri``, with its extension, `find` gives what it gives for it.

        ``directory`` is that of the files. None where that would be too long a story.
        """
        elsewhere: list[bytes] = []
        patterns: list[tuple[re.Pattern[bytes], bool]] = []
        try:
            captures, _ = self._alike(uri, elsewhere, patterns)
        except _TooLong:
            return None
        return Alike(directory, tuple(elsewhere), tuple(patterns), captures)

    def _alike(
        self,
        uri: bytes,
        elsewhere: list[bytes],
        patterns: list[tuple[re.Pattern[bytes], bool]],
    ) -> tuple[re.Pattern[bytes] | None, bool]:
        """The pattern that finds ``uri``, and whether the search is settled; as `_find`."""
        elsewhere.extend(_beside(uri, *self._exact, *self._prefixes))
        if uri[uri.rfind(b"/") + 1 :].startswith(tuple(elsewhere)):
            raise _TooLong
        prefix = self._longest(uri)
        if prefix is not None:
            if prefix.inner is not None:
                found, settled = prefix.inner._alike(uri, elsewhere, patterns)
                if settled:
                    return found, True
            if prefix.modifier is Modifier.PREFERRED:
                return None, False
        for entry in self._patterns:
            if (pattern := entry.pattern) is not None and _find_alike(
                pattern, uri, elsewhere, patterns
            ):
                if entry.inner is not None or pattern.groupindex:
                    raise _TooLong
                return pattern, True
        return None, False

    @staticmethod
    def _descend(entry: Entry[T], found: Found[T], uri: bytes) -> Found[T]:
        if entry.inner is None:
            return found
        inner, _ = entry.inner._find(uri)
        return inner or found
