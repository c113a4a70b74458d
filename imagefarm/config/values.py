"""Converters for the value forms that directives share: flags, numbers, sizes, times, paths."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from .ast import Directive
from .errors import Invalid
from .table import Convert, Environment, ListRow, Row
from .variables import Template

E = TypeVar("E")
N = TypeVar("N", int, float)

#: The largest number that nginx can hold.
_MAX = 2**63 - 1
_SIZE = re.compile(r"([0-9]{1,19})([kKmM]?)")
_OFFSET = re.compile(r"([0-9]{1,19})([kKmMgG]?)")
_SIZE_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_TIME = re.compile(r" *([0-9]{1,19})(ms|[yMwdhms])")
_BARE_TIME = re.compile(r" *([0-9]{1,19}) *")
_TIME_UNITS = {
    "y": 31536000.0, "M": 2592000.0, "w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0,
    "s": 1.0, "ms": 0.001,
}  # fmt: skip


def parse_size(text: str) -> int:
    """``8k``, ``1m``, ``1024`` in bytes (nginx's ``size``). Raises `Invalid`."""
    return _size(_SIZE, text)


def parse_offset(text: str) -> int:
    """``100M``, ``2g``, in bytes: a size that may be a file's (nginx's ``offset``).

    Raises `Invalid`.
    """
    return _size(_OFFSET, text)


def _size(form: re.Pattern[str], text: str) -> int:
    match = form.fullmatch(text)
    value = -1 if match is None else int(match[1]) * _SIZE_UNITS[match[2].lower()]
    if not 0 <= value <= _MAX:
        raise Invalid(f'invalid value "{text}"')
    return value


def parse_time(text: str) -> float:
    """``1h30m``, ``1d 12h``, ``10``, ``250ms`` in seconds. Raises `Invalid`.

    As in nginx, units go from the largest to the smallest, and a bare number, which may come
    last, is seconds. Years, months and milliseconds are allowed everywhere, while nginx allows
    the former in times of whole seconds only and the latter in the others only.
    """
    position, total, units = 0, 0.0, list(_TIME_UNITS)
    match = _TIME.match(text)
    while match is not None:
        if match[2] not in units:
            raise Invalid(f'invalid value "{text}"')
        total += int(match[1]) * _TIME_UNITS[match[2]]
        units = units[units.index(match[2]) + 1 :]
        position = match.end()
        match = _TIME.match(text, position)
    bare = _BARE_TIME.fullmatch(text, position)
    if bare is not None:
        total += int(bare[1])
    elif position == 0 or text[position:].strip(" "):
        raise Invalid(f'invalid value "{text}"')
    if total > _MAX:
        raise Invalid(f'invalid value "{text}"')
    return total


def flag(directive: Directive, env: Environment) -> bool:
    """``on`` or ``off``."""
    value = directive.args[0].lower()
    if value not in ("on", "off"):
        raise Invalid(
            f'invalid value "{directive.args[0]}" in "{directive.name}" directive, '
            'it must be "on" or "off"'
        )
    return value == "on"


def number(directive: Directive, env: Environment) -> int:
    """A whole number, zero or more."""
    text = directive.args[0]
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > _MAX:
        raise Invalid(f'"{directive.name}" directive invalid number')
    return int(text)


def size(directive: Directive, env: Environment) -> int:
    """A size in bytes."""
    return _parsed(directive, parse_size)


def offset(directive: Directive, env: Environment) -> int:
    """A size in bytes that may be a file's: gigabytes are allowed."""
    return _parsed(directive, parse_offset)


def time(directive: Directive, env: Environment) -> float:
    """A time in seconds."""
    return _parsed(directive, parse_time)


def _parsed(directive: Directive, parse: Callable[[str], N]) -> N:
    try:
        return parse(directive.args[0])
    except Invalid:
        raise Invalid(f'"{directive.name}" directive invalid value') from None


def text(directive: Directive, env: Environment) -> str:
    """The word as it is."""
    return directive.args[0]


def words(directive: Directive, env: Environment) -> tuple[str, ...]:
    """All words as they are."""
    return directive.args


def template(directive: Directive, env: Environment) -> Template:
    """A value with variables."""
    return env.template(directive.args[0])


def path(directive: Directive, env: Environment) -> str:
    """A path, absolute against the prefix."""
    return env.path(directive.args[0])


def conf_path(directive: Directive, env: Environment) -> str:
    """A path, absolute against the configuration file's directory."""
    return env.conf_path(directive.args[0])


def choice(options: Mapping[str, E] | Iterable[str]) -> Convert[E]:
    """One of several words, mapped to a value."""
    table = dict(options) if isinstance(options, Mapping) else {name: name for name in options}

    def convert(directive: Directive, env: Environment) -> E:
        value = directive.args[0]
        if value not in table:
            raise Invalid(
                f'invalid value "{value}" in "{directive.name}" directive, it must be one of: '
                + ", ".join(f'"{name}"' for name in table)
            )
        return table[value]  # type: ignore[return-value]

    return convert


__all__ = [
    "ListRow", "Row", "choice", "conf_path", "flag", "number", "offset", "parse_offset",
    "parse_size", "parse_time", "path", "size", "template", "text", "time", "words",
]  # fmt: skip
