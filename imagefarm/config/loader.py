"""Directives to values: every directive is looked up in the table, checked and converted.

Two passes. The first resolves: which row is meant, is it allowed here, has it the right number of
words and a block where it needs one; it also collects the names of the variables that the
configuration defines, because a variable may be used before it is defined. The second converts.
Nothing stops at the first error: all of them are reported at once, in nginx's words.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import Factory, define, frozen

from .ast import Directive
from .errors import ConfigurationError, Invalid, Problem
from .known import HARMLESS, UNSAFE
from .parse import Parsed
from .table import MAIN, AnyRow, BlockRow, DirectiveTable, Ignored, ListRow, Row, Scope
from .variables import Getter, Template, VariableTable


@frozen(eq=False)
class Loaded:
    """A configuration that may be run: its values, and what an operator should know of it."""

    root: Scope
    warnings: tuple[Problem, ...] = ()
    #: What is wrong beyond single directives, for whoever builds from it to report with the rest.
    problems: tuple[Problem, ...] = ()
    #: The names of the variables in it.
    variables: frozenset[str] = frozenset()


def convert(
    parsed: Parsed, *, table: DirectiveTable, variables: VariableTable, prefix: str, conf_dir: str
) -> Loaded:
    """Turn a configuration into values.

    ``prefix`` and ``conf_dir`` are the directories that relative paths are resolved against.
    Raises `ConfigurationError` with all that is wrong, the problems of ``parsed`` included.
    What a converter raises besides `Invalid` is a mistake in the program and propagates.
    """
    resolver = _Resolver(table)
    lines = resolver.resolve(parsed.directives, MAIN)
    captured = {name.lower() for name in resolver.captured}
    assigned = {name.lower() for name in resolver.assigned} - captured
    converter = _Converter(
        variables,
        frozenset(captured | assigned),
        frozenset(assigned),
        prefix,
        conf_dir,
        resolver.makers,
    )
    root = Scope(MAIN, None, None, None)
    converter.fill(root, lines)
    errors = _credible(resolver.errors + converter.errors, parsed.problems)
    place = _order(parsed)
    if errors:
        raise ConfigurationError(sorted(dict.fromkeys(errors), key=place))
    warnings = sorted(dict.fromkeys(resolver.warnings + converter.warnings), key=place)
    return Loaded(root, tuple(warnings), variables=frozenset(variables.used))


def override(parsed: Parsed, extra: Parsed, table: DirectiveTable) -> Parsed:
    """``parsed`` with the main-context directives of ``extra``, from ``--set``.

    One that may be given only once replaces the one in ``parsed``; others are added.
    """
    replaced = {
        directive.name
        for directive in extra.directives
        if isinstance(table.find(directive.name, MAIN), Row)
    }
    kept = tuple(d for d in parsed.directives if d.name not in replaced)
    return Parsed(
        kept + extra.directives, parsed.problems + extra.problems, parsed.files + extra.files
    )


def _credible(errors: list[Problem], syntax: Iterable[Problem]) -> list[Problem]:
    """All errors but those that a syntax error further up in the same file may have caused."""
    first: dict[str, int] = {}
    for problem in syntax:
        first[problem.file] = min(problem.line, first.get(problem.file, problem.line))
    kept = [error for error in errors if error.file not in first or error.line < first[error.file]]
    return kept + list(syntax)


def _order(parsed: Parsed) -> _Order:
    return _Order({file: number for number, file in enumerate(parsed.files)})


@frozen
class _Order:
    """Sorts problems as the files were read, and by line."""

    files: Mapping[str, int]

    def __call__(self, problem: Problem) -> tuple[int, str, int]:
        return self.files.get(problem.file, -1), problem.file, problem.line


@frozen(eq=False)
class _Line:
    """A directive and the row that it was found to mean."""

    row: AnyRow
    directive: Directive
    #: The context inside its block and the directives there.
    context: str
    inner: tuple[_Line, ...]


@define
class _Resolver:
    """The first pass."""

    table: DirectiveTable
    errors: list[Problem] = Factory(list)
    warnings: list[Problem] = Factory(list)
    #: Variables that regular expressions and the like define, and those that ``set`` does.
    captured: set[str] = Factory(set)
    assigned: set[str] = Factory(set)
    #: What makes variables of others; of two that make the same one, the last does.
    makers: dict[str, tuple[BlockRow[Any], Directive]] = Factory(dict)

    def resolve(self, directives: Iterable[Directive], context: str) -> tuple[_Line, ...]:
        lines: list[_Line] = []
        seen: set[int] = set()
        for directive in directives:
            row = self.table.find(directive.name, context)
            if row is None:
                self._missing(directive)
                continue
            if isinstance(row, Ignored):
                self._warn(directive, f'"{directive.name}" directive is ignored: {row.why}')
                lines.append(_Line(row, directive, "", ()))
                continue
            fault = _fault(row, directive)
            if fault:
                self._error(directive, fault)
            elif id(row) in seen or _beside(row, directive, lines):
                self._error(directive, f'"{directive.name}" directive is duplicate')
            elif isinstance(row, Row) or (isinstance(row, BlockRow) and row.unique):
                seen.add(id(row))
            inner_context, inner = self._inside(row, directive, context)
            if not fault:
                self._define(row, directive)
                lines.append(_Line(row, directive, inner_context, inner))
        return tuple(lines)

    def _inside(
        self, row: AnyRow, directive: Directive, context: str
    ) -> tuple[str, tuple[_Line, ...]]:
        if not isinstance(row, BlockRow) or directive.block is None:
            return "", ()
        if row.free:
            return row.name, ()
        inside = row.opens if isinstance(row.opens, str) else row.opens[context]
        return inside, self.resolve(directive.block, inside)

    def _define(
        self, row: Row[object] | ListRow[object] | BlockRow[object], directive: Directive
    ) -> None:
        assigns = isinstance(row, ListRow) and row.assigns
        if isinstance(row, BlockRow) and (made := row.makes(directive)):
            self.makers[made] = row, directive
        try:
            (self.assigned if assigns else self.captured).update(row.defines(directive))
        except Invalid:
            pass  # The converter says the same, in the second pass.

    def _missing(self, directive: Directive) -> None:
        name = directive.name
        if name in self.table:
            self._error(directive, f'"{name}" directive is not allowed here')
        elif name in HARMLESS:
            self._warn(directive, f'"{name}" directive is not supported and has no effect')
        elif name in UNSAFE:
            self._error(
                directive, f'"{name}" directive is not supported, and to ignore it is not safe'
            )
        else:
            self._error(directive, f'unknown directive "{name}"')

    def _error(self, directive: Directive, message: str) -> None:
        self.errors.append(Problem(message, directive.file, directive.line))

    def _warn(self, directive: Directive, message: str) -> None:
        self.warnings.append(Problem(message, directive.file, directive.line))


def _beside(row: AnyRow, directive: Directive, lines: Iterable[_Line]) -> bool:
    """Whether ``directive`` stands beside lines of its block that it may not stand beside."""
    if not isinstance(row, ListRow) or not row.lone:
        return False
    alone = (row.lone,)
    others = [line.directive.args for line in lines if line.row is row]
    return bool(others) and (directive.args == alone or alone in others)


def _fault(
    row: Row[object] | ListRow[object] | BlockRow[object], directive: Directive
) -> str | None:
    """What is wrong with the form of ``directive``, in nginx's order of checks."""
    if isinstance(row, BlockRow):
        if directive.block is None:
            return f'directive "{directive.name}" has no opening "{{"'
    elif directive.block is not None:
        return f'directive "{directive.name}" is not terminated by ";"'
    least, most = row.arity
    count = len(directive.words)
    if count < least or (most is not None and count > most):
        return f'invalid number of arguments in "{directive.name}" directive'
    return None


def _unset(request: object) -> bytes:
    """What could not be made: the configuration is refused."""
    return b""


@define
class _Converter:
    """The second pass."""

    variables: VariableTable
    known: frozenset[str]
    assigned: frozenset[str]
    prefix: str
    conf_dir: str
    makers: Mapping[str, tuple[BlockRow[Any], Directive]]
    errors: list[Problem] = Factory(list)
    warnings: list[Problem] = Factory(list)
    #: The getters of what has been made; None while that is under way.
    _made: dict[str, Getter | None] = Factory(dict)
    #: What has been converted, by `id`: when it is first used, which may be before its turn.
    _early: dict[int, object] = Factory(dict)

    def made(self, name: str) -> Getter | None:
        """The getter of a variable that the configuration makes. Raises `Invalid` for a circle."""
        if name not in self.makers:
            return None
        if name in self._made:
            found = self._made[name]
            if found is None:
                raise Invalid(f'cycle while evaluating variable "{name}"')
            return found
        self._made[name] = None
        row, directive = self.makers[name]
        value = self._convert(row, directive)
        getter = row.getter if value is not None else None
        found = self._made[name] = _unset if getter is None else getter(value)
        return found

    def _convert(self, row: Row[Any] | ListRow[Any] | BlockRow[Any], directive: Directive) -> Any:
        """The value; None for one that is wrong, which is noted once."""
        if id(directive) in self._early:
            return self._early[id(directive)]
        try:
            value = row.convert(directive, _Environment(self, directive))
        except Invalid as error:
            for fault in (error, *error.further):
                where = fault.where or directive
                self.errors.append(Problem(str(fault), where.file, where.line))
            value = None
        if isinstance(row, BlockRow) and row.getter is not None:
            self._early[id(directive)] = value
        return value

    def fill(self, scope: Scope, lines: Iterable[_Line]) -> None:
        for line in lines:
            row, directive = line.row, line.directive
            if isinstance(row, Ignored):
                scope.items.append((row, None, directive))
                continue
            if isinstance(row, BlockRow) and (name := row.makes(directive)):
                self.made(name)
            value = self._convert(row, directive)
            if isinstance(row, BlockRow):
                inner = Scope(line.context, directive, scope, value, every=scope.every)
                scope.items.append((row, inner, directive))
                self.fill(inner, line.inner)
                continue
            scope.items.append((row, value, directive))
            scope.every.setdefault(row, []).append(value)
            if isinstance(row, ListRow):
                scope.own.setdefault(row, []).append(value)
            else:
                scope.own[row] = value


@frozen(eq=False)
class _Environment:
    """What `table.Environment` promises, for one directive."""

    converter: _Converter
    directive: Directive

    def template(self, text: str) -> Template:
        converter = self.converter
        return converter.variables.compile(
            text, converter.known, converter.assigned, converter.made
        )

    def path(self, text: str) -> str:
        return os.path.join(self.converter.prefix, text)

    def conf_path(self, text: str) -> str:
        return os.path.join(self.converter.conf_dir, text)

    def warn(self, message: str) -> None:
        problem = Problem(message, self.directive.file, self.directive.line)
        self.converter.warnings.append(problem)
