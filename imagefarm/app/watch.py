"""The figures of the dashboard: this daemon's status and others', now and for the last hour."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.python.failure import Failure

from imagefarm.process.board import Board
from imagefarm.resources.dashboard import Dashboard, Source

from .fetch import get
from .findings import findings, sample

#: Seconds between two looks when nobody asks, and how many of them are kept: an hour's.
PERIOD: Final = 10.0
KEPT: Final = 360
#: For so many seconds an answer is good for all who ask.
FRESH: Final = 0.5
#: The dashboards, those of former configurations among them, whose samples are kept.
MAX_PAGES: Final = 4
#: Samples that findings are made of.
RECENT: Final = 10

Report = Callable[[], "Deferred[Mapping[str, Any]]"]


class Watch:
    """Looks at all instances between `start` and `stop`.

    ``report`` gives our own status; ``quiet`` is the server whose requests are not in the plots.
    ``past`` is the board that all workers keep samples on, before a reload and after.
    """

    def __init__(
        self,
        reactor: Any,
        settings: Dashboard,
        report: Report,
        quiet: str = "",
        clock: Callable[[], float] = time.time,
        fetch: Callable[[Any, Source], Deferred[Any]] = get,
        past: Board | None = None,
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._report = report
        self._quiet = quiet
        self._clock = clock
        self._fetch = fetch
        self._timer: Any = None
        self._given, self._past = past, past
        self._key = " ".join([settings.name, *(source.name for source in settings.sources)])
        #: The samples as they were when one was kept last.
        self._samples: Sequence[Mapping[str, Any]] = ()
        self._latest: Mapping[str, Any] = {}
        self._waiting: list[Deferred[Mapping[str, Any]]] | None = None

    def start(self) -> None:
        """Look now, and now and then."""
        self._past = self._given or Board.make()
        self._look()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        past, self._past = self._past, None
        if past is not None and past is not self._given:
            past.close()

    def figures(self, history: bool) -> Deferred[Mapping[str, Any]]:
        """What is known now; with ``history`` for the last hour."""

        def answer(found: Mapping[str, Any]) -> Mapping[str, Any]:
            return {**found, "history": self._history()} if history else found

        if self._latest and 0 <= self._clock() - self._latest["time"] < FRESH:
            return succeed(answer(self._latest))
        asked: Deferred[Mapping[str, Any]] = Deferred()
        self._ask(asked)
        return asked.addCallback(answer)

    def _look(self) -> None:
        self._timer = self._reactor.callLater(PERIOD, self._look)
        self._ask(Deferred())

    def _ask(self, asked: Deferred[Mapping[str, Any]]) -> None:
        if self._waiting is not None:  # all are being asked already
            self._waiting.append(asked)
            return
        self._waiting = [asked]
        own = Source(self._settings.name, "")
        asking = [self._one(own, self._report())]
        asking += [self._one(each, self._fetch(self._reactor, each))
                   for each in self._settings.sources]  # fmt: skip
        DeferredList(asking).addCallback(self._found)

    def _one(self, source: Source, status: Deferred[Any]) -> Deferred[dict[str, Any]]:
        about = {"name": source.name, "url": source.url}
        begun = self._reactor.seconds()

        def up(status: Mapping[str, Any]) -> dict[str, Any]:
            found = {
                **about, "up": True, "took": round(self._reactor.seconds() - begun, 4),
                "status": status,
            }  # fmt: skip
            sample(0.0, [found])  # another's JSON may be anything
            findings([found])
            return found

        def down(failure: Failure) -> dict[str, Any]:
            broken = failure.check(KeyError, TypeError, AttributeError, IndexError)
            why = "its answer is not a status" if broken else failure.getErrorMessage()
            return {**about, "up": False, "error": why}

        return status.addCallback(up).addErrback(down)

    def _found(self, results: list[tuple[bool, dict[str, Any]]]) -> None:
        instances = [instance for _, instance in results]
        now = round(self._clock(), 3)
        taken = sample(now, instances, self._quiet)
        if not self._samples or not 0 <= now - self._samples[-1]["time"] < 0.9 * PERIOD:
            self._keep(taken)
        self._latest = {
            "time": now,
            "pid": os.getpid(),
            "problems": findings(instances, [*self._samples, taken]),
            "instances": instances,
            "sample": taken,
        }
        waiting, self._waiting = self._waiting or [], None
        for asked in waiting:
            asked.callback(self._latest)

    def _keep(self, taken: Mapping[str, Any]) -> None:
        """Add a sample to those that all workers keep, if no other one has lately."""
        if self._past is None:
            return
        with self._past.edit() as document:
            kept = document.pop(self._key, [])
            if not kept or not 0 <= taken["time"] - kept[-1]["time"] < 0.9 * PERIOD:
                kept.append(taken)
            document[self._key] = kept[-KEPT:]
            for former in list(document)[:-MAX_PAGES]:
                del document[former]
        self._samples = kept[-RECENT:]

    def _history(self) -> Sequence[Mapping[str, Any]]:
        if self._past is None:
            return self._samples
        kept: Sequence[Mapping[str, Any]] = self._past.read()[1].get(self._key, ())
        return kept

    def __repr__(self) -> str:
        return f"<Watch {self._settings.name} and {len(self._settings.sources)} others>"
