"""A job in its pool, from `submit` to its answer."""

from __future__ import annotations

from attrs import define
from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred

from .child import WorkerProcess
from .job import Job, Rendered


@define(eq=False)
class Ticket:
    """One job, waiting or being worked on. Times are the reactor's, in seconds."""

    job: Job
    submitted: float
    deferred: Deferred[Rendered]
    #: Ends its waiting, or its work.
    timer: DelayedCall | None = None
    #: Who is at it.
    worker: WorkerProcess | None = None
    waited: float = 0.0
    #: Nobody wants the answer any more.
    abandoned: bool = False
    expensive: bool = False

    @property
    def begun(self) -> float:
        """When its turn came."""
        return self.submitted + self.waited

    def stop_timer(self) -> None:
        """It waits for its turn, or for its answer, no longer."""
        timer, self.timer = self.timer, None
        if timer is not None:
            timer.cancel()

    def shadow(self) -> Ticket:
        """What a worker keeps of a job that it was to do and another one does."""
        return Ticket(self.job, self.submitted, Deferred(), abandoned=True)
