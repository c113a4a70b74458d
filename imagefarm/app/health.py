"""The health checks of a process: who makes them, and what their outcomes do to peers.

One worker checks for all of them, the leader of the board. What it finds it writes there: a
change of state at once, counters now and then. The others apply what they read, and one of them
goes on from it when the leader dies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import define, field
from twisted.logger import Logger

from imagefarm.http.message import Request
from imagefarm.http.upstream import Probeable
from imagefarm.process.board import BoardFull
from imagefarm.proxy.group import Group
from imagefarm.proxy.health.checker import Checker
from imagefarm.proxy.health.records import Check, Record, Tally, combine
from imagefarm.proxy.peer import Health, Peer

from .servers import keyed
from .shared import Shared

#: How long counters may wait until they are written on the board, in seconds.
PUBLISH: Final = 2.0
_SECTION: Final = "health"

_log: Final = Logger(namespace="imagefarm.upstream")


@define(eq=False)
class _Course:
    """One check of one group: its number in the configuration, and the records by peer's key."""

    number: int
    group: Group
    check: Check
    checker: Checker
    records: dict[str, Record] = field(factory=dict)
    _keys: dict[Peer, str] = field(factory=dict)

    def key(self, peer: Peer) -> str:
        """What ``peer`` is called on the board."""
        if peer not in self._keys:
            self._keys = {known: key for key, known in keyed(self.group.peers)}
        return self._keys.get(peer, "")

    def forget_others(self) -> None:
        """Drop the records of peers that have gone."""
        self._keys = {known: key for key, known in keyed(self.group.peers)}
        present = set(self._keys.values())
        self.records = {key: r for key, r in self.records.items() if key in present}

    def record(self, key: str) -> Record:
        """The record of a peer, a new one if need be."""
        if key not in self.records:
            self.records[key] = Record(self.check.settings.initial)
        return self.records[key]


class HealthChecks:
    """All checks of a configuration. `add` them, then `start`."""

    def __init__(self, reactor: Any, shared: Shared) -> None:
        self._reactor = reactor
        self._shared = shared
        self._courses: list[_Course] = []
        self._since: dict[Peer, float] = {}
        self._publishing: Any = None

    def __bool__(self) -> bool:
        return bool(self._courses)

    def add(
        self, group: Group, check: Check, ask: Callable[[], Request], probeable: Probeable
    ) -> None:
        """Check the peers of ``group``."""
        checker = Checker(self._reactor, group, check, ask, probeable, self._note)
        self._courses.append(_Course(len(self._courses), group, check, checker))

    def start(self) -> None:
        """Take peers that wait for their first check out, and check when we are the leader."""
        self._judge_all()
        for group in {course.group: None for course in self._courses}:
            group.on_replace.append(self._judge_all)
        self._shared.on_change(self._read)
        self._shared.on_lead(self._lead)

    def stop(self) -> None:
        """Check no more."""
        publishing, self._publishing = self._publishing, None
        if publishing is not None:
            publishing.cancel()
        for course in self._courses:
            course.checker.stop()

    def tally(self, group: Group, key: str) -> Tally:
        """What the checks say of a peer, and their counters."""
        return combine(
            course.records[key]
            for course in self._courses
            if course.group is group and key in course.records
        )

    def since(self, peer: Peer) -> float | None:
        """Since when (of the reactor's time) the checks keep requests from ``peer``."""
        return self._since.get(peer)

    # -- the leader ------------------------------------------------------------------------------

    def _lead(self) -> None:
        for course in self._courses:
            course.checker.start()

    def _note(self, check: Check, peer: Peer, passed: bool) -> Health | None:
        (course,) = (course for course in self._courses if course.check is check)
        key = course.key(peer)
        if not key:
            return None  # it has gone while it was asked
        state = course.record(key).note(passed, check.settings)
        if state is not None:
            self._judge(course.group, key, peer)
        self._publish(0.0 if state is not None else PUBLISH)
        return state

    def _publish(self, delay: float) -> None:
        """Write on the board, within ``delay`` seconds."""
        if not self._shared.several:
            return
        call = self._publishing
        if call is None:
            self._publishing = self._reactor.callLater(delay, self._write)
        elif call.getTime() > self._reactor.seconds() + delay:
            call.reset(delay)

    def _write(self) -> None:
        self._publishing = None
        for course in self._courses:
            course.forget_others()
        try:
            with self._shared.edit() as document:
                document[_SECTION] = {
                    str(course.number): {key: r.dump() for key, r in course.records.items()}
                    for course in self._courses
                }
        except (BoardFull, OSError) as error:
            _log.error("health checks could not be told to the other workers: {e}", e=error)

    # -- everybody -------------------------------------------------------------------------------

    def _read(self, document: Mapping[str, Any]) -> None:
        section = document.get(_SECTION)
        if section is None or any(course.checker.running for course in self._courses):
            return  # what the leader has in its hands is newer than what it wrote
        for course in self._courses:
            records = section.get(str(course.number), {})
            course.records = {key: Record.load(value) for key, value in records.items()}
        self._judge_all()

    def _judge_all(self) -> None:
        for group in {course.group: None for course in self._courses}:
            for key, peer in keyed(group.peers):
                self._judge(group, key, peer)

    def _judge(self, group: Group, key: str, peer: Peer) -> None:
        """Tell ``peer`` what the checks say of it."""
        courses = [course for course in self._courses if course.group is group]
        health = combine(course.record(key) for course in courses).health
        if health is peer.health:
            return
        now = self._reactor.seconds()
        if health is Health.HEALTHY:
            self._since.pop(peer, None)
            peer.healthy(now)
            return
        self._since.setdefault(peer, now)
        if health is Health.UNHEALTHY:
            peer.unhealthy()
        else:
            peer.checking()
