"""The work of master and slave: an ``http`` block at work."""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList, succeed

from imagefarm.cache.directives import problems, zone_settings
from imagefarm.cache.zone import Zone
from imagefarm.config.errors import ConfigurationError, Problem
from imagefarm.config.loader import Loaded
from imagefarm.config.table import Scope
from imagefarm.http.accesslog import LogFiles
from imagefarm.http.factory import HttpFactory
from imagefarm.http.places import Places
from imagefarm.http.requestid import REQUEST_ID_FROM, Naming
from imagefarm.http.requestlog import RequestLogs
from imagefarm.http.timers import TimerWheel
from imagefarm.http.tls_variables import OF_HELLO
from imagefarm.http.transfer import head_settings, transfer_settings
from imagefarm.http.transport import listen
from imagefarm.http.variables import needs_socket
from imagefarm.process.board import Board
from imagefarm.process.directives import ERROR_LOG, MainSettings
from imagefarm.process.errorlog import ErrorLogSetting
from imagefarm.process.privileges import Belongings
from imagefarm.proxy.groups import Groups
from imagefarm.resources import directives as rows
from imagefarm.resources.build import Builder, ContentFactory, Listener, Tree
from imagefarm.resources.dispatch import Dispatcher
from imagefarm.resources.listen import shared
from imagefarm.resources.location import Content
from imagefarm.resources.open_file_cache import OpenFileCache

from .certificates import Certificates
from .configuration import variables
from .contents import NAMELESS, Contents
from .doors import Door, Gate, endpoint_of, named_limits
from .instance import Instance, Place
from .logs import Note, fault
from .plan import PARTING
from .report import resolver_report, zone_report
from .tls import contexts
from .totals import Figures, figures_of, with_totals
from .upstreams import Management

T = TypeVar("T")


@define(eq=False)
class WebWork:
    """A process's ``http`` blocks: `Work` of the daemon.

    The constructor builds everything and raises `ConfigurationError`; `start` serves.
    """

    reactor: Any
    loaded: Loaded
    main: MainSettings
    prefix: str
    #: Gives the error logs that take what such settings say, and a witness of what they are told.
    error_logs: Callable[[Sequence[ErrorLogSetting], Note], RequestLogs] | None = None
    #: Seconds since the epoch.
    clock: Callable[[], float] = time.time
    #: What the workers share; None in a process that is the only one.
    board: Board | None = None
    #: Where we stand among them.
    place: Place = field(factory=Place)
    certificates: Certificates = field(factory=Certificates)
    places: Places = field(init=False)
    groups: Groups = field(init=False)
    management: Management = field(init=False)
    zones: dict[str, Zone] = field(init=False)
    logs: LogFiles = field(init=False)
    dispatcher: Dispatcher = field(init=False)
    doors: list[Door] = field(init=False)
    gates: list[Gate] = field(init=False)
    #: What an operator should know of the configuration, beyond what its reading showed.
    warnings: list[Problem] = field(factory=list)
    instance: Instance = field(init=False)
    _found: list[Problem] = field(factory=list)
    _contents: Contents = field(init=False)
    _file_caches: tuple[OpenFileCache, ...] = ()
    _ports: list[Any] = field(factory=list)
    _serials: Any = field(factory=lambda: itertools.count(1))
    _wheel: TimerWheel = field(init=False)

    def __attrs_post_init__(self) -> None:
        http = self.loaded.root.blocks(rows.HTTP_BLOCK)
        self._found = [*self.loaded.problems]
        for block in http:
            self._found += problems(block)
        self.zones = {
            name: Zone(settings, self.clock)
            for block in http
            for name, settings in zone_settings(block).items()
        }
        self._wheel = TimerWheel(self.reactor)
        self.instance = Instance(self.reactor, self, self.place, self.clock)
        self.places = Places(self.main.worker_connections, self.reactor.seconds)
        self.groups = Groups(self.reactor, self.places)
        self.logs = LogFiles(
            self.reactor,
            variables(self.clock),
            os.fsencode(os.path.join(self.prefix, "logs", "access.log")),
            self.clock,
        )
        for block in http:
            make = partial(Groups.from_scope, block, self.reactor, self.places)
            self.groups = self._tolerate(make) or self.groups
            self.warnings += self.groups.warnings
        self.management = Management(self.reactor, http, self.groups, self.clock)
        if len(self._found) > len(self.loaded.problems):
            self._raise_found()  # what follows would only blame others for it
        self.warnings += _missing_roots(self.loaded.root)
        self._contents = Contents(
            self.reactor, self.prefix, self.groups, self.zones, self.management, self.instance,
            self.place, self.clock,
        )  # fmt: skip
        builder = Builder(
            tuple(map(self._tolerant, self._contents.factories)),
            self.logs.for_scope,
            os.path.join(self.prefix, "html").encode("utf-8", "surrogateescape"),
            lambda function: self.reactor.callLater(0, function),
            self._error_logs,
            self.clock,
            self.connections,
        )
        tree = builder.build(http)
        self.warnings += self._contents.warnings
        self._open(tree)

    def _open(self, tree: Tree) -> None:
        """What serves the ``tree``."""
        self.warnings += tree.warnings
        self.dispatcher = Dispatcher(tree.farm, self.clock)
        self._file_caches = tree.file_caches
        self._tolerate(partial(self.management.built, tree))
        doors = [self._tolerate(partial(self._door, listener)) for listener in tree.listeners]
        self.doors = [door for door in doors if door is not None]
        by_listen = {door.listen: door for door in self.doors}
        self.gates = [
            Gate(endpoint_of(listen), by_listen[listen], tuple(by_listen[o] for o in others))
            for listen, others in shared(list(by_listen)).items()
        ]
        self._tolerate(self.logs.open)
        self._raise_found()

    # Errors are collected, so that all are reported at once

    def _tolerate(self, make: Callable[[], T]) -> T | None:
        """What ``make`` gives; None where it found the configuration wrong."""
        try:
            return make()
        except ConfigurationError as error:
            self._found += error.problems
            return None

    def _tolerant(self, factory: ContentFactory) -> ContentFactory:
        def content(scope: Scope) -> Content | None:
            return self._tolerate(partial(factory, scope))

        return content

    def _raise_found(self) -> None:
        if self._found:
            self.logs.close()
            by_place = sorted(
                dict.fromkeys(self._found), key=lambda found: (found.file, found.line)
            )
            raise ConfigurationError(by_place)

    def _error_logs(self, scope: Scope) -> RequestLogs | None:
        """Those of a block; none of its own means the main ones. The status remembers errors."""
        if self.error_logs is None:
            return None
        own = scope.all(ERROR_LOG)
        main = own == self.loaded.root.all(ERROR_LOG)
        return self.error_logs(() if main else own, self.instance.recent.write)

    # Doors

    def _door(self, listener: Listener) -> Door:
        where, default = listener.listen, listener.servers[0]
        head = head_settings(default)
        named = named_limits(listener)
        factory = HttpFactory(
            self.dispatcher,
            self.reactor,
            server=where.address,
            secure=where.ssl,
            transfer=transfer_settings(default),
            limits=head.limits,
            named=named,
            client_header_timeout=head.client_header_timeout,
            wheel=self._wheel,
            serials=self._serials,
            now=self.clock,
            places=self.places,
            # Of a Unix socket's clients ``api`` wants to know whose they are.
            asks_socket=where.address[0].startswith("unix:")
            or needs_socket(self.loaded.variables, wildcard=where.wildcard),
            asks_time="connection_time" in self.loaded.variables,
            naming=self._naming(listener.servers),
        )
        made = None
        if where.ssl:
            hello = not OF_HELLO.isdisjoint(self.loaded.variables)
            made, warnings = contexts(listener, self.certificates, hello=hello)
            self.warnings += warnings
        return Door(where, factory, made, head.tcp_nodelay)

    def _naming(self, servers: Sequence[Scope]) -> Naming | None:
        """Unless servers differ, or something else depends on the field that it is taken from."""
        rules = {server[REQUEST_ID_FROM] for server in servers}
        trusted = rules.pop()
        if trusted is None or rules:
            return None
        variable = "http_" + trusted.field.decode().replace("-", "_")
        return None if variable in self.loaded.variables else Naming(trusted)

    # Work

    def start(self, sockets: Mapping[str, socket.socket]) -> None:
        """Serve on the sockets."""
        self.groups.start()
        for zone in self.zones.values():
            zone.start(self.reactor)
        self.management.start(self.board)
        self.instance.start()
        secured = [door.contexts.servers for door in self.doors if door.contexts is not None]
        self.certificates.follow(self.reactor, [one for some in secured for one in some])
        if self.board is None:
            self.certificates.start(self.reactor)
        for watch in self._contents.watches:
            watch.start()
        for gate in self.gates:
            sock, factory = sockets[str(gate.endpoint)], gate.factory()
            self._ports.append(listen(self.reactor, sock, factory, nodelay=gate.door.nodelay))

    def _stop_listening(self) -> list[Deferred[Any]]:
        ports, self._ports = self._ports, []
        return [port.stopListening() or succeed(None) for port in ports]

    def drain(self) -> Deferred[Any]:
        """QUIT: no new connections; those there are finish their answers."""
        self.instance.draining = True
        waiting = self._stop_listening()
        return DeferredList([*waiting, *(door.factory.drain(PARTING) for door in self.doors)])

    def stop(self) -> Deferred[Any]:
        """TERM: drop everything; logs are written out."""
        waiting = self._stop_listening()
        for door in self.doors:
            door.factory.abort()
        for watch in self._contents.watches:
            watch.stop()
        self.instance.stop()
        self.management.stop()
        self.certificates.stop()
        self.groups.stop()
        for zone in self.zones.values():
            zone.stop()
        for cache in self._file_caches:
            cache.close()
        self.logs.close()
        return DeferredList(waiting)

    def reopen(self) -> None:
        """USR1."""
        for failure in self.logs.reopen():
            fault(failure)

    def belongings(self) -> Belongings:
        """Access logs with fixed names, the caches, and where temporary files go."""
        caches = [zone.directory.path for zone in self.zones.values()]
        return Belongings(
            logs=tuple(map(os.fsdecode, self.logs.paths())),
            directories=tuple(map(os.fsdecode, (*caches, *self._contents.temporary))),
        )

    # Status

    def connections(self) -> tuple[int, int, int]:
        """This worker's that read a request, are being answered, and wait for a request."""
        states = [door.factory.states() for door in self.doors]
        reading, writing, waiting = (sum(column) for column in zip(*states, strict=True))
        return reading, writing, waiting

    def _report(self) -> Mapping[str, Any]:
        """What this worker has to tell."""
        reading, writing, waiting = self.connections()
        accepted = sum(door.factory.accepted for door in self.doors)
        return {
            "connections": {
                "accepted": accepted,
                "handled": accepted - sum(door.factory.refused for door in self.doors),
                "active": reading + writing + waiting,
                "reading": reading,
                "writing": writing,
                "waiting": waiting,
            },
            "upstreams": self.management.report(),
            "resolvers": {
                zone: resolver_report(some) for zone, some in self.groups.resolvers.zones().items()
            },
            "caches": {name: zone_report(zone) for name, zone in self.zones.items()},
        }

    def figures(self) -> Figures:
        """`instance.Work`."""
        return figures_of(
            self._report(),
            {
                name.decode("utf-8", "replace") or NAMELESS: meter.report()
                for name, meter in self.dispatcher.meters.items()
            },
        )

    def processes(self) -> Sequence[Mapping[str, Any]]:
        """`instance.Work`: none."""
        return ()

    def status(self, sums: Figures) -> Mapping[str, Any]:
        """`instance.Work`."""
        return with_totals(self._report(), sums)


def _missing_roots(scope: Scope) -> list[Problem]:
    """Roots that are no directories now. As in nginx no error: a mount may come later."""
    found = []
    for row, value, directive in scope.items:
        if isinstance(value, Scope):
            found += _missing_roots(value)
        elif row is rows.ROOT and value.constant is not None and not os.path.isdir(value.constant):
            path = os.fsdecode(value.constant)
            text = f'root "{path}" is not a directory, every file in it will be missing'
            found.append(Problem(text, directive.file, directive.line))
    return found
