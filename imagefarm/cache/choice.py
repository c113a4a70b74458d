"""``proxy_cache $zone``: the request says in which zone its answer is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs
from twisted.internet.defer import Deferred

from imagefarm.http.message import Handler, Request, Response
from imagefarm.http.requestlog import printable, report

from .directives import CacheSettings
from .handler import CachingHandler
from .kept import Target
from .zone import Zone

#: What stands for no cache at all.
_OFF: Final = frozenset({b"", b"off"})


class ChosenCache:
    """A `Handler` around another one, with a `CachingHandler` for each zone."""

    def __init__(
        self,
        inner: Handler,
        settings: CacheSettings,
        zones: Mapping[str, Zone],
        target: Target | None,
    ) -> None:
        self.inner = inner
        self._choice = settings.choice
        self._caches = {
            name.encode(): CachingHandler(inner, attrs.evolve(settings, zone=name), zone, target)
            for name, zone in zones.items()
        }

    def __repr__(self) -> str:
        return f"<ChosenCache {self.inner!r}>"

    def __call__(self, request: Request) -> Response | Deferred[Response]:
        """Answer from the zone named, or from none (nginx: 500 for one that there is not)."""
        assert self._choice is not None
        name = self._choice(request)
        if name in _OFF:
            return self.inner(request)
        cache = self._caches.get(name)
        if cache is None:
            report(request, "error", f'cache "{printable(name)}" not found')
            return Response(500)
        return cache(request)


def caching(
    inner: Handler, settings: CacheSettings, zones: Mapping[str, Zone], target: Target | None
) -> Handler:
    """``inner`` with the cache that ``settings`` name before it."""
    if settings.choice is not None:
        return ChosenCache(inner, settings, zones, target)
    return CachingHandler(inner, settings, zones[settings.zone], target)
