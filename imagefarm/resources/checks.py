"""What can only be said of blocks together: their nesting, and what is given twice.

The messages are nginx's.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

from imagefarm.config.errors import Problem
from imagefarm.config.table import Scope
from imagefarm.http.maps import MAP

from . import directives as rows
from .control import API, misplaced
from .listen import Listen
from .matching import Modifier
from .purging import CACHE_API
from .rewrite import Set
from .rewrite_directives import IF, SET

_REGEX = (Modifier.REGEX, Modifier.REGEX_NO_CASE)


def problems(http: Scope, taken: Container[str], known: Container[str]) -> Iterator[Problem]:
    """The problems of an ``http`` block; ``taken`` are variables that ``set`` may not define,
    ``known`` those that nothing else may make.
    """
    for scope in http.blocks(MAP):
        if scope.value is not None and scope.value.name in known:
            yield _problem(f'the duplicate "{scope.value.name}" variable', scope)
    servers = http.blocks(rows.SERVER_BLOCK)
    yield from _listens(servers)
    for server in servers:
        yield from _locations(server)
        yield from _sets(server, taken)
        yield from _apis(server, server)


def _problem(message: str, scope: Scope) -> Problem:
    assert scope.directive is not None
    return Problem(message, scope.directive.file, scope.directive.line)


def _listens(servers: Iterable[Scope]) -> Iterator[Problem]:
    defaults: set[tuple[str, int]] = set()
    explicit: set[tuple[str, int]] = set()
    for server in servers:
        here: set[tuple[str, int]] = set()
        for row, value, directive in server.items:
            if row is not rows.LISTEN or not isinstance(value, Listen):
                continue
            place = (directive.file, directive.line)
            for listen in value.each():
                if listen.address in here:
                    yield Problem(f"a duplicate listen {listen.text}", *place)
                elif listen.explicit and listen.address in explicit:
                    yield Problem(f"duplicate listen options for {listen.text}", *place)
                here.add(listen.address)
                if listen.explicit:
                    explicit.add(listen.address)
                if listen.default and listen.address in defaults:
                    yield Problem(f"a duplicate default server for {listen.text}", *place)
                if listen.default:
                    defaults.add(listen.address)


def _locations(outer: Scope) -> Iterator[Problem]:
    seen: set[tuple[bool, bytes]] = set()
    for scope in outer.blocks(rows.LOCATION_BLOCK):
        modifier, name, _ = scope.value
        text = name.decode("utf-8", "replace")
        fault = _misplaced(modifier, name, outer)
        if fault:
            yield _problem(fault, scope)
        if modifier not in (*_REGEX, Modifier.NAMED):
            key = (modifier is Modifier.EXACT, name)
            if key in seen:
                yield _problem(f'duplicate location "{text}"', scope)
            seen.add(key)
        if modifier is Modifier.NAMED and scope.is_set(rows.ALIAS):
            yield _problem('the "alias" directive cannot be used inside the named location', scope)
        yield from _locations(scope)


def _misplaced(modifier: Modifier, name: bytes, outer: Scope) -> str | None:
    """What forbids a location to stand inside ``outer``, if that is a location."""
    if outer.value is None:
        return None
    around, outer_name, _ = outer.value
    text, outer_text = (word.decode("utf-8", "replace") for word in (name, outer_name))
    for kind, word in ((Modifier.EXACT, "exact"), (Modifier.NAMED, "named")):
        if around is kind:
            return f'location "{text}" cannot be inside the {word} location "{outer_text}"'
    if modifier is Modifier.NAMED:
        return f'named location "{text}" can be on the server level only'
    if modifier not in _REGEX and (around in _REGEX or not name.startswith(outer_name)):
        return f'location "{text}" is outside location "{outer_text}"'
    return None


def _apis(scope: Scope, server: Scope) -> Iterator[Problem]:
    """``api`` and ``cache_api`` where they must not be."""
    listens = server.all(rows.LISTEN)
    local = bool(listens) and all(listen.local for listen in listens)
    unix = bool(listens) and all(listen.unix for listen in listens)
    for row, value, directive in scope.items:
        if row is API and value is not None:
            for message in misplaced(value, local, unix):
                yield Problem(message, directive.file, directive.line)
        elif row is CACHE_API and value is not None:
            for message in misplaced(value, local, unix, "cache_api"):
                yield Problem(message, directive.file, directive.line)
        elif row is rows.LOCATION_BLOCK:
            yield from _apis(value, server)


def _sets(scope: Scope, taken: Container[str]) -> Iterator[Problem]:
    for row, value, directive in scope.items:
        if row is SET and isinstance(value, Set) and value.name in taken:
            message = f'the duplicate "{value.name}" variable'
            yield Problem(message, directive.file, directive.line)
        if row is rows.LOCATION_BLOCK or row is IF:
            yield from _sets(value, taken)
