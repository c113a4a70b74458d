"""``gzip``: compresses on the fly, and decides which clients take gzip (for ``gzip_static``)."""

from __future__ import annotations

import os
import re
import zlib
from typing import Final, Protocol

import attrs
from attrs import frozen

from imagefarm.config import values
from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.regex import compile_pattern
from imagefarm.config.table import HSL, HSLI, AnyRow, Environment, Row, Scope
from imagefarm.http.dates import parse_http
from imagefarm.http.etag import weaken
from imagefarm.http.headers import Headers
from imagefarm.http.message import (
    Body,
    FileBody,
    PartsBody,
    Request,
    Response,
    body_length,
    discard,
)

from .mediatypes import MediaTypes, media_type, media_types
from .streams import BlockStream, GzipStream, Later

_PROXIED: Final = (
    "off", "expired", "no-cache", "no-store", "private", "no_last_modified", "no_etag", "auth",
    "any",
)  # fmt: skip
#: nginx's ``msie6``: MSIE 4 to 6, but not 6 with the SV1 patch.
_MSIE6: Final = re.compile(rb"\A(?!.*Opera).*?MSIE (?:[45]\.|6\.(?!.*SV1))", re.DOTALL)

_VERSIONS: Final = {"1.0": (1, 0), "1.1": (1, 1)}


def _level(directive: Directive, env: Environment) -> int:
    level = values.number(directive, env)
    if level < 1:
        raise Invalid("value must be equal to or greater than 1")
    if level > 9:
        raise Invalid("value must be equal to or less than 9")
    return level


def _buffers(directive: Directive, env: Environment) -> int:
    number, size = directive.args
    if not number.isdecimal() or int(number) == 0:
        raise Invalid("invalid value")
    return int(number) * values.parse_size(size)


def _proxied(directive: Directive, env: Environment) -> frozenset[str]:
    for word in directive.args:
        if word not in _PROXIED:
            raise Invalid(f'invalid value "{word}"')
    return frozenset(directive.args) - {"off"}


def _disable(directive: Directive, env: Environment) -> tuple[re.Pattern[bytes], ...]:
    patterns = []
    for word in directive.args:
        known = _MSIE6 if word == "msie6" else compile_pattern(word, ignore_case=True)
        patterns.append(known)
    return tuple(patterns)


GZIP: Final = Row[bool](
    name="gzip",
    contexts=HSLI,
    convert=values.flag,
    default=False,
    syntax="on | off",
    doc="Whether answers are compressed for clients that take gzip.",
)
GZIP_MIN_LENGTH: Final = Row[int](
    name="gzip_min_length",
    contexts=HSL,
    convert=values.size,
    default=20,
    syntax="length",
    doc="The least length of an answer that is compressed.",
)
GZIP_BUFFERS: Final = Row[int](
    name="gzip_buffers",
    contexts=HSL,
    arity=(2, 2),
    convert=_buffers,
    default=128 << 10,
    syntax="number size",
    doc="Number times size is how much of a file is read and compressed at a time; smaller "
    "files are compressed whole.",
)
GZIP_HTTP_VERSION: Final = Row[tuple[int, int]](
    name="gzip_http_version",
    default_text="1.1",
    contexts=HSL,
    convert=values.choice(_VERSIONS),
    default=(1, 1),
    syntax="1.0 | 1.1",
    doc="The least HTTP version of a request whose answer is compressed.",
)
GZIP_COMP_LEVEL: Final = Row[int](
    name="gzip_comp_level",
    contexts=HSL,
    convert=_level,
    default=1,
    syntax="level",
    doc="The compression level, 1 (fast) to 9 (small).",
)
GZIP_TYPES: Final = Row[MediaTypes](
    name="gzip_types",
    default_text="text/html",
    contexts=HSL,
    arity=(1, None),
    convert=media_types(b"text/html"),
    default=frozenset({b"text/html"}),
    syntax="mime-type ...",
    doc="The types that are compressed besides text/html; ``*`` is any.",
)
GZIP_VARY: Final = Row[bool](
    name="gzip_vary",
    contexts=HSL,
    convert=values.flag,
    default=False,
    syntax="on | off",
    doc="Whether ``Vary: Accept-Encoding`` is sent where ``gzip`` or ``gzip_static`` applies.",
)
GZIP_DISABLE: Final = Row[tuple[re.Pattern[bytes], ...]](
    name="gzip_disable",
    contexts=HSL,
    arity=(1, None),
    convert=_disable,
    default=(),
    syntax="regex ...",
    doc="Nothing is compressed for clients whose User-Agent matches; ``msie6`` is a faster "
    "name for MSIE 4 to 6.",
)
GZIP_PROXIED: Final = Row[frozenset[str]](
    name="gzip_proxied",
    default_text="off",
    contexts=HSL,
    arity=(1, None),
    convert=_proxied,
    default=frozenset(),
    syntax="off | expired | no-cache | no-store | private | no_last_modified | no_etag | auth "
    "| any ...",
    doc="Which answers are compressed for requests that came through a proxy (``Via``).",
)
DIRECTIVES: Final[tuple[AnyRow, ...]] = (
    GZIP,
    GZIP_MIN_LENGTH,
    GZIP_BUFFERS,
    GZIP_HTTP_VERSION,
    GZIP_COMP_LEVEL,
    GZIP_TYPES,
    GZIP_VARY,
    GZIP_DISABLE,
    GZIP_PROXIED,
)


@frozen
class GzipSettings:
    """The ``gzip_*`` directives in force in a location; sizes in bytes."""

    on: bool = False
    min_length: int = 20
    buffer: int = 128 << 10
    http_version: tuple[int, int] = (1, 1)
    level: int = 1
    types: MediaTypes = frozenset({b"text/html"})
    vary: bool = False
    disable: tuple[re.Pattern[bytes], ...] = ()
    proxied: frozenset[str] = frozenset()

    @classmethod
    def from_scope(cls, scope: Scope) -> GzipSettings:
        """The settings in ``scope``."""
        return cls(
            on=scope[GZIP],
            min_length=scope[GZIP_MIN_LENGTH],
            buffer=scope[GZIP_BUFFERS],
            http_version=scope[GZIP_HTTP_VERSION],
            level=scope[GZIP_COMP_LEVEL],
            types=scope[GZIP_TYPES],
            vary=scope[GZIP_VARY],
            disable=scope[GZIP_DISABLE],
            proxied=scope[GZIP_PROXIED],
        )


class Needs(Protocol):
    """The settings that this filter reads."""

    @property
    def gzip(self) -> GzipSettings:
        """The ``gzip_*`` directives."""

    @property
    def later(self) -> Later | None:
        """Runs a function on the next turn of the event loop."""


def accepts(value: bytes | None) -> bool:
    """Whether an ``Accept-Encoding`` admits gzip, by nginx's reading of RFC 9110 12.5.3.

    nginx looks for the first coding called gzip; ``*`` does not stand for it.
    """
    text = (value or b"").lower()
    at = text.find(b"gzip")
    while at > 0 and text[at - 1] not in b", ":
        at = text.find(b"gzip", at + 4)
    if at < 0:
        return False
    parameter = text[at + 4 :].partition(b",")[0].strip(b" ")
    if not parameter:
        return True
    weight = parameter[1:].lstrip(b" ")
    if parameter[:1] != b";" or not weight:
        return parameter[:1] == b";"
    return weight.startswith(b"q=") and _acceptable(weight[2:].partition(b" ")[0])


#: RFC 9110 section 12.4.2.
_WEIGHT: Final = re.compile(rb"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


def _acceptable(weight: bytes) -> bool:
    """Whether a weight is one, and above zero."""
    return _WEIGHT.fullmatch(weight) is not None and float(weight) > 0


def client_accepts_gzip(request: Request, settings: GzipSettings) -> bool:
    """Whether the client gets ``FILE.gz`` (``gzip_static``), decided before there is an answer."""
    return takes_gzip(request, Headers(), settings)


def takes_gzip(request: Request, headers: Headers, settings: GzipSettings) -> bool:
    """Whether the client gets gzip; ``headers`` are the answer's."""
    asked = request.head.headers
    if (
        not accepts(asked.get(b"accept-encoding"))
        or request.head.version < settings.http_version
        or (b"via" in asked and not _proxied_ok(request, headers, settings.proxied))
    ):
        return False
    agent = asked.first(b"user-agent")
    return agent is None or not any(pattern.search(agent) for pattern in settings.disable)


def _proxied_ok(request: Request, headers: Headers, allowed: frozenset[str]) -> bool:
    """``gzip_proxied``, in nginx's order: the first field that is there decides."""
    if not allowed:
        return False
    if "any" in allowed or ("auth" in allowed and b"authorization" in request.head.headers):
        return True
    expires = headers.first(b"expires")
    if expires is not None:
        when = parse_http(expires)
        date = headers.first(b"date")
        now = request.started if date is None else parse_http(date)
        return "expired" in allowed and when is not None and now is not None and when < now
    control = headers.get(b"cache-control")
    if control is not None:
        said = {word.strip().lower() for word in control.split(b",")}
        return any(
            word in allowed and word.encode() in said
            for word in ("no-cache", "no-store", "private")
        )
    return not (
        ("no_last_modified" in allowed and b"last-modified" in headers)
        or ("no_etag" in allowed and b"etag" in headers)
    )


def add_vary(headers: Headers) -> None:
    """Say that the answer depends on Accept-Encoding, once."""
    known = (headers.get(b"vary") or b"").lower()
    if b"accept-encoding" not in [name.strip() for name in known.split(b",")]:
        headers.add(b"Vary", b"Accept-Encoding")


def _varying(response: Response) -> Response:
    headers = response.headers.copy()
    add_vary(headers)
    return attrs.evolve(response, headers=headers)


def apply(request: Request, response: Response, settings: Needs) -> Response:
    """Compress ``response`` if its type, its length and the client allow."""
    gzip = settings.gzip
    if not gzip.on or response.status not in (200, 403, 404):
        return response
    length = body_length(response.body) if response.length is None else response.length
    kind = response.headers.first(b"content-type")
    if not kind or not gzip.types & {media_type(kind), b"*"}:
        return response
    coding = response.headers.first(b"content-encoding")
    if coding is not None:
        # FILE.gz, or an upstream that compresses without saying on what it depends.
        return _varying(response) if gzip.vary and coding.lower() == b"gzip" else response
    if length is not None and length < gzip.min_length:
        return response
    compress = takes_gzip(request, response.headers, gzip)
    if not compress and not gzip.vary:
        return response
    if gzip.vary:
        response = _varying(response)
    if not compress:
        return response
    headers = response.headers.copy()
    headers.set(b"Content-Encoding", b"gzip")
    headers.remove(b"accept-ranges")
    weaken(headers)
    answer = attrs.evolve(response, headers=headers, ranges=False, length=None)
    return _compressed(request, answer, length, settings)


def compressor(level: int, length: int | None) -> zlib._Compress:
    """A zlib object that writes gzip; a small window where ``length`` needs no larger one."""
    window, memory = 15, 8
    while length and window > 9 and length < (1 << (window - 1)) - 262:
        window, memory = window - 1, memory - 1
    return zlib.compressobj(level, zlib.DEFLATED, 16 + window, max(memory, 1))


def _compressed(
    request: Request, response: Response, length: int | None, settings: Needs
) -> Response:
    body, block = response.body, settings.gzip.buffer
    squeeze = compressor(settings.gzip.level, length)
    if request.head.method != b"HEAD":
        whole = _whole(body, block)
        if whole is not None:
            discard(body)
            packed = squeeze.compress(whole) + squeeze.flush()
            request.outcome.compressed = len(whole), len(packed)
            return attrs.evolve(response, body=packed)
    if isinstance(body, bytes | FileBody | PartsBody):
        body = BlockStream(body, block, settings.later)

    def compressed(before: int, after: int) -> None:
        request.outcome.compressed = before, after

    return attrs.evolve(response, body=GzipStream(body, squeeze, compressed))


def _whole(body: Body, limit: int) -> bytes | None:
    """The bytes of ``body`` if they are at hand: in memory, or in a file of at most ``limit``."""
    if isinstance(body, bytes):
        return body
    if not isinstance(body, FileBody) or body.length > limit:
        return None
    data = os.pread(body.file.fd, body.length, body.offset)
    return data if len(data) == body.length else None
