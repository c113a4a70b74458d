"""What the answer to a health check has to be (ngx_http_upstream_hc_module, ``match``).

A `Match` is a list of tests; an answer passes if all of them hold. `Match.head` looks at status,
header and variables, `Match.body` at the body, which is not needed where no test asks for it.
Both answer with what failed, in the words of the error log, or None.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from attrs import frozen

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.regex import compile_pattern
from imagefarm.config.table import Environment
from imagefarm.config.variables import Template, encode
from imagefarm.http.headers import Headers

#: The bytes of an answer's body that tests look at, and that a check reads (nginx: 256 K).
MAX_BODY: Final = 256 * 1024

_STATUS: Final = re.compile(r"([1-9][0-9]{2})(?:-([1-9][0-9]{2}))?")
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


@frozen
class StatusTest:
    """``status [!] code[-code] ...``: the ranges (both ends included), or anything but them."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False

    def holds(self, status: int) -> bool:
        """Whether ``status`` is one that is wanted."""
        return any(low <= status <= high for low, high in self.ranges) is not self.negated


@frozen
class HeaderTest:
    """``header [!] name`` and ``header name =|!=|~|!~ value``.

    Of a field that is there several times one has to fit; negated, none may.
    """

    name: bytes
    fits: Callable[[bytes], bool]
    negated: bool = False

    def holds(self, headers: Headers) -> bool:
        """Whether ``headers`` are as wanted."""
        return any(map(self.fits, headers.getall(self.name))) is not self.negated


@frozen
class BodyTest:
    """``body ~|!~ pattern``."""

    pattern: re.Pattern[bytes]
    negated: bool = False

    def holds(self, body: bytes) -> bool:
        """Whether ``body`` is as wanted."""
        return (self.pattern.search(body) is not None) is not self.negated


@frozen
class Match:
    """The tests of one ``match`` block. ``required`` are variables, neither empty nor "0"."""

    name: str = ""
    status: StatusTest | None = None
    headers: tuple[HeaderTest, ...] = ()
    bodies: tuple[BodyTest, ...] = ()
    required: tuple[Template, ...] = ()

    def head(
        self, status: int, headers: Headers, value: Callable[[Template], bytes]
    ) -> str | None:
        """What of an answer's head is not as wanted; ``value`` evaluates a variable."""
        if self.status is not None and not self.status.holds(status):
            return "checking status code"
        if not all(test.holds(headers) for test in self.headers):
            return "checking header"
        if any(value(variable) in (b"", b"0") for variable in self.required):
            return "checking required variables"
        return None

    def body(self, body: bytes) -> str | None:
        """Whether the body is not as wanted."""
        return None if all(test.holds(body) for test in self.bodies) else "checking body"


#: Without ``match``: any status of 2xx and 3xx.
DEFAULT: Final = Match(status=StatusTest(((200, 399),)))


def convert_match(directive: Directive, env: Environment) -> Match:
    """The converter of a ``match`` block. Raises `Invalid`."""
    status: StatusTest | None = None
    headers: list[HeaderTest] = []
    bodies: list[BodyTest] = []
    required: list[Template] = []
    for line in directive.block or ():
        if line.block is not None:
            raise Invalid(f'directive "{line.name}" is not terminated by ";"', line)
        if not line.args:
            raise _arguments(line)
        if line.name == "status" and status is not None:
            raise Invalid('"status" directive is duplicate', line)
        if line.name == "status":
            status = _status(line)
        elif line.name == "header":
            headers.append(_header(line))
        elif line.name == "body":
            bodies.append(_body(line))
        elif line.name == "require":
            required += [_variable(word, line, env) for word in line.args]
        else:
            raise Invalid(f'unknown directive "{line.name}"', line)
    return Match(directive.args[0], status, tuple(headers), tuple(bodies), tuple(required))


def _status(line: Directive) -> StatusTest:
    words = list(line.args)
    negated = words[0] == "!"
    if negated:
        del words[0]
    if not words:
        raise _arguments(line)
    ranges = []
    for word in words:
        match = _STATUS.fullmatch(word)
        low, high = (0, -1) if match is None else (int(match[1]), int(match[2] or match[1]))
        if low > high:
            raise Invalid(f'invalid status code "{word}"', line)
        ranges.append((low, high))
    return StatusTest(tuple(ranges), negated)


def _header(line: Directive) -> HeaderTest:
    words = list(line.args)
    absent = words[0] == "!"
    if absent:
        del words[0]
    if len(words) not in ((1,) if absent else (1, 3)):
        raise _arguments(line)
    name = words[0]
    if not _NAME.fullmatch(name):
        raise Invalid(f'invalid header name "{name}"', line)
    lower = encode(name.lower())
    if len(words) == 1:
        return HeaderTest(lower, lambda value: True, negated=absent)
    operator, text = words[1:]
    if operator in ("=", "!="):
        wanted = encode(text)
        return HeaderTest(lower, lambda value: value == wanted, negated=operator == "!=")
    if operator in ("~", "!~"):
        found = _pattern(text, line).search
        return HeaderTest(lower, lambda value: found(value) is not None, negated=operator == "!~")
    raise Invalid(f'invalid operator "{operator}"', line)


def _body(line: Directive) -> BodyTest:
    if len(line.args) != 2:
        raise _arguments(line)
    operator, text = line.args
    if operator not in ("~", "!~"):
        raise Invalid(f'invalid operator "{operator}"', line)
    return BodyTest(_pattern(text, line), negated=operator == "!~")


def _pattern(text: str, line: Directive) -> re.Pattern[bytes]:
    try:
        return compile_pattern(text)
    except Invalid as error:
        raise Invalid(str(error), line) from None


def _variable(word: str, line: Directive, env: Environment) -> Template:
    if not word.startswith("$"):
        raise Invalid(f'invalid variable name "{word}"', line)
    try:
        return env.template(word)
    except Invalid as error:
        raise Invalid(str(error), line) from None


def _arguments(line: Directive) -> Invalid:
    return Invalid(f'invalid number of arguments in "{line.name}" directive', line)
