"""Health checks, status and control of a process's upstreams: what belongs to all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from attrs import frozen

from imagefarm.config.ast import Directive
from imagefarm.config.errors import ConfigurationError, Problem
from imagefarm.config.table import Scope
from imagefarm.http.body import EMPTY
from imagefarm.http.headers import Headers
from imagefarm.http.message import Peer, Request, RequestHead
from imagefarm.http.upstream import Probeable
from imagefarm.http.uri import normalise
from imagefarm.process.board import Board
from imagefarm.proxy.group import Group
from imagefarm.proxy.groups import Groups
from imagefarm.proxy.health.directives import HEALTH_CHECK, MATCH
from imagefarm.proxy.health.match import DEFAULT, Match
from imagefarm.proxy.health.records import Check, CheckSettings
from imagefarm.resources.build import Tree
from imagefarm.resources.control import API, control
from imagefarm.resources.location import Content

from .crowds import Crowds
from .failures import Failures
from .health import HealthChecks
from .report import UpstreamReport
from .servers import Servers
from .shared import Shared

#: Whom a check comes from: nobody.
_NOBODY = Peer("", 0, ("", 0), 0)


@frozen(eq=False)
class _Planned:
    """A check that the configuration asks for."""

    scope: Scope
    group: Group
    check: Check
    probeable: Probeable


class Management:
    """The upstreams of ``groups``. `plan` checks while the tree is built, then `built`, `start`.

    ``clock`` gives seconds since the epoch.
    """

    def __init__(
        self, reactor: Any, http: Iterable[Scope], groups: Groups, clock: Callable[[], float]
    ) -> None:
        self._shared = Shared(reactor)
        self._groups = groups
        self._clock = clock
        self._planned: list[_Planned] = []
        self._passing: set[Scope] = set()
        self._matches: dict[str, Match] = {}
        self._problems: list[Problem] = []
        for block in http:
            self._collect(block)
        self.checks = HealthChecks(reactor, self._shared)
        self._report = UpstreamReport(groups.named, self.checks, clock)
        self.servers = Servers(reactor, self._shared, groups.named, self._report.group)
        self._failures = Failures(reactor, self._shared, groups.named)
        self._crowds = Crowds(reactor, self._shared, groups.named)

    def _collect(self, http: Scope) -> None:
        """The ``match`` blocks."""
        for scope in http.blocks(MATCH):
            tests, directive = scope.value, scope.directive
            assert directive is not None
            if tests is not None and tests.name in self._matches:
                self._problems.append(_problem(f'duplicate match "{tests.name}"', directive))
            elif tests is not None:
                self._matches[tests.name] = tests

    # -- from the configuration ------------------------------------------------------------------

    def plan(self, scope: Scope, group: Group | None, probeable: Probeable) -> None:
        """The checks of a location that passes requests to ``group`` (None: variables say where).

        Raises `ConfigurationError`.
        """
        problems = []
        self._passing.add(scope)
        for row, settings, directive in scope.items:
            if row is not HEALTH_CHECK or settings is None:
                continue
            tests = self._tests(settings)
            if group is None:
                text = '"health_check" cannot be used where the upstream is given by variables'
                problems.append(_problem(text, directive))
            elif tests is None:
                problems.append(_problem(f'match "{settings.match}" is not found', directive))
            else:
                self._planned.append(_Planned(scope, group, Check(settings, tests), probeable))
        if problems:
            raise ConfigurationError(problems)

    def _tests(self, settings: CheckSettings) -> Match | None:
        return self._matches.get(settings.match) if settings.match else DEFAULT

    def built(self, tree: Tree) -> None:
        """The tree is complete. Raises `ConfigurationError` for checks of nothing."""
        problems = list(self._problems)
        for scope in tree.locations:
            if scope.is_set(HEALTH_CHECK) and scope not in self._passing:
                directive = next(d for row, _, d in scope.items if row is HEALTH_CHECK)
                text = '"health_check" needs "proxy_pass" or "fastcgi_pass" in its location'
                problems.append(_problem(text, directive))
        if problems:
            raise ConfigurationError(problems)
        for planned in self._planned:
            ask = partial(self._request, planned.check.settings.uri, planned.scope, tree)
            self.checks.add(planned.group, planned.check, ask, planned.probeable)

    def _request(self, uri: str, scope: Scope, tree: Tree) -> Request:
        """A request of our own for ``uri``, as if it had come to the location."""
        target = uri.encode("utf-8", "surrogateescape")
        path, args = normalise(target)
        server: Scope | None = scope
        while server is not None and server not in tree.hosts:
            server = server.parent
        host = None if server is None else tree.hosts[server]
        head = RequestHead(b"GET", target, (1, 1), Headers())
        return Request(
            head, _NOBODY, EMPTY, self._clock(), uri=path, args=args, server=host,
            location=tree.locations[scope],
        )  # fmt: skip

    def api(self, scope: Scope) -> Content | None:
        """The content of a location with ``api``."""
        settings = scope[API]
        return None if settings is None else control(settings, self.servers, os.geteuid)

    # -- at work ---------------------------------------------------------------------------------

    def start(self, board: Board | None) -> None:
        """``board`` is the workers'; None if we are the only process."""
        self.servers.start()
        self._failures.start()
        self._crowds.start()
        self.checks.start()
        self._shared.start(board)

    def stop(self) -> None:
        """Check no more, follow the board no more."""
        self.checks.stop()
        self._failures.stop()
        self._crowds.stop()
        self._shared.stop()

    def report(self) -> Mapping[str, Any]:
        """All groups, for the status."""
        return {
            name: self._report.group(name, self.servers.numbers(name))
            for name in self._groups.named
        }


def _problem(message: str, directive: Directive) -> Problem:
    return Problem(message, directive.file, directive.line)
