"""``purge``: drop cached responses of a running master, through its ``cache_api``.

By original, key, prefix, or URL; the key of a URL is what the configuration says (`explaining`).
Where the API is, and its token, the configuration says as well, or ``-u`` and ``-t``.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

from attrs import frozen

from imagefarm.app.configuration import Options, read
from imagefarm.app.explaining import Question
from imagefarm.config.errors import ConfigurationError, Invalid
from imagefarm.config.table import Scope
from imagefarm.resources import directives as rows
from imagefarm.resources.control import read_token
from imagefarm.resources.purging import CACHE_API

from .explain import add_configuration, header, open_explainer

#: Seconds that an answer may take.
TIMEOUT = 30.0
#: The most of an answer that is read, in bytes.
MAX_ANSWER = 1 << 20


@frozen
class Endpoint:
    """Where the API is: ``unix`` is a socket's path, else the host and port count."""

    host: str
    port: int
    path: str
    unix: str = ""
    token: bytes | None = None


class Refused(Exception):
    """The API did not do it."""


def main(words: Sequence[str]) -> int:
    """Purge, and print what was; 0 if all of it was done, 1 with a line that says why not."""
    given = _parser().parse_args(words)
    try:
        endpoint = _endpoint(given)
        wanted = list(_wanted(given))
        if not wanted:
            raise Invalid("nothing to purge: name a URL, --source, --key or --prefix")
        for what in wanted:
            if given.soft:
                what["mode"] = "soft"
            if given.zone:
                what["zone"] = given.zone
            sys.stdout.write(json.dumps({**what, **purge(endpoint, what)}) + "\n")
    except (ConfigurationError, Invalid, Refused, OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"imagefarm: {error}\n")
        return 1
    return 0


def purge(endpoint: Endpoint, what: Mapping[str, str]) -> Mapping[str, Any]:
    """One call. Raises `Refused` with the API's own words, OSError, HTTPException."""
    connection = _connect(endpoint)
    fields = {"Host": endpoint.host, "Connection": "close"}
    if endpoint.token is not None:
        fields["Authorization"] = f"Bearer {endpoint.token.decode('latin-1')}"
    query = urlencode(what, errors="surrogateescape")
    try:
        connection.request("POST", f"{endpoint.path}?{query}", headers=fields)
        answer = connection.getresponse()
        body = answer.read(MAX_ANSWER)
    finally:
        connection.close()
    try:
        told = json.loads(body)
    except ValueError:
        raise Refused(f"{answer.status} {answer.reason}: this is no cache_api") from None
    if answer.status != 200:
        error = told.get("error", {}) if isinstance(told, dict) else {}
        raise Refused(f"{answer.status} {error.get('text', answer.reason)}")
    return dict(told)


def _connect(endpoint: Endpoint) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=TIMEOUT)
    if endpoint.unix:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(TIMEOUT)
        connection.sock.connect(endpoint.unix)
    return connection


def _wanted(given: argparse.Namespace) -> Iterator[dict[str, str]]:
    for name in ("source", "key", "prefix"):
        for value in getattr(given, f"by_{name}"):
            yield {name: value}
    if given.url:
        explainer = open_explainer(given.config, given.prefix)
    for url in given.url:
        told = explainer.explain(Question(url, headers=tuple(given.header)))
        keys = [step["key"] for step in told["steps"] if "key" in step]
        if not keys:
            raise Invalid(f"{url} is not cached under {given.config}")
        yield {"key": keys[-1]}


def _endpoint(given: argparse.Namespace) -> Endpoint:
    token = read_token(given.token) if given.token else None
    if given.api is None:
        found = _configured(given)
        return found if token is None else Endpoint(*_four(found), token)
    text: str = given.api
    if text.startswith("http://unix:"):
        path, _, uri = text.removeprefix("http://unix:").partition(":")
        return Endpoint("localhost", 0, uri or "/", path, token)
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError as error:
        raise Invalid(f'"{text}" is not a URL: {error}') from None
    if url.scheme != "http" or not host:
        raise Invalid(f'"{text}" is not a URL with http://')
    return Endpoint(host, 80 if port is None else port, url.path or "/", "", token)


def _four(found: Endpoint) -> tuple[str, int, str, str]:
    return found.host, found.port, found.path, found.unix


def _configured(given: argparse.Namespace) -> Endpoint:
    """The first ``cache_api`` of the configuration. Raises `Invalid` if there is none."""
    options = Options("master", os.path.abspath(given.config), os.path.abspath(given.prefix))
    for block in read(options).root.blocks(rows.HTTP_BLOCK):
        for server in block.blocks(rows.SERVER_BLOCK):
            for location in _locations(server):
                if location[CACHE_API] is not None:
                    return _at(server, location)
    raise Invalid(f'there is no "cache_api" in {given.config}: -u says where it is')


def _locations(scope: Scope) -> Iterator[Scope]:
    for inner in scope.blocks(rows.LOCATION_BLOCK):
        yield inner
        yield from _locations(inner)


def _at(server: Scope, location: Scope) -> Endpoint:
    _, name, pattern = location.value
    listens = [listen for listen in server.all(rows.LISTEN) if not listen.ssl]
    settings = location[CACHE_API]
    if pattern is not None or not listens or settings is None:
        raise Invalid('where the "cache_api" is cannot be told: -u says it')
    host, port = listens[0].address
    if host.startswith("unix:"):
        return Endpoint("localhost", 0, name.decode(), host.removeprefix("unix:"), settings.token)
    host = {"": "127.0.0.1", "::": "::1"}.get(host, host)
    return Endpoint(host, port, name.decode(), "", settings.token)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="imagefarm purge",
        description="Drop cached responses of a running master. Prints counts, an object a line.",
    )
    add_configuration(parser)
    parser.add_argument(
        "-u", dest="api", metavar="URL",
        help="the cache_api; http://unix:PATH:URI for a socket; else what the configuration has",
    )  # fmt: skip
    parser.add_argument("-t", dest="token", metavar="FILE", help="the file with the API's token")
    for name, text in (
        ("source", "all that was made of an original, as the resizer names it"),
        ("key", "one key"),
        ("prefix", "all keys that begin so"),
    ):
        parser.add_argument(
            f"--{name}", dest=f"by_{name}", metavar=name.upper(), action="append", default=[],
            help=f"{text}; may be repeated",
        )  # fmt: skip
    parser.add_argument("--soft", action="store_true", help="serve it once more while it is made")
    parser.add_argument("-z", dest="zone", metavar="ZONE", help="only in this zone")
    parser.add_argument(
        "-H", dest="header", metavar="HEADER", action="append", type=header, default=[],
        help="a field that URLs are asked for with, where the key depends on it",
    )  # fmt: skip
    parser.add_argument("url", nargs="*", help="a URL; its key is what the configuration says")
    return parser
