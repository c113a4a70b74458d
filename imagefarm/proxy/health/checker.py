"""``health_check`` at work: asks each peer of a group at intervals, and tells what came of it.

One `Checker` for each check of a group. Each peer has a timetable of its own, so that checks
spread over the interval, and never more than one check under way.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from attrs import define, evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from imagefarm.http.message import Request
from imagefarm.http.upstream import Probeable
from imagefarm.proxy.peer import Address, Health, Peer

from .probe import Line, Probe, Undecided
from .records import Check

#: The first checks begin within so many seconds, or within an interval where that is shorter.
SPREAD: Final = 1.0


class Checked(Protocol):
    """A group, as far as checks need it."""

    name: bytes

    @property
    def peers(self) -> Iterable[Peer]:
        """The peers that it has now."""


#: Takes note of whether a check was passed; returns the peer's new state if that changes it.
Note = Callable[[Check, Peer, bool], Health | None]


@define(eq=False)
class _Watch:
    """One peer's timetable."""

    peer: Peer
    call: Any = None
    running: Deferred[str | None] | None = None
    line: Line | None = None


class Checker:
    """Checks the peers of ``group``. ``ask`` makes the request of a check, ``probeable`` tells
    how to send it; ``note`` learns of each outcome. ``reactor`` as the group's; ``chance`` gives
    numbers from 0 to 1.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        group: Checked,
        check: Check,
        ask: Callable[[], Request],
        probeable: Probeable,
        note: Note,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.check = check
        self.group = group
        self._reactor = reactor
        self._ask = ask
        self._probeable = probeable
        self._note = note
        self._chance = chance
        self._watches: dict[Peer, _Watch] = {}
        self._look: Any = None

    @property
    def running(self) -> bool:
        """Whether it is checking."""
        return self._look is not None

    def start(self) -> None:
        """Begin to check; again and again until `stop`."""
        if self._look is None:
            self._look_round()

    def stop(self) -> None:
        """Check no more; what is under way is dropped."""
        look, self._look = self._look, None
        if look is not None:
            look.cancel()
        for peer in tuple(self._watches):
            self._forget(peer)

    def _look_round(self) -> None:
        """See which peers there are: addresses come and go with their names (``resolve``)."""
        settings = self.check.settings
        self._look = self._reactor.callLater(settings.interval, self._look_round)
        present = dict.fromkeys(self.group.peers)
        for gone in [peer for peer in self._watches if peer not in present]:
            self._forget(gone)
        for peer in present:
            if peer not in self._watches:
                self._watches[peer] = watch = _Watch(peer)
                delay = min(settings.interval, SPREAD) * self._chance()
                watch.call = self._reactor.callLater(delay, self._begin, watch)

    def _forget(self, peer: Peer) -> None:
        watch = self._watches.pop(peer)
        if watch.call is not None:
            watch.call.cancel()
        if watch.running is not None:
            watch.running.cancel()
        if watch.line is not None:
            watch.line.connection.abort()

    def _begin(self, watch: _Watch) -> None:
        watch.call = None
        if watch.peer.down:
            self._again(watch)  # an operator has said so: there is nothing to find out
            return
        try:
            request = self._ask()
            outgoing, rules = self._probeable.probe(request)
        except Exception:
            self.log.failure('health check "{name}" cannot be sent', name=self.check.name)
            self._again(watch)
            return
        probe = Probe(
            self._reactor, self._address(watch.peer), request, outgoing, rules,
            self.check.tests, self._line(watch),
        )  # fmt: skip
        watch.running = running = probe.start()
        running.addCallbacks(
            self._judged, self._undecided, callbackArgs=(watch,), errbackArgs=(watch,)
        ).addBoth(self._ended, watch, probe)

    def _address(self, peer: Peer) -> Address:
        port = self.check.settings.port
        return evolve(peer.address, port=port) if port and not peer.address.path else peer.address

    def _line(self, watch: _Watch) -> Line | None:
        """The connection of the last check, if it may be used again."""
        line, watch.line = watch.line, None
        if line is None or self._young(line):
            return line
        line.connection.abort()
        return None

    def _young(self, line: Line) -> bool:
        age: float = self._reactor.seconds() - line.opened
        return line.idle and age < self.check.settings.keepalive_time

    def _judged(self, wrong: str | None, watch: _Watch) -> None:
        state = self._note(self.check, watch.peer, wrong is None)
        if state is not None:
            self._report(watch.peer, state, wrong)

    def _undecided(self, failure: Failure, watch: _Watch) -> None:
        if failure.check(CancelledError):
            return
        if failure.check(Undecided):
            self.log.error(
                'health check "{name}" of peer {peer} could not be made: {why}',
                name=self.check.name,
                peer=watch.peer.name.decode("utf-8", "replace"),
                why=failure.getErrorMessage(),
            )
        else:
            self.log.failure('health check "{name}" broke', failure, name=self.check.name)

    def _ended(self, result: object, watch: _Watch, probe: Probe) -> None:
        watch.running = None
        line = probe.line
        if self._watches.get(watch.peer) is watch:
            if line is not None and self._young(line):
                watch.line = line
                line = None
            self._again(watch)
        if line is not None:
            line.connection.abort()

    def _again(self, watch: _Watch) -> None:
        settings = self.check.settings
        delay = settings.interval + settings.jitter * self._chance()
        watch.call = self._reactor.callLater(delay, self._begin, watch)

    def _report(self, peer: Peer, state: Health, wrong: str | None) -> None:
        """One line in NGINX Plus's words."""
        what, while_, doing = (wrong or self._last_test()).rpartition(" while ")
        healthy = state is Health.HEALTHY
        emit = self.log.info if healthy else self.log.warn
        emit(
            'peer is {state} while {doing}, health check "{name}" of peer {peer} '
            'in upstream "{group}"{what}',
            state=state.value,
            doing=doing,
            name=self.check.name,
            peer=peer.name.decode("utf-8", "replace"),
            group=self.group.name.decode("utf-8", "replace"),
            what=f": {what}" if while_ else "",
            severity="notice" if healthy else "warn",
        )

    def _last_test(self) -> str:
        tests = self.check.tests
        if tests.bodies:
            return "checking body"
        return "checking header" if tests.headers else "checking status code"

    def __repr__(self) -> str:
        group = self.group.name.decode("utf-8", "replace")
        return f"<Checker {self.check.name} of {group}, {len(self._watches)} peers>"
