"""``proxy_cookie_domain``, ``proxy_cookie_path`` and ``proxy_cookie_flags``.

A Set-Cookie is taken apart as nginx does: at each ";", names without regard to case. One to which
nothing applies goes on byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from typing import Final

from attrs import frozen

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.regex import compile_pattern, names
from imagefarm.config.table import HSL, Environment, ListRow, Scope
from imagefarm.config.variables import Template
from imagefarm.http.captures import remember
from imagefarm.http.message import Request

from .redirect import Redirect, RegexRedirect, captures, convert_rewrite


class Off(Enum):
    """``off``: nothing is changed on this level, whatever else it says."""

    OFF = "off"


@frozen
class DomainReplacement:
    """A domain that equals ``pattern``, but for case and a leading dot, is replaced whole."""

    pattern: Template
    replacement: Template

    def rewrite(self, request: Request, value: bytes) -> bytes | None:
        """The new value, or None if this rule does not apply."""
        pattern = self.pattern(request).removeprefix(b".")
        if value.removeprefix(b".").lower() != pattern.lower():
            return None
        return self.replacement(request)


@frozen
class CookieFlags:
    """One ``proxy_cookie_flags``: for a cookie's name, the flags to set and to take away."""

    name: Template | re.Pattern[bytes]
    flags: tuple[Template, ...]

    def applies(self, request: Request, name: bytes) -> bool:
        """Whether the rule speaks of the cookie ``name``."""
        if isinstance(self.name, Template):
            return self.name(request).lower() == name.lower()
        match = self.name.search(name)
        if match is not None:
            remember(request, match)
        return match is not None


Rewriting = Redirect | DomainReplacement

#: The words of ``proxy_cookie_flags``: the attribute that they speak of, and what it becomes
#: (None: it is taken away).
_FLAGS: Final[dict[bytes, tuple[bytes, tuple[bytes, bytes | None] | None]]] = {
    b"secure": (b"secure", (b"Secure", None)),
    b"nosecure": (b"secure", None),
    b"httponly": (b"httponly", (b"HttpOnly", None)),
    b"nohttponly": (b"httponly", None),
    b"samesite=strict": (b"samesite", (b"SameSite", b"Strict")),
    b"samesite=lax": (b"samesite", (b"SameSite", b"Lax")),
    b"samesite=none": (b"samesite", (b"SameSite", b"None")),
    b"nosamesite": (b"samesite", None),
}


def _off(directive: Directive) -> bool:
    if len(directive.args) > 1:
        return False
    if directive.args[0] != "off":
        raise Invalid(f'invalid parameter "{directive.args[0]}"')
    return True


def _domain(directive: Directive, env: Environment) -> Off | Rewriting:
    if _off(directive):
        return Off.OFF
    pattern, replacement = directive.args
    if pattern.startswith("~"):
        return RegexRedirect(
            compile_pattern(pattern[1:], ignore_case=True), env.template(replacement)
        )
    return DomainReplacement(env.template(pattern), env.template(replacement))


def _path(directive: Directive, env: Environment) -> Off | Rewriting:
    if _off(directive):
        return Off.OFF
    return convert_rewrite(directive, env)


def _flags(directive: Directive, env: Environment) -> Off | CookieFlags:
    if _off(directive):
        return Off.OFF
    name, *flags = directive.args
    for flag in flags:
        if "$" not in flag and flag.encode() not in _FLAGS:
            raise Invalid(f'invalid parameter "{flag}"')
    templates = tuple(env.template(flag) for flag in flags)
    if name.startswith("~"):
        return CookieFlags(compile_pattern(name[1:], ignore_case=True), templates)
    return CookieFlags(env.template(name), templates)


def _names(directive: Directive) -> Iterable[str]:
    pattern = directive.args[0]
    return names(pattern[1:]) if pattern.startswith("~") else ()


COOKIE_DOMAIN: Final = ListRow[Off | Rewriting](
    name="proxy_cookie_domain",
    default_text="off",
    lone="off",
    contexts=HSL,
    arity=(1, 2),
    convert=_domain,
    defines=_names,
    syntax="off | domain replacement",
    doc="Replaces the domain of cookies that the upstream sets. The domain may be a regular "
    "expression after ``~``; case and a leading dot do not matter.",
)
COOKIE_PATH: Final = ListRow[Off | Rewriting](
    name="proxy_cookie_path",
    default_text="off",
    lone="off",
    contexts=HSL,
    arity=(1, 2),
    convert=_path,
    defines=captures,
    syntax="off | path replacement",
    doc="Replaces the beginning of the path of cookies that the upstream sets, or the whole where "
    "it matches a regular expression (``~``, without regard to case ``~*``).",
)
COOKIE_FLAGS: Final = ListRow[Off | CookieFlags](
    name="proxy_cookie_flags",
    default_text="off",
    lone="off",
    contexts=HSL,
    arity=(1, 5),
    convert=_flags,
    defines=_names,
    syntax="off | cookie [flag ...]",
    doc="Sets or takes away flags of a cookie, named or by a regular expression after ``~``: "
    "secure, httponly, samesite=strict | lax | none, nosecure, nohttponly, nosamesite. The first "
    "line that names the cookie counts.",
)
COOKIE_DIRECTIVES: Final = (COOKIE_DOMAIN, COOKIE_PATH, COOKIE_FLAGS)


@frozen
class CookieRules:
    """What a location does to cookies; each in the configuration's order."""

    domains: tuple[Rewriting, ...] = ()
    paths: tuple[Rewriting, ...] = ()
    flags: tuple[CookieFlags, ...] = ()

    @classmethod
    def from_scope(cls, scope: Scope) -> CookieRules:
        """The rules in force in ``scope``."""
        return cls(
            _rules(scope.all(COOKIE_DOMAIN)),
            _rules(scope.all(COOKIE_PATH)),
            tuple(rule for rule in scope.all(COOKIE_FLAGS) if isinstance(rule, CookieFlags)),
        )

    def __bool__(self) -> bool:
        return bool(self.domains or self.paths or self.flags)

    def rewrite(self, request: Request, value: bytes) -> bytes:
        """A Set-Cookie field's value after all rules that apply."""
        attributes = _split(value)
        if attributes[0][1] is None:
            return value  # no cookie
        changed = _replace(request, attributes, b"domain", self.domains)
        changed |= _replace(request, attributes, b"path", self.paths)
        for rule in self.flags:
            if rule.applies(request, attributes[0][0]):
                _set_flags(attributes, [flag(request) for flag in rule.flags])
                changed = True
                break
        return _join(attributes) if changed else value


Attribute = tuple[bytes, bytes | None]


def _rules(rules: tuple[Off | Rewriting, ...]) -> tuple[Rewriting, ...]:
    return tuple(rule for rule in rules if not isinstance(rule, Off))


def _split(value: bytes) -> list[Attribute]:
    found: list[Attribute] = []
    for part in value.split(b";"):
        name, equals, content = part.partition(b"=")
        found.append((name.strip(b" "), content.strip(b" ") if equals else None))
    return found


def _join(attributes: list[Attribute]) -> bytes:
    return b"; ".join(name if value is None else name + b"=" + value for name, value in attributes)


def _replace(
    request: Request, attributes: list[Attribute], wanted: bytes, rules: tuple[Rewriting, ...]
) -> bool:
    """Rewrite the values of the attribute ``wanted``; returns whether a rule applied."""
    changed = False
    for at, (name, value) in enumerate(attributes):
        if not at or value is None or name.lower() != wanted:
            continue
        for rule in rules:
            new = rule.rewrite(request, value)
            if new is not None:
                attributes[at] = name, new
                changed = True
                break
    return changed


def _set_flags(attributes: list[Attribute], words: list[bytes]) -> None:
    wanted: dict[bytes, Attribute | None] = {}
    present: set[bytes] = set()
    for word in words:
        if word in _FLAGS:  # a variable may hold anything; what is no flag says nothing
            name, attribute = _FLAGS[word]
            wanted[name] = attribute
    for at in range(len(attributes) - 1, 0, -1):
        name, value = attributes[at]
        lower = name.lower()
        if lower not in wanted:
            continue
        new = wanted[lower]
        if new is None:
            del attributes[at]
            continue
        # What is there already stays as it is written.
        if new[1] is not None and (value or b"").lower() != new[1].lower():
            attributes[at] = new
        present.add(lower)
    attributes += [new for name, new in wanted.items() if new is not None and name not in present]
