"""``map`` (ngx_http_map_module): a variable whose value another one's decides.

The value is looked for among the strings, then among the wildcards (``hostnames``), then by the
regular expressions in the order written; what is left is ``default``. Strings ignore case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from attrs import define, field, frozen

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.regex import compile_pattern
from imagefarm.config.table import HTTP, AnyRow, BlockRow, Environment
from imagefarm.config.variables import Getter, Template, encode

from .captures import remember
from .hostnames import HostNames
from .lookup import Stability, Variable, joined, stabilities_of
from .message import Request


@frozen(eq=False)
class Map:
    """A ``map`` block; ``name`` is its variable's, in lower case."""

    name: str
    source: Template
    names: HostNames[Template]
    patterns: tuple[tuple[re.Pattern[bytes], Template], ...]
    default: Template | None
    hostnames: bool
    volatile: bool
    stability: Stability

    def lookup(self, request: Request) -> bytes:
        """The value: what ``set`` says, or what it was when it was first asked for."""
        name = self.name
        value = request.variables.get(name)
        if value is not None or self.volatile:
            return self.find(request) if value is None else value
        mapped = request.outcome.mapped
        if mapped is None:
            mapped = request.outcome.mapped = {}
        value = mapped.get(name)
        if value is None:
            value = mapped[name] = self.find(request)
        return value

    def find(self, request: Request) -> bytes:
        """What is said of the source as it is now. Groups that match become the request's."""
        value = self.source(request)
        if self.hostnames and value.endswith(b"."):
            value = value[:-1]
        found = self.names.find(value.lower()) or self._match(request, value) or self.default
        return b"" if found is None else found(request)

    def _match(self, request: Request, value: bytes) -> Template | None:
        for pattern, template in self.patterns if value else ():
            match = pattern.search(value)
            if match is not None:
                if pattern.groups:
                    remember(request, match)
                return template
        return None


@define
class _Reader:
    """The lines of a block, one after another."""

    env: Environment
    #: Names from here on may have an asterisk.
    hostnames: bool = False
    volatile: bool = False
    default: Template | None = None
    names: HostNames[Template] = field(factory=HostNames)
    patterns: list[tuple[re.Pattern[bytes], Template]] = field(factory=list)
    templates: list[Template] = field(factory=list)

    def read(self, line: Directive) -> None:
        """One line. Raises `Invalid` in nginx's words."""
        if line.block is not None:
            raise Invalid('unexpected "{"', line)
        key = line.name
        if key in ("hostnames", "volatile") and not line.words:
            self.hostnames = self.hostnames or key == "hostnames"
            self.volatile = self.volatile or key == "volatile"
            return
        if len(line.words) != 1:
            raise Invalid("invalid number of the map parameters", line)
        try:
            value = self.env.template(line.args[0])
            self._add(key, value)
        except Invalid as error:
            raise Invalid(str(error), line) from None
        self.templates.append(value)

    def _add(self, key: str, value: Template) -> None:
        if key == "default":
            if self.default is not None:
                raise Invalid("duplicate default map parameter")
            self.default = value
        elif key.startswith("~"):
            self.patterns.append((_pattern(key), value))
        else:
            key = key.removeprefix("\\")
            if self.hostnames and not _may_be_host(key):
                raise Invalid(f'invalid hostname or wildcard "{key}"')
            name = encode(key).lower()
            if not self.names.add(name, value, wildcards=self.hostnames):
                raise Invalid(f'conflicting parameter "{key.lower()}"')


def _may_be_host(key: str) -> bool:
    """Whether there is no asterisk but one at an end, and no part is empty (ngx_hash.c)."""
    if ".." in key or "\0" in key or key.count("*") > 1:
        return False
    return "*" not in key or (len(key) > 2 and (key.startswith("*.") or key.endswith(".*")))


def _pattern(key: str) -> re.Pattern[bytes]:
    no_case = key.startswith("~*")
    return compile_pattern(key[2:] if no_case else key[1:], ignore_case=no_case)


def _variable(directive: Directive) -> str | None:
    name = directive.args[1]
    return name[1:].lower() if name.startswith("$") and len(name) > 1 else None


def _captured(directive: Directive) -> Iterable[str]:
    for line in directive.block or ():
        if line.name.startswith("~"):
            yield from _pattern(line.name).groupindex


def _map(directive: Directive, env: Environment) -> Map:
    source, variable = directive.args
    name = _variable(directive)
    if name is None:
        raise Invalid(f'invalid variable name "{variable}"')
    reader = _Reader(env)
    of = env.template(source)
    faults = []
    for line in directive.block or ():
        try:
            reader.read(line)
        except Invalid as error:
            faults.append(error)
    if faults:
        raise Invalid(str(faults[0]), faults[0].where, faults[1:])
    needs = frozenset[Stability]().union(*map(stabilities_of, (of, *reader.templates)))
    by_groups = any(pattern.groups for pattern, _ in reader.patterns)
    return Map(
        name,
        of,
        reader.names,
        tuple(reader.patterns),
        reader.default,
        reader.hostnames,
        reader.volatile,
        Stability.REQUEST if by_groups else joined(needs),
    )


def _getter(made: Map) -> Getter:
    return Variable(made.lookup, made.stability)


MAP: Final = BlockRow[Map](
    name="map",
    contexts=frozenset({HTTP}),
    arity=(2, 2),
    convert=_map,
    free=True,
    defines=_captured,
    makes=_variable,
    getter=_getter,
    syntax="string $variable { ... }",
    doc="Makes a variable out of others: of the lines `source value;` the first that the string "
    "is found by. Sources are strings, regular expressions (`~`, `~*`), with `hostnames` also "
    "names with an asterisk at one end, and `default`; values may have variables. `volatile` "
    "has it looked up each time. See [variables.md](variables.md).",
)

DIRECTIVES: Final[tuple[AnyRow, ...]] = (MAP,)
