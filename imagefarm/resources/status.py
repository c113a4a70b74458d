"""``stub_status`` and ``status``: what the daemon is doing, all its workers together."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from twisted.internet.defer import Deferred

from imagefarm.http.headers import Headers
from imagefarm.http.message import Request, Response

from .actions import Action, not_allowed
from .location import Content
from .metrics import CONTENT_TYPE, Family, exposition

#: Gives the status, as soon as all workers have told theirs.
Report = Callable[[], "Deferred[Mapping[str, Any]]"]


def stub_status(report: Report) -> Content:
    """The page of nginx's ``stub_status``, byte for byte.

    As in nginx the request for it is among the requests.
    """

    def text(status: Mapping[str, Any]) -> bytes:
        now = status["connections"]
        return (
            f"Active connections: {now['active']} \n"
            "server accepts handled requests\n"
            f" {now['accepted']} {now['handled']} {status['requests'] + 1} \n"
            f"Reading: {now['reading']} Writing: {now['writing']} Waiting: {now['waiting']} \n"
        ).encode()

    return _page(report, text, [(b"Content-Type", b"text/plain")])


def prometheus_status(
    report: Report, families: Callable[[Mapping[str, Any]], Iterable[Family]]
) -> Content:
    """Metrics, never cached."""

    def text(status: Mapping[str, Any]) -> bytes:
        return exposition(families(status))

    headers = [(b"Content-Type", CONTENT_TYPE), (b"Cache-Control", b"no-store")]
    return _page(report, text, headers)


def json_status(report: Report) -> Content:
    """The status as JSON, never cached."""

    def text(status: Mapping[str, Any]) -> bytes:
        return json.dumps(status, indent=2).encode() + b"\n"

    headers = [(b"Content-Type", b"application/json"), (b"Cache-Control", b"no-store")]
    return _page(report, text, headers)


def _page(
    report: Report,
    text: Callable[[Mapping[str, Any]], bytes],
    headers: list[tuple[bytes, bytes]],
) -> Content:
    def serve(request: Request) -> Response | Deferred[Action]:
        if request.head.method not in (b"GET", b"HEAD"):
            return not_allowed()
        answer = report().addCallback(lambda status: Response(200, Headers(headers), text(status)))
        return cast("Deferred[Action]", answer)

    return serve
