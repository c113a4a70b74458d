"""What a location serves: an upstream's answers, cached or not, or a page of our own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred

from imagefarm.cache.choice import caching
from imagefarm.cache.directives import ROWS as CACHE_ROWS
from imagefarm.cache.directives import CacheSettings
from imagefarm.cache.kept import Target
from imagefarm.cache.zone import Zone
from imagefarm.config.errors import ConfigurationError, Invalid, Problem
from imagefarm.config.table import Scope
from imagefarm.config.variables import Getter, Template
from imagefarm.fastcgi.directives import PASS as FASTCGI_PASS
from imagefarm.fastcgi.directives import FastCGISettings
from imagefarm.fastcgi.handler import FastCGIPass
from imagefarm.http.filters.slice import SLICE
from imagefarm.http.message import Handler
from imagefarm.http.slicing import Slicing
from imagefarm.proxy.group import Group
from imagefarm.proxy.groups import Groups
from imagefarm.proxy.handler import ProxyPass
from imagefarm.proxy.names.directives import ResolverSettings
from imagefarm.proxy.settings import ProxySettings
from imagefarm.resources import directives as rows
from imagefarm.resources.build import ContentFactory
from imagefarm.resources.dashboard import DASHBOARD, dashboard
from imagefarm.resources.location import Content
from imagefarm.resources.mounted import mount_point, mounted
from imagefarm.resources.purging import CACHE_API, purging
from imagefarm.resources.status import json_status, prometheus_status, stub_status

from .doors import place_of
from .instance import Instance, Place
from .metrics import families
from .upstreams import Management
from .watch import Watch

#: What a server without ``server_name`` is called in the status.
NAMELESS: Final = "_"


@define(eq=False)
class Contents:
    """Makes the content handlers of a process's locations: `build.ContentFactory`, each looking
    for the directive that is its own. They raise `ConfigurationError`.
    """

    reactor: Any
    prefix: str
    groups: Groups
    zones: Mapping[str, Zone]
    management: Management
    instance: Instance
    place: Place
    #: Seconds since the epoch.
    clock: Callable[[], float]
    #: Where temporary files may be made, as the locations that were made want it.
    temporary: set[bytes] = field(factory=set)
    #: What keeps the figures of the dashboards that were made: to be started and stopped.
    watches: list[Watch] = field(factory=list)
    #: What an operator should know of them.
    warnings: list[Problem] = field(factory=list)

    @property
    def factories(self) -> tuple[ContentFactory, ...]:
        """All, in the order in which a location is asked."""
        return (
            self._proxy,
            self._fastcgi,
            self._resource,
            self._stub_status,
            self._status,
            self._dashboard,
            self.management.api,
            self._cache_api,
        )

    def _proxy(self, scope: Scope) -> Content | None:
        settings = ProxySettings.from_scope(scope, self.prefix)
        if settings is None:
            return None
        self.temporary.update(settings.streaming.directories)
        handler = ProxyPass(settings, self.groups)
        self.management.plan(scope, handler.group, handler)
        cached = self._cached(
            "proxy", scope, handler, settings.ignore_headers, handler, settings.url
        )
        return self._sliced(scope, cached)

    def _fastcgi(self, scope: Scope) -> Content | None:
        settings = FastCGISettings.from_scope(scope, self.prefix)
        if settings.address is None:
            return None
        self.temporary.update(settings.streaming.directories)
        handler = FastCGIPass(settings, self._group_for(scope, settings.address), self.reactor)
        constant = settings.address.constant is not None
        group = self._named_group(scope, settings.address) if constant else None
        self.management.plan(scope, group, handler)
        cached = self._cached("fastcgi", scope, handler, settings.ignore_headers)
        return self._sliced(scope, cached)

    @staticmethod
    def _sliced(scope: Scope, handler: Handler) -> Content:
        size = scope[SLICE]
        return Slicing(handler, size) if size else handler

    def _named_group(self, scope: Scope, address: Template) -> Group:
        """The group of a ``fastcgi_pass`` without variables."""
        try:
            return self.groups.find(address.source)
        except Invalid as error:
            place = place_of(scope, FASTCGI_PASS)
            raise ConfigurationError([Problem(str(error), place.file, place.line)]) from None

    def _group_for(
        self, scope: Scope, address: Template
    ) -> Callable[[bytes], Group | Deferred[Any]]:
        """How ``fastcgi_pass`` finds its group: now, unless the address has variables."""
        if address.constant is None:
            names = ResolverSettings.from_scope(scope)
            return lambda value: self.groups.dynamic(value.decode("latin-1"), None, names)
        group = self._named_group(scope, address)
        return lambda value: group

    def _cached(
        self, prefix: str, scope: Scope, handler: ProxyPass | FastCGIPass,
        ignore: frozenset[bytes], target: Target | None = None, default_key: Getter | None = None,
    ) -> Handler:  # fmt: skip
        settings = CacheSettings.from_scope(
            prefix, scope, default_key=default_key, ignore_headers=ignore, present=handler.again
        )
        if settings is None:
            if (zone := scope[CACHE_ROWS[prefix].zone]) is not None:
                place = place_of(scope, CACHE_ROWS[prefix].zone)
                name = f"{prefix}_cache {zone.source}"
                message = f'no "{prefix}_cache_key" for "{name}", nothing is cached'
                self.warnings.append(Problem(message, place.file, place.line))
            return handler
        return caching(handler, settings, self.zones, target)

    def _resource(self, scope: Scope) -> Content | None:
        named = scope[rows.RESOURCE]
        if named is None:
            return None
        try:
            resource = named.resource(self.reactor)
        except Invalid as error:
            place = place_of(scope, rows.RESOURCE)
            raise ConfigurationError([Problem(str(error), place.file, place.line)]) from None
        return mounted(resource, mount_point(scope), reactor=self.reactor)

    def _stub_status(self, scope: Scope) -> Content | None:
        return stub_status(self.instance.report) if scope[rows.STUB_STATUS] else None

    def _cache_api(self, scope: Scope) -> Content | None:
        settings = scope[CACHE_API]
        if settings is None:
            return None
        purgers = {name: zone.purger for name, zone in self.zones.items()}
        return purging(settings, purgers, os.geteuid)

    def _status(self, scope: Scope) -> Content | None:
        if scope[rows.STATUS] == "prometheus":
            return prometheus_status(self.instance.report, families)
        return json_status(self.instance.report) if scope[rows.STATUS] else None

    def _dashboard(self, scope: Scope) -> Content | None:
        settings = scope[DASHBOARD]
        if settings is None:
            return None
        watch = Watch(
            self.reactor,
            settings,
            self.instance.report,
            _server_name(scope),
            self.clock,
            past=self.place.past,
        )
        self.watches.append(watch)
        return dashboard(watch.figures)


def _server_name(scope: Scope) -> str:
    """What the server is called in the status that ``scope`` belongs to."""
    server: Scope | None = scope
    while server is not None:
        for names in server.all(rows.SERVER_NAME):
            return names[0].text.removeprefix(b".").decode("utf-8", "replace") or NAMELESS
        server = server.parent
    return NAMELESS
