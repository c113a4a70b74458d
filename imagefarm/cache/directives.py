"""The directive rows, one set for ``fastcgi_`` and one for ``proxy_``, and what they become."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from attrs import frozen

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid, Problem
from imagefarm.config.table import HSL, HTTP, AnyRow, Environment, ListRow, Row, Scope
from imagefarm.config.values import flag, number, offset, parse_time, template, time
from imagefarm.config.variables import Template
from imagefarm.http.message import Request, Response

from .paths import DOC, SYNTAX, or_invalid, zone_path
from .policy import DEFAULT_CODES, ValidTime
from .settings import ZoneSettings

_STALE: Final = frozenset(
    {
        "error", "timeout", "invalid_header", "updating", "http_500", "http_502", "http_503",
        "http_504", "http_403", "http_404", "http_429",
    }
)  # fmt: skip
_METHODS: Final = ("GET", "HEAD", "POST")


def _valid(directive: Directive, env: Environment) -> ValidTime:
    *codes, last = directive.args
    seconds = or_invalid(parse_time, last, f'invalid time value "{last}"')
    if not codes:
        return ValidTime(DEFAULT_CODES, seconds)
    if "any" in codes:
        return ValidTime(None, seconds)
    for code in codes:
        if not re.fullmatch(r"[1-5]\d\d", code, re.ASCII):
            raise Invalid(f'invalid status "{code}"')
    return ValidTime(frozenset(map(int, codes)), seconds)


def _zone_name(directive: Directive, env: Environment) -> Template | None:
    name = directive.args[0]
    return None if name == "off" else env.template(name)


def _methods(directive: Directive, env: Environment) -> frozenset[bytes]:
    for word in directive.args:
        if word not in _METHODS:
            raise Invalid(f'invalid value "{word}"')
    return frozenset(word.encode("ascii") for word in directive.args) | {b"GET", b"HEAD"}


def _predicates(directive: Directive, env: Environment) -> tuple[Template, ...]:
    return tuple(env.template(word) for word in directive.args)


def _use_stale(directive: Directive, env: Environment) -> frozenset[str]:
    for word in directive.args:
        if word != "off" and word not in _STALE:
            raise Invalid(f'invalid value "{word}"')
    return frozenset() if "off" in directive.args else frozenset(directive.args)


def _roots(directive: Directive, env: Environment) -> tuple[bytes, ...]:
    if list(directive.args) == ["off"]:
        return ()
    return tuple(os.fsencode(env.path(word)) for word in directive.args)


@frozen(eq=False)
class Rows:
    """The rows of one prefix."""

    path: ListRow[ZoneSettings]
    zone: Row[Template | None]
    key: Row[Template | None]
    valid: ListRow[ValidTime]
    min_uses: Row[int]
    methods: Row[frozenset[bytes]]
    bypass: ListRow[tuple[Template, ...]]
    no_cache: ListRow[tuple[Template, ...]]
    use_stale: Row[frozenset[str]]
    lock: Row[bool]
    lock_timeout: Row[float]
    lock_age: Row[float]
    background_update: Row[bool]
    revalidate: Row[bool]
    convert_head: Row[bool]
    max_range_offset: Row[int | None]
    rfc9111: Row[bool]
    purge: ListRow[tuple[Template, ...]]
    follow: Row[tuple[bytes, ...]]

    def __iter__(self) -> Iterator[AnyRow]:
        yield from (
            self.path, self.zone, self.key, self.valid, self.min_uses, self.methods,
            self.bypass, self.no_cache, self.use_stale, self.lock, self.lock_timeout,
            self.lock_age, self.background_update, self.revalidate, self.convert_head,
            self.max_range_offset, self.rfc9111, self.purge, self.follow,
        )  # fmt: skip


def _storing_rows(prefix: str) -> dict[str, Any]:
    """What is cached, and for how long."""
    return {
        "valid": ListRow(
            name=f"{prefix}_cache_valid", contexts=HSL, arity=(1, None), convert=_valid,
            syntax="[code ... | any] time",
            doc="How long responses are fresh that do not say it themselves; without codes "
            "200, 301 and 302. A server error is cached only where its code is named.",
        ),
        "min_uses": Row(
            name=f"{prefix}_cache_min_uses", contexts=HSL, convert=number, default=1,
            syntax="number",
            doc="After how many requests a response is cached.",
        ),
        "methods": Row(
            name=f"{prefix}_cache_methods", contexts=HSL, arity=(1, None), convert=_methods,
            default_text="GET HEAD",
            default=frozenset({b"GET", b"HEAD"}), syntax="GET | HEAD | POST ...",
            doc="The request methods that are cached; GET and HEAD always are.",
        ),
        "bypass": ListRow(
            name=f"{prefix}_cache_bypass", contexts=HSL, arity=(1, None), convert=_predicates,
            syntax="string ...",
            doc="The response is not taken from the cache if a string is not empty and not 0.",
        ),
        "no_cache": ListRow(
            name=f"{prefix}_no_cache", contexts=HSL, arity=(1, None), convert=_predicates,
            syntax="string ...",
            doc="The response is not cached if a string is not empty and not 0.",
        ),
    }  # fmt: skip


def _lock_rows(prefix: str) -> dict[str, Any]:
    """Who fills, and who waits."""
    return {
        "lock": Row(
            name=f"{prefix}_cache_lock", contexts=HSL, convert=flag, default=True,
            syntax="on | off",
            doc="Whether of simultaneous requests for one key, in all processes on the machine, "
            "only one goes to the upstream, while the others wait for its response.",
        ),
        "lock_timeout": Row(
            name=f"{prefix}_cache_lock_timeout", contexts=HSL, convert=time, default=5.0,
            default_text="5s", syntax="time",
            doc="How long a request waits for another one that fills the same key; then it is "
            "passed on, and its response not cached.",
        ),
        "lock_age": Row(
            name=f"{prefix}_cache_lock_age", contexts=HSL, convert=time, default=5.0,
            default_text="5s", syntax="time",
            doc="When the request that fills a key has not completed in this time, one more of "
            "those that wait is passed on.",
        ),
    }  # fmt: skip


def _conduct_rows(prefix: str) -> dict[str, Any]:
    """How the upstream is asked, and how strictly its answers are read."""
    return {
        "background_update": Row(
            name=f"{prefix}_cache_background_update", contexts=HSL, convert=flag, default=False,
            syntax="on | off",
            doc="Whether an expired response is fetched anew by a request of its own, while the "
            "client gets the expired one; where it may be used while updating.",
        ),
        "revalidate": Row(
            name=f"{prefix}_cache_revalidate", contexts=HSL, convert=flag, default=False,
            syntax="on | off",
            doc="Whether expired responses are revalidated with If-Modified-Since and "
            "If-None-Match.",
        ),
        "convert_head": Row(
            name=f"{prefix}_cache_convert_head", contexts=HSL, convert=flag, default=True,
            syntax="on | off",
            doc="Whether HEAD becomes GET on its way to the upstream, so that there is something "
            "to cache; else what answers a HEAD is not cached.",
        ),
        "max_range_offset": Row(
            name=f"{prefix}_cache_max_range_offset", contexts=HSL, convert=offset, default=None,
            default_text="no limit", syntax="number",
            doc="A range that begins at this byte or later, of what is not cached, is passed on "
            "as it is, and its response not cached.",
        ),
        "rfc9111": Row(
            name=f"{prefix}_cache_rfc9111", contexts=HSL, convert=flag, default=False,
            syntax="on | off",
            doc="Whether responses are cached by RFC 9111 where nginx is looser: Age, "
            "must-revalidate, Authorization, invalidation and more; see docs/cache.md.",
        ),
    }  # fmt: skip


def make_rows(prefix: str) -> Rows:
    """The rows of ``fastcgi`` or ``proxy``."""
    return Rows(
        path=ListRow(
            name=f"{prefix}_cache_path", contexts=frozenset({HTTP}), arity=(2, None),
            convert=zone_path, syntax=SYNTAX, doc=DOC,
        ),
        zone=Row(
            name=f"{prefix}_cache", contexts=HSL, convert=_zone_name, default=None,
            default_text="off",
            syntax="zone | off", doc="The zone in which responses are cached. With variables, the "
            "request says which one; empty or ``off``: none.",
        ),
        key=Row(
            name=f"{prefix}_cache_key", contexts=HSL, convert=template, default=None,
            syntax="string", doc="The key under which a response is cached. Unless it is given, "
            + (
                "that is the URL that the upstream is asked for, as rewritten and error pages "
                "have made it." if prefix == "proxy" else "nothing is cached."
            ),
        ),
        **_storing_rows(prefix),
        use_stale=Row(
            name=f"{prefix}_cache_use_stale", default_text="off", contexts=HSL, arity=(1, None),
            convert=_use_stale, default=frozenset(),
            syntax="error | timeout | invalid_header | updating | http_500 | http_502 | "
            "http_503 | http_504 | http_403 | http_404 | http_429 | off ...",
            doc="When an expired response may be served instead of an error, or while another "
            "request fetches a new one.",
        ),
        **_lock_rows(prefix),
        **_conduct_rows(prefix),
        purge=ListRow(
            name=f"{prefix}_cache_purge", contexts=HSL, arity=(1, None), convert=_predicates,
            syntax="string ...",
            doc="A request for which a string is not empty and not 0 removes what is cached under "
            "its key, or under all keys that begin with it if it ends with an asterisk. 204; "
            "404 if nothing was there.",
        ),
        follow=Row(
            name=f"{prefix}_cache_follow_source", contexts=HSL, arity=(1, None), convert=_roots,
            default=(), default_text="off", syntax="path ... | off",
            doc="The roots of the originals that X-Imagefarm-Source names: a cached response is "
            "expired when the file that it was made from is not the same any more.",
        ),
    )  # fmt: skip


FASTCGI: Final = make_rows("fastcgi")
PROXY: Final = make_rows("proxy")
ROWS: Final = {"fastcgi": FASTCGI, "proxy": PROXY}

CACHE_STATUS_HEADER: Final = Row(
    name="cache_status_header", contexts=HSL, convert=flag, default=True, syntax="on | off",
    doc="Whether responses that passed a cache say so in a Cache-Status header (RFC 9211).",
)  # fmt: skip

DIRECTIVES: tuple[AnyRow, ...] = (*FASTCGI, *PROXY, CACHE_STATUS_HEADER)


@frozen(kw_only=True)
class CacheSettings:
    """How a location uses its zone. Names are nginx's directives; times in seconds.

    ``key`` gives the cache key of a request. ``choice`` names the zone where variables say it;
    ``zone`` is empty then. ``present`` makes of what was kept what clients get (`http.
    upstream_answer`).
    """

    zone: str
    key: Callable[[Any], bytes]
    valid: tuple[ValidTime, ...] = ()
    min_uses: int = 1
    methods: frozenset[bytes] = frozenset({b"GET", b"HEAD"})
    bypass: tuple[Callable[[Any], bytes], ...] = ()
    no_cache: tuple[Callable[[Any], bytes], ...] = ()
    use_stale: frozenset[str] = frozenset()
    ignore_headers: frozenset[bytes] = frozenset()
    status_header: bool = True
    lock: bool = True
    purge: tuple[Callable[[Any], bytes], ...] = ()
    follow: tuple[bytes, ...] = ()
    lock_timeout: float = 5.0
    lock_age: float = 5.0
    background_update: bool = False
    revalidate: bool = False
    convert_head: bool = True
    max_range_offset: int | None = None
    rfc9111: bool = False
    choice: Callable[[Any], bytes] | None = None
    present: Callable[[Response, Request], None] | None = None

    @classmethod
    def from_scope(
        cls,
        prefix: str,
        scope: Scope,
        *,
        default_key: Callable[[Any], bytes] | None = None,
        ignore_headers: frozenset[bytes] = frozenset(),
        present: Callable[[Response, Request], None] | None = None,
    ) -> CacheSettings | None:
        """The settings in force in ``scope`` for a prefix; None if nothing is cached.

        ``prefix`` is ``fastcgi`` or ``proxy``. ``default_key`` is used where no key is
        configured (nginx has one for ``proxy_cache`` only: the URL that is asked for);
        without either, nothing is cached.
        """
        rows = ROWS[prefix]
        zone, key = scope[rows.zone], scope[rows.key] or default_key
        if zone is None or key is None:
            return None
        return cls(
            zone=(zone.constant or b"").decode(),
            choice=zone if zone.constant is None else None,
            key=key,
            valid=scope.all(rows.valid),
            min_uses=scope[rows.min_uses],
            methods=scope[rows.methods],
            bypass=tuple(item for line in scope.all(rows.bypass) for item in line),
            no_cache=tuple(item for line in scope.all(rows.no_cache) for item in line),
            use_stale=scope[rows.use_stale],
            ignore_headers=ignore_headers,
            present=present,
            status_header=scope[CACHE_STATUS_HEADER],
            lock=scope[rows.lock],
            lock_timeout=scope[rows.lock_timeout],
            lock_age=scope[rows.lock_age],
            background_update=scope[rows.background_update],
            revalidate=scope[rows.revalidate],
            convert_head=scope[rows.convert_head],
            max_range_offset=scope[rows.max_range_offset],
            rfc9111=scope[rows.rfc9111],
            purge=tuple(item for line in scope.all(rows.purge) for item in line),
            follow=scope[rows.follow],
        )


def zone_settings(http: Scope) -> Mapping[str, ZoneSettings]:
    """All zones of an ``http`` block by name. One name means one zone for both prefixes."""
    return {zone.name: zone for rows in ROWS.values() for zone in reversed(http.all(rows.path))}


def problems(http: Scope) -> tuple[Problem, ...]:
    """Zones that are declared twice or unknown, and two zones in one directory."""
    found: list[Problem] = []
    names: set[str] = set()
    paths: dict[str, Directive] = {}
    for kind, value, directive in http.items:
        if kind not in (FASTCGI.path, PROXY.path):
            continue
        if value.name in names:
            found.append(_problem(f'duplicate zone "{value.name}"', directive))
        elif value.path in paths:
            first = paths[value.path]
            place = f"{first.file}:{first.line}"
            message = f'the same path name "{value.path}" used in {place} and'
            found.append(_problem(message, directive))
        names.add(value.name)
        paths.setdefault(value.path, directive)
    _check_uses(http, frozenset(names), found)
    return tuple(found)


def _check_uses(scope: Scope, names: frozenset[str], found: list[Problem]) -> None:
    for kind, value, directive in scope.items:
        if isinstance(value, Scope):
            _check_uses(value, names, found)
        elif kind in (FASTCGI.zone, PROXY.zone) and value is not None:
            name = value.source
            if value.constant is not None and name not in names:
                found.append(_problem(f'"{directive.name}" zone "{name}" is unknown', directive))


def _problem(message: str, directive: Directive) -> Problem:
    return Problem(message, directive.file, directive.line)
