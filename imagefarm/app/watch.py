"""The figures of the dashboard: this daemon's status and others', now and for the last hour."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.python.failure import Failure

from imagefarm.resources.dashboard import Dashboard, Source

from .fetch import get
from .findings import findings, sample

#: Seconds between two looks when nobody asks, and how many of them are kept: an hour's.
PERIOD: Final = 10.0
KEPT: Final = 360
#: For so many seconds an answer is good for all who ask.
FRESH: Final = 0.5

Report = Callable[[], "Deferred[Mapping[str, Any]]"]


class Watch:
    """Looks at all instances between `start` and `stop`.

    ``report`` gives our own status; ``quiet`` is the server whose requests are not in the plots.
    """

    def __init__(
        self,
        reactor: Any,
        settings: Dashboard,
        report: Report,
        quiet: str = "",
        clock: Callable[[], float] = time.time,
        fetch: Callable[[Any, Source], Deferred[Any]] = get,
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._report = report
        self._quiet = quiet
        self._clock = clock
        self._fetch = fetch
        self._timer: Any = None
        self._samples: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._latest: Mapping[str, Any] = {}
        self._waiting: list[Deferred[Mapping[str, Any]]] | None = None

    def start(self) -> None:
        """Look now, and now and then."""
        self._look()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def figures(self, history: bool) -> Deferred[Mapping[str, Any]]:
        """What is known now; with ``history`` for the last hour."""

        def answer(found: Mapping[str, Any]) -> Mapping[str, Any]:
            return {**found, "history": list(self._samples)} if history else found

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
        if not self._samples or now - self._samples[-1]["time"] > 0.9 * PERIOD:
            self._samples.append(taken)
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

    def __repr__(self) -> str:
        return f"<Watch {self._settings.name} and {len(self._settings.sources)} others>"
