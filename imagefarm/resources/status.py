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

    def answer(status: Mapping[str, Any]) -> Response:
        now = status["connections"]
        text = (
            f"Active connections: {now['active']} \n"
            "server accepts handled requests\n"
            f" {now['accepted']} {now['handled']} {status['requests'] + 1} \n"
            f"Reading: {now['reading']} Writing: {now['writing']} Waiting: {now['waiting']} \n"
        )
        return Response(200, Headers([(b"Content-Type", b"text/plain")]), text.encode())

    return _page(report, answer)


def prometheus_status(
    report: Report, families: Callable[[Mapping[str, Any]], Iterable[Family]]
) -> Content:
    """Metrics, never cached."""
    return _page(report, lambda status: metrics_response(families(status)))


def json_status(report: Report) -> Content:
    """The status as JSON, never cached."""
    return _page(report, json_response)


def metrics_response(families: Iterable[Family]) -> Response:
    """Metrics in Prometheus's text format."""
    headers = [(b"Content-Type", CONTENT_TYPE), (b"Cache-Control", b"no-store")]
    return Response(200, Headers(headers), exposition(families))


def json_response(status: Mapping[str, Any]) -> Response:
    """JSON for people and programs."""
    headers = [(b"Content-Type", b"application/json"), (b"Cache-Control", b"no-store")]
    return Response(200, Headers(headers), json.dumps(status, indent=2).encode() + b"\n")


def _page(report: Report, answer: Callable[[Mapping[str, Any]], Response]) -> Content:
    def serve(request: Request) -> Response | Deferred[Action]:
        if request.head.method not in (b"GET", b"HEAD"):
            return not_allowed()
        return cast("Deferred[Action]", report().addCallback(answer))

    return serve
