"""The pool: as many worker processes as it was told, a bounded queue, a deadline for each job.

A job that crashes its worker or passes the deadline costs that process and that request;
another worker is started in its place. Nothing waits without an end: a full queue refuses at
once, and a job waits no longer than it might have worked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import define, evolve, field, frozen
from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger

from .ahead import SMALL, Ahead
from .child import State, WorkerProcess
from .errors import DeadlineExceeded, Expensive, Failed, ImageError, Overloaded, Withdrawn
from .job import Job, Rendered
from .lanes import Lanes
from .limits import Limits
from .tally import LANES, Tally
from .ticket import Ticket

#: Seconds beyond the deadline in which a worker may say so itself before it is killed.
GRACE = 0.5
#: Seconds that a job goes on after nobody wants it any more; most are done before that, and a
#: new process costs more than they do.
ABANDONED = 1.0
#: Seconds in which a worker that was told to end must have ended.
FAREWELL = 2.0
#: Seconds before a worker that did not even get ready is started again: first, and at most.
BACKOFF = (0.1, 10.0)


@frozen
class PoolSettings:
    """How the pool is made up.

    ``processes`` work at the same time, ``queue`` jobs more may wait; a worker is replaced
    after ``max_requests`` jobs or with more than ``max_resident`` bytes in memory after one (0:
    never), which bounds what leaks in decoders add up to. ``reserved`` of the processes never
    take expensive jobs, but one may.
    """

    processes: int = 1
    queue: int = 64
    max_requests: int = 10_000
    limits: Limits = field(factory=Limits)
    max_resident: int = 512 << 20
    reserved: int = 1


@define
class Counters:
    """What has happened since the start."""

    done: int = 0
    #: Jobs that ended in an error of the request's own (4xx).
    refused: int = 0
    rejected: int = 0
    cancelled: int = 0
    timeouts: int = 0
    crashes: int = 0
    #: Jobs that were sent back into the lane of expensive ones.
    expensive: int = 0
    #: Workers started, the first ones included.
    started: int = 0


class WorkerPool:
    """``submit`` jobs between ``start`` and ``stop``."""

    log = Logger()

    def __init__(self, reactor: Any, settings: PoolSettings) -> None:
        self.counters = Counters()
        self.tally = Tally()
        self.settings = settings
        self._reactor = reactor
        self._workers: list[WorkerProcess] = []
        self._idle: list[WorkerProcess] = []
        self._running: dict[WorkerProcess, Ticket] = {}
        self._ahead = Ahead()
        self._waiting: Lanes[Ticket] = Lanes()
        self._restarts: set[DelayedCall] = set()
        self._backoff = BACKOFF[0]
        self._stopping = True
        self._ready: Deferred[None] | None = None
        self._stopped: list[Deferred[None]] = []
        self._farewell: DelayedCall | None = None

    def start(self) -> Deferred[None]:
        """Start the workers; fires when the first of them is ready."""
        self._stopping = False
        ready: Deferred[None] = Deferred()
        self._ready = ready
        for _ in range(self.settings.processes):
            self._spawn()
        return ready

    def stop(self, grace: float = 0.0) -> Deferred[None]:
        """Refuse new jobs, drop those that wait, give running ones ``grace`` seconds.

        Fires when all processes are gone.
        """
        stopped: Deferred[None] = Deferred()
        self._stopped.append(stopped)
        self._stopping = True
        for restart in self._restarts:
            restart.cancel()
        self._restarts.clear()
        for ticket in [*self._ahead.tickets(), *self._waiting]:
            self._drop(ticket, Overloaded("the resizer is shutting down"))
        for worker in list(self._workers):
            if worker in self._running and grace <= 0:
                worker.kill()
            else:
                worker.finish()
        if self._workers and self._farewell is None:
            self._farewell = self._reactor.callLater(max(grace, FAREWELL), self._kill_all)
        self._check_stopped()
        return stopped

    def submit(self, job: Job) -> Deferred[Rendered]:
        """Have ``job`` done. Errs with an `ImageError`; cancelling it gives the job up."""
        if self._stopping:
            return fail(Overloaded("the resizer is shutting down"))
        if not self._idle and self._queued() >= self.settings.queue:
            self.counters.rejected += 1
            return fail(Overloaded("too many images are waiting already"))
        ticket = Ticket(job, self._reactor.seconds(), Deferred(lambda _: self._cancel(ticket)))
        self._wait(ticket)
        self._dispatch()
        return ticket.deferred

    def report(self) -> dict[str, Any]:
        """How many jobs wait and are worked on now, in each lane."""
        expensive = sum(ticket.expensive for ticket in self._running.values())
        cheap, dear = self._waiting.lengths()
        return {
            "waiting": dict(zip(LANES, (cheap + len(self._ahead), dear), strict=True)),
            "running": dict(zip(LANES, (len(self._running) - expensive, expensive), strict=True)),
        }

    def processes(self) -> list[dict[str, Any]]:
        """The worker processes."""
        return [
            {"role": "image", "pid": worker.transport.pid, "state": worker.state.value,
             "jobs": worker.jobs}
            for worker in self._workers
            if worker.transport.pid
        ]  # fmt: skip

    # What workers say

    def ready(self, worker: WorkerProcess) -> None:
        """A worker has started."""
        self._backoff = BACKOFF[0]
        self._idle.append(worker)
        if self._ready is not None:
            ready, self._ready = self._ready, None
            ready.callback(None)
        self._dispatch()

    def answered(self, worker: WorkerProcess, answer: Rendered | ImageError) -> None:
        """A worker has done its job, and is at the one that it has in advance, if any."""
        ticket = self._running.pop(worker, None)
        following = self._ahead.pop(worker)
        if following is not None:
            self._begin(worker, following)
        if worker.state in (State.IDLE, State.BUSY) and self._worn_out(worker):
            worker.finish()
        elif worker.state is State.IDLE:
            self._idle.append(worker)
        if ticket is not None and isinstance(answer, Expensive) and not ticket.abandoned:
            self._put_back(ticket)
            ticket = None
        elif isinstance(answer, Withdrawn):
            answer = Failed("the image could not be made")  # only where nobody has withdrawn it
        self._dispatch()  # first: to answer takes time, in which the worker has its next job
        if ticket is not None:
            self._settle(ticket, answer)

    def ended(self, worker: WorkerProcess) -> None:
        """A worker's process is gone: see to its job, and to a new one."""
        self._workers.remove(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        ticket = self._running.pop(worker, None)
        # Only what it was at is to blame; what it had in advance goes to another one.
        first = not self._orphan(worker)
        if ticket is not None and self._stopping:
            self._settle(ticket, Overloaded("the resizer is shutting down"))
        elif ticket is not None and first and worker.unread and self._again(ticket):
            pass  # its turn came when the worker was no more
        elif ticket is not None:
            self.counters.crashes += 1
            recipe = ticket.job.recipe.canonical()
            self.log.error("a worker died of {recipe}", recipe=recipe)
            died = Failed("the image could not be made")
            died.detail = f"worker {worker.pid} died of {recipe}"
            self._settle(ticket, died)
        if not self._stopping:
            delay = 0.0
            if not worker.was_ready:
                delay = self._backoff
                self._backoff = min(self._backoff * 2, BACKOFF[1])
                self.log.error("a worker did not start; again in {delay} s", delay=delay)
            self._spawn_later(delay)
        self._dispatch()
        self._check_stopped()

    # Inside

    def _wait(self, ticket: Ticket) -> None:
        self._allow(ticket, self.settings.limits.deadline)
        self._waiting.add(ticket, expensive=ticket.expensive)

    def _allow(self, ticket: Ticket, seconds: float) -> None:
        """From now on so much time is left for waiting, or for the work where that has begun."""
        if ticket.timer is None:
            ticket.timer = self._reactor.callLater(seconds, self._out_of_time, ticket)
        else:
            ticket.timer.reset(seconds)

    def _put_back(self, ticket: Ticket) -> None:
        ticket.worker = None
        if ticket.expensive:  # a worker that says so twice is not in its right mind
            self._settle(ticket, Failed("the image could not be made"))
        elif self._stopping:
            self._settle(ticket, Overloaded("the resizer is shutting down"))
        elif self._queued() >= self.settings.queue:
            self.counters.rejected += 1
            self._settle(ticket, Overloaded("too many images are waiting already"))
        else:
            self.counters.expensive += 1
            ticket.expensive = True
            ticket.job = evolve(ticket.job, expensive=True)
            self._wait(ticket)

    def _worn_out(self, worker: WorkerProcess) -> bool:
        settings = self.settings
        return (
            0 < settings.max_requests <= worker.jobs or 0 < settings.max_resident < worker.resident
        )

    def _queued(self) -> int:
        return len(self._waiting) + len(self._ahead)

    def _next(self, *, cheap_only: bool = False) -> Ticket | None:
        """The job whose turn it is: expensive ones leave some of the processes to the others."""
        if not self._waiting:
            return None
        room = max(1, self.settings.processes - self.settings.reserved)
        running = sum(ticket.expensive for ticket in self._running.values())
        return self._waiting.take(expensive=running < room, cheap_only=cheap_only)

    def _with_room(self) -> list[WorkerProcess]:
        """The workers that may have another job in advance, the one longest at its job last."""
        since, most = self._reactor.seconds() - SMALL, self.settings.max_requests
        found = []
        for worker, ticket in self._running.items():
            if ticket.abandoned or ticket.expensive or ticket.begun < since:
                continue
            estimate = self.tally.originals.expected(ticket.job.recipe.src)
            if estimate is not None and estimate <= SMALL and self._ahead.room(worker, most):
                found.append(worker)
        return sorted(found, key=lambda worker: -self._running[worker].begun)

    def _late(self) -> WorkerProcess | None:
        """One that has a job in advance, and is longer at another one than it was to be."""
        since = self._reactor.seconds() - SMALL
        late = (one for one in self._ahead.holders() if self._running[one].begun < since)
        return next(late, None)

    def _of_a_busy_one(self) -> Ticket | None:
        """Take a job back for a worker that has none: the one that waits longest."""
        holders = self._ahead.holders()
        return self._ahead.take_back(holders[0]) if holders else None

    def _spawn_later(self, delay: float) -> None:
        def spawn() -> None:
            self._restarts.discard(call)
            self._spawn()

        call: DelayedCall = self._reactor.callLater(delay, spawn)
        self._restarts.add(call)

    def _spawn(self) -> None:
        worker = WorkerProcess(self, self.settings.limits)
        self._workers.append(worker)
        self.counters.started += 1
        worker.spawn(self._reactor, self.settings.limits)

    def _dispatch(self) -> None:
        if self._stopping:
            return
        self._idle = [worker for worker in self._idle if worker.state is State.IDLE]
        while self._idle:
            ticket = self._next() or self._of_a_busy_one()
            if ticket is None:
                return
            worker = _choose(self._idle, ticket.job)
            self._idle.remove(worker)
            self._begin(worker, ticket)
            worker.send(ticket.job)
        while (late := self._late()) or self._waiting:
            room = self._with_room()
            if not room:
                return
            ticket = self._ahead.take_back(late) if late else self._next(cheap_only=True)
            if ticket is None:
                return
            self._ahead.send(_choose(room, ticket.job), ticket)

    def _begin(self, worker: WorkerProcess, ticket: Ticket) -> None:
        """From now on this is what the worker is at."""
        ticket.waited = self._reactor.seconds() - ticket.submitted
        limit = self.settings.limits.deadline + GRACE
        self._allow(ticket, ABANDONED if ticket.abandoned else limit)
        ticket.worker = worker
        self._running[worker] = ticket

    def _orphan(self, worker: WorkerProcess) -> bool:
        """What the worker has in advance waits for another one. False where it has nothing."""
        ticket = self._ahead.pop(worker)
        if ticket is not None and not ticket.abandoned:
            self._waiting.put_back(ticket)
        return ticket is not None

    def _again(self, ticket: Ticket) -> bool:
        """A job that no worker has begun waits for another one, if it has the time."""
        left = ticket.submitted + self.settings.limits.deadline - self._reactor.seconds()
        if left <= 0 or ticket.abandoned or ticket.expensive:
            return False
        ticket.worker = None
        self._allow(ticket, left)
        self._waiting.put_back(ticket)
        return True

    def _settle(self, ticket: Ticket, answer: Rendered | ImageError) -> None:
        ticket.stop_timer()
        if ticket.abandoned:
            return
        now = self._reactor.seconds()
        took = now - ticket.submitted
        if ticket.worker is not None:  # what only waited says nothing of what its original costs
            self.tally.originals.add(ticket.job.recipe.src, took - ticket.waited, now)
        if isinstance(answer, ImageError):
            if isinstance(answer, DeadlineExceeded):
                self.counters.timeouts += 1
                answer.expected = ticket.expensive
            elif answer.status < 500:
                self.counters.refused += 1
            waited = took if ticket.worker is None else ticket.waited
            answer.timings = (("queue", waited), ("work", took - waited))
            ticket.deferred.errback(answer)
            return
        self.counters.done += 1
        timings = (("queue", ticket.waited), *answer.timings)
        self.tally.done(took, timings, expensive=ticket.expensive)
        ticket.deferred.callback(evolve(answer, timings=timings))

    def _drop(self, ticket: Ticket, error: ImageError) -> None:
        self._take_out(ticket)
        self._settle(ticket, error)

    def _take_out(self, ticket: Ticket) -> bool:
        """Have it wait no longer; False where it is worked on."""
        if ticket in self._waiting:
            self._waiting.remove(ticket)
            return True
        return self._ahead.withdraw(ticket)

    def _out_of_time(self, ticket: Ticket) -> None:
        ticket.timer = None
        worker = ticket.worker
        if worker is None:
            self.counters.rejected += 1
            self._drop(ticket, Overloaded("the image waited too long for its turn"))
            return
        del self._running[worker]
        worker.kill()
        limit = self.settings.limits.deadline
        late = DeadlineExceeded(f"the image took longer than {limit:g} s")
        late.detail = f"worker {worker.pid} was killed"
        self._orphan(worker)
        self._dispatch()
        self._settle(ticket, late)

    def _cancel(self, ticket: Ticket) -> None:
        self.counters.cancelled += 1
        if self._take_out(ticket):
            ticket.stop_timer()
        elif ticket.timer is not None:
            left = ticket.timer.getTime() - self._reactor.seconds()
            ticket.timer.reset(min(left, ABANDONED))
        ticket.abandoned = True

    def _kill_all(self) -> None:
        self._farewell = None
        for worker in list(self._workers):
            worker.kill()

    def _check_stopped(self) -> None:
        if self._stopping and not self._workers:
            if self._farewell is not None:
                self._farewell.cancel()
                self._farewell = None
            stopped, self._stopped = self._stopped, []
            for deferred in stopped:
                deferred.callback(None)

    def __repr__(self) -> str:
        return (
            f"<WorkerPool workers={len(self._workers)} idle={len(self._idle)}"
            f" running={len(self._running)} waiting={self._queued()}>"
        )


def _choose(workers: Sequence[WorkerProcess], job: Job) -> WorkerProcess:
    """If possible one that has decoded the same source before, else the last one."""
    return next((one for one in workers if job.recipe.src in one.recent), workers[-1])
