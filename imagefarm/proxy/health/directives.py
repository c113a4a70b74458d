"""``health_check`` and ``match`` (ngx_http_upstream_hc_module)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from imagefarm.config import values
from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import HTTP, LOCATION, AnyRow, BlockRow, Environment, ListRow

from .match import Match, convert_match
from .records import CheckSettings

_UNSAFE_URI: Final = re.compile(r"[\x00-\x20\x7f]")


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not int(text):
        raise Invalid("")
    return int(text)


def _port(text: str) -> int:
    number = _count(text)
    if number > 65535:
        raise Invalid("")
    return number


def _interval(text: str) -> float:
    seconds = values.parse_time(text)
    if not seconds:
        raise Invalid("")
    return seconds


def _uri(text: str) -> str:
    if not text.startswith("/") or _UNSAFE_URI.search(text):
        raise Invalid("")
    return text


def _name(text: str) -> str:
    if not text:
        raise Invalid("")
    return text


_PARAMETERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "interval": _interval,
    "jitter": values.parse_time,
    "fails": _count,
    "passes": _count,
    "uri": _uri,
    "match": _name,
    "port": _port,
    "keepalive_time": values.parse_time,
}


def _health_check(directive: Directive, env: Environment) -> CheckSettings:
    found: dict[str, Any] = {}
    for word in directive.args:
        name, equals, value = word.partition("=")
        key = name if equals else word
        if key in found:
            raise Invalid(f'duplicate parameter "{word}"')
        if not equals and word in ("mandatory", "persistent"):
            found[word] = True
        elif equals and name in _PARAMETERS:
            try:
                found[name] = _PARAMETERS[name](value)
            except Invalid:
                raise Invalid(f'invalid parameter "{word}"') from None
        else:
            raise Invalid(f'invalid parameter "{word}"')
    if "persistent" in found and "mandatory" not in found:
        raise Invalid('"persistent" requires "mandatory"')
    return CheckSettings(**found)


HEALTH_CHECK: Final = ListRow[CheckSettings](
    name="health_check",
    contexts=frozenset({LOCATION}),
    arity=(0, None),
    convert=_health_check,
    inherits=False,
    syntax="[interval=time] [jitter=time] [fails=number] [passes=number] [uri=uri] [port=number] "
    "[match=name] [mandatory [persistent]] [keepalive_time=time]",
    doc="Asks each server of the location's upstream for a URI at intervals, over HTTP or "
    "FastCGI, and keeps requests from one that fails. See [upstreams.md](upstreams.md).",
)
MATCH: Final = BlockRow[Match](
    name="match",
    contexts=frozenset({HTTP}),
    arity=(1, 1),
    convert=convert_match,
    free=True,
    syntax="name { ... }",
    doc="Names what the answer to a health check has to be: `status [!] code[-code] ...`, "
    "`header [!] name`, `header name =|!=|~|!~ value`, `body ~|!~ pattern`, `require $variable "
    "...`. All have to hold; of the body the first 256 KB count.",
)

DIRECTIVES: Final[tuple[AnyRow, ...]] = (HEALTH_CHECK, MATCH)
