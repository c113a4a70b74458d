"""A role's process: logs, pidfile, sockets, privileges, signals; and the workers that serve.

The process reads and checks the configuration, opens the sockets and looks after workers, forks
of itself. Without workers (``master_process off``, and the farm) it does the work itself.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList

from imagefarm.http.transport import LEAN
from imagefarm.image.channel import Channel
from imagefarm.process.child import supervision
from imagefarm.process.console import detach
from imagefarm.process.listening import Change, Listening
from imagefarm.process.loop import spare_the_collector, streamline
from imagefarm.process.pidfile import PidFile
from imagefarm.process.privileges import Credentials, resolve
from imagefarm.process.sockets import INHERITED, inherited_from_nginx
from imagefarm.process.systemd import Notifier, first_environment, inherited

from .chronicle import Chronicle
from .configuration import Options
from .ending import give_up
from .errors import CannotStart
from .journal import Journal
from .logs import fault, notice, warn
from .plan import Plan, explained
from .upgrade import Upgrade, command_line
from .worker import Serving, hand_over, on_signal
from .workers import Workers


class DaemonService(Service):
    """The daemon. ``rebuild`` reads the configuration, and raises `CannotStart`.

    Its constructor opens logs and sockets, so that whatever is wrong with them is known before
    the process detaches from the terminal.
    """

    def __init__(self, reactor: Any, options: Options, rebuild: Callable[[], Plan]) -> None:
        # An nginx that starts us by USR2 holds all signals back, and this survives execve().
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._reactor = reactor
        self._rebuild = rebuild
        self._supervision = supervision(os.environ)
        sockets = (
            os.environ.pop(INHERITED, ""),
            inherited_from_nginx(os.environ),
            inherited(first_environment(os.environ), os.getpid()),
        )
        self._notifier = Notifier(os.environ, os.getpid())
        #: As it was when we started: a new program is started in it.
        self._environment = dict(os.environ)
        self._plan = plan = rebuild()
        plan.logs.open()
        plan.logs.attach()
        for problem in plan.warnings:
            warn(str(problem))
        self._pidfile: PidFile | None = None
        if plan.main.pid is not None:
            self._pidfile = PidFile(plan.main.pid, warn)
            self._pidfile.check()
        self._credentials = resolve(plan.main.user, warn, os.geteuid())
        #: The program that has started us by USR2, if one has.
        self._predecessor = os.getppid() if sockets[0] or sockets[1] else None
        #: nginx's stderr is its error log, which is for us to write only until we have our own.
        self._silent = bool(sockets[1] and not sockets[0] and plan.main.daemon)
        self._listening = Listening()
        self._listening.adopt(next(filter(None, sockets), ""))
        change = self._open(plan)
        self._journal = Journal()
        self._chronicle = Chronicle()
        self._stopping = self._quitting = False
        self._workers: Workers | None = None
        self._serving: Serving | None = None
        #: Of former configurations, until they have finished.
        self._retiring: set[Workers] = set()
        #: Of the configuration that a reload is about, until they are ready.
        self._coming: Workers | None = None
        self._again = self._is_ready = False
        self._upgrade = Upgrade(reactor, self._environment, command_line(options), self._restored)
        if plan.main.master_process and plan.endpoints:
            plan.work.stop()  # it was made to see whether it can be: the workers make their own
            self._workers = self._make_workers(plan, self._credentials, change)
        else:
            plan.logs.attach(reactor)
            self._serving = Serving(
                reactor, plan, plan.work, self._credentials, self._stop_reactor
            )
        self._change = change

    def _open(self, plan: Plan) -> Change:
        change = self._listening.prepare(
            plan.endpoints, plan.main.worker_processes if plan.main.master_process else 1
        )
        self._listening.commit(change)
        return change

    def _make_workers(
        self, plan: Plan, credentials: Credentials | None, change: Change
    ) -> Workers:
        return Workers(
            self._reactor,
            plan,
            credentials,
            change,
            self._journal.board,
            self._chronicle.ledger,
            self._chronicle.past,
        )

    # Start

    def startService(self) -> None:
        """Serve, or start the workers; then write the pidfile and say that we are ready."""
        Service.startService(self)
        self._install_signals()
        self._keep_alive()
        if self._supervision is not None:
            self._supervision.watch(self._reactor, self._orphaned)
        if self._workers is not None:
            self._chronicle.start(None if self._supervision is None else os.getppid())
            spare_the_collector()  # what they share with us
            ready = self._workers.start()
            ready.addCallback(lambda _: self._ready())
            ready.addErrback(lambda failure: give_up(self._reactor, failure))
            return
        assert self._serving is not None
        streamline(self._reactor, (*LEAN, Channel))
        self._write_pidfile()
        self._serving.start(self._change.sockets)
        self._listening.close(unlink=False)  # the work has its own descriptors of them
        spare_the_collector()
        self._ready()

    def _keep_alive(self) -> None:
        if self._notifier.interval:
            self._notifier.alive()
            self._reactor.callLater(self._notifier.interval, self._keep_alive)

    def _write_pidfile(self) -> None:
        if self._pidfile is not None:
            self._pidfile.write()

    def _ready(self) -> None:
        if self._workers is not None:
            self._write_pidfile()
        self._journal.loaded([] if self._workers is None else self._workers.pids)
        if self._supervision is not None:
            self._supervision.say_ready()
        self._notifier.ready(os.getpid())
        notice("ready")
        if self._silent:
            detach()
        self._is_ready = True
        self._next()

    def _orphaned(self) -> None:
        notice("the supervisor is gone, stopping")
        self._stop_reactor()

    def _stop_reactor(self) -> None:
        if self._reactor.running and not self._stopping:
            self._stopping = True
            self._reactor.stop()

    # Signals

    def _install_signals(self) -> None:
        for number, action in (
            (signal.SIGQUIT, self._graceful),
            (signal.SIGUSR1, self._reopen),
            (signal.SIGHUP, self._hang_up),
            (signal.SIGUSR2, self._new_program),
            (signal.SIGWINCH, self._no_more),
        ):
            on_signal(self._reactor, number, action)

        def on_fast() -> None:
            on_signal(self._reactor, signal.SIGTERM, self._fast)
            on_signal(self._reactor, signal.SIGINT, self._fast)

        # The reactor sets handlers of its own when it starts, after which twistd would end by
        # the signal it was sent; nginx exits with status 0.
        self._reactor.callWhenRunning(on_fast)

    def _all_workers(self) -> list[Workers]:
        found = [*self._retiring, self._workers, self._coming]
        return [workers for workers in found if workers is not None]

    def _fast(self) -> None:
        """TERM, INT: stop at once, also while a graceful stop is under way."""
        notice("exiting")
        for workers in self._all_workers():
            workers.hurry()
        self._stop_reactor()

    def _graceful(self) -> None:
        """QUIT: finish what is under way, then stop."""
        notice("gracefully shutting down")
        self._quitting = True
        if self._serving is not None:
            self._serving.drain()
            return
        # Or clients would go on to connect, with nobody to accept.
        self._listening.close(unlink=not self._upgrade.under_way)
        waiting = [workers.finish() for workers in self._all_workers()]
        DeferredList(waiting).addCallback(lambda _: self._stop_reactor())

    def _reopen(self) -> None:
        """USR1: log files were rotated."""
        if self._serving is not None:
            self._serving.reopen()
            return
        self._plan.logs.reopen()
        hand_over(self._plan, self._credentials)
        if self._coming is not None and self._coming.plan is not self._plan:
            self._coming.plan.logs.reopen()
            hand_over(self._coming.plan, self._coming.credentials)
        for workers in self._all_workers():
            workers.signal("USR1")
        notice("reopened logs")

    def _no_more(self) -> None:
        """WINCH: the workers finish and end; we wait for HUP, or for QUIT."""
        if any(map(os.isatty, (0, 1, 2))):
            return  # a window was resized
        workers, self._workers = self._workers, None
        if workers is not None:
            notice("gracefully shutting down worker processes")
            self._retire(workers)

    def _retire(self, workers: Workers) -> None:
        self._retiring.add(workers)

        def gone(result: Any) -> Any:
            self._retiring.discard(workers)
            return result

        workers.finish().addBoth(gone)

    # HUP

    def _hang_up(self) -> None:
        """HUP: read the configuration anew, and have new workers serve by it."""
        if self._stopping or self._quitting:
            return
        if self._plan.hang_up is not None:
            self._plan.hang_up()
            return
        if self._serving is not None:
            warn(
                'signal HUP: with "master_process off" the configuration is read at the start only'
            )
            return
        if self._coming is not None or not self._is_ready:
            self._again = True
            return
        if self._workers is None and self._upgrade.under_way:
            self._resume()  # the files may be for the new program by now
            return
        notice("reconfiguring")
        self._notifier.reloading()
        try:
            with explained():
                self._reload(self._rebuild())
        except CannotStart as error:
            self._refuse(error.lines)

    def _reload(self, plan: Plan) -> None:
        """Start the workers of ``plan``. Raises what `explained` explains: nothing has changed."""
        plan.work.stop()
        credentials = resolve(plan.main.user, warn, os.geteuid())
        pidfile = self._pidfile
        if plan.main.pid is None:
            pidfile = None
        elif pidfile is None or plan.main.pid != pidfile.path:
            pidfile = PidFile(plan.main.pid, warn)
            pidfile.check()
        plan.logs.open()
        try:
            change = self._listening.prepare(plan.endpoints, plan.main.worker_processes)
        except BaseException:
            plan.logs.close()
            raise
        for problem in plan.warnings:
            warn(str(problem))
        coming = self._coming = self._make_workers(plan, credentials, change)

        def write_pidfile(_: object) -> None:
            if pidfile is not None and pidfile is not self._pidfile:
                pidfile.write()

        def ready(_: object) -> None:
            self._coming = None
            self._take_over(coming, pidfile)

        def failed(failure: Any) -> Any:
            self._coming = None
            self._listening.abandon(change)
            plan.logs.close()
            self._refuse([failure.getErrorMessage()])
            return coming.stop()

        spare_the_collector(anew=True)
        started = coming.start().addCallback(write_pidfile).addCallbacks(ready, failed)
        started.addErrback(_unexpected).addCallback(lambda _: self._next())

    def _resume(self) -> None:
        """WINCH has ended the workers: start them again by the configuration in force."""
        notice("starting worker processes again")
        coming = self._make_workers(self._plan, self._credentials, self._change)
        self._coming = coming

        def ready(_: object) -> None:
            self._coming, self._workers = None, coming
            self._journal.resumed(coming.pids)

        def failed(failure: Any) -> Any:
            self._coming = None
            fault(failure.getErrorMessage())
            return coming.stop()

        started = coming.start().addCallbacks(ready, failed)
        started.addErrback(_unexpected).addCallback(lambda _: self._next())

    def _take_over(self, coming: Workers, pidfile: PidFile | None) -> None:
        """The new workers are ready: they are the ones now."""
        former, self._workers = self._workers, coming
        old, self._plan, self._credentials = self._plan, coming.plan, coming.credentials
        self._change = coming.change
        self._listening.commit(coming.change)
        coming.plan.logs.attach()
        old.logs.close()
        if pidfile is not self._pidfile:
            if self._pidfile is not None:
                self._pidfile.remove()
            self._pidfile = pidfile
        self._journal.loaded(coming.pids)
        if former is not None:
            self._retire(former)
        self._notifier.ready(os.getpid())
        notice("reconfigured")

    def _refuse(self, lines: Any) -> None:
        for line in lines:
            fault(line)
        fault("reconfiguring failed, the former configuration stays in force")
        self._journal.refused(lines)
        self._notifier.ready(os.getpid())

    def _next(self) -> None:
        again, self._again = self._again, False
        if again:
            self._hang_up()

    # USR2

    def _new_program(self) -> None:
        """USR2: start the program anew with our sockets; QUIT to us finishes the change."""
        if self._plan.usr2_reloads:
            self._hang_up()
            return
        if self._supervision is not None or self._plan.hang_up is not None:
            warn("signal USR2: a farm and its members are not upgraded, restart the farm")
            return
        if self._serving is not None:
            warn('signal USR2: with "master_process off" there is no upgrade')
            return
        if self._stopping or self._quitting or self._upgrade.under_way:
            return
        if not self._is_ready:
            warn("signal USR2: not ready yet")
            return
        if self._predecessor == os.getppid():
            warn(f"signal USR2: end process {self._predecessor} first, which has started us")
            return
        self._upgrade.start(self._listening.inherit(), self._pidfile)

    def _restored(self) -> None:
        """The new program has failed: we go on."""
        if self._workers is None and not (self._stopping or self._quitting or self._coming):
            self._resume()

    # End

    def stopService(self) -> Deferred[Any]:
        """Stop serving, stop the workers, take the pidfile away."""
        Service.stopService(self)
        self._stopping = True
        if not self._upgrade.under_way:
            self._notifier.stopping()
        stopping = [workers.stop() for workers in self._all_workers()]
        if self._serving is not None:
            stopping.append(self._serving.stop())
        return DeferredList(stopping).addBoth(self._end)

    def _end(self, result: Any) -> Any:
        self._listening.close(unlink=not self._upgrade.under_way)
        self._journal.close()
        self._chronicle.close()
        if self._pidfile is not None:
            self._pidfile.remove()
        self._plan.logs.close()
        return result


def _unexpected(failure: Any) -> None:
    fault(failure.getTraceback())
