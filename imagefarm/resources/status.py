"""``stub_status`` and ``status``: what this process is doing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from imagefarm.http.headers import Headers
from imagefarm.http.message import Request, Response

from .actions import not_allowed
from .location import Content
from .metrics import CONTENT_TYPE


@frozen
class ConnectionCounts:
    """nginx's counters: connections since the start, and by state now."""

    accepts: int
    handled: int
    requests: int
    active: int
    reading: int
    writing: int
    waiting: int


def stub_status(counts: Callable[[], ConnectionCounts]) -> Content:
    """The page of nginx's ``stub_status``, byte for byte."""

    def serve(request: Request) -> Response:
        if request.head.method not in (b"GET", b"HEAD"):
            return not_allowed()
        now = counts()
        text = (
            f"Active connections: {now.active} \n"
            "server accepts handled requests\n"
            f" {now.accepts} {now.handled} {now.requests} \n"
            f"Reading: {now.reading} Writing: {now.writing} Waiting: {now.waiting} \n"
        )
        return Response(200, Headers([(b"Content-Type", b"text/plain")]), text.encode())

    return serve


def prometheus_status(text: Callable[[], bytes]) -> Content:
    """Metrics, never cached."""

    def serve(request: Request) -> Response:
        if request.head.method not in (b"GET", b"HEAD"):
            return Response(405, Headers([(b"Allow", b"GET, HEAD")]))
        headers = [(b"Content-Type", CONTENT_TYPE), (b"Cache-Control", b"no-store")]
        return Response(200, Headers(headers), text())

    return serve


def json_status(report: Callable[[], Mapping[str, Any]]) -> Content:
    """``report`` as JSON, never cached."""

    def serve(request: Request) -> Response:
        if request.head.method not in (b"GET", b"HEAD"):
            return not_allowed()
        body = json.dumps(report(), indent=2).encode() + b"\n"
        headers = [(b"Content-Type", b"application/json"), (b"Cache-Control", b"no-store")]
        return Response(200, Headers(headers), body)

    return serve
