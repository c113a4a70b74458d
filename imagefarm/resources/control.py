"""``api``: who may use the control API of upstreams, and its way into HTTP.

Whoever may change upstreams decides where requests go. So with ``write=on`` each request needs
the bearer token (RFC 6750) from a file that others can't read; over a Unix socket it may do
without if it comes from the server's own user or from root, which the kernel tells. Where the
server can be reached from elsewhere than this machine the configuration is refused.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from attrs import field, frozen
from twisted.internet.defer import Deferred

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import LOCATION, Environment, Row
from imagefarm.http.headers import Headers
from imagefarm.http.message import ForwardedPeer, Request, Response
from imagefarm.http.reading import read_up_to
from imagefarm.http.uri import escape_uri

from .api import MAX_BODY, ApiAnswer, ApiError, ApiRequest, Upstreams, serve
from .location import Content

#: The shortest token that is accepted, in characters.
MIN_TOKEN: Final = 16
# RFC 6750 section 2.1.
_TOKEN: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_BEARER: Final = re.compile(rb"bearer +([^ ]+) *", re.IGNORECASE)
#: What of a token file is read, in bytes.
_MAX_FILE: Final = 4096


@frozen
class ApiSettings:
    """``api``. ``token`` None: only the right users of a Unix socket may change anything."""

    write: bool = False
    token: bytes | None = field(default=None, repr=False)


def read_token(path: str) -> bytes:
    """The token in a file, which must be nobody's but its owner's. Raises `Invalid`."""
    try:
        with open(path, "rb") as file:
            info = os.fstat(file.fileno())
            text = file.read(_MAX_FILE).decode("latin-1").strip()
    except OSError as error:
        raise Invalid(f'cannot read token file "{path}" ({error.strerror})') from None
    if not stat.S_ISREG(info.st_mode):
        raise Invalid(f'token file "{path}" is not a regular file')
    if info.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = stat.S_IMODE(info.st_mode)
        raise Invalid(f'token file "{path}" has mode {mode:04o}, others than its owner may use it')
    if len(text) < MIN_TOKEN or not _TOKEN.fullmatch(text):
        raise Invalid(
            f'token file "{path}" has to hold one word of at least {MIN_TOKEN} letters, digits '
            'and "-._~+/"'
        )
    return text.encode("ascii")


def _api(directive: Directive, env: Environment) -> ApiSettings:
    write, token = False, None
    for word in directive.args:
        name, _, value = word.partition("=")
        if name == "write" and value in ("on", "off"):
            write = value == "on"
        elif name == "token_file" and value:
            token = read_token(env.conf_path(value))
        else:
            raise Invalid(f'invalid parameter "{word}"')
    return ApiSettings(write, token)


API: Final[Row[ApiSettings | None]] = Row(
    name="api", contexts=frozenset({LOCATION}), arity=(0, 2), convert=_api, default=None,
    inherits=False, syntax="[write=on|off] [token_file=path]",
    doc="Answers as nginx Plus's API does, as far as upstreams are concerned, and with `write=on` "
    "changes them. That takes a server on loopback addresses and Unix sockets only, and the "
    "bearer token in the file; over a Unix socket root and the server's own user need none.",
)  # fmt: skip


def control(settings: ApiSettings, upstreams: Upstreams, user: Callable[[], int]) -> Content:
    """The content of a location with ``api``. ``user`` gives the id of the user we run as."""

    def answer(request: Request) -> Response | Deferred[Response]:
        refused = refusal(settings, request, user())
        if refused is not None:
            return refused
        length = request.body.length
        if length == 0:
            return _served(request, b"")
        if length is not None and length > MAX_BODY:
            return error_answer(ApiError(413, "RequestTooLarge", "request entity too large"))
        reading = read_up_to(request.body, MAX_BODY)
        return reading.addCallback(_collected, request).addErrback(
            lambda failure: error_answer(
                ApiError(400, "BodyReadError", "request body cannot be read")
            )
        )

    def _collected(read: tuple[bytes, bool], request: Request) -> Response:
        body, whole = read
        if not whole:
            return error_answer(ApiError(413, "RequestTooLarge", "request entity too large"))
        return _served(request, body)

    def _served(request: Request, body: bytes) -> Response:
        base: bytes = request.location.prefix.rstrip(b"/")
        path = request.uri[len(base) :].decode("utf-8", "replace")
        asked = ApiRequest(
            request.head.method.decode("latin-1"), path.lstrip("/"), _fields(request.args), body
        )
        try:
            found = serve(asked, upstreams, write=settings.write)
        except ApiError as error:
            return error_answer(error)
        return _success(found, base)

    return answer


def refusal(
    settings: ApiSettings, request: Request, user: int, realm: bytes = b"upstreams"
) -> Response | None:
    """401 or 403 where ``request`` may not be answered."""
    if not settings.write and settings.token is None:
        return None  # it tells, and lets nobody change anything: as open as ``status``
    peer = request.peer
    if isinstance(peer, ForwardedPeer) and peer.original is not None:
        peer = peer.original
    if peer.uid is not None and peer.uid in (0, user):
        return None
    if settings.token is None:
        return error_answer(ApiError(403, "Forbidden", "not for this user"))
    given = _BEARER.fullmatch(request.head.headers.get(b"authorization") or b"")
    if given is not None and hmac.compare_digest(given[1], settings.token):
        return None
    challenge = b'Bearer realm="%b"' % realm
    if given is not None:
        challenge += b', error="invalid_token"'
    refused = error_answer(ApiError(401, "Unauthorized", "a bearer token is required"))
    refused.headers = Headers([*refused.headers, (b"WWW-Authenticate", challenge)])
    return refused


def _fields(args: bytes) -> frozenset[str] | None:
    """What ``?fields=a,b`` asks for."""
    for pair in args.split(b"&"):
        name, _, value = pair.partition(b"=")
        if name == b"fields":
            return frozenset(value.decode("latin-1").split(","))
    return None


def _success(answer: ApiAnswer, base: bytes) -> Response:
    more = []
    if answer.location:
        place = escape_uri(base + b"/" + answer.location.encode("utf-8", "replace"))
        more.append((b"Location", place))
    return json_answer(answer.status, answer.value, more)


def error_answer(error: ApiError) -> Response:
    """``error`` as JSON, in nginx Plus's form."""
    more = [(b"Allow", error.allow.encode())] if error.allow else []
    response = json_answer(error.status, error.value, more)
    response.final = True  # clients of the API read JSON, not error pages
    return response


def json_answer(status: int, value: Any, more: Sequence[tuple[bytes, bytes]] = ()) -> Response:
    """``value`` as JSON, not to be cached; with ``more`` header fields."""
    body = json.dumps(value, separators=(",", ":")).encode()
    fields = [(b"Content-Type", b"application/json"), (b"Cache-Control", b"no-store"), *more]
    return Response(status, Headers(fields), body)


def misplaced(
    settings: ApiSettings, local: bool, unix: bool, what: str = "api write=on"
) -> Iterator[str]:
    """Why ``what`` may not stand in a server whose addresses are all ``local``, all ``unix``."""
    if settings.write and not local:
        yield (
            f'"{what}" is allowed only in a server that listens on nothing but loopback '
            "addresses and Unix sockets"
        )
    elif settings.write and settings.token is None and not unix:
        yield f'"{what}" needs "token_file" in a server that listens on a loopback address'
