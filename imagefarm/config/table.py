"""The directive table: one row a directive, contributed by the package that implements it.

A row is also the typed key of its value: ``scope[GZIP]`` is a ``bool`` because ``GZIP`` is a
``Row[bool]``. ``config`` knows no feature; ``app`` collects the rows of all packages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Generic, Protocol, TypeVar

from attrs import field, frozen

from .ast import Directive
from .variables import Getter, Template

T = TypeVar("T")

MAIN: Final = "main"
EVENTS: Final = "events"
HTTP: Final = "http"
SERVER: Final = "server"
LOCATION: Final = "location"
SERVER_IF: Final = "if in server"
LOCATION_IF: Final = "if in location"
UPSTREAM: Final = "upstream"

#: The contexts of most directives, as nginx's documentation prints them: http, server, location.
HSL: Final = frozenset({HTTP, SERVER, LOCATION})
#: The same and ``if`` in a location.
HSLI: Final = frozenset({HTTP, SERVER, LOCATION, LOCATION_IF})


class Environment(Protocol):
    """What a converter may ask while it turns a directive into a value."""

    def template(self, text: str) -> Template:
        """Compile ``text`` with its ``$variables``. Raises `Invalid` for an unknown one."""

    def path(self, text: str) -> str:
        """``text`` made absolute against ``--prefix``."""

    def conf_path(self, text: str) -> str:
        """``text`` made absolute against the directory of the configuration file."""

    def warn(self, message: str) -> None:
        """Report a harmless defect, with the directive's file and line."""


Convert = Callable[[Directive, Environment], T]


def _nothing(directive: Directive) -> None:
    return None


def _no_names(directive: Directive) -> Iterable[str]:
    return ()


@frozen(eq=False, kw_only=True)
class Row(Generic[T]):
    """A directive that is given at most once in a block; inner blocks inherit it.

    ``arity`` is the least and the most number of words (None: no limit). ``convert`` may raise
    `Invalid`. ``defines`` names the variables that the directive creates (``set``, captures).
    ``default_text`` is how the reference prints the default, where the value does not say it.
    """

    name: str
    contexts: frozenset[str]
    arity: tuple[int, int | None] = (1, 1)
    convert: Convert[T]
    default: T
    doc: str
    syntax: str = ""
    default_text: str = ""
    inherits: bool = True
    defines: Callable[[Directive], Iterable[str]] = _no_names


@frozen(eq=False, kw_only=True)
class ListRow(Generic[T]):
    """A directive that may be repeated; its value is the tuple of all in the block.

    As for nginx's array directives, a block inherits the outer ones if and only if it has none
    of its own.
    """

    name: str
    contexts: frozenset[str]
    arity: tuple[int, int | None] = (1, 1)
    convert: Convert[T]
    doc: str
    syntax: str = ""
    default: tuple[T, ...] = ()
    default_text: str = ""
    inherits: bool = True
    defines: Callable[[Directive], Iterable[str]] = _no_names
    #: What it ``defines`` is empty where it was not reached (``set``), not unset.
    assigns: bool = False
    #: A word that can't stand beside other lines (``off``).
    lone: str = ""


@frozen(eq=False, kw_only=True)
class BlockRow(Generic[T]):
    """A directive with a block: ``opens`` names the context inside; ``convert`` reads its words.

    ``free`` means that the block's own lines are data, not directives (``types``, ``map``):
    they are not looked up in the table and reach ``convert`` in ``directive.block``.
    ``opens`` is a string, or a mapping from the context outside to the one inside (``if``).
    """

    name: str
    contexts: frozenset[str]
    arity: tuple[int, int | None] = (0, 0)
    opens: str | dict[str, str] = ""
    convert: Convert[T]
    doc: str
    syntax: str = ""
    free: bool = False
    unique: bool = False
    defines: Callable[[Directive], Iterable[str]] = _no_names
    #: The variable that it makes (``map``), and how to read that by what it was converted to.
    makes: Callable[[Directive], str | None] = _nothing
    getter: Callable[[T], Getter] | None = None


@frozen(kw_only=True)
class Ignored:
    """A directive that nginx knows and we accept without effect; loading it warns with ``why``."""

    name: str
    contexts: frozenset[str]
    why: str


AnyRow = Row[Any] | ListRow[Any] | BlockRow[Any] | Ignored


class DirectiveTable:
    """The rows of all features, by name and context.

    ``groups`` maps a feature's title, as the reference prints it, to its rows. Several rows may
    share a name if their contexts differ (``server`` in http and in upstream). Raises
    `ValueError` if two rows claim the same name in the same context: a mistake in the program.
    """

    def __init__(self, groups: Mapping[str, Iterable[AnyRow]]) -> None:
        self.groups: dict[str, tuple[AnyRow, ...]] = {
            title: tuple(rows) for title, rows in groups.items()
        }
        self._rows: dict[str, dict[str, AnyRow]] = {}
        for rows in self.groups.values():
            for row in rows:
                by_context = self._rows.setdefault(row.name, {})
                for context in row.contexts:
                    if context in by_context:
                        raise ValueError(f'two rows for "{row.name}" in {context}')
                    by_context[context] = row

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def find(self, name: str, context: str) -> AnyRow | None:
        """The row for ``name`` in ``context``; None: unknown, or not allowed there."""
        return self._rows.get(name, {}).get(context)


@frozen(eq=False)
class Scope:
    """A block after conversion: values by row, inner blocks, and the order of both.

    ``value`` is what the block's own words became. Look values up with ``scope[ROW]``.
    """

    context: str
    directive: Directive | None
    parent: Scope | None
    value: Any
    own: dict[Row[Any] | ListRow[Any], Any] = field(factory=dict)
    #: Everything in the block in the order written: (row, value or inner scope, directive).
    items: list[tuple[AnyRow, Any, Directive]] = field(factory=list)
    #: What rows were set to in the whole configuration, which has one of these.
    every: dict[AnyRow, list[Any]] = field(factory=dict)

    def __getitem__(self, row: Row[T]) -> T:
        """The value in force here: own, inherited, or the row's default."""
        scope: Scope | None = self
        while scope is not None:
            if row in scope.own:
                found: T = scope.own[row]
                return found
            scope = scope.parent if row.inherits else None
        return row.default

    def all(self, row: ListRow[T]) -> tuple[T, ...]:
        """The values in force here of a repeatable directive."""
        scope: Scope | None = self
        while scope is not None:
            if row in scope.own:
                found: tuple[T, ...] = tuple(scope.own[row])
                return found
            scope = scope.parent if row.inherits else None
        return row.default

    def anywhere(self, row: Row[T] | ListRow[T]) -> tuple[T, ...]:
        """All that the directive was set to in the whole configuration."""
        return tuple(self.every.get(row, ()))

    def is_set(self, row: Row[Any] | ListRow[Any]) -> bool:
        """Whether this very block has the directive."""
        return row in self.own

    def blocks(self, row: BlockRow[Any]) -> tuple[Scope, ...]:
        """The inner blocks that ``row`` opened, in order."""
        return tuple(item for kind, item, _ in self.items if kind is row)
