"""The resizer as a FastCGI application: request parameters in, a `Response` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol
from urllib.parse import quote_from_bytes

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from imagefarm.http.dates import format_http
from imagefarm.http.headers import Headers
from imagefarm.http.message import Response

from .errors import ImageError, NotFound, TooLarge
from .formats import Wanted, parse_accept
from .job import Job, Rendered
from .limits import Limits
from .query import parse_query
from .recipe import Recipe
from .source import Identity, stat_source
from .validators import entity_tag, not_modified

#: Seconds after which a client that met a full queue may try again.
RETRY_AFTER = 1


class Pool(Protocol):
    """Does jobs: `pool.WorkerPool`."""

    def submit(self, job: Job) -> Deferred[Rendered]:
        """Have ``job`` done. Errs with an `ImageError`; cancelling it gives the job up."""


class ImageService:
    """Answers ``QUERY_STRING`` with an image made from a file below one of ``roots``.

    Roots are searched in order. DOCUMENT_ROOT and SCRIPT_FILENAME of the web server are not
    looked at: which files are served is decided here alone.
    """

    log = Logger()

    def __init__(self, roots: Sequence[bytes], pool: Pool, limits: Limits) -> None:
        self._roots = tuple(roots)
        self._pool = pool
        self._limits = limits

    def __call__(self, params: Mapping[bytes, bytes]) -> Deferred[Response]:
        """Answer one request, given as FastCGI parameters.

        Looks at REQUEST_METHOD, QUERY_STRING, HTTP_ACCEPT, HTTP_IF_NONE_MATCH and
        HTTP_IF_MODIFIED_SINCE. Never raises and never errs; cancelling it gives the work up.
        """
        method = params.get(b"REQUEST_METHOD", b"GET")
        if method not in (b"GET", b"HEAD"):
            refusal = _plain(405, "only GET and HEAD are allowed")
            refusal.headers.add(b"Allow", b"GET, HEAD")
            return succeed(refusal)
        try:
            answer = self._answer(params)
        except Exception:
            answer = succeed(self._failed(Failure()))
        if method == b"HEAD":
            answer.addCallback(_without_body)
        return answer

    def _answer(self, params: Mapping[bytes, bytes]) -> Deferred[Response]:
        recipe = parse_query(params.get(b"QUERY_STRING", b""), self._limits)
        root, source = self._find(recipe)
        if source.size > self._limits.max_source_bytes:
            raise TooLarge(f"the source is larger than {self._limits.max_source_bytes} bytes")
        offer = parse_accept(params.get(b"HTTP_ACCEPT", b""))
        etag = entity_tag(recipe, offer, source, _mark(root, recipe))
        if not_modified(params, etag, source.seconds):
            headers = _headers(recipe, etag, source)
            return succeed(Response(304, headers, mtime=source.mtime / 1e9))

        def made(rendered: Rendered) -> Response:
            # What the worker opened counts: the file may have been exchanged since we looked.
            etag = entity_tag(recipe, offer, rendered.source, rendered.mark)
            return _image(recipe, etag, rendered)

        return self._pool.submit(Job(root, recipe, offer)).addCallbacks(made, self._failed)

    def _find(self, recipe: Recipe) -> tuple[bytes, Identity]:
        for root in self._roots:
            try:
                return root, stat_source(root, recipe.src)
            except NotFound:
                continue
        raise NotFound("there is no such source")

    def _failed(self, failure: Failure) -> Response:
        error = failure.value
        if isinstance(error, CancelledError):
            return _plain(503, "the request was given up")
        if not isinstance(error, ImageError):
            self.log.failure("the resizer failed", failure)
            return _plain(500, "the image could not be made")
        response = _plain(error.status, error.reason)
        if error.status == 503:
            response.headers.add(b"Retry-After", b"%d" % RETRY_AFTER)
        return response


def _mark(root: bytes, recipe: Recipe) -> Identity | None:
    if recipe.mark is None:
        return None
    try:
        return stat_source(root, recipe.mark.src)
    except ImageError as error:
        raise type(error)(f"watermark: {error.reason}") from None


def _headers(recipe: Recipe, etag: bytes, source: Identity) -> Headers:
    headers = Headers(
        [
            (b"Last-Modified", format_http(source.seconds)),
            (b"ETag", etag),
            (b"X-Imagefarm-Source", quote_from_bytes(recipe.src, safe="/").encode("ascii")),
        ]
    )
    if recipe.fmt is Wanted.AUTO:
        headers.add(b"Vary", b"Accept")
    return headers


def _image(recipe: Recipe, etag: bytes, rendered: Rendered) -> Response:
    headers = _headers(recipe, etag, rendered.source)
    headers.add(b"Content-Type", rendered.format.content_type)
    headers.add(b"Server-Timing", server_timing(rendered.timings))
    return Response(200, headers, rendered.data, mtime=rendered.source.mtime / 1e9)


def server_timing(timings: Sequence[tuple[str, float]]) -> bytes:
    """The field value: names and milliseconds (W3C Server Timing)."""
    return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in timings).encode()


def _plain(status: int, reason: str) -> Response:
    """An error: one line, never stored, and never taken for an image."""
    headers = Headers(
        [
            (b"Content-Type", b"text/plain; charset=us-ascii"),
            (b"Cache-Control", b"no-store"),
            (b"X-Content-Type-Options", b"nosniff"),
        ]
    )
    return Response(status, headers, reason.encode("ascii", "replace") + b"\n")


def _without_body(response: Response) -> Response:
    if isinstance(response.body, bytes) and response.status != 304:
        response.length = len(response.body)
        response.body = b""
    return response
