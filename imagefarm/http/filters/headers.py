"""``expires`` and ``add_header`` (nginx's ``headers`` filter)."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import Final, Protocol

import attrs
from attrs import frozen

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import HSLI, AnyRow, Environment, ListRow, Row
from imagefarm.config.values import parse_time
from imagefarm.config.variables import Template, encode
from imagefarm.http.dates import format_http, next_daily, parse_http
from imagefarm.http.headers import Headers
from imagefarm.http.message import Request, Response


class Kind(Enum):
    """What an ``expires`` time counts from."""

    OFF = "off"
    EPOCH = "epoch"
    MAX = "max"
    ACCESS = "access"
    MODIFIED = "modified"
    DAILY = "daily"


@frozen
class Expires:
    """A value of ``expires``; ``seconds`` may be negative. A ``template`` decides per request."""

    kind: Kind
    seconds: int = 0
    template: Template | None = None


@frozen
class AddHeader:
    """One ``add_header``."""

    name: bytes
    value: Template
    always: bool = False


_WORDS: Final = {kind.value: kind for kind in (Kind.OFF, Kind.EPOCH, Kind.MAX)}
_DAY: Final = 86400


def parse_expires(text: str, kind: Kind = Kind.ACCESS) -> Expires:
    """A time, ``@`` time of day, ``epoch``, ``max`` or ``off``. Raises `Invalid`."""
    if kind is not Kind.MODIFIED and text in _WORDS:
        return Expires(_WORDS[text])
    sign = 1
    if text.startswith("@"):
        if kind is Kind.MODIFIED:
            raise Invalid(
                '"expires" directive daily time cannot be used with "modified" parameter'
            )
        kind, text = Kind.DAILY, text[1:]
    elif text[:1] in ("+", "-"):
        sign, text = (-1 if text[0] == "-" else 1), text[1:]
    try:
        seconds = int(parse_time(text))
    except Invalid:
        raise Invalid('"expires" directive invalid value') from None
    if kind is Kind.DAILY and seconds > _DAY:
        raise Invalid('"expires" directive daily time value must be less than 24 hours')
    return Expires(kind, sign * seconds)


def _expires(directive: Directive, env: Environment) -> Expires:
    kind, text = Kind.ACCESS, directive.args[0]
    if len(directive.args) == 2:
        if text != "modified":
            raise Invalid('"expires" directive invalid value')
        kind, text = Kind.MODIFIED, directive.args[1]
    if "$" in text:
        return Expires(kind, template=env.template(text))
    return parse_expires(text, kind)


def _add_header(directive: Directive, env: Environment) -> AddHeader:
    name, value, *rest = directive.args
    if rest and rest[0] != "always":
        raise Invalid(f'invalid parameter "{rest[0]}"')
    return AddHeader(encode(name), env.template(value), bool(rest))


EXPIRES: Final = Row[Expires](
    name="expires",
    default_text="off",
    contexts=HSLI,
    arity=(1, 2),
    convert=_expires,
    default=Expires(Kind.OFF),
    syntax="[modified] time | @time | epoch | max | off",
    doc="Sets ``Expires`` and ``Cache-Control``: that long after the answer or, with "
    "``modified``, after the file's modification; a negative time forbids caching.",
)
ADD_HEADER: Final = ListRow[AddHeader](
    name="add_header",
    contexts=HSLI,
    arity=(2, 3),
    convert=_add_header,
    syntax="name value [always]",
    doc="Adds a field to successful answers and redirects; with ``always`` to all. Inherited "
    "only where the inner block adds none.",
)
DIRECTIVES: Final[tuple[AnyRow, ...]] = (EXPIRES, ADD_HEADER)

#: The statuses that ``expires`` and ``add_header`` without ``always`` apply to.
_SAFE: Final = frozenset({200, 201, 204, 206, 301, 302, 303, 304, 307, 308})
_LINE_ENDS: Final = re.compile(rb"[\0\r\n]")


class Needs(Protocol):
    """The settings that this filter reads."""

    @property
    def expires(self) -> Expires:
        """``expires``."""

    @property
    def add_headers(self) -> tuple[AddHeader, ...]:
        """``add_header``."""

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds since the epoch."""


def apply(request: Request, response: Response, settings: Needs) -> Response:
    """Add what the configuration says to the head of ``response``."""
    if settings.expires.kind is Kind.OFF and not settings.add_headers:
        return response
    safe = response.status in _SAFE
    mtime = response.mtime
    answer = attrs.evolve(response, headers=response.headers.copy())
    request.outcome.drafted = answer
    try:
        if safe:
            _set_expires(request, answer.headers, mtime, settings)
        for rule in settings.add_headers:
            if safe or rule.always:
                mtime = _add(answer.headers, mtime, rule, rule.value(request))
    finally:
        request.outcome.drafted = None
    answer.mtime = mtime
    return answer


def _add(headers: Headers, mtime: float | None, rule: AddHeader, value: bytes) -> float | None:
    """Carry out one ``add_header``; returns the modification time, which it may change."""
    # A value with variables must not end the line: response splitting.
    value = _LINE_ENDS.sub(b" ", value)
    name = rule.name.lower()
    if name in (b"last-modified", b"etag"):  # one each: replaced, and an empty value removes
        headers.remove(name)
        if name == b"last-modified":
            mtime = parse_http(value)
    if value:
        headers.add(rule.name, value)
    return mtime


def _set_expires(request: Request, headers: Headers, mtime: float | None, settings: Needs) -> None:
    rule = settings.expires
    if rule.template is not None:
        try:
            rule = parse_expires(rule.template(request).decode("latin-1"), rule.kind)
        except Invalid:
            return
    if rule.kind is Kind.OFF:
        return
    if rule.kind is Kind.MODIFIED and mtime is None:
        mtime = parse_http(headers.first(b"last-modified") or b"")  # an upstream's
    when, control = _expiry(rule, mtime, int(settings.clock()))
    headers.set(b"Expires", format_http(when))
    headers.set(b"Cache-Control", control)


def renewed(response: Response, rule: Expires) -> Callable[[int], Headers]:
    """A function that gives the headers of ``response`` as they are in a later second."""
    headers = response.headers

    def at(second: int) -> Headers:
        if rule.kind is Kind.OFF:
            return headers
        when, control = _expiry(rule, response.mtime, second)
        values = {b"Expires": format_http(when), b"Cache-Control": control}
        return Headers((name, values.get(name, value)) for name, value in headers)

    return at


def _expiry(rule: Expires, mtime: float | None, now: int) -> tuple[int, bytes]:
    """The moment for ``Expires`` and the value of ``Cache-Control``."""
    if rule.kind is Kind.EPOCH:
        return 1, b"no-cache"
    if rule.kind is Kind.MAX:
        return 2145916555, b"max-age=315360000"  # nginx's: the end of 2037, and ten years
    if rule.kind is Kind.DAILY:
        when = next_daily(now, rule.seconds)
    elif rule.seconds == 0:
        return now, b"max-age=0"
    elif rule.kind is Kind.ACCESS or mtime is None:
        when = now + rule.seconds
    else:
        when = int(mtime) + rule.seconds
    if rule.seconds < 0 or when < now:
        return when, b"no-cache"
    return when, b"max-age=%d" % (when - now)
