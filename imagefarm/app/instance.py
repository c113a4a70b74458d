"""The daemon as a whole, as one of its workers tells of it: the sums of all (`process.ledger`)."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol

from attrs import asdict, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger, globalLogPublisher

from imagefarm import __version__
from imagefarm.process.board import Board
from imagefarm.process.ledger import Ledger, LedgerFull, Snapshot
from imagefarm.process.vitals import vitals

from .recent import Recent
from .totals import Figures, figures, fold, latest

#: How often a worker looks whether somebody asks, in seconds: as long as a status page waits.
LOOK: Final = 0.1
#: How long it waits for workers that are too busy to answer, in seconds. What they have written
#: last is told instead.
PATIENCE: Final = 2.0
#: Seconds after which a worker that has written nothing is said to hang; nobody waits for it.
HANGS: Final = 5.0
#: Seconds between two times that a worker writes down what it has unasked: so much is lost of
#: what one has counted that is killed.
UNASKED: Final = 1.0
#: Nor does that take more than this share of its time, but for `RARELY`.
SHARE: Final = 0.01
#: The longest time between two in seconds, whatever they cost.
RARELY: Final = 3.0

_log: Final = Logger(namespace="imagefarm.status")


class Work(Protocol):
    """What this process counts, and how the daemon's status looks."""

    def figures(self) -> Figures:
        """What this worker has counted."""

    def processes(self) -> Sequence[Mapping[str, Any]]:
        """Processes that it has started, with ``role`` and ``pid``."""

    def status(self, sums: Figures) -> Mapping[str, Any]:
        """The part of the status that is about the work, with the ``sums`` of all workers."""


@frozen(eq=False)
class Place:
    """Where a worker stands in its daemon; without ``ledger`` it is the only process."""

    ledger: Ledger | None = None
    journal: Board | None = None
    number: int = 1
    past: Board | None = None


class Instance:
    """One worker's part, between `start` and `stop`. ``clock``: seconds since the epoch."""

    def __init__(
        self, reactor: Any, work: Work, place: Place, clock: Callable[[], float] = time.time
    ) -> None:
        self.draining = False
        self.recent: Any = Recent(clock)
        self._reactor = reactor
        self._work = work
        self._place = place
        self._clock = clock
        self._ledger: Ledger | None = None
        self._since = 0.0
        self._answered = 0
        self._written = self._rest = 0.0
        self._timer: Any = None

    def start(self) -> None:
        """Take part."""
        self._since = self._clock()
        self._ledger = self._place.ledger or Ledger.make(fold)
        if not self._ledger.claim():
            _log.warn("there are more workers than the status can tell of")
        globalLogPublisher.addObserver(self.recent)
        self._look()

    def stop(self) -> None:
        """Leave what was counted to the others."""
        globalLogPublisher.removeObserver(self.recent)
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            self._write(ledger, self._document(), 0)
            ledger.close()

    def report(self) -> Deferred[Mapping[str, Any]]:
        """The status of the daemon, as soon as all workers have written down what they have."""
        ledger = self._ledger
        if ledger is None:  # a request that is answered while we stop
            return succeed(self._compose(Snapshot({}, {}, ()), self._document()))
        answer: Deferred[Mapping[str, Any]] = Deferred()
        self._gather(ledger, ledger.ask(), self._reactor.seconds() + PATIENCE, answer)
        return answer

    def _gather(
        self, ledger: Ledger, asked: int, until: float, answer: Deferred[Mapping[str, Any]]
    ) -> None:
        if ledger is not self._ledger:
            answer.callback(self._compose(Snapshot({}, {}, ()), self._document()))
            return
        found = ledger.read()
        since = self._clock() - HANGS
        waiting = any(
            page.answers < asked and page.document["written"] > since
            for page in found.pages
            if not page.own
        )
        if waiting and self._reactor.seconds() < until:
            self._reactor.callLater(LOOK / 8, partial(self._gather, ledger, asked, until, answer))
            return
        document = self._document()
        self._write(ledger, document, asked)  # what was told once never gets less
        answer.callback(self._compose(found, document))

    def _look(self) -> None:
        ledger = self._ledger
        if ledger is None:
            return
        now, asked = self._reactor.seconds(), ledger.asked
        if asked != self._answered or now >= self._written + self._rest:
            begun = time.perf_counter()
            self._write(ledger, self._document(), asked)
            self._answered, self._written = asked, now
            self._rest = min(max(UNASKED, (time.perf_counter() - begun) / SHARE), RARELY)
        self._timer = self._reactor.callLater(LOOK, self._look)

    @staticmethod
    def _write(ledger: Ledger, document: Mapping[str, Any], answers: int) -> None:
        try:
            ledger.publish(document, answers)
        except LedgerFull as error:
            _log.error("the status has become too large: {error}", error=error)

    def _document(self) -> dict[str, Any]:
        mine = self._work.figures()
        own = vitals(os.getpid())
        return {
            "pid": os.getpid(),
            "number": self._place.number,
            "since": self._since,
            "written": self._clock(),
            "draining": self.draining,
            "descriptors": None if own is None else own.descriptors,
            "counters": mine.counters,
            "gauges": mine.gauges,
            "processes": [dict(process) for process in self._work.processes()],
            "errors": self.recent.report(),
        }

    def _compose(self, found: Snapshot, mine: Mapping[str, Any]) -> Mapping[str, Any]:
        others = [page.document for page in found.pages if not page.own]
        documents = sorted([mine, *others], key=lambda document: document["since"])
        parent = found.parent
        since = parent.get("since", self._since)
        journal = self._place.journal
        errors = latest(
            found.gone.get("errors", ()), parent.get("errors", ()),
            *(document["errors"] for document in documents),
        )  # fmt: skip
        return {
            "version": __version__,
            "pid": os.getpid(),
            "time": round(self._clock(), 3),
            "uptime": round(max(0.0, self._clock() - since), 1),
            **self._work.status(figures(found.gone, documents)),
            "configuration": {} if journal is None else journal.read()[1],
            "processes": self._processes(parent, documents),
            "errors": [
                {"time": _date(when), "level": level, "pid": pid, "text": text}
                for when, level, pid, text in errors
            ],
        }

    def _processes(
        self, parent: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """The farm's, the master, its workers, and what these have started."""
        found: list[dict[str, Any]] = []
        if parent.get("supervisor"):
            found.append(_process(parent["supervisor"], {"role": "farm"}))
        if parent:
            found.append(_process(parent["pid"], {"role": "master"}))
        for document in documents:
            late = self._clock() - document["written"]
            # What was not written for so long is told of a worker that hangs.
            state = "finishing" if document["draining"] else "hangs" if late > HANGS else "serves"
            about = {"role": "worker", "number": document["number"], "state": state}
            found.append(_process(document["pid"], about, document["descriptors"]))
            found += [_process(process["pid"], process) for process in document["processes"]]
        return found


def _process(pid: int, about: Mapping[str, Any], descriptors: int | None = None) -> dict[str, Any]:
    now = vitals(pid)
    if now is None:
        return {**about, "pid": pid}
    figures = asdict(now)
    if figures["descriptors"] is None:
        figures["descriptors"] = descriptors
    return {**about, **figures}


def _date(when: float) -> str:
    moment = datetime.datetime.fromtimestamp(when, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
