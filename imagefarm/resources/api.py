"""The control API of upstreams: paths, JSON and errors of nginx Plus's (ngx_http_api_module).

Sans-IO: a method, a path below the API's location, and a body in; a status and a value out. What
there is to read and to change is behind `Upstreams`. Of nginx Plus's tree there is
``/N/http/upstreams/`` and what is below it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from attrs import field, frozen

from imagefarm.config.errors import Invalid
from imagefarm.config.values import parse_time

#: The versions of nginx Plus's API that its clients may ask for; what is here is alike in all.
VERSIONS: Final = tuple(range(1, 10))
#: The largest body of a request, in bytes.
MAX_BODY: Final = 16384
#: The largest number in a parameter.
_MOST: Final = 2**31 - 1

Server = Mapping[str, Any]


class ApiError(Exception):
    """A refusal: ``code`` is nginx Plus's name of it, ``allow`` the methods of a 405."""

    def __init__(self, status: int, code: str, text: str, allow: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.text = text
        self.allow = allow

    @property
    def value(self) -> Mapping[str, Any]:
        """The body of the answer."""
        return {"error": {"status": self.status, "text": self.text, "code": self.code}}


class Upstreams(Protocol):
    """The groups that the API shows and changes. All may raise `ApiError`."""

    def names(self) -> Sequence[str]:
        """The groups' names."""

    def report(self, name: str) -> Mapping[str, Any]:
        """A group's state and counters."""

    def servers(self, name: str) -> Sequence[Server]:
        """The settings of a group's servers."""

    def change(self, name: str, number: int, changes: Mapping[str, Any]) -> Server:
        """Change a server; its settings afterwards."""

    def add(self, name: str, settings: Mapping[str, Any]) -> Server:
        """Add a server; its settings."""

    def remove(self, name: str, number: int) -> Sequence[Server]:
        """Take a server out; the settings of those that remain."""


@frozen
class ApiAnswer:
    """What to answer: ``value`` becomes JSON, ``location`` is below the API's own."""

    status: int
    value: Any
    location: str = ""


@frozen
class ApiRequest:
    """What was asked: the path is below the API's location, without its first slash."""

    method: str
    path: str
    fields: frozenset[str] | None = None
    body: bytes = field(default=b"", repr=False)


def serve(request: ApiRequest, upstreams: Upstreams, *, write: bool) -> ApiAnswer:
    """Answer ``request``. Raises `ApiError`. ``write``: whether anything may be changed."""
    words = [word for word in request.path.split("/") if word]
    if words and words[0] not in map(str, VERSIONS):
        raise ApiError(404, "UnknownVersion", "unknown version")
    match words[1:]:
        case _ if not words:
            return ApiAnswer(200, _only_get(request, list(VERSIONS)))
        case []:
            return ApiAnswer(200, _only_get(request, ["http"]))
        case ["http"]:
            return ApiAnswer(200, _only_get(request, ["upstreams"]))
        case ["http", "upstreams"]:
            every = {name: upstreams.report(name) for name in upstreams.names()}
            return ApiAnswer(200, _only_get(request, every, inner=True))
        case ["http", "upstreams", name]:
            return ApiAnswer(200, _only_get(request, upstreams.report(name)))
        case ["http", "upstreams", name, "servers"]:
            return _all_servers(request, words[0], name, upstreams, write)
        case ["http", "upstreams", name, "servers", number]:
            return _one_server(request, name, number, upstreams, write)
    raise ApiError(404, "PathNotFound", "path not found")


def _only_get(request: ApiRequest, value: Any, *, inner: bool = False) -> Any:
    """``value``, with the fields that were asked for; ``inner``: those of its members."""
    _check_method(request, "GET", write=True)
    if request.fields is None or not isinstance(value, Mapping):
        return value
    if inner:
        return {name: _chosen(member, request.fields) for name, member in value.items()}
    return _chosen(value, request.fields)


def _chosen(value: Mapping[str, Any], fields: frozenset[str]) -> Mapping[str, Any]:
    return {name: member for name, member in value.items() if name in fields}


def _check_method(request: ApiRequest, *allowed: str, write: bool) -> None:
    known = (*allowed, "HEAD")
    if request.method not in known:
        allow = ", ".join(known)
        raise ApiError(405, "MethodNotSupported", "method not supported", allow)
    if not write and request.method not in ("GET", "HEAD"):
        raise ApiError(405, "MethodDisabled", "method disabled", "GET, HEAD")


def _all_servers(
    request: ApiRequest, version: str, name: str, upstreams: Upstreams, write: bool
) -> ApiAnswer:
    _check_method(request, "GET", "POST", write=write)
    if request.method != "POST":
        return ApiAnswer(200, upstreams.servers(name))
    upstreams.servers(name)  # an unknown group is said to be that, whatever the body
    server = upstreams.add(name, parse_settings(request.body, new=True))
    place = f"{version}/http/upstreams/{name}/servers/{server['id']}"
    return ApiAnswer(201, server, place)


def _one_server(
    request: ApiRequest, name: str, text: str, upstreams: Upstreams, write: bool
) -> ApiAnswer:
    _check_method(request, "GET", "PATCH", "DELETE", write=write)
    servers = upstreams.servers(name)
    if not re.fullmatch(r"[0-9]{1,10}", text):
        raise ApiError(400, "UpstreamBadServerId", "invalid server id")
    number = int(text)
    for server in servers:
        if server["id"] == number:
            break
    else:
        raise ApiError(404, "UpstreamServerNotFound", f'server with id "{number}" does not exist')
    if request.method == "PATCH":
        return ApiAnswer(
            200, upstreams.change(name, number, parse_settings(request.body, new=False))
        )
    if request.method == "DELETE":
        return ApiAnswer(200, upstreams.remove(name, number))
    return ApiAnswer(200, server)


# -- the body of POST and PATCH ------------------------------------------------------------------


def _number(least: int) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MOST:
            raise ValueError
        return value

    return convert


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _time(value: Any) -> float:
    """Seconds: a number, or ``"10s"`` as the configuration has it."""
    if not isinstance(value, str):
        return float(_number(0)(value))
    try:
        return parse_time(value)
    except Invalid:
        raise ValueError from None


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


# name -> (conversion, the code of nginx Plus for a bad value)
_CHANGEABLE: Final[Mapping[str, tuple[Callable[[Any], Any], str]]] = {
    "weight": (_number(1), "UpstreamBadWeight"),
    "max_conns": (_number(0), "UpstreamBadMaxConns"),
    "max_fails": (_number(0), "UpstreamBadMaxFails"),
    "fail_timeout": (_time, "UpstreamBadFailTimeout"),
    "slow_start": (_time, "UpstreamBadSlowStart"),
    "down": (_flag, "UpstreamConfFormatError"),
    "drain": (_flag, "UpstreamConfFormatError"),
}
_OF_NEW_ONES: Final[Mapping[str, tuple[Callable[[Any], Any], str]]] = {
    **_CHANGEABLE,
    "server": (_text, "UpstreamBadAddress"),
    "backup": (_flag, "UpstreamConfFormatError"),
}


def parse_settings(body: bytes, *, new: bool) -> Mapping[str, Any]:
    """The settings in a body, times as seconds. Raises `ApiError`.

    ``new`` ones need a ``server``; of others that and ``backup`` can't be changed.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise ApiError(400, "JsonError", "json error") from None
    if not isinstance(value, dict):
        raise ApiError(400, "UpstreamConfFormatError", "json error: an object is expected")
    table = _OF_NEW_ONES if new else _CHANGEABLE
    found: dict[str, Any] = {}
    for name, given in value.items():
        if name not in table:
            raise ApiError(400, "UpstreamConfFormatError", f'unknown parameter "{name}"')
        if isinstance(given, dict | list):
            raise ApiError(400, "UpstreamConfFormatError", "nested object or list")
        convert, code = table[name]
        try:
            found[name] = convert(given)
        except ValueError:
            raise ApiError(400, code, f'invalid "{name}"') from None
    if new and "server" not in found:
        raise ApiError(400, "UpstreamConfFormatError", 'missing "server" argument')
    if found.get("down") and found.get("drain"):
        raise ApiError(400, "UpstreamConfFormatError", '"down" and "drain" exclude each other')
    return found
