"""The rows of the rewrite module, and their compilation into steps."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.regex import compile_pattern
from imagefarm.config.regex import names as pattern_names
from imagefarm.config.table import (
    LOCATION,
    LOCATION_IF,
    SERVER,
    SERVER_IF,
    AnyRow,
    BlockRow,
    Environment,
    ListRow,
    Scope,
)

from .conditions import Condition, parse_condition
from .rewrite import Break, Flag, If, Return, Rewrite, Set, Step, Steps, is_redirect

_EVERYWHERE: Final = frozenset({SERVER, SERVER_IF, LOCATION, LOCATION_IF})
_ABSOLUTE = ("http://", "https://", "$scheme")
_NAME = re.compile(r"\$(\w+)", re.ASCII)


def _set_name(directive: Directive) -> str:
    match = _NAME.fullmatch(directive.args[0])
    if match is None:
        raise Invalid(f'invalid variable name "{directive.args[0]}"')
    return match[1].lower()


def _set(directive: Directive, env: Environment) -> Set:
    return Set(_set_name(directive), env.template(directive.args[1]))


def _break(directive: Directive, env: Environment) -> Break:
    return Break()


def _return(directive: Directive, env: Environment) -> Return:
    first, *rest = directive.args
    if not rest and first.startswith(_ABSOLUTE):
        return Return(302, env.template(first), location=True)
    if not re.fullmatch(r"\d{1,3}", first, re.ASCII):
        raise Invalid(f'invalid return code "{first}"')
    status = int(first)
    text = env.template(rest[0]) if rest else None
    return Return(status, text, location=is_redirect(status))


def _rewrite(directive: Directive, env: Environment) -> Rewrite:
    words = directive.args
    pattern = compile_pattern(words[0])
    replacement = words[1]
    try:
        flag = Flag(words[2]) if len(words) == 3 else Flag.NONE
    except ValueError:
        raise Invalid(f'invalid parameter "{words[2]}"') from None
    redirect = {Flag.REDIRECT: 302, Flag.PERMANENT: 301}.get(flag)
    if redirect is None and replacement.startswith(_ABSOLUTE):
        redirect = 302
    uri, mark, args = replacement.partition("?")
    keep = not (mark and args == "") and not (mark and args.endswith("?"))
    if mark and args.endswith("?"):
        args = args[:-1]
    return Rewrite(
        pattern, env.template(uri), env.template(args) if mark and args else None, keep, flag,
        redirect,
    )  # fmt: skip


def _pattern_names(directive: Directive) -> list[str]:
    return list(pattern_names(directive.args[0]))


def _condition_names(directive: Directive) -> list[str]:
    words = directive.args
    if len(words) >= 3 and words[-2].lstrip("!") in ("~", "~*"):
        return list(pattern_names(words[-1].removesuffix(")")))
    if len(words) >= 4 and words[-3].lstrip("!") in ("~", "~*"):
        return list(pattern_names(words[-2]))
    return []


SET: Final = ListRow(
    name="set", contexts=_EVERYWHERE, arity=(2, 2), convert=_set, syntax="$variable value",
    defines=lambda directive: [_set_name(directive)], doc="Gives a variable a value.",
    inherits=False, assigns=True,
)  # fmt: skip
BREAK: Final = ListRow(
    name="break", contexts=_EVERYWHERE, arity=(0, 0), convert=_break,
    doc="Ends the rewrite directives of this level.", inherits=False,
)  # fmt: skip
RETURN: Final = ListRow(
    name="return", contexts=_EVERYWHERE, arity=(1, 2), convert=_return, inherits=False,
    syntax="code [text] | code URL | URL",
    doc="Answers at once. 444 closes the connection without an answer.",
)  # fmt: skip
REWRITE: Final = ListRow(
    name="rewrite", contexts=_EVERYWHERE, arity=(2, 3), convert=_rewrite, inherits=False,
    syntax="regex replacement [last | break | redirect | permanent]", defines=_pattern_names,
    doc="Changes the URI where it matches, or redirects.",
)  # fmt: skip
IF: Final[BlockRow[Condition]] = BlockRow(
    name="if", contexts=frozenset({SERVER, LOCATION}), arity=(1, None), convert=parse_condition,
    opens={SERVER: SERVER_IF, LOCATION: LOCATION_IF}, syntax="(condition)",
    defines=_condition_names, doc="Applies what is inside to requests that fulfil the condition.",
)  # fmt: skip

DIRECTIVES: Final[tuple[AnyRow, ...]] = (SET, BREAK, RETURN, REWRITE, IF)


def compile_steps(scope: Scope, location_of: Callable[[Scope], Any] | None) -> Steps:
    """The rewrite steps of a block in order.

    ``location_of`` compiles the settings inside an ``if`` (None in a server).
    """
    steps: list[Step] = []
    for row, value, _ in scope.items:
        if row is IF:
            inner = location_of(value) if location_of else None
            steps.append(If(value.value, compile_steps(value, None), inner))
        elif row in (SET, BREAK, RETURN, REWRITE):
            steps.append(value)
    return tuple(steps)
