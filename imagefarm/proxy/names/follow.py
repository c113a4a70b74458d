"""A server whose name is asked for again and again (``server NAME resolve``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from imagefarm.proxy.peer import Address

from .cache import MAX_STALE
from .reply import NOT_FOUND, SERVER_FAILURE, Service, Unresolved, could_not
from .resolver import Resolved, Resolver

#: The least time between two questions for one name, as in nginx.
LEAST_PAUSE: Final = 1.0


@frozen
class Named:
    """What to follow: a host and a port, or a service (``service=``) of a host."""

    host: str
    port: int
    service: str = ""

    @property
    def srv_name(self) -> str:
        """Where the SRV records are: ``http`` is ``_http._tcp`` (nginx, ``service``)."""
        prefix = self.service if "." in self.service else f"_{self.service}._tcp"
        return f"{prefix}.{self.host}"


@frozen
class Place:
    """An address of the server. ``weight`` 0 is none; ``spare``: not of the best priority."""

    address: Address
    weight: int = 0
    spare: bool = False


@frozen
class _Outcome:
    """What an asking came to; ``again`` and ``code`` as in `Resolved`."""

    places: tuple[Place, ...]
    again: float
    code: int | None


#: Is told the addresses, maybe none, and then each time that they have changed.
Changed = Callable[[tuple[Place, ...]], None]


class Follower:
    """Asks when what it knows has expired, and tells ``changed``. ``where`` is for the log.

    When nobody answers, the last addresses stay, for `MAX_STALE`; when the name is gone, so are
    they.
    """

    log = Logger()

    def __init__(self, resolver: Resolver, named: Named, where: str, changed: Changed) -> None:
        self._resolver = resolver
        self._named = named
        self._where = where
        self._changed = changed
        self._known: tuple[Place, ...] | None = None
        #: When the last new answer came.
        self._heard = float("-inf")
        self._asking: Deferred[None] | None = None
        self._later: Any = None

    def start(self) -> None:
        """Ask for the first time."""
        self._later = None
        asking = Deferred.fromCoroutine(self._ask())
        self._asking = asking.addCallbacks(self._found, self._failed)

    def stop(self) -> None:
        """Ask no more."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._asking is not None:
            self._asking.cancel()

    async def _ask(self) -> _Outcome:
        if self._named.service:
            return await self._services()
        found = await self._addresses(self._named.host)
        port = self._named.port
        places = tuple(Place(Address(str(item), port)) for item in found.items)
        return _Outcome(places, found.again, found.code)

    async def _addresses(self, name: str) -> Resolved:
        found = self._resolver.addresses(name, None)
        return await found if isinstance(found, Deferred) else found

    async def _services(self) -> _Outcome:
        """One place for each address of each target (RFC 2782)."""
        finding = self._resolver.services(self._named.srv_name, None)
        found = await finding if isinstance(finding, Deferred) else finding
        services = [item for item in found.items if isinstance(item, Service)]
        targets = dict.fromkeys(service.target for service in services)
        results: list[tuple[bool, Any]] = await DeferredList(
            [Deferred.fromCoroutine(self._addresses(target)) for target in targets],
            consumeErrors=True,
        )
        resolved: dict[str, Resolved] = {}
        again, code, missing = found.again, found.code, NOT_FOUND
        for target, (good, result) in zip(targets, results, strict=True):
            if good:
                resolved[target] = result
                again, code = min(again, result.again), code or result.code
            else:
                result.trap(Unresolved)
                again, missing = min(again, result.value.again), result.value.code
                self._say(str(result.value))
        if not resolved:
            raise Unresolved(self._named.srv_name, missing, again)
        best = min(service.priority for service in services)
        places = tuple(
            Place(Address(str(item), service.port), service.weight, service.priority != best)
            for service in services
            if service.target in resolved
            for item in resolved[service.target].items
        )
        return _Outcome(places, again, code)

    def _found(self, outcome: _Outcome) -> None:
        places = outcome.places
        if outcome.code is None:
            self._heard = self._resolver.clock.seconds()
        else:
            self._say(f"{could_not(self._named.host, outcome.code)}, its old addresses stay")
        # Nameservers turn their answers round; the order means nothing to a group.
        if self._known is None or set(places) != set(self._known):
            self._known = places
            self._changed(places)
        self._ask_at(outcome.again)

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, CancelledError):
            return
        if not isinstance(error, Unresolved):
            self.log.failure("following {name} broke", failure, name=self._named.host)
            error = Unresolved(self._named.host, SERVER_FAILURE)
        old = self._resolver.clock.seconds() >= self._heard + MAX_STALE
        if self._known and error.code != NOT_FOUND and not old:
            self._say(f"{error}, its old addresses stay")
        else:
            self._say(str(error))
            if self._known != ():
                self._known = ()
                self._changed(())
        self._ask_at(error.again)

    def _ask_at(self, moment: float) -> None:
        clock = self._resolver.clock
        self._asking = None
        self._later = clock.callLater(max(LEAST_PAUSE, moment - clock.seconds()), self.start)

    def _say(self, what: str) -> None:
        self.log.error('{what} in upstream "{where}"', what=what, where=self._where)
