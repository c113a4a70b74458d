"""The resizer as a FastCGI application: request parameters in, a `Response` out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol
from urllib.parse import quote_from_bytes

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from imagefarm.http.dates import format_http
from imagefarm.http.headers import Headers
from imagefarm.http.message import Response

from .asked import Wish, read_target, read_wish
from .errors import DeadlineExceeded, ImageError, NotFound, TooLarge
from .formats import Wanted, parse_accept
from .iiif_service import IIIFService
from .job import Job, Rendered
from .limits import Limits
from .places import Dialect, Places
from .quarantine import Quarantine, State
from .recipe import Recipe, fold
from .source import Identity, stat_source
from .validators import entity_tag, not_modified

#: The statuses that the fallback image stands in for: the source is missing, no image, damaged,
#: or takes too long.
FALLBACK_FOR = (404, 415, 422, 500, 504)
#: Whom pictures may be made from others for, as `imagefarm warm` asks: no stranger chooses that.
#: A web server behind a Unix socket says "unix:", or nothing.
_THIS_MACHINE: Final = (b"127.0.0.1", b"::1", b"unix:", b"")
#: Longest recipe that is told in a header, in bytes: only the path of a watermark is that long.
MAX_RECIPE = 1000
#: Seconds after which a client that met a full queue may try again.
RETRY_AFTER = 1


#: Takes a request's parameters, why its answer is 500 or more, and where our own code failed.
Report = Callable[[Mapping[bytes, bytes], str, Failure | None], None]


class Pool(Protocol):
    """Does jobs: `pool.WorkerPool`."""

    def submit(self, job: Job) -> Deferred[Rendered]:
        """Have ``job`` done. Errs with an `ImageError`; cancelling it gives the job up."""


class ImageService:
    """Answers requests with images made from files below ``roots``.

    Roots are searched in order. DOCUMENT_ROOT and SCRIPT_FILENAME of the web server are not
    looked at: which files are served is decided here alone. ``clock`` is in seconds since the
    epoch: signed URLs expire. ``report`` is told why an answer is 500 or more.
    """

    log = Logger()

    def __init__(
        self,
        roots: Sequence[bytes],
        pool: Pool,
        limits: Limits,
        fallback: bytes = b"",
        places: Places | None = None,
        clock: Callable[[], float] = time.time,
        report: Report | None = None,
    ) -> None:
        self._roots = tuple(roots)
        self._pool = pool
        self._limits = limits
        self._fallback = fallback
        self._quarantine = Quarantine()
        self._places = places or Places()
        self._clock = clock
        self._iiif = IIIFService(self, limits)
        self._report = report or self._say

    @property
    def quarantined(self) -> int:
        """How many sources, or recipes of them, are not tried again until they change."""
        return len(self._quarantine)

    def __call__(self, params: Mapping[bytes, bytes]) -> Deferred[Response]:
        """Answer one request, given as FastCGI parameters.

        Looks at REQUEST_METHOD, REQUEST_URI, QUERY_STRING, HTTP_ACCEPT, HTTP_IF_NONE_MATCH,
        HTTP_IF_MODIFIED_SINCE and, for IIIF, at HTTP_HOST and REQUEST_SCHEME. Never raises and
        never errs; cancelling it gives the work up.
        """
        method = params.get(b"REQUEST_METHOD", b"GET")
        if method not in (b"GET", b"HEAD"):
            refusal = _plain(405, "only GET and HEAD are allowed")
            refusal.headers.add(b"Allow", b"GET, HEAD")
            return succeed(_timed(refusal))
        try:
            answer = self._answer(params).addErrback(self._failed, params)
        except Exception:
            answer = succeed(self._failed(Failure(), params))
        answer.addCallback(_timed)
        if method == b"HEAD":
            answer.addCallback(_without_body)
        return answer

    def _answer(self, params: Mapping[bytes, bytes]) -> Deferred[Response]:
        asked = read_target(params, self._places)
        if asked.place.dialect is not Dialect.IIIF:
            return self.picture(read_wish(asked, self._limits, self._clock()), params)
        try:
            answer = self._iiif.answer(asked, params).addErrback(self._failed, params)
        except ImageError:
            answer = succeed(self._failed(Failure(), params))
        return answer.addCallback(_for_all_origins)

    def picture(self, wish: Wish, params: Mapping[bytes, bytes]) -> Deferred[Response]:
        """The picture, or that it has not changed, or why there is none. Never errs."""
        try:
            answer = self._picture(wish, params).addErrback(self._failed, params)
        except Exception:
            answer = succeed(self._failed(Failure(), params))
        if self._fallback:
            answer.addCallback(self._or_fallback, params, wish.recipe)
        return answer.addCallback(_named, wish.recipe)

    def _picture(self, wish: Wish, params: Mapping[bytes, bytes]) -> Deferred[Response]:
        recipe = wish.recipe
        root, source = self.find(recipe)
        offer = parse_accept(params.get(b"HTTP_ACCEPT", b""))
        mark = _mark(root, recipe)
        etag = entity_tag(recipe, offer, source, mark)
        newest = _newest(source, mark)
        if not_modified(params, etag, newest.seconds):
            headers = _headers(recipe, etag, newest)
            return succeed(Response(304, headers, mtime=newest.mtime / 1e9))

        def made(rendered: Rendered) -> Response:
            wish.check_made(rendered.width, rendered.height)
            # What the worker opened counts: the file may have been exchanged since we looked.
            states = rendered.source, rendered.mark, rendered.derived
            same = states == (source, mark, 0)
            return _image(recipe, etag if same else entity_tag(recipe, offer, *states), rendered)

        derive = (
            params.get(b"HTTP_X_IMAGEFARM_WARM") == b"1"
            and params.get(b"REMOTE_ADDR", b"") in _THIS_MACHINE
        )
        job = Job(root, recipe, offer, derive=derive, unsigned=wish.unsigned)
        return self.work(job, source).addCallback(made)

    def _or_fallback(
        self, answer: Response, params: Mapping[bytes, bytes], recipe: Recipe
    ) -> Response | Deferred[Response]:
        """The fallback image in the place of a line of text, with the status of that."""
        if answer.status not in FALLBACK_FOR or recipe.src == self._fallback:
            return answer
        instead = fold(evolve(recipe, src=self._fallback, crop=None, trim=None, mark=None))
        offer = parse_accept(params.get(b"HTTP_ACCEPT", b""))
        try:
            root, _ = self.find(instead)
        except ImageError:
            return answer

        def made(rendered: Rendered) -> Response:
            headers = Headers(
                [
                    (b"Content-Type", rendered.format.content_type),
                    (b"Cache-Control", b"no-store"),
                    (b"Server-Timing", server_timing(rendered.timings)),
                ]
            )
            return Response(answer.status, headers, rendered.data)

        def failed(failure: Failure) -> Response:
            self.log.error("the fallback image: {why}", why=failure.getErrorMessage())
            return answer

        return self._pool.submit(Job(root, instead, offer)).addCallbacks(made, failed)

    def work(self, job: Job, source: Identity) -> Deferred[Rendered]:
        """Have a job done, if ``source`` has not taken too long before. Raises `ImageError`."""
        state = State(source, _mark(job.root, job.recipe))
        if self._quarantine.holds(job.root, job.recipe, state):
            raise DeadlineExceeded("the image took too long before; its source is the same")

        def failed(failure: Failure) -> Failure:
            error = failure.value
            if isinstance(error, DeadlineExceeded):
                self._quarantine.add(job.root, job.recipe, state, expected=error.expected)
            return failure

        return self._pool.submit(job).addErrback(failed)

    def find(self, recipe: Recipe) -> tuple[bytes, Identity]:
        """The root and the state of the recipe's source. Raises `ImageError`."""
        for root in self._roots:
            try:
                source = stat_source(root, recipe.src)
            except NotFound:
                continue
            if source.size > self._limits.max_source_bytes:
                raise TooLarge(f"the source is larger than {self._limits.max_source_bytes} bytes")
            return root, source
        raise NotFound("there is no such source")

    def _say(self, params: Mapping[bytes, bytes], message: str, failure: Failure | None) -> None:
        if failure is None:
            self.log.error("{text}", text=message)
        else:
            self.log.failure("{text}", failure, text=message)

    def _failed(self, failure: Failure, params: Mapping[bytes, bytes]) -> Response:
        error = failure.value
        if isinstance(error, CancelledError):
            return _plain(503, "the request was given up")
        if not isinstance(error, ImageError):
            self._report(params, "the resizer failed", failure)
            return _plain(500, "the image could not be made")
        if error.status >= 500:
            detail = f" ({error.detail})" if error.detail else ""
            self._report(params, f"answered {error.status}: {error.reason}{detail}", None)
        response = _plain(error.status, error.reason)
        if error.timings:
            response.headers.add(b"Server-Timing", server_timing(error.timings))
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


def _newest(source: Identity, mark: Identity | None) -> Identity:
    """Of the two, the one that has changed last."""
    return mark if mark is not None and mark.mtime > source.mtime else source


def _for_all_origins(response: Response) -> Response:
    """Viewers of IIIF run on other sites (IIIF Image API 3.0, section 5.1)."""
    response.headers.add(b"Access-Control-Allow-Origin", b"*")
    return response


def _headers(recipe: Recipe, etag: bytes, newest: Identity) -> Headers:
    headers = Headers([(b"Last-Modified", format_http(newest.seconds)), (b"ETag", etag)])
    if recipe.fmt is Wanted.AUTO:
        headers.add(b"Vary", b"Accept")
    return headers


def _named(response: Response, recipe: Recipe) -> Response:
    """With what it was made of, for the slow log and for the cache: also where it was not."""
    source = quote_from_bytes(recipe.src, safe="/").encode("ascii")
    response.headers.add(b"X-Imagefarm-Source", source)
    made = recipe.canonical().partition("&")[2]
    if len(made) <= MAX_RECIPE:
        response.headers.add(b"X-Imagefarm-Recipe", made.encode("ascii"))
    return response


def _image(recipe: Recipe, etag: bytes, rendered: Rendered) -> Response:
    newest = _newest(rendered.source, rendered.mark)
    headers = _headers(recipe, etag, newest)
    headers.add(b"Content-Type", rendered.format.content_type)
    headers.add(b"Server-Timing", server_timing(rendered.timings))
    return Response(200, headers, rendered.data, mtime=newest.mtime / 1e9)


def server_timing(timings: Sequence[tuple[str, float]]) -> bytes:
    """The field value: names and milliseconds (W3C Server Timing)."""
    return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in timings).encode()


def _timed(response: Response) -> Response:
    """With what it has taken, also where there was nothing to do."""
    if b"server-timing" not in response.headers:
        response.headers.add(b"Server-Timing", server_timing((("queue", 0.0),)))
    return response


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
