"""The caching handler: answers from the zone, or asks the inner handler and keeps the answer.

A hit needs nothing but one file. Everything else is a `Fetch`: one request that goes through
to the upstream. Of simultaneous requests for one key on this machine one fetches, the others
wait for its file (nginx: ``*_cache_lock on``).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, cast

import attrs
from attrs import frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from imagefarm.http.message import Handler, OpenFile, Outcome, Request, Response, discard

from .answers import forwarded, from_entry, from_file, marked, purged
from .directives import CacheSettings
from .entry import MAX_KEY
from .fetch import Fetch
from .kept import Shelf, Target
from .locks import Landing
from .policy import beyond, fresh, invalidates, may_serve_stale, truthy
from .portion import Portion, portion
from .store import Found
from .zone import Zone

#: How often a request waits for others before it asks for itself.
_MAX_WAITS: Final = 3
#: The client has gone (nginx's status in the log); nobody will see this answer.
_GONE: Final = 499
#: What Cache-Status says to those who waited for another request's answer (RFC 9211 2.6).
_COLLAPSED: Final = b"fwd=miss; collapsed"


@frozen(eq=False)
class _Asked:
    """A request and what the zone has for it: nothing, or an expired file."""

    request: Request
    key: bytes
    digest: bytes
    found: Found | None
    waits: int = 0

    @property
    def status(self) -> bytes:
        """For ``$upstream_cache_status``."""
        return b"MISS" if self.found is None else b"EXPIRED"


class CachingHandler:
    """A `Handler` around another one. See RFC 9211 for the Cache-Status that it adds."""

    _log = Logger()

    def __init__(
        self, inner: Handler, settings: CacheSettings, zone: Zone, target: Target | None = None
    ) -> None:
        self.inner = inner
        self.settings = settings
        self.zone = zone
        self._target = target
        self._shelf = Shelf.of(settings, zone, target)

    def __repr__(self) -> str:
        return f"<CachingHandler {self.zone.settings.name} {self.inner!r}>"

    def __call__(self, request: Request) -> Response | Deferred[Response]:
        """Answer ``request``; a hit at once. Fails as the inner handler fails."""
        settings = self.settings
        if self._target is not None:
            self._target.announce(request)
        if settings.purge and any(truthy(template(request)) for template in settings.purge):
            return purged(self.zone.purger, settings.key(request))
        if request.head.method not in settings.methods:
            return self._pass(request).addCallback(self._passed, request)
        key = settings.key(request)
        if len(key) > MAX_KEY:
            return self._pass(request).addCallback(self._through, b"BYPASS")
        if any(truthy(template(request)) for template in settings.bypass):
            self.zone.counters.bypass += 1
            digest, found = self.zone.find(key, request.head.headers)
            if found is not None:
                found.file.close()
            return self._fetch(_Asked(request, key, digest, None), status=b"BYPASS")
        return self.answer(request, key, 0)

    def _pass(self, request: Request) -> Deferred[Response]:
        return maybeDeferred(cast(Callable[..., Any], self.inner), request)

    def _passed(self, response: Response, request: Request) -> Response:
        """What was asked with another method."""
        if self.settings.rfc9111 and invalidates(request.head.method, response.status):
            digest, found = self.zone.find(self.settings.key(request), request.head.headers)
            if found is not None:
                found.file.close()
                self.zone.remove(digest)
        return self._through(response, b"")

    def _through(self, response: Response, status: bytes) -> Response:
        return forwarded(self.settings, response, status, b"")

    def answer(
        self, request: Request, key: bytes, waits: int, *, stale: bool = False
    ) -> Response | Deferred[Response]:
        """Answer from the zone, or wait, or fetch. ``stale``: an expired file will do."""
        zone = self.zone
        digest, found = zone.find(key, request.head.headers, self.settings.follow)
        if found is not None and fresh(found.entry, zone.now()):
            if waits:
                zone.flights.portion = shared = portion(found, self.settings.follow)
                if shared is not None:
                    return self._serve_shared(request, shared)
            zone.counters.hits += 1
            response = self._serve(request, found, b"HIT", _COLLAPSED if waits else b"")
            if request.keepable and self._shelf is not None and not waits:
                response.kept = self._shelf.keep(digest, found, response.headers)
            return response
        if found is not None and stale:
            zone.counters.stale += 1
            return self._serve(request, found, b"STALE")
        return self._ask(_Asked(request, key, digest, found, waits))

    def _ask(self, asked: _Asked) -> Response | Deferred[Response]:
        """There is nothing fresh."""
        zone, settings, found = self.zone, self.settings, asked.found
        if self._alone(asked):
            return self._fetch(asked, storing=False)
        if found is not None and self._may_update(found):
            return self._update(asked, found)
        if not settings.lock:
            return self._fetch(asked)
        landing = Landing.PASS
        if asked.waits < _MAX_WAITS:
            joined = zone.flights.join(asked.digest, settings.lock_age)
            if isinstance(joined, Deferred):
                if found is not None:
                    found.file.close()
                zone.counters.waits += 1
                return self._wait(attrs.evolve(asked, found=None), joined)
            landing = joined
        return self._lead(asked) if landing is Landing.LEAD else self._fetch(asked)

    def _alone(self, asked: _Asked) -> bool:
        """Whether this request goes on as it is, and its answer is for nobody else."""
        settings, head = self.settings, asked.request.head
        least = settings.min_uses if asked.found is None and not asked.waits else 1
        if least > 1 and self.zone.asked(asked.digest) < least:
            return True
        if head.method == b"HEAD" and not settings.convert_head:
            return True
        return beyond(head.headers.first(b"range"), settings.max_range_offset)

    # An expired file that may be served while it is updated

    def _may_update(self, found: Found) -> bool:
        use_stale = self.settings.use_stale
        return may_serve_stale(found.entry, "updating", use_stale, self.zone.now())

    def _update(self, asked: _Asked, found: Found) -> Response | Deferred[Response]:
        """One request updates, in the background if it may; all others get the file."""
        zone, request = self.zone, asked.request
        if not zone.flights.lead(asked.digest):
            zone.counters.updating += 1
            return self._serve(request, found, b"UPDATING")
        behind = self.settings.background_update or found.soft
        if not behind or _has_body(request):
            return self._lead(asked)  # a body is the client's, and comes but once
        again = self._stored_meanwhile(asked)
        if again is not None:
            found.file.close()
            return again
        self._update_behind(asked, found)
        zone.counters.stale += 1
        return self._serve(request, found, b"STALE")

    def _update_behind(self, asked: _Asked, found: Found) -> None:
        """Fetch for the zone alone."""
        file, request = found.file, asked.request
        try:
            own = OpenFile(os.dup(file.fd), file.size, file.mtime, file.path, file.identity)
        except OSError as reason:  # no descriptor left
            self.zone.flights.land(asked.digest, Landing.LEAD)
            self._log.warn("no background update: {reason}", reason=str(reason))
            return
        request = attrs.evolve(
            request, on_gone=[], outcome=Outcome(), notes=[], variables=dict(request.variables)
        )
        asked = attrs.evolve(asked, request=request, found=attrs.evolve(found, file=own))
        updating = self._fetch(asked, leading=True, behind=True)
        updating.addCallbacks(lambda response: discard(response.body), self._update_failed)

    def _update_failed(self, failure: Failure) -> None:
        self._log.warn("background update failed: {reason}", reason=failure.getErrorMessage())

    # Filling, and waiting for who fills

    def _lead(self, asked: _Asked) -> Response | Deferred[Response]:
        """We are to fill; unless somebody has, since we looked."""
        again = self._stored_meanwhile(asked)
        if again is None:
            return self._fetch(asked, leading=True)
        if asked.found is not None:
            asked.found.file.close()
        return again

    def _stored_meanwhile(self, asked: _Asked) -> Response | None:
        """What another process has stored since we looked; then nobody needs to fill."""
        zone, request = self.zone, asked.request
        found = zone.look(asked.key, request.head.headers, self.settings.follow)
        if found is None:
            return None
        if not fresh(found.entry, zone.now()):
            found.file.close()
            return None
        zone.counters.hits += 1
        zone.flights.land(asked.digest, Landing.STORED)
        return self._serve(request, found, b"HIT")

    def _wait(self, asked: _Asked, waiter: Deferred[Landing]) -> Deferred[Response]:
        gone = False

        def leave() -> None:
            nonlocal gone
            gone = True
            if not waiter.called:  # else this would cancel what the wait has led to
                waiter.cancel()

        def landed(result: Landing | Failure) -> Response | Deferred[Response]:
            if timer is not None and timer.active():
                timer.cancel()
            if isinstance(result, Failure):
                return Response(_GONE) if gone else self._waited_in_vain(asked)
            return self._landed(asked, result)

        asked.request.on_gone.append(leave)
        clock = self.zone.clock
        timer = clock.callLater(self.settings.lock_timeout, waiter.cancel) if clock else None
        return waiter.addBoth(landed)

    def _landed(self, asked: _Asked, landing: Landing) -> Response | Deferred[Response]:
        """The wait is over."""
        request, key = asked.request, asked.key
        if landing in (Landing.STORED, Landing.STALE):
            shared = self.zone.flights.portion
            if shared is not None and shared.suits(
                key, request.head.headers, self.settings.follow
            ):
                return self._serve_shared(request, shared)
            return self.answer(request, key, asked.waits + 1, stale=landing is Landing.STALE)
        again = self._with_stale(asked)
        return self._lead(again) if landing is Landing.LEAD else self._fetch(again)

    def _waited_in_vain(self, asked: _Asked) -> Deferred[Response]:
        """``*_cache_lock_timeout``: passed on, not cached."""
        return self._fetch(self._with_stale(asked), storing=False)

    def _with_stale(self, asked: _Asked) -> _Asked:
        found = self.zone.look(asked.key, asked.request.head.headers, self.settings.follow)
        return attrs.evolve(asked, found=found)

    def _serve(self, request: Request, found: Found, status: bytes, how: bytes = b"") -> Response:
        zone, entry = self.zone, found.entry
        response = from_file(self.settings, request, found, status, zone.now(), how)
        return marked(response, request, zone, entry, hit=True)

    def _serve_shared(self, request: Request, shared: Portion) -> Response:
        zone, entry, body = self.zone, shared.entry, shared.body
        zone.counters.hits += 1
        response = from_entry(self.settings, request, entry, body, b"HIT", zone.now(), _COLLAPSED)
        return marked(response, request, zone, entry, hit=True)

    def _fetch(
        self,
        asked: _Asked,
        *,
        status: bytes = b"",
        leading: bool = False,
        storing: bool = True,
        behind: bool = False,
    ) -> Deferred[Response]:
        return Fetch(
            self.inner, self.settings, self.zone, asked.request, asked.key, asked.digest,
            status or asked.status, stale=asked.found, leading=leading, storing=storing,
            behind=behind,
        ).run()  # fmt: skip


def _has_body(request: Request) -> bool:
    headers = request.head.headers
    return b"content-length" in headers or b"transfer-encoding" in headers
