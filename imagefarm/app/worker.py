"""A process that serves: a worker, or the only process of a daemon without workers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, maybeDeferred

from imagefarm.http.transport import LEAN
from imagefarm.image.channel import Channel
from imagefarm.process.board import Board
from imagefarm.process.child import Supervision
from imagefarm.process.children import LAST_WORDS
from imagefarm.process.environment import furnish, pin
from imagefarm.process.forking import become
from imagefarm.process.ledger import Ledger
from imagefarm.process.limits import limit_open_files
from imagefarm.process.loop import spare_the_collector, streamline
from imagefarm.process.privileges import Credentials, drop, hand_to
from imagefarm.process.sockets import adopt

from .errors import CannotStart
from .logs import fault, notice, warn
from .plan import Boards, Plan, Work, explained
from .totals import fold


def on_signal(reactor: Any, number: signal.Signals, action: Callable[[], None]) -> None:
    """Call ``action`` from the reactor when the signal comes."""
    signal.signal(number, lambda *_: reactor.callFromThread(action))


def hand_over(plan: Plan, credentials: Credentials | None) -> None:
    """Let the workers' user write what root opened or made."""
    if credentials is not None:
        for failure in hand_to(credentials, plan.belongings()):
            fault(failure)


@define(eq=False)
class Serving:
    """The work of this process, from `start` to `stop`."""

    reactor: Any
    plan: Plan
    work: Work
    credentials: Credentials | None
    #: Called when there is nothing left to do.
    done: Callable[[], None]
    #: Which worker we are, from 1.
    number: int = 1
    _draining: bool = False

    def start(self, sockets: Mapping[str, socket.socket]) -> None:
        """Become what the configuration says, and serve. Raises `CannotStart`."""
        main = self.plan.main
        if main.worker_rlimit_nofile is not None:
            problem = limit_open_files(main.worker_rlimit_nofile)
            if problem:
                warn(problem)
        failures = pin(main.cpu_affinity, self.number)
        failures += furnish(os.environ, main.env, main.working_directory, main.worker_priority)
        for failure in failures:
            fault(failure)
        if self.credentials is not None:
            hand_over(self.plan, self.credentials)
            with explained():
                drop(self.credentials)  # before any work: what it starts must not be root's
        self.work.start(sockets)

    def drain(self) -> None:
        """QUIT: finish what is under way, then be done."""
        if self._draining:
            return
        self._draining = True
        drained = self.work.drain()
        timeout = self.plan.main.worker_shutdown_timeout
        if timeout is not None:
            drained.addTimeout(timeout, self.reactor)
        drained.addErrback(lambda _: None).addCallback(lambda _: self.done())

    def reopen(self) -> None:
        """USR1."""
        self.plan.logs.reopen()
        self.work.reopen()
        notice("reopened logs")

    def stop(self) -> Deferred[Any]:
        """Drop everything."""
        return maybeDeferred(self.work.stop)


@frozen(eq=False)
class WorkerPlan:
    """What a worker gets from its parent: numbers are descriptors of its own."""

    plan: Plan
    number: int
    credentials: Credentials | None
    sockets: str
    shared: int
    journal: int
    ledger: int
    past: int

    def run(self) -> NoReturn:
        """Be the worker; in a child."""
        reactor = become()
        try:
            with explained():
                _Worker(reactor, self).start()
        except CannotStart as error:
            _give_up(error.lines)
        except OSError as error:  # no descriptor, no memory
            _give_up([f"{error.strerror} ({error.errno})"])
        reactor.run()
        os._exit(0)


def _give_up(lines: Iterable[str]) -> NoReturn:
    """Say why to our parent, who logs it."""
    os.write(2, b"".join(LAST_WORDS + os.fsencode(f"{line}\n") for line in lines))
    os._exit(1)


@define(eq=False)
class _Worker:
    """The life of a worker."""

    reactor: Any
    given: WorkerPlan
    _serving: Serving = field(init=False)
    _stopping: bool = False

    def start(self) -> None:
        """Serve as soon as the reactor runs."""
        given, plan, reactor = self.given, self.given.plan, self.reactor
        # Before the first file is opened: it may be renamed before we are ready.
        on_signal(reactor, signal.SIGUSR1, lambda: self._serving.reopen())
        plan.logs.open()
        plan.logs.attach(reactor)
        sockets = dict(adopt(given.sockets))
        boards = Boards(
            Board(given.shared),
            Board(given.journal),
            Ledger(given.ledger, fold),
            given.number,
            Board(given.past),
        )
        work = plan.make(reactor, boards)
        self._serving = Serving(
            reactor, plan, work, given.credentials, self._stop_reactor, given.number
        )
        supervision = Supervision()
        supervision.watch(reactor, self._orphaned)
        streamline(reactor, (*LEAN, Channel))
        self._serving.start(sockets)
        for sock in sockets.values():
            sock.close()  # the work has its own descriptors of them
        reactor.addSystemEventTrigger("before", "shutdown", self._stop)
        reactor.callWhenRunning(self._install_signals)
        reactor.callWhenRunning(supervision.say_ready)
        spare_the_collector()
        notice("ready")

    def _install_signals(self) -> None:
        on_signal(self.reactor, signal.SIGQUIT, self._graceful)
        on_signal(self.reactor, signal.SIGTERM, self._fast)
        on_signal(self.reactor, signal.SIGINT, self._fast)

    def _orphaned(self) -> None:
        notice("the supervisor is gone, stopping")
        self._stop_reactor()

    def _graceful(self) -> None:
        notice("gracefully shutting down")
        self._serving.drain()

    def _fast(self) -> None:
        notice("exiting")
        self._stop_reactor()

    def _stop_reactor(self) -> None:
        if self.reactor.running and not self._stopping:
            self._stopping = True
            self.reactor.stop()

    def _stop(self) -> Deferred[Any]:
        return self._serving.stop().addBoth(self._end)

    def _end(self, result: Any) -> Any:
        with contextlib.suppress(OSError):
            self.given.plan.logs.close()
        return result
