"""The reference of all directives, generated from the directive table. Sans-IO."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from . import values
from .known import HARMLESS, UNSAFE
from .table import (
    EVENTS,
    HTTP,
    LOCATION,
    LOCATION_IF,
    MAIN,
    SERVER,
    SERVER_IF,
    UPSTREAM,
    AnyRow,
    BlockRow,
    DirectiveTable,
    Ignored,
    ListRow,
    Row,
)
from .variables import Template

_CONTEXTS: Final = (MAIN, EVENTS, HTTP, SERVER, LOCATION, SERVER_IF, LOCATION_IF, UPSTREAM)
_NONE: Final = "—"

_HEAD: Final = """\
# Directives

Generated from the directive table. Syntax and meaning are nginx's unless said otherwise.
"""
_WITHOUT_EFFECT: Final = """\
## Known, without effect

These directives of nginx load with a warning; leaving them out changes no answer's meaning.
"""
_REFUSED: Final = """\
## Refused

These directives of nginx are not supported, and since to ignore them would not be safe, they
are errors.
"""


def render(table: DirectiveTable) -> str:
    """Markdown: a section for each group of the table, an entry for each directive."""
    parts = [_HEAD]
    for title, rows in table.groups.items():
        parts.append(f"## {title}\n")
        parts.extend(_entry(row) for row in sorted(rows, key=lambda row: row.name))
    for head, names in ((_WITHOUT_EFFECT, HARMLESS), (_REFUSED, UNSAFE)):
        listed = ", ".join(f"`{name}`" for name in sorted(names) if name not in table)
        parts.append(f"{head}\n{listed}\n")
    return "\n".join(parts)


def _entry(row: AnyRow) -> str:
    lines = [f"### `{row.name}`", ""]
    if isinstance(row, Ignored):
        text = f"Accepted without effect: {row.why}."
    else:
        lines.append(f"- Syntax: `{_syntax(row)}`")
        if not isinstance(row, BlockRow):
            lines.append(f"- Default: {_default(row)}")
        text = row.doc
    lines.append(f"- Context: {', '.join(_ordered(row.contexts))}")
    if isinstance(row, ListRow):
        lines.append("- May be repeated")
    lines += ["", text, ""]
    return "\n".join(lines)


def _ordered(contexts: Iterable[str]) -> list[str]:
    known = {context: number for number, context in enumerate(_CONTEXTS)}
    return sorted(contexts, key=lambda context: (known.get(context, len(known)), context))


def _syntax(row: Row[object] | ListRow[object] | BlockRow[object]) -> str:
    words = f"{row.name} {row.syntax}".strip()
    if not isinstance(row, BlockRow):
        return words + ";"
    return words if "{" in words else words + " { ... }"


def _default(row: Row[object] | ListRow[object]) -> str:
    text = row.default_text
    if not text and isinstance(row, Row):
        text = _value(row)
    return f"`{row.name} {text};`" if text else _NONE


def _value(row: Row[object]) -> str:
    """A default as one would write it; empty if its value does not tell."""
    value = row.default
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int) and row.convert in (values.size, values.offset):
        return _size(value)
    if isinstance(value, int | float) and row.convert is values.time:
        return _time(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return value
    if isinstance(value, Template):
        return value.source
    return ""


def _size(value: int) -> str:
    for unit, name in ((1 << 30, "g"), (1 << 20, "m"), (1 << 10, "k")):
        if value and value % unit == 0:
            return f"{value // unit}{name}"
    return str(value)


def _time(value: float) -> str:
    if value != int(value):
        return f"{round(value * 1000)}ms"
    for unit, name in ((86400, "d"), (3600, "h")):
        if value and value % unit == 0:
            return f"{int(value // unit)}{name}"
    return f"{int(value)}s"
