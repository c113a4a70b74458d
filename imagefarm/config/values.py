"""Converters for the value forms that directives share: flags, numbers, sizes, times, paths."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from .ast import Directive
from .errors import Invalid
from .table import Convert, Environment, ListRow, Row
from .variables import Template

E = TypeVar("E")

_SIZE = re.compile(r"(\d+)([kKmMgG]?)")
_SIZE_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_TIME = re.compile(r"(\d+)(ms|y|M|w|d|h|m|s)?")
_TIME_UNITS = {
    "y": 31536000.0, "M": 2592000.0, "w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0,
    "s": 1.0, "ms": 0.001,
}  # fmt: skip


def parse_size(text: str) -> int:
    """``100M``, ``8k``, ``1024`` in bytes. Raises `Invalid`."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise Invalid(f'invalid value "{text}"')
    return int(match[1]) * _SIZE_UNITS[match[2].lower()]


def parse_time(text: str) -> float:
    """``1h30m``, ``5m``, ``10``, ``250ms`` in seconds. Raises `Invalid`.

    As in nginx, units go from the largest to the smallest and a bare number is seconds.
    """
    rest, total, last = text.replace(" ", ""), 0.0, -1
    order = list(_TIME_UNITS)
    while rest:
        match = _TIME.match(rest)
        if match is None:
            raise Invalid(f'invalid value "{text}"')
        unit = match[2] or "s"
        if order.index(unit) <= last or (match[2] is None and match.end() != len(rest)):
            raise Invalid(f'invalid value "{text}"')
        last = order.index(unit)
        total += int(match[1]) * _TIME_UNITS[unit]
        rest = rest[match.end() :]
    if last < 0:
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


def _named(directive: Directive, text: str) -> Invalid:
    return Invalid(f'"{directive.name}" directive invalid value "{text}"')


def number(directive: Directive, env: Environment) -> int:
    """A whole number, zero or more."""
    text = directive.args[0]
    if not re.fullmatch(r"\d+", text, re.ASCII):
        raise Invalid(f'"{directive.name}" directive invalid number')
    return int(text)


def size(directive: Directive, env: Environment) -> int:
    """A size in bytes."""
    try:
        return parse_size(directive.args[0])
    except Invalid:
        raise _named(directive, directive.args[0]) from None


def time(directive: Directive, env: Environment) -> float:
    """A time in seconds."""
    try:
        return parse_time(directive.args[0])
    except Invalid:
        raise _named(directive, directive.args[0]) from None


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
    "ListRow", "Row", "choice", "conf_path", "flag", "number", "parse_size", "parse_time",
    "path", "size", "template", "text", "time", "words",
]  # fmt: skip
