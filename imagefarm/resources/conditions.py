"""The conditions of ``if`` (nginx's rewrite module)."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Mapping

from attrs import frozen

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.regex import compile_pattern
from imagefarm.config.table import Environment
from imagefarm.config.variables import Template
from imagefarm.http.captures import remember
from imagefarm.http.message import Request


class Truth:
    """``if ($x)``: false for the empty string and "0"."""

    def __init__(self, value: Template) -> None:
        self._value = value

    def __call__(self, request: Request) -> bool:
        """Whether it holds."""
        return self._value(request) not in (b"", b"0")


@frozen
class Equal:
    """``if ($x = text)``, ``!=``."""

    left: Template
    right: Template
    negated: bool

    def __call__(self, request: Request) -> bool:
        """Whether it holds."""
        return (self.left(request) == self.right(request)) is not self.negated


@frozen
class Matches:
    """``if ($x ~ pattern)``, ``~*``, ``!~``, ``!~*``; a match sets the captures."""

    value: Template
    pattern: re.Pattern[bytes]
    negated: bool

    def __call__(self, request: Request) -> bool:
        """Whether it holds."""
        match = self.pattern.search(self.value(request))
        if match is not None:
            remember(request, match)
        else:
            request.captures = None  # as in nginx: $1 is empty after a failure
        return (match is not None) is not self.negated


@frozen
class FileTest:
    """``if (-f path)``, ``-d``, ``-e``, ``-x`` and their negations, asked of the location."""

    test: Callable[[int], bool]
    path: Template
    negated: bool

    def __call__(self, request: Request) -> bool:
        """Whether it holds."""
        mode = request.location.mode(request, self.path(request))
        return (mode is not None and self.test(mode)) is not self.negated


Condition = Callable[[Request], bool]

#: By ``st_mode``.
_FILE_TESTS: Mapping[str, Callable[[int], bool]] = {
    "-f": stat.S_ISREG,
    "-d": stat.S_ISDIR,
    "-e": lambda mode: stat.S_ISREG(mode) or stat.S_ISDIR(mode),
    "-x": lambda mode: bool(mode & stat.S_IXUSR),
}


def _words(directive: Directive) -> list[str]:
    words = list(directive.args)
    whole = " ".join(words)
    if not words[0].startswith("(") or not words[-1].endswith(")"):
        raise Invalid(f'invalid condition "{whole}"')
    words[0] = words[0][1:]
    words[-1] = words[-1][:-1]
    return [word for i, word in enumerate(words) if word or 0 < i < len(words) - 1]


def parse_condition(directive: Directive, env: Environment) -> Condition:
    """The condition of an ``if`` directive. Raises `Invalid` in nginx's words."""
    words = _words(directive)
    if not words:
        raise Invalid(f'invalid condition "{" ".join(directive.args)}"')
    head = words[0]
    if head.startswith("$") and len(head) > 1:
        return _variable_condition(words, env)
    if len(words) == 2 and head.removeprefix("!") in _FILE_TESTS:
        test = _FILE_TESTS[head.removeprefix("!")]
        return FileTest(test, env.template(words[1]), head.startswith("!"))
    raise Invalid(f'invalid condition "{head}"')


def _variable_condition(words: list[str], env: Environment) -> Condition:
    left = env.template(words[0])
    if len(words) == 1:
        return Truth(left)
    if len(words) == 2:  # `if ($x = "")`: the closing bracket was the last word
        words = [*words, ""]
    operator, right = words[1], words[2]
    if len(words) > 3:
        raise Invalid(f'invalid condition "{words[3]}"')
    negated = operator.startswith("!")
    if operator in ("=", "!="):
        return Equal(left, env.template(right), negated)
    if operator in ("~", "~*", "!~", "!~*"):
        return Matches(left, compile_pattern(right, ignore_case=operator.endswith("*")), negated)
    raise Invalid(f'unexpected "{operator}" in condition')
