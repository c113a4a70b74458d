"""What is written down of an answered request: its line in the access log, and the counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Final

from imagefarm.http.message import Facts, Occasion, Repeated, Request
from imagefarm.http.meter import RECEIVED, SECONDS, SENT, Cell, Meter, bucket

from .repeating import Lines, lines_of

#: How many clients' log lines are remembered for one repeated answer.
MAX_CLIENTS: Final = 64


class Accounts:
    """A part of the dispatcher. ``clock`` is the time of day, in seconds.

    ``meters`` counts all that have been answered, in whatever way, by the server's first name.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.meters: dict[bytes, Meter] = {}
        self._clock = clock

    def account(self, request: Request) -> None:
        """Count a request that was answered by a location, and log it there."""
        outcome = request.outcome
        self._meter(request).count(
            outcome.status, self._clock() - request.started, request.length, outcome.bytes_sent
        )
        request.location.logs.write(request)

    def repeated(self, plan: Repeated, key: Hashable, occasion: Occasion, facts: Facts) -> None:
        """`account`, with lines that are made but for the time and the ``facts``."""
        memory = plan.memory
        known: tuple[Lines | None, Cell] | None = memory.get(key)
        if known is None:
            known = self._known(plan, occasion, facts)
            if known[0] is not None:
                if len(memory) >= MAX_CLIENTS:
                    memory.clear()
                memory[key] = known
        lines, cell = known
        # `Meter.count` of what takes no time worth measuring, unless it says so.
        took = plan.took
        if took:
            cell[bucket(took)] += 1
            cell[SECONDS] += took
        else:
            cell[0] += 1
        cell[RECEIVED] += facts[4]
        cell[SENT] += facts[3]
        if lines is not None:
            lines.write(facts)

    def _known(
        self, plan: Repeated, occasion: Occasion, facts: Facts
    ) -> tuple[Lines | None, Cell]:
        """The lines, None where they are made, and written, each time; and where to count."""
        request = plan.replay(occasion)
        cell = self._meter(request).cell(request.outcome.status)
        return lines_of(request, facts[6], one_of_many=plan.many), cell

    def _meter(self, request: Request) -> Meter:
        name = request.server.name
        meter = self.meters.get(name)
        if meter is None:
            meter = self.meters[name] = Meter()
        return meter
