"""``cache_api``: purging by an authenticated call, by key, prefix or original.

::

    POST LOCATION?source=/a.jpg    or key=..., or prefix=...
                  &mode=soft       serve once more while it is updated; hard is the default
                  &zone=thumbs     only there; all zones is the default

    {"mode":"hard","purged":12,"zones":{"thumbs":{"purged":12}}}

Who may purge may make the origin do all work again: the rules are those of ``api write=on``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol
from urllib.parse import quote_from_bytes, unquote_to_bytes

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import LOCATION, Environment, Row
from imagefarm.http.message import Request, Response

from .api import ApiError
from .control import ApiSettings, error_answer, json_answer, read_token, refusal
from .location import Content

_WHAT: Final = (b"source", b"key", b"prefix")
_MODES: Final = (b"hard", b"soft")


class Purgeable(Protocol):
    """A cache zone. All raise OSError."""

    def key(self, key: bytes, *, soft: bool = False) -> int:
        """Purge a key: the number of files."""

    def source(self, source: bytes, *, soft: bool = False) -> int:
        """Purge all that was made from an original, named as in X-Imagefarm-Source."""

    def prefix(self, prefix: bytes, *, soft: bool = False) -> None:
        """Purge all keys that begin with ``prefix``."""


def _cache_api(directive: Directive, env: Environment) -> ApiSettings:
    token = None
    for word in directive.args:
        name, _, value = word.partition("=")
        if name != "token_file" or not value:
            raise Invalid(f'invalid parameter "{word}"')
        token = read_token(env.conf_path(value))
    return ApiSettings(True, token)


CACHE_API: Final[Row[ApiSettings | None]] = Row(
    name="cache_api", contexts=frozenset({LOCATION}), arity=(0, 1), convert=_cache_api,
    default=None, inherits=False, syntax="[token_file=path]",
    doc="Purges what a POST names: `source=` (all renditions of an original), `key=` or "
    "`prefix=`, with `mode=soft` and `zone=` as options. Who may do so, and where it may stand, "
    "is as for `api write=on`.",
)  # fmt: skip


def purging(
    settings: ApiSettings, zones: Mapping[str, Purgeable], user: Callable[[], int]
) -> Content:
    """The content of a location with ``cache_api``. ``user`` gives the id of our own user."""

    def answer(request: Request) -> Response:
        refused = refusal(settings, request, user(), b"caches")
        if refused is not None:
            return refused
        try:
            if request.head.method != b"POST":
                raise ApiError(405, "MethodDisabled", "method disabled", "POST")
            return json_answer(200, _purge(_arguments(request.args), zones))
        except ApiError as error:
            return error_answer(error)
        except OSError as error:
            text = f"the cache does not work ({error.strerror})"
            return error_answer(ApiError(500, "CacheError", text))

    return answer


def _arguments(args: bytes) -> Mapping[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for pair in filter(None, args.split(b"&")):
        name, _, value = pair.partition(b"=")
        if name not in (*_WHAT, b"mode", b"zone") or name in found:
            text = f"unknown or repeated argument {name.decode('latin-1')}"
            raise ApiError(400, "ArgumentError", text)
        found[name] = unquote_to_bytes(value.replace(b"+", b" "))
    return found


def _purge(given: Mapping[bytes, bytes], zones: Mapping[str, Purgeable]) -> Mapping[str, Any]:
    what = [name for name in _WHAT if given.get(name)]
    if len(what) != 1:
        raise ApiError(400, "ArgumentError", "one of source, key and prefix is needed")
    mode, kind, value = given.get(b"mode", b"hard"), what[0], given[what[0]]
    if mode not in _MODES:
        raise ApiError(400, "ArgumentError", "mode is hard or soft")
    if b"zone" in given:
        name = given[b"zone"].decode("utf-8", "replace")
        if name not in zones:
            raise ApiError(404, "ZoneNotFound", "zone not found")
        zones = {name: zones[name]}
    counts = {name: _one(zone, kind, value, mode == b"soft") for name, zone in zones.items()}
    total = None if kind == b"prefix" else sum(filter(None, counts.values()))
    return {
        "mode": mode.decode(),
        "purged": total,
        "zones": {name: {"purged": count} for name, count in counts.items()},
    }


def _one(zone: Purgeable, kind: bytes, value: bytes, soft: bool) -> int | None:
    """The number of files; None where nobody has counted them."""
    if kind == b"prefix":
        zone.prefix(value, soft=soft)
        return None
    if kind == b"key":
        return zone.key(value, soft=soft)
    # The resizer's form: absolute, each byte that is not plain escaped.
    name = quote_from_bytes(b"/" + value.lstrip(b"/"), safe="/").encode("ascii")
    return zone.source(name, soft=soft)
