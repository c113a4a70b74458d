"""The resolvers of a configuration: one for each ``resolver`` directive that differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .cache import NameCache
from .directives import ResolverSettings
from .query import Nameservers
from .resolver import Resolver


class Resolvers:
    """Makes them as they are needed. ``reactor`` drives their queries; call `stop` at the end."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._made: dict[ResolverSettings, Resolver] = {}

    def get(self, settings: ResolverSettings) -> Resolver:
        """The resolver for ``settings``: the same for the same."""
        resolver = self._made.get(settings)
        if resolver is None:
            nameserving = settings.nameserving
            ask = Nameservers(self._reactor, nameserving.servers, settings.timeout)
            cache = NameCache(nameserving.valid)
            resolver = Resolver(self._reactor, ask, nameserving.kinds, cache)
            self._made[settings] = resolver
        return resolver

    def zones(self) -> Mapping[str, Sequence[Resolver]]:
        """The resolvers of each ``status_zone``."""
        zones: dict[str, list[Resolver]] = {}
        for settings, resolver in self._made.items():
            if settings.nameserving.status_zone:
                zones.setdefault(settings.nameserving.status_zone, []).append(resolver)
        return zones

    def stop(self) -> None:
        """Drop what is under way."""
        for resolver in self._made.values():
            resolver.stop()
