"""``status``: what the dashboard shows, in a terminal.

Asks a ``dashboard`` for all its instances, or a single daemon's ``status``. Exits with 0 if all is
well, 1 if something is wrong (an instance is down, a server is out, a reload has failed), 3 if
there is no answer.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TextIO

from attrs import evolve

from imagefarm.app.findings import findings, sample
from imagefarm.config.errors import Invalid
from imagefarm.resources.dashboard import Source, parse_source

from .screen import Screen

#: Where the shipped master has its dashboard.
DEFAULT_URL: Final = "http://127.0.0.1:8091/"
#: Seconds that an answer may take: the dashboard gives each instance three.
TIMEOUT: Final = 10.0
#: Seconds between two looks with ``--watch``.
EVERY: Final = 2.0
#: The status of a service that does not run, for init scripts (LSB).
NOT_RUNNING: Final = 3

_CLEAR: Final = "\x1b[H\x1b[J"


class NoAnswer(Exception):
    """There is no status; the text says why."""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the path."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(source: Source) -> Mapping[str, Any]:
    """The figures at ``source``, in the form of a dashboard's. Raises `NoAnswer`."""
    if source.path:
        connection: http.client.HTTPConnection = _UnixConnection(source.path, TIMEOUT)
    else:
        connection = http.client.HTTPConnection(source.host, source.port, timeout=TIMEOUT)
    try:
        connection.request("GET", source.target)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer(getattr(error, "strerror", None) or str(error) or "no answer") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise NoAnswer(f"it answered with status {answer.status}")
    try:
        found = json.loads(body)
        return found if "instances" in found else _single(source, found)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NoAnswer("neither a dashboard nor a status is there") from None


def _single(source: Source, status: Mapping[str, Any]) -> Mapping[str, Any]:
    """A daemon's own status, as if a dashboard had asked for it."""
    instances = [{"name": source.name, "url": source.url, "up": True, "status": status}]
    taken = sample(status["time"], instances)
    return {
        "time": status["time"], "instances": instances, "problems": findings(instances),
        "sample": taken, "history": [],
    }  # fmt: skip


def looks(source: Source) -> Iterator[Mapping[str, Any]]:
    """Look after look, each with what was seen before it as history. Raises `NoAnswer`."""
    before: list[Any] = []
    while True:
        found = ask(source)
        before = [*(found.get("history") or before), found["sample"]]
        yield {**found, "history": before}


def _drawn(screen: Screen, found: Mapping[str, Any], url: str) -> str:
    """The screen. Raises `NoAnswer` where an instance, of another version, has other figures."""
    try:
        return screen.draw(found, url)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NoAnswer("not all instances have figures of this kind") from None


def main(
    words: Sequence[str],
    out: TextIO = sys.stdout,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """The exit status: see the module."""
    given = _parser().parse_args(words)
    try:
        source = parse_source("imagefarm", given.url)
    except Invalid as error:
        sys.stderr.write(f"imagefarm: {error}\n")
        return 2
    if "?" not in source.target:
        source = evolve(source, target=f"{source.target}?data=all")
    screen = Screen(colour=out.isatty() and not given.json)
    try:
        for found in looks(source):
            if given.json:
                text = json.dumps({k: v for k, v in found.items() if k != "history"}) + "\n"
            else:
                text = _drawn(screen, found, given.url)
            out.write(text if not given.watch or not out.isatty() else _CLEAR + text)
            out.flush()
            if not given.watch:
                return int(any(each["level"] == "bad" for each in found["problems"]))
            sleep(EVERY)
    except NoAnswer as error:
        sys.stderr.write(f"imagefarm: {given.url}: {error}\n")
    except KeyboardInterrupt:
        return 0
    return NOT_RUNNING


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="imagefarm status",
        description="Show what the farm is doing. Exits with 0 if all is well, 1 if something is "
        "wrong, 3 if there is no answer.",
    )
    parser.add_argument(
        "-u",
        dest="url",
        default=DEFAULT_URL,
        metavar="URL",
        help="of a dashboard or a status page, http://ADDRESS:PORT/PATH or "
        f"http://unix:SOCKET:/PATH; {DEFAULT_URL}",
    )
    parser.add_argument("--watch", action="store_true", help="look again every two seconds")
    parser.add_argument("--json", action="store_true", help="the figures as they are")
    return parser
