"""``dashboard``: a page that shows this daemon and others at work, and the figures behind it.

The page is one file without anything from elsewhere. It asks its own address with ``?data`` for
the figures of all instances, with ``?data=all`` for those of the last hour too.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any, Final, cast
from urllib.parse import urlsplit

from attrs import frozen
from twisted.internet.defer import Deferred

from imagefarm.config.ast import Directive
from imagefarm.config.errors import Invalid
from imagefarm.config.table import LOCATION, Environment, Row
from imagefarm.http.headers import Headers
from imagefarm.http.message import Request, Response

from .actions import Action, not_allowed
from .location import Content

#: The most other instances of one page: each is asked every few seconds.
MAX_INSTANCES: Final = 64

_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_TARGET: Final = re.compile(r"/[!-~]*")
_PARTS: Final = re.compile(rb"<(style|script)>(.*?)</\1>", re.DOTALL)


@frozen
class Source:
    """Where the status of an instance is. ``host`` is an address, or empty for a Unix socket."""

    name: str
    url: str
    host: str = ""
    port: int = 80
    path: str = ""
    target: str = "/"


@frozen
class Dashboard:
    """A ``dashboard`` as written: what we are called there, and the others."""

    name: str
    sources: tuple[Source, ...] = ()


def parse_source(name: str, url: str, path: Callable[[str], str] = str) -> Source:
    """``http://ADDRESS[:PORT]/TARGET`` or ``http://unix:PATH:/TARGET``. Raises `Invalid`.

    Names are not resolved, but for ``localhost``. ``path`` makes a socket's path absolute.
    """
    if not _NAME.fullmatch(name):
        raise Invalid(f'invalid name "{name}"')
    if url.startswith("http://unix:"):
        socket, colon, target = url.removeprefix("http://unix:").partition(":")
        if not socket or not colon or not _TARGET.fullmatch(target):
            raise Invalid(f'invalid URL "{url}"')
        return Source(name, url, path=path(socket), target=target)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        if host == "localhost":
            host = "127.0.0.1"
        ipaddress.ip_address(host)
    except ValueError:
        raise Invalid(f'"{url}" is no URL with an address') from None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme != "http" or parts.username is not None or not _TARGET.fullmatch(target):
        raise Invalid(f'invalid URL "{url}"')
    return Source(name, url, host, 80 if port is None else port, target=target)


def _dashboard(directive: Directive, env: Environment) -> Dashboard:
    words = list(directive.args)
    own = words.pop(0) if words and "=" not in words[0] else "imagefarm"
    if not _NAME.fullmatch(own):
        raise Invalid(f'invalid name "{own}"')
    sources = []
    for word in words:
        name, equals, url = word.partition("=")
        if not equals:
            raise Invalid(f'invalid parameter "{word}"')
        sources.append(parse_source(name, url, env.path))
    names = [own, *(source.name for source in sources)]
    for name in names:
        if names.count(name) > 1:
            raise Invalid(f'duplicate name "{name}"')
    if len(sources) > MAX_INSTANCES:
        raise Invalid(f"more than {MAX_INSTANCES} instances")
    return Dashboard(own, tuple(sources))


DASHBOARD: Final[Row[Dashboard | None]] = Row(
    name="dashboard", contexts=frozenset({LOCATION}), arity=(0, None), convert=_dashboard,
    default=None, inherits=False, syntax="[name] [name=url ...]",
    doc="Answers with a page that shows this daemon (called `name`) and those whose `status` is "
    "at the URLs, `http://ADDRESS:PORT/PATH` or `http://unix:SOCKET:/PATH`. Who may see it sees "
    "all there is.",
)  # fmt: skip

#: Gives the figures; with those of the last hour, if asked.
Figures = Callable[[bool], "Deferred[Mapping[str, Any]]"]


def page() -> tuple[bytes, bytes]:
    """The page, and the Content-Security-Policy by which what is in it runs and nothing else."""
    text = (files("imagefarm") / "assets" / "dashboard" / "page.html").read_bytes()
    hashes = {
        kind: b"'sha256-%b'" % base64.b64encode(hashlib.sha256(inside).digest())
        for kind, inside in _PARTS.findall(text)
    }
    policy = (
        b"default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src %b; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ) % hashes[b"script"]
    return text, policy


def dashboard(figures: Figures) -> Content:
    """The content of a location with ``dashboard``."""
    text, policy = page()
    shown = [
        (b"Content-Type", b"text/html; charset=utf-8"),
        (b"Cache-Control", b"no-cache"),
        (b"Content-Security-Policy", policy),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"Referrer-Policy", b"no-referrer"),
    ]

    def serve(request: Request) -> Response | Deferred[Action]:
        if request.head.method not in (b"GET", b"HEAD"):
            return not_allowed()
        if request.args not in (b"data", b"data=all"):
            return Response(200, Headers(shown), text)
        answer = figures(request.args == b"data=all").addCallback(_json)
        return cast("Deferred[Action]", answer)

    return serve


def _json(found: Mapping[str, Any]) -> Response:
    headers = [(b"Content-Type", b"application/json"), (b"Cache-Control", b"no-store")]
    return Response(200, Headers(headers), json.dumps(found, separators=(",", ":")).encode())
