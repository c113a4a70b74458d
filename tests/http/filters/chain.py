"""Settings and answers for the tests of filters."""

from __future__ import annotations

from typing import Any

from imagefarm.http.dates import format_http
from imagefarm.http.filters import FilterSettings
from imagefarm.http.headers import Headers
from imagefarm.http.message import (
    Body,
    Request,
    Response,
)
from tests.http.samples import (
    NOW,
    http_scope,
    request,
)

TAG = b'"2ebc9ae1-2710"'
MODIFIED = format_http(NOW - 3600)


def chain(text: str = "", **more: Any) -> FilterSettings:
    """The settings of these lines of configuration."""
    return FilterSettings.from_scope(http_scope(text), clock=lambda: NOW, **more)


def answer(body: Body = b"", kind: bytes = b"text/plain", **more: Any) -> Response:
    """What the static leaf answers."""
    fields = [(b"Content-Type", kind), (b"Last-Modified", MODIFIED), (b"ETag", TAG)]
    return Response(
        **{
            "status": 200,
            "headers": Headers(fields),
            "body": body,
            "mtime": NOW - 3600,
            "ranges": True,
            **more,
        }
    )


def asking(*fields: tuple[bytes, bytes], **more: Any) -> Request:
    return request(b"/a.txt", fields, **more)


def fields(response: Response) -> dict[bytes, bytes]:
    return {name.lower(): value for name, value in response.headers}


GZIP = "gzip on; gzip_types text/plain; gzip_min_length 10; gzip_buffers 4 1k;"
TAKES = (b"Accept-Encoding", b"gzip")
