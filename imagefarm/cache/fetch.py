"""One request that goes through the cache to the upstream, and what becomes of its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import attrs
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from imagefarm.http.dates import format_http
from imagefarm.http.filters.slice import VARIABLE as SLICE_RANGE
from imagefarm.http.headers import Headers
from imagefarm.http.message import (
    BodyStream,
    FileBody,
    Handler,
    PartsBody,
    Request,
    Response,
    discard,
)
from imagefarm.http.upstream import UpstreamError

from .answers import forwarded, from_file, marked, shown
from .directives import CacheSettings
from .entry import Entry
from .filling import Filling
from .follow import SOURCE, identity
from .locks import Landing
from .policy import Storable, freshened, http_date, may_serve_stale, storable, truthy, variant
from .store import Found
from .zone import Zone

#: The statuses of answers that are asked for with their validators again (nginx).
_VALIDATED: Final = frozenset({200, 206})
#: The request headers that ask for less than the whole: the upstream must not see them.
_PARTIAL: Final = frozenset(
    {
        b"if-modified-since", b"if-unmodified-since", b"if-match", b"if-none-match",
        b"if-range", b"range",
    }
)  # fmt: skip


class Fetch:
    """One request that goes to the inner handler, and what becomes of its answer.

    ``storing``: the answer may be stored at all. ``leading``: others wait for it in the zone's
    flights, which must land. ``stale`` is the expired file, open, that may have to do.
    ``behind``: the client has got that already.
    """

    def __init__(
        self,
        inner: Handler,
        settings: CacheSettings,
        zone: Zone,
        request: Request,
        key: bytes,
        digest: bytes,
        status: bytes,
        *,
        stale: Found | None = None,
        leading: bool = False,
        storing: bool = True,
        behind: bool = False,
    ) -> None:
        self.inner = inner
        self.settings = settings
        self.zone = zone
        self.request = request
        self.key = key
        self.digest = digest
        self.status = status
        self.stale = stale
        self.leading = leading
        self.storing = storing
        self.behind = behind
        self.gone = False
        #: Whether the upstream is asked for no more than a confirmation of ``stale``.
        self.validating = bool(storing and stale and settings.revalidate)
        self.derived = _derive(request, self._conditions()) if storing else _alone(request)
        self.requested = zone.now()

    def run(self) -> Deferred[Response]:
        """Ask the inner handler."""
        outcome = self.request.outcome
        outcome.cache_status = self.status
        outcome.upstream_headers, outcome.failed = None, ""
        self.request.on_gone.append(self._client_gone)
        asked = maybeDeferred(self.inner, self.derived)
        return asked.addCallbacks(self._answered, self._failed).addErrback(self._abandon)

    def _conditions(self) -> list[tuple[bytes, bytes]]:
        """What asks the upstream to confirm the expired file (``*_cache_revalidate``).

        A 304 speaks of what a 200 would bring (RFC 9110 section 15.4.5): it confirms no error.
        """
        if self.stale is None or not self.validating:
            return []
        entry, fields = self.stale.entry, []
        if entry.status not in _VALIDATED:
            self.validating = False
            return []
        if entry.last_modified is not None:
            date = format_http(entry.last_modified)
            fields.append((b"If-Modified-Since", date))
        if entry.etag:
            fields.append((b"If-None-Match", entry.etag))
        self.validating = bool(fields)
        return fields

    def _count(self) -> None:
        """One more client has got the upstream's answer, or none: each request counts once."""
        if not self.behind:
            counters = self.zone.counters
            counters.misses += self.status == b"MISS"
            counters.expired += self.status == b"EXPIRED"

    def _abandon(self, failure: Failure) -> Failure:
        """Whatever went wrong, nobody must wait for us."""
        self._take_stale()
        self._land(Landing.LEAD)
        return failure

    def _client_gone(self) -> None:
        """Work for the cache goes on without the client; work for the client alone ends."""
        self.gone = True
        if not self.storing:
            _call_all(self.derived.on_gone)

    def _pass(self) -> None:
        """From here on the answer is this client's alone."""
        self.storing = False
        if self.gone:
            _call_all(self.derived.on_gone)

    def _land(self, landing: Landing) -> None:
        if self.leading:
            self.leading = False
            self.zone.flights.land(self.digest, landing)

    def _failed(self, failure: Failure) -> Response | Failure:
        stale = self._take_stale(_fault(failure))
        if stale is None:
            self._count()
            self._pass()
            self._land(Landing.LEAD)
            return failure
        return self._serve_stale(stale, b"fwd=stale")

    def _serve_stale(self, stale: Found, how: bytes) -> Response:
        self.zone.counters.stale += not self.behind
        settings, now = self.settings, self.zone.now()
        response = from_file(settings, self.request, stale, b"STALE", now, how)
        self._land(Landing.STALE)
        return marked(response, self.request, self.zone, stale.entry, hit=True)

    def _take_stale(self, *conditions: str) -> Found | None:
        """The expired file, if any of the ``conditions`` lets it be served; else it is closed."""
        stale, self.stale = self.stale, None
        if stale is None:
            return None
        now, use_stale = self.zone.now(), self.settings.use_stale
        if any(may_serve_stale(stale.entry, word, use_stale, now) for word in conditions):
            return stale
        stale.file.close()
        return None

    def _answered(self, response: Response) -> Response:
        if response.status == 304 and self.validating and self.stale is not None:
            confirmed, self.stale = self.stale, None
            return self._confirmed(response, confirmed)
        stale = self._take_stale(*self._troubles(response.status))
        if stale is not None:
            discard(response.body)
            how = b"fwd=stale"
            if self.request.outcome.upstream_headers is not None:
                how += b"; fwd-status=%d" % response.status
            return self._serve_stale(stale, how)
        self._count()
        verdict = self._verdict(response)
        if verdict is not None:
            stored = self._store(response, verdict)
            if stored is not None:
                return self._finish(stored, b"; stored")
        if self.storing:
            response = self._as_asked(response)
        self._pass()
        self._land(Landing.LEAD if response.status >= 500 else Landing.PASS)
        return self._finish(response, b"")

    def _as_asked(self, response: Response) -> Response:
        """What the client has asked for on conditions, or a part of, and we for the whole."""
        if response.status != 200 or response.redirect is not None:
            return response
        headers = response.headers
        modified = http_date(headers.first(b"last-modified"))
        parts = b"accept-ranges" in headers or response.ranges
        if parts:
            headers = headers.copy()
            headers.remove(b"accept-ranges")  # ours to say
        return attrs.evolve(
            response, headers=headers, mtime=modified, conditional=True, ranges=parts,
            single_range=True,
        )  # fmt: skip

    def _confirmed(self, response: Response, stale: Found) -> Response:
        """The upstream says that the expired file is still good."""
        settings, entry = self.settings, stale.entry
        discard(response.body)
        self._count()
        headers = self.request.outcome.upstream_headers or response.headers
        verdict = self._judge(entry.status, headers)
        how = b"fwd=%b; fwd-status=304" % (b"bypass" if self.status == b"BYPASS" else b"stale")
        landing = Landing.STALE
        if verdict is not None:
            if settings.rfc9111:
                entry = attrs.evolve(
                    entry,
                    headers=freshened(entry.headers, _kept(headers)),
                    must_revalidate=verdict.must_revalidate,
                )
            entry = attrs.evolve(
                entry,
                stored=self.zone.now(),
                expires=verdict.expires,
                date=http_date(headers.first(b"date")),
                stale_while_revalidate=verdict.stale_while_revalidate,
                stale_if_error=verdict.stale_if_error,
                requested=self.requested,
                identity=self._identity(entry.source),
            )
            place = self.zone.place(entry, self.digest)
            if self.zone.refresh(stale, entry, place):
                how += b"; stored"
                landing = Landing.STORED
        self.zone.counters.revalidated += 1
        found = attrs.evolve(stale, entry=entry)
        response = from_file(settings, self.request, found, b"REVALIDATED", self.zone.now(), how)
        self._land(landing)
        return marked(response, self.request, self.zone, entry, hit=False)

    def _troubles(self, status: int) -> tuple[str, ...]:
        """The words of ``*_cache_use_stale`` that an answer with ``status`` meets.

        It may be our own, because the exchange failed.
        """
        failed = self.request.outcome.failed
        if failed:
            return (failed,)
        return (f"http_{status}",) if status >= 400 else ()

    def _verdict(self, response: Response) -> Storable | None:
        if not self.storing or response.redirect is not None or response.buffering is False:
            return None  # nginx neither stores what leads elsewhere, or is not to be buffered
        if any(truthy(template(self.request)) for template in self.settings.no_cache):
            return None
        headers = self.request.outcome.upstream_headers
        if headers is None:
            if response.status >= 400:
                return None  # no upstream said so: an error of our own
            headers = response.headers
        return self._judge(response.status, headers)

    def _judge(self, status: int, headers: Headers) -> Storable | None:
        settings = self.settings
        return storable(
            status,
            headers,
            settings.valid,
            settings.ignore_headers,
            self.zone.now(),
            strict=settings.rfc9111,
            authorized=b"authorization" in self.request.head.headers,
            part=bool(self.request.variables.get(SLICE_RANGE)),
        )

    def _identity(self, source: bytes) -> bytes:
        follow = self.settings.follow
        return identity(follow, source, self.requested) if follow and source else b""

    def _entry(self, response: Response, verdict: Storable) -> Entry:
        headers = response.headers
        said = self.request.outcome.upstream_headers or headers  # with what clients don't get
        source = said.first(SOURCE) or b""
        modified = response.mtime
        if modified is None:
            modified = http_date(said.first(b"last-modified"))
        return Entry(
            self.key,
            response.status,
            tuple(_kept(said)),
            self.zone.now(),
            verdict.expires,
            date=http_date(said.first(b"date")),
            last_modified=modified,
            etag=said.first(b"etag") or b"",
            stale_while_revalidate=verdict.stale_while_revalidate,
            stale_if_error=verdict.stale_if_error,
            vary=verdict.vary,
            variant=variant(verdict.vary, self.request.head.headers),
            final=response.final,
            must_revalidate=verdict.must_revalidate,
            requested=self.requested,
            source=source,
            identity=self._identity(source),
        )

    def _store(self, response: Response, verdict: Storable) -> Response | None:
        """The same answer, being stored; None if it can't be."""
        body = response.body
        if isinstance(body, FileBody | PartsBody):
            return None  # it comes from a local file: a copy would gain nothing
        headers = response.headers.copy()
        headers.remove(b"accept-ranges")  # ours to say
        response = attrs.evolve(
            response, headers=headers, ranges=response.status == 200, single_range=True
        )
        entry = self._entry(response, verdict)
        response = marked(response, self.request, self.zone, entry, hit=False)
        digest = self.zone.place(entry, self.digest)
        if isinstance(body, bytes):
            if not self.zone.store(entry, digest, body):
                return None
            self._land(Landing.STORED)
            return attrs.evolve(
                response, mtime=shown(entry.last_modified, headers), conditional=True
            )
        return self._stream(response, body, entry, digest)

    def _stream(
        self, response: Response, body: BodyStream, entry: Entry, digest: bytes
    ) -> Response | None:
        writer = self.zone.writer(entry)
        if writer is None:
            return None
        filling = Filling(self.zone, body, writer, entry, digest, self._land)
        return attrs.evolve(
            response,
            mtime=shown(entry.last_modified, response.headers),
            body=filling,
            conditional=True,
        )

    def _finish(self, response: Response, how: bytes) -> Response:
        return forwarded(self.settings, response, self.status, how)


def _kept(headers: Headers) -> Headers:
    """An upstream's fields without the one that is ours to say."""
    kept = headers.copy()
    kept.remove(b"accept-ranges")
    return kept


def _derive(request: Request, conditions: Sequence[tuple[bytes, bytes]]) -> Request:
    """The request for the upstream: for the whole, and not ended by the client's leaving."""
    head = request.head
    fields = [(name, value) for name, value in head.headers if name.lower() not in _PARTIAL]
    method = b"GET" if head.method == b"HEAD" else head.method
    head = attrs.evolve(head, method=method, headers=Headers((*fields, *conditions)))
    return attrs.evolve(request, head=head, on_gone=[], validators=tuple(conditions))


def _alone(request: Request) -> Request:
    """The same for an answer that is the client's alone: as the client has asked."""
    return attrs.evolve(request, on_gone=[])


def _fault(failure: Failure) -> str:
    """The word of ``*_cache_use_stale`` for an exchange that failed."""
    error = failure.value
    return error.fault.word if isinstance(error, UpstreamError) else "error"


def _call_all(callbacks: list[Callable[[], None]]) -> None:
    for callback in tuple(callbacks):
        callback()
