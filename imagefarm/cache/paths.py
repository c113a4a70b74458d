"""``*_cache_path``: the text of a zone's declaration."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

from attrs import evolve

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import Environment
from imagefarm.config.values import parse_offset, parse_size, parse_time

from .settings import KEY_SIZE, ZoneSettings

T = TypeVar("T")

#: The least ``keys_zone`` (nginx: eight pages).
_MIN_ZONE: Final = 8 * 4096

SYNTAX: Final = (
    "path [levels=levels] [use_temp_path=on|off] keys_zone=name:size [inactive=time] "
    "[max_size=size] [min_free=size] [manager_files=number] [manager_sleep=time] "
    "[manager_threshold=time] [loader_files=number] [loader_sleep=time] [loader_threshold=time] "
    "[purger=on|off] [purger_files=number] [purger_sleep=time] [purger_threshold=time]"
)
DOC: Final = (
    "A directory for cached responses. What was not used for inactive (10 minutes) is removed, "
    "and the least recently used beyond max_size, or while the file system has less than "
    "min_free. At most one key for each 128 bytes of keys_zone is kept. The loader, the manager "
    "and the purger look at so many files (100) at once, for no longer than the threshold (5ms), "
    "and then let the process serve for the time of sleep (50ms, the manager 10ms)."
)


def parameter(text: str) -> Invalid:
    """nginx's complaint about a parameter that it does not know."""
    return Invalid(f'invalid parameter "{text}"')


def or_invalid(parse: Callable[[str], T], value: str, message: str) -> T:
    """``parse(value)``; fails with ``message``."""
    try:
        return parse(value)
    except Invalid:
        raise Invalid(message) from None


def _levels(text: str, value: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[12](:[12]){0,2}", value, re.ASCII):
        raise Invalid(f'invalid "levels" "{text}"')
    return tuple(int(level) for level in value.split(":"))


def _keys_zone(text: str, value: str) -> tuple[str, int]:
    name, colon, amount = value.partition(":")
    if not name or not colon:
        raise Invalid(f'invalid keys zone size "{text}"')
    size = or_invalid(parse_size, amount, f'invalid keys zone size "{text}"')
    if size < _MIN_ZONE:
        raise Invalid(f'keys zone "{text}" is too small')
    return name, size // KEY_SIZE


def _switch(name: str, value: str, text: str) -> bool:
    if value not in ("on", "off"):
        raise Invalid(f'invalid {name} value "{text}", it must be either "on" or "off"')
    return value == "on"


def _files(value: str) -> int:
    if not value.isascii() or not value.isdigit() or int(value) < 1:
        raise Invalid("not a number of files")
    return int(value)


_PARSERS: Final[dict[str, Callable[[str], Any]]] = {
    "inactive": parse_time, "max_size": parse_offset, "min_free": parse_offset,
}  # fmt: skip
#: What may follow the underscore in ``loader_...`` and the like.
_PACE: Final[dict[str, Callable[[str], Any]]] = {
    "files": _files, "sleep": parse_time, "threshold": parse_time,
}  # fmt: skip
#: Who has a pace, and the field of `ZoneSettings` that holds it.
_PACED: Final = {"loader": "loader", "manager": "manager", "purger": "purging"}


def _given(name: str, value: str, text: str) -> dict[str, Any]:
    """The fields that one parameter sets."""
    if name == "levels":
        return {"levels": _levels(text, value)}
    if name == "keys_zone":
        return dict(zip(("name", "keys"), _keys_zone(text, value), strict=True))
    if name in _PARSERS:
        return {name: or_invalid(_PARSERS[name], value, f'invalid {name} value "{text}"')}
    if name == "use_temp_path":
        # Either way temporary files are in the cache's own directory: see docs/cache.md.
        _switch(name, value, text)
        return {}
    if name == "purger":
        return {name: _switch(name, value, text)}
    raise parameter(text)


def zone_path(directive: Directive, env: Environment) -> ZoneSettings:
    """The settings that a ``*_cache_path`` gives. Raises `Invalid`."""
    found: dict[str, Any] = {"path": env.path(directive.args[0])}
    paces: dict[str, dict[str, Any]] = {role: {} for role in _PACED}
    for text in directive.args[1:]:
        name, equals, value = text.partition("=")
        if not equals:
            raise parameter(text)
        role, _, word = name.partition("_")
        if role in paces and word in _PACE:
            paces[role][word] = or_invalid(_PACE[word], value, f'invalid {name} value "{text}"')
        else:
            found |= _given(name, value, text)
    if "name" not in found:
        raise Invalid(f'"{directive.name}" must have "keys_zone" parameter')
    made = ZoneSettings(**found)
    return evolve(
        made,
        **{_PACED[role]: evolve(getattr(made, _PACED[role]), **p) for role, p in paces.items()},
    )
