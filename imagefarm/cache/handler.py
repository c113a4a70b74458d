"""The caching handler: answers from the zone, or asks the inner handler and keeps the answer.

A hit needs nothing but one file. Everything else is a `Fetch`: one request that goes through
to the upstream. Of simultaneous requests for one key in this process one fetches, the others
wait for its file (nginx: ``*_cache_lock on``).
"""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from imagefarm.http.message import Handler, Request, Response

from .answers import from_file
from .directives import CacheSettings
from .entry import MAX_KEY
from .fetch import Fetch
from .flights import Landing
from .policy import fresh, may_serve_stale, truthy
from .store import Found
from .zone import Zone

#: How often a request waits for others before it asks for itself.
_MAX_WAITS: Final = 3
#: The client has gone (nginx's status in the log); nobody will see this answer.
_GONE: Final = 499


class CachingHandler:
    """A `Handler` around another one. See RFC 9211 for the Cache-Status that it adds."""

    def __init__(self, inner: Handler, settings: CacheSettings, zone: Zone) -> None:
        self.inner = inner
        self.settings = settings
        self.zone = zone

    def __repr__(self) -> str:
        return f"<CachingHandler {self.zone.settings.name} {self.inner!r}>"

    def __call__(self, request: Request) -> Response | Deferred[Response]:
        """Answer ``request``; a hit at once. Fails as the inner handler fails."""
        settings = self.settings
        if request.head.method not in settings.methods:
            return self.inner(request)
        key = settings.key(request)
        if len(key) > MAX_KEY:
            return self.inner(request)
        if any(truthy(template(request)) for template in settings.bypass):
            self.zone.counters.bypass += 1
            digest, found = self.zone.find(key, request.head.headers)
            if found is not None:
                found.file.close()
            return self._fetch(request, key, digest, b"BYPASS")
        return self.answer(request, key, 0)

    def answer(
        self, request: Request, key: bytes, waits: int, *, stale: bool = False
    ) -> Response | Deferred[Response]:
        """Answer from the zone, or wait, or fetch. ``stale``: an expired file will do."""
        zone = self.zone
        digest, found = zone.find(key, request.head.headers)
        if found is not None and fresh(found.entry, zone.now()):
            zone.counters.hits += 1
            return self._serve(request, found, b"HIT")
        if found is not None and stale:
            zone.counters.stale += 1
            return self._serve(request, found, b"STALE")
        status = b"MISS" if found is None else b"EXPIRED"
        if zone.uses(digest) < self.settings.min_uses:
            return self._fetch(request, key, digest, status, stale=found, storing=False)
        if found is not None and digest in zone.flights and self._may_update(found):
            zone.counters.updating += 1
            return self._serve(request, found, b"UPDATING")
        landing = Landing.PASS if waits >= _MAX_WAITS else zone.flights.join(digest)
        if isinstance(landing, Landing):
            leading = landing is Landing.LEAD
            return self._fetch(request, key, digest, status, stale=found, leading=leading)
        if found is not None:
            found.file.close()
        zone.counters.waits += 1
        return self._wait(request, key, digest, landing, waits)

    def _may_update(self, found: Found) -> bool:
        use_stale = self.settings.use_stale
        return may_serve_stale(found.entry, "updating", use_stale, self.zone.now())

    def _wait(
        self,
        request: Request,
        key: bytes,
        digest: bytes,
        waiter: Deferred[Landing],
        waits: int,
    ) -> Deferred[Response]:
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
                if gone:
                    return Response(_GONE)
                result = Landing.PASS
            return self._landed(request, key, digest, result, waits)

        request.on_gone.append(leave)
        clock = self.zone.clock
        timer = clock.callLater(self.settings.lock_timeout, waiter.cancel) if clock else None
        return waiter.addBoth(landed)

    def _landed(
        self, request: Request, key: bytes, digest: bytes, landing: Landing, waits: int
    ) -> Response | Deferred[Response]:
        """The wait is over."""
        if landing in (Landing.STORED, Landing.STALE):
            return self.answer(request, key, waits + 1, stale=landing is Landing.STALE)
        _, found = self.zone.find(key, request.head.headers)
        leading = landing is Landing.LEAD
        if leading and found is not None and fresh(found.entry, self.zone.now()):
            self.zone.counters.hits += 1
            self.zone.flights.land(digest, Landing.STORED)  # another process has stored it
            return self._serve(request, found, b"HIT")
        status = b"MISS" if found is None else b"EXPIRED"
        return self._fetch(request, key, digest, status, stale=found, leading=leading)

    def _serve(self, request: Request, found: Found, status: bytes) -> Response:
        return from_file(self.settings, request, found, status, self.zone.now())

    def _fetch(
        self,
        request: Request,
        key: bytes,
        digest: bytes,
        status: bytes,
        *,
        stale: Found | None = None,
        leading: bool = False,
        storing: bool = True,
    ) -> Deferred[Response]:
        return Fetch(
            self.inner, self.settings, self.zone, request, key, digest, status,
            stale=stale, leading=leading, storing=storing,
        ).run()  # fmt: skip
