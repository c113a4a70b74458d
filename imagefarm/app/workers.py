"""The workers of one configuration."""

from __future__ import annotations

import os
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred

from imagefarm.process.board import Board
from imagefarm.process.children import READY_FD, ChildSpec
from imagefarm.process.ledger import Ledger
from imagefarm.process.listening import Change
from imagefarm.process.privileges import Credentials
from imagefarm.process.sockets import INHERITED, hand_over
from imagefarm.process.supervisor import Supervisor

from .ending import stop_gently, stop_now
from .plan import Plan
from .worker import WorkerPlan

#: How long workers may take to finish where ``worker_shutdown_timeout`` sets no limit, in seconds.
NO_LIMIT: Final = 7 * 86400.0


@define(eq=False)
class Workers:
    """A configuration at work: its processes share sockets and a board of their own."""

    reactor: Any
    plan: Plan
    credentials: Credentials | None
    change: Change
    journal: Board
    ledger: Ledger
    past: Board
    supervisor: Supervisor = field(init=False)
    _board: Board = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._board = Board.make()
        numbers = range(1, self.plan.main.worker_processes + 1)
        self.supervisor = Supervisor(
            [self._spec(number) for number in numbers], self.reactor, together=True
        )

    def _spec(self, number: int) -> ChildSpec:
        inheritance = hand_over(self.change.of_worker(number).items())
        spare = max(inheritance.fds, default=READY_FD) + 1
        shared = (self._board, self.journal, self.ledger, self.past)
        numbers = range(spare, spare + len(shared))
        fds = {**inheritance.fds, **dict(zip(numbers, (b.fileno() for b in shared), strict=True))}
        given = WorkerPlan(
            self.plan, number, self.credentials, inheritance.environment[INHERITED], *numbers
        )
        return ChildSpec(f"worker {number}", run=given.run, fds=fds)

    def start(self) -> Deferred[None]:
        """Fires when all are ready; errs if one cannot start."""
        self.supervisor.startService()
        if self.plan.upkeep is not None:
            self.plan.upkeep.start(self.reactor)
        return self.supervisor.ready

    def signal(self, name: str) -> None:
        """Pass a signal on to all."""
        self.supervisor.signal(name)

    def finish(self) -> Deferred[Any]:
        """Have them finish what is under way; fires when they are gone."""
        given = self.plan.main.worker_shutdown_timeout
        stop_gently(self.supervisor, NO_LIMIT if given is None else given + 1.0)
        return self.stop()

    def hurry(self) -> None:
        """End `finish` at once."""
        stop_now(self.supervisor)

    def stop(self) -> Deferred[Any]:
        """End them; fires when they are gone."""
        return self.supervisor.stopService().addBoth(self._gone)

    def _gone(self, result: Any) -> Any:
        if self.plan.upkeep is not None:
            self.plan.upkeep.stop()
        self._board.close()
        return result

    @property
    def pids(self) -> list[int]:
        """Those that live."""
        return [child.pid for child in self.supervisor.children if child.pid is not None]

    def __repr__(self) -> str:
        return f"<Workers {self.supervisor!r} of {os.getpid()}>"
