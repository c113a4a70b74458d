"""Jobs that workers have in advance, so that they need not wait for one between two.

A worker has at most one beside the one that it is at. That still waits: for the queue's limit, for
its time, and in the status. It is taken back where another worker could begin it now, where the
job before it takes longer than was expected, and where nobody wants it any more. A worker answers
what was taken back, too (`errors.Withdrawn`, or the result where it had begun), so the pool always
knows what it is at.
"""

from __future__ import annotations

from .child import State, WorkerProcess
from .ticket import Ticket

#: Seconds: a job that is expected to take longer, or does, has no other sent after it. What a
#: worker waits between two is a few hundredths of this.
SMALL = 0.05


class Ahead:
    """Which worker has which job in advance."""

    def __init__(self) -> None:
        self._held: dict[WorkerProcess, Ticket] = {}

    def send(self, worker: WorkerProcess, ticket: Ticket) -> None:
        """Give a worker that is busy its next job."""
        self._held[worker] = ticket
        worker.send(ticket.job)

    def pop(self, worker: WorkerProcess) -> Ticket | None:
        """What the worker has, which is now the job that it is at, or is nobody's."""
        return self._held.pop(worker, None)

    def take_back(self, worker: WorkerProcess) -> Ticket:
        """Withdraw what the worker has; in its place stays a shadow, until that is answered."""
        ticket = self._held[worker]
        self._held[worker] = ticket.shadow()
        worker.withdraw()
        return ticket

    def withdraw(self, ticket: Ticket) -> bool:
        """Withdraw a job. False where no worker has it in advance."""
        for worker, held in self._held.items():
            if held is ticket:
                self.take_back(worker)
                return True
        return False

    def holders(self) -> list[WorkerProcess]:
        """The workers that have one that is still wanted, the one that waits longest first."""
        if not self._held:
            return []
        held = [(w, ticket) for w, ticket in self._held.items() if not ticket.abandoned]
        return [worker for worker, ticket in sorted(held, key=lambda pair: pair[1].submitted)]

    def tickets(self) -> list[Ticket]:
        """The jobs that are still wanted."""
        return [ticket for ticket in self._held.values() if not ticket.abandoned]

    def room(self, worker: WorkerProcess, max_requests: int) -> bool:
        """Whether a worker may have one: it is busy, has none, and can do two more jobs."""
        last = 0 < max_requests < worker.jobs + 2
        return worker.state is State.BUSY and worker not in self._held and not last

    def __len__(self) -> int:
        return len(self.tickets())
